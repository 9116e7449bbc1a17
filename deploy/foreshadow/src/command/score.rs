//! `foreshadow score`: asks about the trials of a run what needs the outside, and keeps the answers in the run.
//!
//! Labels of a file, programs, services and language models say whether the work was done right; a sentence model turns
//! answers into vectors. What is kept is read by `analyze`, which decides whose word counts. Finished rows are never
//! asked for again: stopped or killed, the same command goes on.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde::Serialize;
use store::Store;
use tokio_util::sync::CancellationToken;

use crate::cli::DEFAULT_CONFIG;
use crate::command::Context;
use crate::outcome::{Failure, Outcome};
use crate::screen::Screen;
use crate::signals::cancel_on_signal;

mod answer;
mod config;
mod embed;
mod endpoint;
mod evaluator;
mod judge;
mod labels;
mod ledger;
mod meter;
mod program;
mod view;
mod work;

pub(crate) use config::ScoreConfig;
use work::{Report, Stopped};

/// A configuration with everything that `[score]` knows.
pub(crate) const TEMPLATE: &str = include_str!("score/template.toml");

/// Arguments of `foreshadow score`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The run whose trials are scored.
    #[arg(value_name = "RUN", required_unless_present = "template")]
    run: Option<String>,
    /// Print a configuration that names every key, and stop.
    #[arg(long)]
    template: bool,
}

const AFTER_HELP: &str = "\
Who is asked stands in the [score] table of --config (default: foreshadow.toml); `foreshadow score --template` prints \
one with every key. Without one, answers are embedded by the model inside the binary, and nobody else is asked.

A program gets one trial as JSON on stdin and answers {\"success\": true, \"score\": 0.9, \"reason\": \"…\"}, with \
`success` or `score` or both; a service gets the same by POST. A judge answers \"pass\" or \"fail\"; its word counts only \
where `analyze` finds that it agrees with labels, slice by slice.

Finished rows are never asked for again: stopped or killed, the same command goes on.";

/// Runs `foreshadow score`.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Outcome, Failure> {
    let screen = context.screen;
    if args.template {
        screen.line(TEMPLATE.trim_end());
        screen.result(&Template { template: TEMPLATE });
        return Ok(Outcome::Success);
    }
    let config = read_config(&context.config).map_err(Failure::usage)?;
    let base = context.config.parent().unwrap_or(Path::new("")).to_owned();
    let run = args.run.unwrap_or_default();
    let store = context.open_store(&run)?;
    let cancel = CancellationToken::new();
    let watch = tokio::spawn(cancel_on_signal(cancel.clone()));
    let request = Request { run, config, base, cancel };
    let done = score(&request, &store, screen).await;
    watch.abort();
    // It ends by the abort at the latest.
    let _ = watch.await;
    let report = done?;
    screen.result(&report);
    report.lines().iter().for_each(|line| screen.line(line));
    conclude(&report)
}

#[derive(Serialize)]
struct Template {
    template: &'static str,
}

/// What is to be scored, and by whom.
#[derive(Debug)]
pub(crate) struct Request {
    /// The run.
    pub(crate) run: String,
    /// Who is asked.
    pub(crate) config: ScoreConfig,
    /// What paths of the configuration are relative to.
    pub(crate) base: PathBuf,
    /// Ends the work; what is finished is kept.
    pub(crate) cancel: CancellationToken,
}

/// Scores a run.
pub(crate) async fn score(request: &Request, store: &Store, screen: &Screen) -> Result<Report, Failure> {
    let env = |name: &str| std::env::var(name).ok();
    let evaluators = evaluator::all(&request.config, &request.base, &env).map_err(Failure::usage)?;
    let embedder = embed::Source::new(request.config.embeddings.as_ref(), &env).map_err(Failure::usage)?;
    let manifest = store.manifest().await.map_err(Failure::work)?;
    let manifest = manifest.ok_or_else(|| {
        let why = "holds no run: there is no run.json; make one with `foreshadow replay` or `foreshadow import --run`";
        Failure::usage(anyhow!("{} {why}", request.run))
    })?;
    let work = work::Work { store, own: manifest.lane, request, screen };
    work.run(&evaluators, embedder.as_ref()).await.map_err(Failure::work)
}

fn read_config(path: &Path) -> anyhow::Result<ScoreConfig> {
    match std::fs::read_to_string(path) {
        Ok(text) => ScoreConfig::find(&text).with_context(|| format!("configuration {}", path.display())),
        Err(error) if path == Path::new(DEFAULT_CONFIG) && error.kind() == std::io::ErrorKind::NotFound => {
            Ok(ScoreConfig::default())
        }
        Err(error) => {
            let what =
                format!("configuration {} cannot be read; name one with --config FILE", path.display());
            Err(error).context(what)
        }
    }
}

/// Whether the work is done.
pub(crate) fn conclude(report: &Report) -> Result<Outcome, Failure> {
    let stopped = report.stopped.as_ref().map(|stopped| match stopped {
        Stopped::Interrupted => "it was interrupted; what is finished is kept: repeat the command".to_owned(),
        Stopped::Bound { key } => {
            format!("score.{key} is reached; what is finished is kept: raise it and repeat the command")
        }
    });
    let given_up = report.evaluators.iter().find(|one| one.given_up).map(|one| {
        format!(
            "evaluator {} failed too often in a row, the last time because {}; correct that and repeat the command",
            one.name,
            one.last_error.as_deref().unwrap_or("of no known reason")
        )
    });
    let failing = report.evaluators.iter().find(|one| one.too_many_errors).map(|one| {
        format!(
            "evaluator {} could not score {} of {} trials, the last time because {}; correct that and repeat the command, \
             which asks again about these alone, or raise score.limits.max-error-share",
            one.name,
            one.errors,
            one.wanted,
            one.last_error.as_deref().unwrap_or("of no known reason")
        )
    });
    let embedding =
        report.embeddings.as_ref().and_then(|one| one.error.as_ref()).map(|error| {
            format!("answers could not be embedded: {error}; correct that and repeat the command")
        });
    match stopped.or(given_up).or(failing).or(embedding) {
        Some(why) => Err(Failure::work(anyhow!("the run is not scored as a whole: {why}"))),
        None => Ok(Outcome::Success),
    }
}
