//! `foreshadow replay`: replays recorded sessions against one candidate, or against two builds at once.

mod both;

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use gating::ReplayRequest;
use replayer::{MissCount, ModelMode, Progress, Summary, World};
use schemas::id::AgentId;
use schemas::trial::{Lane, TrialEnding};
use tokio_util::sync::CancellationToken;

use crate::console::Console;
use crate::context::Context;
use crate::exit::{Failure, Status};
use crate::format::{escape_control, parse_duration};
use crate::resources::resources;
use crate::signals::cancel_on_signal;

/// Excluded sessions on the terminal; `--json` lists all.
const MAX_NAMED: usize = 5;

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

/// Prints how many sessions were selected.
fn show_corpus(console: &Console, progress: &Progress) {
    if let Progress::Corpus { complete, incomplete, unusable, selected } = progress {
        console.note(format!(
            "{selected} of {complete} complete sessions selected; excluded: {incomplete} incomplete, {unusable} without a turn to replay"
        ));
    }
}

fn conclude(summary: &Summary, console: &Console) -> Result<Status, Failure> {
    console.result(summary);
    for line in lines(summary) {
        console.line(line);
    }
    ended(summary)
}

/// The end of a replay: an error if trials are left to run.
fn ended(summary: &Summary) -> Result<Status, Failure> {
    if let Some(reason) = &summary.provider_down {
        let (done, all) = (summary.already + summary.ran, summary.planned);
        return Err(Failure::work(anyhow::anyhow!(
            "the model provider is down for good: {reason}; replay stopped after {done} of {all} trials; finished trials are \
             kept; mend the key, the quota or the provider, then repeat the command with --resume"
        )));
    }
    if summary.interrupted {
        let (done, all) = (summary.already + summary.ran, summary.planned);
        return Err(Failure::work(anyhow::anyhow!(
            "replay stopped after {done} of {all} trials; finished trials are kept; repeat the command with --resume"
        )));
    }
    Ok(Status::Success)
}

fn lines(summary: &Summary) -> Vec<String> {
    let Summary { endings, fidelity, model_fidelity: model, .. } = summary;
    let (earlier, scope) = match summary.already {
        0 => (String::new(), ""),
        already => (
            format!(", {already} by earlier invocations and {} by this one", summary.ran),
            " in this invocation",
        ),
    };
    let mut lines = vec![
        format!(
            "{} trials of {} sessions by build {} (lane {}){earlier} in {:.1} s",
            summary.already + summary.ran,
            summary.cases,
            summary.build,
            summary.lane.as_str(),
            Duration::from_millis(summary.elapsed_ms).as_secs_f64()
        ),
        format!(
            "  endings: {} complete, {} failed, {} timed out, {} truncated, {} infrastructure failures",
            endings.complete, endings.failed, endings.timed_out, endings.truncated, endings.infrastructure
        ),
        format!(
            "  world responses: {} exact, {} normalised, {} derived, {} live, {} faulted, {} missed",
            fidelity.exact,
            fidelity.normalised,
            fidelity.derived,
            fidelity.live,
            fidelity.faulted,
            fidelity.missed
        ),
        format!(
            "  of these answered model calls: {} of {}, tool calls: {} of {}",
            model.total() - model.missed,
            model.total(),
            fidelity.total() - model.total() - (fidelity.missed - model.missed),
            fidelity.total() - model.total()
        ),
        format!(
            "  divergences: {}, duplicated writes{scope}: {}, model calls: {}, tokens: {} read, {} written",
            summary.divergences,
            summary.duplicated_writes,
            summary.model_calls,
            summary.input_tokens,
            summary.output_tokens
        ),
    ];
    lines.extend(provider_lines(summary));
    lines.extend(miss_lines(&summary.misses));
    if summary.late_calls > 0 {
        lines.push(format!(
            "  {} calls came after the end of their trial and are part of none: the candidate works on after its answer",
            summary.late_calls
        ));
    }
    if summary.uncorrelated_calls > 0 {
        let paths = summary.uncorrelated_paths.iter().take(MAX_NAMED);
        let paths: Vec<String> =
            paths.map(|(path, calls)| format!("{} ({calls})", escape_control(path))).collect();
        lines.push(format!("  calls without a trial: {}", paths.join(", ")));
        lines.push(format!(
            "  {} calls match no trial, and each counts as missed in every trial that ran then: the candidate must pass on `traceparent` or `baggage` of its turn, or a header that \
             [propagate] header = \"…\" of the candidate file names; or replay with --concurrency 1",
            summary.uncorrelated_calls
        ));
    }
    let incomplete = summary.incomplete.iter().map(|session| (&session.session, session.reasons.join(", ")));
    let unusable = summary.unusable.iter().map(|session| (&session.session, session.reason.clone()));
    let excluded: Vec<_> = incomplete.chain(unusable).collect();
    for (session, reason) in excluded.iter().take(MAX_NAMED) {
        lines.push(format!("  excluded {}: {}", escape_control(session.as_str()), escape_control(reason)));
    }
    if excluded.len() > MAX_NAMED {
        lines
            .push(format!("  and {} more excluded sessions (--json lists them)", excluded.len() - MAX_NAMED));
    }
    lines.push(format!("  run: {}", summary.run));
    lines
}

/// The most frequent misses, by tool or path.
fn miss_lines(misses: &[MissCount]) -> Vec<String> {
    let mut sorted: Vec<&MissCount> = misses.iter().collect();
    sorted.sort_by_key(|miss| std::cmp::Reverse(miss.calls));
    let line = |miss: &&MissCount| {
        let MissCount { tool, path, argument, calls, trials } = miss;
        let named = match (tool, path) {
            (Some(tool), _) => format!("tool {tool}"),
            (None, Some(path)) => path.clone(),
            (None, None) => "unknown path".to_owned(),
        };
        let argument = argument.as_ref().map(|argument| format!(", argument {argument}")).unwrap_or_default();
        let text = escape_control(&format!("{named}{argument}")).to_string();
        format!("  missed: {text}: {calls} calls in {trials} trials")
    };
    let mut lines: Vec<String> = sorted.iter().take(MAX_NAMED).map(line).collect();
    if sorted.len() > MAX_NAMED {
        lines.push(format!(
            "  and {} more kinds of missed calls (--json lists them)",
            sorted.len() - MAX_NAMED
        ));
    }
    lines
}

/// What the model provider and the infrastructure failed.
fn provider_lines(summary: &Summary) -> Vec<String> {
    let mut lines = Vec::new();
    if summary.provider_retries + summary.provider_failures > 0 {
        lines.push(format!(
            "  model provider: {} attempts repeated, {} model calls failed after all attempts",
            summary.provider_retries, summary.provider_failures
        ));
    }
    if summary.endings.infrastructure > 0 {
        lines.push("  infrastructure failures count as missing; --resume runs these trials again".to_owned());
    }
    if summary.rerun > 0 {
        let rerun = summary.rerun;
        lines.push(format!("  {rerun} trials that the infrastructure had failed were run again"));
    }
    lines
}
