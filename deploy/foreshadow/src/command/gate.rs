//! `foreshadow gate`: replays both builds in waves, decides after each wave, and stops once the verdict is clear.

use gating::{GateConfig, GateEvent, GateRequest};
use indicatif::ProgressBar;
use tokio_util::sync::CancellationToken;

use crate::console::Console;
use crate::context::Context;
use crate::exit::{Failure, Status};
use crate::resources::resources;
use crate::signals::cancel_on_signal;
use crate::verdict_text;

const AFTER_HELP: &str = "\
The [gate] table of --config names the store, both candidate files, the runs and the output folder.

Exit codes: 0 approve, 3 block, 4 inconclusive, 1 the work failed, 2 wrong usage or configuration.

Example:
  foreshadow gate --config gate.toml";

/// Arguments of `foreshadow gate`. The `[gate]` table of `--config` names both builds.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Continue after the planned looks with the remaining sessions, wave by wave, until the verdict is clear. The plan
    /// gets four fifths of alpha, the extension (by betting) the rest.
    #[arg(long)]
    extend: bool,
    /// Continue an interrupted gate; finished trials stay.
    #[arg(long)]
    resume: bool,
}

/// Runs `foreshadow gate`.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    let config = GateConfig::read(&context.config).map_err(Failure::usage)?;
    let out = config.out.clone();
    let cancel = CancellationToken::new();
    let request = GateRequest {
        config,
        config_path: context.config.clone(),
        extend: args.extend,
        resume: args.resume,
        resources: resources(context)?,
        cancel: cancel.clone(),
    };
    let mut progress = GateProgress { console: context.console, bar: None };
    let decided =
        cancel_on_signal(cancel, Box::pin(gating::run(&request, &mut |event| progress.show(event)))).await;
    progress.clear();
    let analysis = decided?;
    verdict_text::show(&analysis, &out, context.console);
    verdict_text::conclude(&analysis.verdict, context.console);
    context.console.result(&analysis.verdict);
    Ok(Status::of_verdict(&analysis.verdict))
}

/// Prints the events of a gate: a progress bar per wave, a line per look.
struct GateProgress<'a> {
    console: &'a Console,
    bar: Option<ProgressBar>,
}

impl GateProgress<'_> {
    fn show(&mut self, event: GateEvent) {
        match event {
            GateEvent::Corpus { complete, incomplete, unusable, chosen } => self.console.note(format!(
                "{chosen} of {complete} complete sessions chosen; left out: {incomplete} incomplete, {unusable} without a \
                 turn to replay"
            )),
            GateEvent::Locked { policy_digest, sessions, looks, trials } => self.console.note(format!(
                "plan locked before the first trial: policy {}, {sessions} sessions, {looks} looks, {trials} trials of each \
                 session per lane",
                policy_digest.get(..16).unwrap_or(&policy_digest)
            )),
            GateEvent::TrialsPlanned(trials) => {
                self.bar.get_or_insert_with(|| self.console.progress("trials", 0)).inc_length(trials as u64);
            }
            GateEvent::TrialFinished => {
                if let Some(bar) = &self.bar {
                    bar.inc(1);
                }
            }
            GateEvent::WaveFinished => self.clear(),
            GateEvent::Look { number, planned, cases, of_cases, decision } => {
                let look = if number <= planned {
                    format!("look {number} of {planned}")
                } else {
                    format!("look {number} (extension)")
                };
                self.console.note(format!("{look}: {cases} of {of_cases} sessions, {}", decision.as_str()));
            }
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
