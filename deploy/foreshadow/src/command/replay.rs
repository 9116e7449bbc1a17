//! `foreshadow replay`: reads the files that the command line names, replays, says what came of it.
//!
//! Choosing, playing and keeping trials is `replayer`'s.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use gating::ReplayRequest;
use replayer::{ModelMode, Progress, Summary, World};
use schemas::id::AgentId;
use schemas::trial::{Lane, TrialEnding};
use tokio_util::sync::CancellationToken;

use crate::console::Console;
use crate::context::Context;
use crate::exit::{Failure, Status};
use crate::format::parse_duration;
use crate::resources::resources;
use crate::signals::cancel_on_signal;

/// Sessions left out that are named on the terminal; `--json` names all.
const MAX_NAMED: usize = 5;

/// Finished trials between two plain lines of progress, where stderr is no terminal.
const LINE_EVERY: usize = 100;

/// Arguments of `foreshadow replay`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Store with the recorded sessions.
    #[arg(long, value_name = "STORE")]
    store: String,
    /// What is replayed against (TOML).
    #[arg(long, value_name = "FILE")]
    candidate: PathBuf,
    /// Where the trials go; must not hold a run yet, unless --resume is given.
    #[arg(long, value_name = "RUN")]
    run: String,
    /// Whose trials they are.
    #[arg(long, value_enum, default_value = "candidate")]
    lane: LaneName,
    /// Trials of each session.
    #[arg(long, default_value_t = 5, value_name = "K")]
    trials: u32,
    /// A seeded sample of this many sessions; by default all.
    #[arg(long, value_name = "N")]
    sessions: Option<usize>,
    /// Seed of everything random: the sample, the order of trials, the faults, the seeds given to the candidate.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Trials at a time.
    #[arg(long, default_value_t = 4, value_name = "N")]
    concurrency: usize,
    /// Faults to inject into tool calls (TOML); the same seed gives both lanes the same ones.
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// What answers the candidate's model calls: the recording, or the `upstream` under `model` of the candidate file.
    #[arg(long, value_enum, default_value = "recorded")]
    model: ModelName,
    /// Tool list (OpenAI or MCP form) with `effect`, `reversible` and `idempotent` beside each tool.
    #[arg(long, value_name = "FILE")]
    tools: Option<PathBuf>,
    /// Only sessions of this agent.
    #[arg(long, value_name = "A")]
    agent: Option<AgentId>,
    /// Go on with a run that was interrupted: finished trials are not played again.
    #[arg(long)]
    resume: bool,
    /// Recorded tool delays are multiplied by this; 0 answers at once.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    delay_scale: f64,
    /// No recorded tool delay is replayed longer than this.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = parse_duration)]
    delay_cap: Duration,
    /// Start a command candidate although nothing stops it from reaching the network.
    #[arg(long)]
    allow_open_egress: bool,
}

/// A lane that can be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LaneName {
    /// The current build.
    Baseline,
    /// The new build.
    Candidate,
}

/// What answers model calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum ModelName {
    /// The recording.
    #[default]
    Recorded,
    /// The configured provider.
    Live,
}

/// Runs `foreshadow replay`.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    let plan = request(args).into_plan(&resources(context)?).map_err(Failure::usage)?;
    let world = World::bind(plan.candidate.listen()).await.map_err(Failure::usage)?;
    let cancel = CancellationToken::new();
    let mut progress = ReplayProgress::new(context.console);
    let mut on_progress = |event| progress.show(event);
    let replayed = replayer::replay(plan, &world, &mut on_progress, cancel.clone());
    let replayed = cancel_on_signal(cancel, Box::pin(replayed)).await;
    progress.clear();
    world.shutdown().await;
    conclude(&replayed?, context.console)
}

fn request(args: Args) -> ReplayRequest {
    ReplayRequest {
        store: args.store,
        candidate: args.candidate,
        run: args.run,
        lane: match args.lane {
            LaneName::Baseline => Lane::Baseline,
            LaneName::Candidate => Lane::Candidate,
        },
        trials: args.trials,
        sessions: args.sessions,
        seed: args.seed,
        concurrency: args.concurrency,
        faults: args.faults,
        model: match args.model {
            ModelName::Recorded => ModelMode::Recorded,
            ModelName::Live => ModelMode::Live,
        },
        tools: args.tools,
        agent: args.agent,
        resume: args.resume,
        delay_scale: args.delay_scale,
        delay_cap: args.delay_cap,
        allow_open_egress: args.allow_open_egress,
    }
}

/// Prints the progress of a replay: a bar on a terminal, plain lines elsewhere.
struct ReplayProgress<'a> {
    console: &'a Console,
    bar: Option<indicatif::ProgressBar>,
}

impl<'a> ReplayProgress<'a> {
    fn new(console: &'a Console) -> Self {
        Self { console, bar: None }
    }

    fn show(&mut self, progress: Progress) {
        match progress {
            Progress::Corpus { whole, torn, unusable, chosen } => self.console.note(format!(
                "{chosen} of {whole} whole sessions chosen; left out: {torn} torn, {unusable} with nothing to play"
            )),
            Progress::Probed => self.console.note("the candidate answers"),
            Progress::Planned { trials, already } => {
                if already > 0 {
                    self.console.note(format!("{already} of {trials} trials are finished already"));
                }
                let bar = self.console.progress("trials", trials as u64);
                bar.set_position(already as u64);
                self.bar = Some(bar);
            }
            Progress::Finished { done, total, case, trial, ending } => {
                let Some(bar) = &self.bar else { return };
                bar.set_position(done as u64);
                if ending != TrialEnding::Complete {
                    tracing::info!(%case, trial, ?ending, "a trial did not complete");
                }
                if bar.is_hidden() && (done % LINE_EVERY == 0 || done == total) {
                    self.console.note(format!("{done} of {total} trials"));
                }
            }
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn conclude(summary: &Summary, console: &Console) -> Result<Status, Failure> {
    console.result(summary);
    for line in lines(summary) {
        console.line(line);
    }
    if summary.interrupted {
        let (done, all) = (summary.already + summary.ran, summary.planned);
        return Err(Failure::work(anyhow::anyhow!(
            "stopped after {done} of {all} trials; what is finished is kept: repeat the command with --resume"
        )));
    }
    Ok(Status::Success)
}

fn lines(summary: &Summary) -> Vec<String> {
    let Summary { endings, fidelity, .. } = summary;
    let (started, own) = match summary.already {
        0 => (String::new(), ""),
        already => {
            (format!(", {already} by earlier starts and {} by this one", summary.ran), " in this start")
        }
    };
    let mut lines = vec![
        format!(
            "{} trials of {} sessions by build {} (lane {}){started} in {:.1} s",
            summary.already + summary.ran,
            summary.cases,
            summary.build,
            summary.lane.as_str(),
            Duration::from_millis(summary.elapsed_ms).as_secs_f64()
        ),
        format!(
            "  ended: {} complete, {} failed, {} timed out, {} truncated, {} for the surroundings",
            endings.complete, endings.failed, endings.timed_out, endings.truncated, endings.infrastructure
        ),
        format!(
            "  world answers: {} exact, {} normalised, {} derived, {} live, {} faulted, {} missed",
            fidelity.exact,
            fidelity.normalised,
            fidelity.derived,
            fidelity.live,
            fidelity.faulted,
            fidelity.missed
        ),
        format!(
            "  divergences: {}, duplicated writes{own}: {}, model calls: {}, tokens: {} read, {} written",
            summary.divergences,
            summary.duplicated_writes,
            summary.model_calls,
            summary.input_tokens,
            summary.output_tokens
        ),
    ];
    if summary.uncorrelated_calls > 0 {
        lines.push(format!(
            "  {} calls could not be told apart: the candidate must pass on `traceparent` or `baggage` of its turn, or a \
             header that [propagate] header = \"…\" in candidate.toml names; or replay with --concurrency 1",
            summary.uncorrelated_calls
        ));
    }
    let torn = summary.torn.iter().map(|torn| (&torn.session, torn.reasons.join(", ")));
    let unusable = summary.unusable.iter().map(|session| (&session.session, session.reason.clone()));
    let left_out: Vec<_> = torn.chain(unusable).collect();
    for (session, reason) in left_out.iter().take(MAX_NAMED) {
        lines.push(format!("  left out {}: {}", session.as_str().escape_debug(), reason.escape_debug()));
    }
    if left_out.len() > MAX_NAMED {
        lines
            .push(format!("  and {} more sessions left out (--json lists them)", left_out.len() - MAX_NAMED));
    }
    lines.push(format!("  run: {}", summary.run));
    lines
}
