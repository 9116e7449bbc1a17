//! `foreshadow analyze`: two runs in, a verdict out.
//!
//! The decision itself is `analyzer`'s; here are the files, the terminal and the exit code.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use analyzer::report::{ReportInput, ReportMeta, Transcripts, transcript_sessions};
use analyzer::verdict::{CALIBRATION_FORMAT, Calibration};
use analyzer::{Analysis, Answer, Looking, Policy, Run, Verdict, Waves};
use anyhow::{Context as _, anyhow};
use schemas::id::CaseId;
use store::keyring::KeyRing;

use crate::command::Context;
use crate::outcome::{Failure, Outcome};

mod comparable;
mod envelope;
mod load;
mod otlp;
mod outputs;
mod show;
mod transcripts;

use otlp::Collector;

pub(crate) use envelope::read as read_envelope;
pub(crate) use load::run as load_run;
pub(crate) use show::show;

/// Arguments of `foreshadow analyze`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run of the current build.
    #[arg(long, value_name = "RUN")]
    baseline: String,
    /// Run of the new build.
    #[arg(long, value_name = "RUN")]
    candidate: String,
    /// Run of the recordings, where neither run carries them.
    #[arg(long, value_name = "RUN")]
    recorded: Option<String>,
    /// What may block, what approval needs, how much worse is tolerated (default: the documented defaults).
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Plays the finished runs as N looks at growing parts of the cases, in a seeded order, and ends with the first look that
    /// decides; by default one look at everything.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    looks: Option<u32>,
    /// Looks after every case, in a seeded order, by betting: valid whenever one stops, and weaker than planned looks.
    #[arg(long, conflicts_with = "looks")]
    anytime: bool,
    /// What `foreshadow calibrate` wrote about the baseline's sessions; shown beside the verdict.
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Capability envelope that every trial is checked against.
    #[arg(long, value_name = "FILE")]
    envelope: Option<PathBuf>,
    /// Seed of the permutations; the same seed gives the same verdict, to the byte.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Folder that the verdict is written to: verdict.json, report.html, summary.md, junit.xml, otlp.json.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Sends otlp.json, the verdict as OpenTelemetry events, to this collector too (OTLP over HTTP, as JSON).
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// Headers of `--otlp`, `name=value` by commas.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_HEADERS", hide_env_values = true, value_name = "HEADERS")]
    otlp_headers: Option<String>,
}

/// What is compared, by which policy, and where the verdict goes.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Run of the current build.
    pub(crate) baseline: String,
    /// Run of the new build.
    pub(crate) candidate: String,
    /// Run of the recordings, where neither run carries them.
    pub(crate) recorded: Option<String>,
    /// The policy.
    pub(crate) policy: Policy,
    /// How the data are looked at.
    pub(crate) look: Look,
    /// What `foreshadow calibrate` found.
    pub(crate) calibration: Option<Calibration>,
    /// Seed of the permutations.
    pub(crate) seed: u64,
    /// Folder that the verdict is written to.
    pub(crate) out: PathBuf,
    /// Keys of encrypted runs.
    pub(crate) keys: KeyRing,
}

/// How the data are looked at.
#[derive(Debug, Clone)]
pub(crate) enum Look {
    /// Once, at everything.
    Once,
    /// In this many planned looks.
    Looks(u32),
    /// After every case.
    Anytime,
    /// At what there is so far of runs that a gate lets grow.
    Waves(Grown),
}

/// How far the runs of a gate have got.
#[derive(Debug, Clone)]
pub(crate) struct Grown {
    /// All cases that may be played, in their order.
    pub(crate) order: Arc<[CaseId]>,
    /// Cases played at each look so far.
    pub(crate) ends: Vec<usize>,
    /// Cases that the plan ends with.
    pub(crate) planned: usize,
    /// Whether part of alpha is kept for an extension.
    pub(crate) extension: bool,
    /// The command that leads to the same verdict.
    pub(crate) command: String,
}

impl Look {
    fn looking(&self) -> Looking<'_> {
        match self {
            Self::Once => Looking::Once,
            Self::Looks(looks) => Looking::Looks(*looks),
            Self::Anytime => Looking::Anytime,
            Self::Waves(Grown { order, ends, planned, extension, .. }) => {
                Looking::Waves(Waves { order, ends, planned: *planned, extension: *extension })
            }
        }
    }

    /// How many cases could be had in all, where that is known.
    fn corpus_cases(&self) -> Option<u64> {
        match self {
            Self::Waves(grown) => Some(grown.order.len() as u64),
            Self::Once | Self::Looks(_) | Self::Anytime => None,
        }
    }
}

/// Runs `foreshadow analyze`.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Outcome, Failure> {
    // The policy is read, and refused, before any data are seen.
    let mut policy = read_policy(args.policy.as_ref())?;
    if let Some(path) = &args.envelope {
        policy.invariant.declared_envelope = Some(envelope::read(path).map_err(Failure::usage)?);
    }
    let collector = match &args.otlp {
        Some(address) => {
            Some(Collector::parse(address, args.otlp_headers.as_deref()).map_err(Failure::usage)?)
        }
        None => None,
    };
    let request = Request {
        baseline: args.baseline,
        candidate: args.candidate,
        recorded: args.recorded,
        policy,
        look: match (args.looks, args.anytime) {
            (_, true) => Look::Anytime,
            (Some(looks), false) => Look::Looks(looks),
            (None, false) => Look::Once,
        },
        calibration: read_calibration(args.calibration.as_deref())?,
        seed: args.seed,
        out: args.out,
        keys: context.key_ring()?,
    };
    let analysis = analyze(&request).await?;
    show(&analysis, context.screen);
    context.screen.line(format!("\nwritten to {}", request.out.display()));
    if let Some(collector) = collector {
        let events = request.out.join("otlp.json");
        let sent =
            match std::fs::read(&events).with_context(|| format!("{} cannot be read", events.display())) {
                Ok(events) => collector.send(events).await,
                Err(error) => Err(error),
            };
        if let Err(error) = sent {
            context.screen.note(format!("the verdict stands, but its events were not sent: {error:#}"));
        }
    }
    context.screen.result(&analysis.verdict);
    Ok(outcome(&analysis.verdict))
}

/// The exit code of a verdict.
pub(crate) fn outcome(verdict: &Verdict) -> Outcome {
    match verdict.verdict {
        Answer::Approve => Outcome::Success,
        Answer::Block => Outcome::Block,
        Answer::Inconclusive => Outcome::Inconclusive,
    }
}

/// Reads both runs, decides, and writes the verdict: all files of it or none.
pub(crate) async fn analyze(request: &Request) -> Result<Analysis, Failure> {
    outputs::check(&request.out)?;
    let invariants = &request.policy.invariant;
    let mut baseline = load::run(&request.baseline, &request.keys, invariants).await?;
    let mut candidate = load::run(&request.candidate, &request.keys, invariants).await?;
    let mut recorded = match &request.recorded {
        Some(location) => Some(load::run(location, &request.keys, invariants).await?),
        None => None,
    };
    let mut runs = vec![&mut baseline, &mut candidate];
    runs.extend(recorded.as_mut());
    analyzer::agree_on_effects(&mut runs);
    comparable::check(&mut baseline, &mut candidate).map_err(Failure::usage)?;
    let asked_for = request.clone();
    let decided = tokio::task::spawn_blocking(move || {
        let Request { policy, seed, look, calibration, .. } = &asked_for;
        let asked = analyzer::Request {
            recorded: recorded.as_ref(),
            looking: look.looking(),
            corpus_cases: look.corpus_cases(),
            calibration: calibration.as_ref(),
            ..analyzer::Request::new(policy, &baseline, &candidate, *seed)
        };
        let analysis = analyzer::decide_on(&asked).map_err(Failure::usage)?;
        let policy = policy.clone();
        Ok::<_, Failure>(Decided { baseline, candidate, recorded, policy, analysis })
    });
    let decided = decided.await.map_err(|error| broke_off(error.into()))??;
    write(decided, request).await
}

/// What was decided, and on what.
struct Decided {
    baseline: Run,
    candidate: Run,
    recorded: Option<Run>,
    policy: Policy,
    analysis: Analysis,
}

impl Decided {
    fn report_input<'a>(&'a self, transcripts: &'a Transcripts) -> ReportInput<'a> {
        ReportInput {
            baseline: &self.baseline,
            candidate: &self.candidate,
            recorded: self.recorded.as_ref(),
            policy: &self.policy,
            transcripts,
        }
    }
}

/// Writes the verdict with what was said in the sessions that its report shows.
async fn write(decided: Decided, request: &Request) -> Result<Analysis, Failure> {
    let wanted = transcript_sessions(&decided.analysis, &decided.report_input(&Transcripts::new()))
        .map_err(Failure::work)?;
    let transcripts = transcripts::load(request, &wanted).await?;
    let meta = ReportMeta { title: String::new(), commands: vec![command_line(request)] };
    let out = request.out.clone();
    let written = tokio::task::spawn_blocking(move || {
        outputs::write(&out, &decided.analysis, &decided.report_input(&transcripts), &meta)?;
        Ok(decided.analysis)
    });
    written.await.map_err(|error| broke_off(error.into()))?
}

fn broke_off(error: anyhow::Error) -> Failure {
    Failure::work(error.context("the decision broke off"))
}

/// The command that leads to the same verdict; a policy is named by what it holds, for its file is not known here.
fn command_line(request: &Request) -> String {
    let mut words = vec!["foreshadow analyze --baseline".to_owned(), quoted(&request.baseline)];
    words.extend(["--candidate".to_owned(), quoted(&request.candidate)]);
    if let Some(recorded) = &request.recorded {
        words.extend(["--recorded".to_owned(), quoted(recorded)]);
    }
    let declared_envelope = request.policy.invariant.declared_envelope.clone();
    let mut policy = Policy::default();
    policy.invariant.declared_envelope.clone_from(&declared_envelope);
    if request.policy != policy {
        words.push("--policy POLICY.toml".to_owned());
    }
    match &request.look {
        Look::Looks(looks) => words.push(format!("--looks {looks}")),
        Look::Anytime => words.push("--anytime".to_owned()),
        Look::Once => {}
        Look::Waves(grown) => return grown.command.clone(),
    }
    if declared_envelope.is_some() {
        words.push("--envelope ENVELOPE.toml".to_owned());
    }
    words.extend([format!("--seed {} --out", request.seed), quoted(&request.out.display().to_string())]);
    words.join(" ")
}

/// A word as a POSIX shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Reads what `foreshadow calibrate` wrote.
pub(crate) fn read_calibration(path: Option<&Path>) -> Result<Option<Calibration>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let read = || -> anyhow::Result<Calibration> {
        let text = std::fs::read_to_string(path).context("it cannot be read")?;
        let found: Calibration = serde_json::from_str(&text)
            .context("it is not what `foreshadow calibrate` writes; make it again with `--out FILE`")?;
        if found.format != CALIBRATION_FORMAT {
            anyhow::bail!(
                "it has format {}, this build reads {CALIBRATION_FORMAT}; make it again",
                found.format
            );
        }
        Ok(found)
    };
    let read = read().with_context(|| format!("calibration {} cannot be used", path.display()));
    read.map(Some).map_err(Failure::usage)
}

pub(crate) fn read_policy(path: Option<&PathBuf>) -> Result<Policy, Failure> {
    let Some(path) = path else { return Ok(Policy::default()) };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("policy {} cannot be read", path.display()))
        .map_err(Failure::usage)?;
    let policy = Policy::parse(&text)
        .map_err(|error| anyhow!(error).context(format!("policy {} is refused", path.display())));
    policy.map_err(Failure::usage)
}
