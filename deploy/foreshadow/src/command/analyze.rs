//! `foreshadow analyze`: two runs in, a verdict out.
//!
//! The decision itself is `analyzer`'s; here are the files, the terminal and the exit code.

use std::path::PathBuf;

use analyzer::report::{Evidence, Frame};
use analyzer::{Analysis, Answer, Policy, Verdict};
use anyhow::{Context as _, anyhow};
use store::keyring::KeyRing;

use crate::command::Context;
use crate::outcome::{Failure, Outcome};

mod comparable;
mod load;
mod outputs;
mod show;

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
    /// Seed of the permutations; the same seed gives the same verdict, to the byte.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Folder that the verdict is written to: verdict.json, report.html, summary.md, junit.xml.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
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
    /// Seed of the permutations.
    pub(crate) seed: u64,
    /// Folder that the verdict is written to.
    pub(crate) out: PathBuf,
    /// Keys of encrypted runs.
    pub(crate) keys: KeyRing,
}

/// Runs `foreshadow analyze`.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Outcome, Failure> {
    // The policy is read, and refused, before any data are seen.
    let policy = read_policy(args.policy.as_ref())?;
    let request = Request {
        baseline: args.baseline,
        candidate: args.candidate,
        recorded: args.recorded,
        policy,
        seed: args.seed,
        out: args.out,
        keys: context.key_ring()?,
    };
    let analysis = analyze(&request).await?;
    show(&analysis, context.screen);
    context.screen.line(format!("\nwritten to {}", request.out.display()));
    context.screen.result(&analysis.verdict);
    Ok(outcome(&analysis.verdict))
}

/// The exit code of a verdict.
fn outcome(verdict: &Verdict) -> Outcome {
    match verdict.verdict {
        Answer::Approve => Outcome::Success,
        Answer::Block => Outcome::Block,
        Answer::Inconclusive => Outcome::Inconclusive,
    }
}

/// Reads both runs, decides, and writes the verdict: all files of it or none.
pub(crate) async fn analyze(request: &Request) -> Result<Analysis, Failure> {
    outputs::check(&request.out)?;
    let mut baseline = load::run(&request.baseline, &request.keys).await?;
    let mut candidate = load::run(&request.candidate, &request.keys).await?;
    let mut recorded = match &request.recorded {
        Some(location) => Some(load::run(location, &request.keys).await?),
        None => None,
    };
    let mut runs = vec![&mut baseline, &mut candidate];
    runs.extend(recorded.as_mut());
    analyzer::agree_on_effects(&mut runs);
    comparable::check(&mut baseline, &mut candidate).map_err(Failure::usage)?;
    let request = request.clone();
    let decided = tokio::task::spawn_blocking(move || {
        let Request { policy, seed, out, .. } = &request;
        let frame = Frame { title: String::new(), commands: vec![command_line(&request)] };
        let analysis = analyzer::analyse(policy, &baseline, &candidate, recorded.as_ref(), *seed);
        let analysis = analysis.map_err(Failure::usage)?;
        let evidence =
            Evidence { baseline: &baseline, candidate: &candidate, recorded: recorded.as_ref(), policy };
        outputs::write(out, &analysis, &evidence, &frame)?;
        Ok(analysis)
    });
    decided.await.map_err(|error| Failure::work(anyhow!(error).context("the decision broke off")))?
}

/// The command that leads to the same verdict; a policy is named by what it holds, for its file is not known here.
fn command_line(request: &Request) -> String {
    let mut words = vec!["foreshadow analyze --baseline".to_owned(), quoted(&request.baseline)];
    words.extend(["--candidate".to_owned(), quoted(&request.candidate)]);
    if let Some(recorded) = &request.recorded {
        words.extend(["--recorded".to_owned(), quoted(recorded)]);
    }
    if request.policy != Policy::default() {
        words.push("--policy POLICY.toml".to_owned());
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

fn read_policy(path: Option<&PathBuf>) -> Result<Policy, Failure> {
    let Some(path) = path else { return Ok(Policy::default()) };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("policy {} cannot be read", path.display()))
        .map_err(Failure::usage)?;
    let policy = Policy::parse(&text)
        .map_err(|error| anyhow!(error).context(format!("policy {} is refused", path.display())));
    policy.map_err(Failure::usage)
}
