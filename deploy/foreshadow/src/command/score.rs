//! `foreshadow score`: scores the trials of a run with the evaluators of `[score]`.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use indicatif::ProgressBar;
use scoring::{
    EmbeddingReport, EvaluatorReport, ScoreConfig, ScoreProgress, ScoreReport, ScoreRequest, TEMPLATE,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::console::Console;
use crate::context::{Context, DEFAULT_CONFIG, env};
use crate::exit::{Failure, Status};
use crate::format::escape_control;
use crate::signals::cancel_on_signal;

/// Trials between two plain lines of progress without a terminal.
const LINE_EVERY: u64 = 1000;

/// Arguments of `foreshadow score`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_LONG_HELP, after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Run to score.
    #[arg(value_name = "RUN", required_unless_present = "template")]
    run: Option<String>,
    /// Print a configuration that names every key of `[score]`, and exit.
    #[arg(long)]
    template: bool,
}

const AFTER_HELP: &str = "\
Example:
  foreshadow score foreshadow-demo/runs/baseline";

const AFTER_LONG_HELP: &str = "\
The [score] table of --config names the evaluators. Without the table, score only embeds the answers with the built-in \
sentence model. `foreshadow score --template` prints a table with every key.

A program reads one trial as JSON on stdin and prints {\"success\": true, \"score\": 0.9, \"reason\": \"…\"}: `success` or \
`score` or both. A service gets the same JSON by POST. A judge answers \"pass\" or \"fail\". `analyze` uses a judge only \
where the judge agrees with labels, slice by slice.

Finished scores are never computed again: after an interruption, repeat the command.

Example:
  foreshadow score foreshadow-demo/runs/baseline";

/// Runs `foreshadow score`.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    let console = context.console;
    if args.template {
        console.verbatim(TEMPLATE.trim_end());
        console.result(&Template { template: TEMPLATE });
        return Ok(Status::Success);
    }
    let config = read_config(&context.config).map_err(Failure::usage)?;
    let base = context.config.parent().unwrap_or(Path::new("")).to_owned();
    let run = args.run.unwrap_or_default();
    let store = context.open_store(&run)?;
    let cancel = CancellationToken::new();
    let request = ScoreRequest { run, config, base, clock: clock::now_micros, cancel: cancel.clone() };
    let bar = console.progress("scoring trials", 0);
    let mut on_progress = |progress: ScoreProgress| show_progress(progress, &bar, console);
    let scored = cancel_on_signal(cancel, scoring::score(&request, &store, &env, &mut on_progress)).await;
    bar.finish_and_clear();
    let report = scored?;
    console.result(&report);
    lines(&report).iter().for_each(|line| console.line(line));
    match report.incomplete() {
        Some(why) => Err(Failure::work(anyhow!("run {} is not fully scored: {why}", report.run))),
        None => Ok(Status::Success),
    }
}

#[derive(Serialize)]
struct Template {
    template: &'static str,
}

fn read_config(path: &Path) -> anyhow::Result<ScoreConfig> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            ScoreConfig::find(&text).with_context(|| format!("configuration {} is refused", path.display()))
        }
        Err(error) if path == Path::new(DEFAULT_CONFIG) && error.kind() == std::io::ErrorKind::NotFound => {
            Ok(ScoreConfig::default())
        }
        Err(error) => Err(error).with_context(|| {
            format!("configuration {} cannot be read; name another with --config FILE", path.display())
        }),
    }
}

fn show_progress(progress: ScoreProgress, bar: &ProgressBar, console: &Console) {
    let ScoreProgress { done, total } = progress;
    let before = bar.position();
    bar.set_length(total);
    bar.set_position(done);
    if bar.is_hidden() && done / LINE_EVERY > before / LINE_EVERY {
        console.note(format!("{done} of {total} trials"));
    }
}

fn lines(report: &ScoreReport) -> Vec<String> {
    let mut lines = Vec::new();
    for one in &report.evaluators {
        let EvaluatorReport { name, kind, wanted, already, scored, successes, errors, .. } = one;
        lines.push(format!(
            "{kind} {name}: scored {scored} of {wanted} trials ({successes} successes), {already} already scored, \
             {errors} failed"
        ));
        if let Some(error) = &one.last_error {
            lines.push(format!("  last error: {}", escape_control(error)));
        }
    }
    if let Some(one) = &report.embeddings {
        let EmbeddingReport { model, trials_already, embedded, in_windows, cut, .. } = one;
        let cut = if *cut > 0 { format!(", {cut} truncated") } else { String::new() };
        lines.push(format!(
            "embeddings by {model}: {embedded} answers ({in_windows} in several windows{cut}), {trials_already} trials \
             already embedded"
        ));
    }
    if report.requests > 0 {
        let ScoreReport { requests, tokens, usd, .. } = report;
        lines.push(format!(
            "{requests} requests; all invocations together: {tokens} tokens, {usd:.4} US dollars"
        ));
    }
    lines
}
