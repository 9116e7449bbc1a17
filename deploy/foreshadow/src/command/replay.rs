//! `foreshadow replay`: replays recorded sessions against one candidate, or against two builds at once.

mod both;
mod output;

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
use output::{ended, lines, show_corpus};

/// Finished trials between two plain lines of progress without a terminal.
const LINE_EVERY: usize = 100;

const AFTER_HELP: &str = "\
Example:
  foreshadow replay --store foreshadow-demo/store --candidate candidate.toml \\
    --run runs/candidate --sessions 20
  foreshadow replay --store foreshadow-demo/store --baseline current.toml \\
    --candidate candidate.toml --run runs";

/// Arguments of `foreshadow replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Store with the recorded sessions.
    #[arg(long, value_name = "STORE")]
    store: String,
    /// Candidate file (TOML): how to call the build under test.
    #[arg(long, value_name = "FILE")]
    candidate: PathBuf,
    /// Candidate file of the current build: replays both builds at once, with the trials interleaved at random, into the runs
    /// RUN/baseline and RUN/candidate.
    #[arg(long, value_name = "FILE", conflicts_with = "lane")]
    baseline: Option<PathBuf>,
    /// Run that receives the trials; must not exist yet, except with --resume.
    #[arg(long, value_name = "RUN")]
    run: String,
    /// Lane of the trials.
    #[arg(long, value_enum, default_value = "candidate")]
    lane: LaneName,
    /// Trials of each session.
    #[arg(long, default_value_t = 5, value_name = "K")]
    trials: u32,
    /// Replay a seeded sample of N sessions [default: all sessions].
    #[arg(long, value_name = "N")]
    sessions: Option<usize>,
    /// Seed of the sample, the order of trials, the faults and the seeds of the candidate.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Trials that run at the same time.
    #[arg(long, default_value_t = 4, value_name = "N")]
    concurrency: usize,
    /// Fault rules for tool calls (TOML); the same seed gives both lanes the same faults.
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Source of model responses: the recording, or the `upstream` in `[model]` of the candidate file.
    #[arg(long, value_enum, default_value = "recorded")]
    model: ModelName,
    /// Tool list (JSON, OpenAI or MCP form) with `effect`, `reversible` and `idempotent` for each tool.
    #[arg(long, value_name = "FILE")]
    tools: Option<PathBuf>,
    /// Policy (TOML); its tables `[argument.TOOL]` say which arguments make no difference to a recorded answer.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Replay only sessions of this agent.
    #[arg(long, value_name = "A")]
    agent: Option<AgentId>,
    /// Continue an interrupted run; finished trials stay.
    #[arg(long)]
    resume: bool,
    /// Factor on recorded tool delays; 0 answers at once.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    delay_scale: f64,
    /// Longest tool delay, after scaling.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = parse_duration)]
    delay_cap: Duration,
    /// A failed trial whose error contains TEXT was failed by the infrastructure, such as an outage of a provider, and is
    /// missing instead of failed; repeatable, use the same values for both lanes.
    #[arg(long, value_name = "TEXT")]
    infrastructure: Vec<String>,
    /// Start a command candidate although it can reach the network.
    #[arg(long)]
    allow_open_egress: bool,
    /// Replay sessions of which no model or tool call was decoded; every call in them is missed.
    #[arg(long)]
    allow_undecoded: bool,
}

/// A lane that replay can fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LaneName {
    /// The current build.
    Baseline,
    /// The new build.
    Candidate,
}

/// Source of model responses.
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
    if let Some(baseline) = args.baseline.clone() {
        let summaries = Box::pin(both::run(request(args), &baseline, context)).await?;
        return both::conclude(summaries, context.console);
    }
    let plan = request(args).into_plan(&resources(context)?).map_err(Failure::usage)?;
    let world = World::bind(plan.candidate.listen()).await.map_err(Failure::usage)?;
    let cancel = CancellationToken::new();
    let mut progress = ReplayProgress { console: context.console, bar: None };
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
        policy: args.policy,
        agent: args.agent,
        resume: args.resume,
        delay_scale: args.delay_scale,
        delay_cap: args.delay_cap,
        infrastructure: args.infrastructure,
        allow_open_egress: args.allow_open_egress,
        allow_undecoded: args.allow_undecoded,
    }
}

/// Prints the progress of a replay: a bar on a terminal, plain lines elsewhere.
struct ReplayProgress<'a> {
    console: &'a Console,
    bar: Option<indicatif::ProgressBar>,
}

impl ReplayProgress<'_> {
    fn show(&mut self, progress: Progress) {
        match progress {
            Progress::Corpus { .. } => show_corpus(self.console, &progress),
            Progress::Probed => self.console.note("the candidate responds"),
            Progress::Planned { trials, already } => {
                if already > 0 {
                    self.console.note(format!("{already} of {trials} trials are already finished"));
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
    ended(summary)
}
