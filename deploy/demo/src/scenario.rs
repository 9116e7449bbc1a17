//! The loop once: record, replay three builds, decide on two changes.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use replayer::{Summary, World};
use schemas::keys::RootKey;
use schemas::trial::Lane;
use serde::{Serialize, Serializer};
use store::Store;
use tokio_util::sync::CancellationToken;

use super::folder::Folder;
use super::model::ModelServer;
use super::production::{self, Recorded};
use super::shop::{Books, Case};
use super::tools::{self, ToolServer};
use super::trials::{self, Replay};
use super::{builds, files};
use crate::command::{analyze, score};
use crate::outcome::Failure;
use crate::screen::Screen;

/// How much is recorded and replayed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) sessions: u32,
    pub(super) trials: u32,
}

impl Size {
    /// Enough for margins of five points; see the table of the decision's power.
    pub(super) const FULL: Self = Self { sessions: 200, trials: 5 };
}

/// What came of a loop.
#[derive(Debug, Serialize)]
pub(super) struct Loop {
    pub(super) seed: u64,
    pub(super) recorded: Recorded,
    pub(super) replays: Vec<Summary>,
    /// Writes that reached the shop while builds were replayed: must be none.
    pub(super) escaped_writes: u64,
    pub(super) decided: Vec<Decided>,
}

/// A change that was decided on.
#[derive(Debug, Serialize)]
pub(super) struct Decided {
    pub(super) name: &'static str,
    /// What was changed, in words.
    pub(super) what: &'static str,
    pub(super) expected: analyzer::Answer,
    #[serde(rename = "verdict", serialize_with = "verdict_only")]
    pub(super) analysis: analyzer::Analysis,
    /// Where its report lies.
    pub(super) folder: String,
}

fn verdict_only<S: Serializer>(analysis: &analyzer::Analysis, serializer: S) -> Result<S::Ok, S::Error> {
    analysis.verdict.serialize(serializer)
}

impl Loop {
    /// Whether this change was decided on as it should be.
    pub(super) fn as_expected(&self, name: &str) -> bool {
        self.decided
            .iter()
            .filter(|one| one.name == name)
            .all(|one| one.analysis.verdict.verdict == one.expected)
    }

    /// What is not as it should be, in words; empty when both verdicts are right, nothing was lost and no write
    /// escaped.
    pub(super) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for Decided { name, expected, analysis, .. } in &self.decided {
            let found = analysis.verdict.verdict;
            if found != *expected {
                wrong.push(format!("the {name} change got {found:?} instead of {expected:?}").to_lowercase());
            }
        }
        if self.recorded.torn > 0 || self.recorded.shed > 0 {
            let Recorded { torn, shed, .. } = self.recorded;
            wrong.push(format!("{torn} sessions were torn and {shed} exchanges lost while recording"));
        }
        if self.escaped_writes > 0 {
            wrong.push(format!("{} writes reached the shop during the replays", self.escaped_writes));
        }
        wrong
    }
}

/// Runs it.
pub(super) async fn run(
    folder: &Folder,
    key: &RootKey,
    seed: u64,
    size: Size,
    screen: &Screen,
) -> Result<Loop, Failure> {
    folder.write("tools.json", tools::CATALOG)?;
    folder.write("faults.toml", files::FAULTS)?;
    folder.write("policy.toml", files::POLICY)?;
    folder.write("README.md", &files::readme(folder))?;
    let cases: Vec<Case> = (0..size.sessions).map(|number| Case::draw(seed, number)).collect();
    let model = ModelServer::start(seed).await?;
    let tools = ToolServer::start(Books::new(&cases)).await?;

    screen.line("\n1. Record: customers talk to the current build, and the tap records all three edges.");
    let clock = Instant::now();
    let bar = screen.progress("recording sessions", u64::from(size.sessions));
    let recorded = production::record(folder, key, &cases, &model, &tools, &bar).await?;
    bar.finish_and_clear();
    screen.line(format!("   {} ({:.1} s)", recorded.words(), clock.elapsed().as_secs_f64()));

    let writes_before = tools.writes();
    let replays = replay_all(folder, key, &model, seed, size, screen).await?;
    let escaped_writes = tools.writes() - writes_before;
    screen.line(format!("   Writes that reached the shop meanwhile: {escaped_writes}."));
    tools.stop().await;
    model.stop().await;
    let clock = Instant::now();
    let embedded = embed_all(folder, screen).await?;
    screen.line(format!(
        "   {embedded} answers as vectors, by the model inside the binary ({:.1} s)",
        clock.elapsed().as_secs_f64()
    ));

    screen.line("\n3. Decide: each change against the current build, session by session.");
    let decided = decide_all(folder, seed).await?;
    Ok(Loop { seed, recorded, replays, escaped_writes, decided })
}

async fn replay_all(
    folder: &Folder,
    key: &RootKey,
    model: &ModelServer,
    seed: u64,
    size: Size,
    screen: &Screen,
) -> anyhow::Result<Vec<Summary>> {
    let trials = size.trials;
    screen.line(format!(
        "\n2. Replay: each session {trials} times against each build. Tools answer from the recording,"
    ));
    screen.line("   now and then a payment's answer is lost on the way, and no write is executed.");
    let address = "127.0.0.1:0".parse().context("an address that is no address")?;
    let world = World::bind(address).await.context("the world cannot start")?;
    let planned = [
        ("baseline", Lane::Baseline, builds::CURRENT),
        ("harmless", Lane::Candidate, builds::HARMLESS),
        ("regressed", Lane::Candidate, builds::REGRESSED),
    ];
    let mut summaries = Vec::new();
    for (name, lane, agent) in planned {
        let clock = Instant::now();
        let calls_before = model.calls();
        let bar = screen.progress(&format!("replaying {name}"), u64::from(size.sessions * trials));
        let replay = Replay { name, lane, agent, trials, seed };
        let summary = trials::replay(folder, key, &world, &model.url(), replay, &bar).await?;
        bar.finish_and_clear();
        let (calls, seconds) = (model.calls() - calls_before, clock.elapsed().as_secs_f64());
        screen.line(format!("   {name:<10} {} ({seconds:.1} s)", in_words(&summary, calls)));
        summaries.push(summary);
    }
    world.shutdown().await;
    Ok(summaries)
}

fn in_words(summary: &Summary, model_calls: u64) -> String {
    let fidelity = &summary.fidelity;
    format!(
        "{} trials, {model_calls} live model calls; tool answers: {} exact, {} normalised, {} faulted, {} missed; \
         {} writes repeated",
        summary.ran,
        fidelity.exact,
        fidelity.normalised,
        fidelity.faulted,
        fidelity.missed,
        summary.duplicated_writes,
    )
}

/// Turns the answers of all runs into vectors, so that their meaning is compared too; returns how many.
async fn embed_all(folder: &Folder, screen: &Screen) -> Result<u64, Failure> {
    let mut embedded = 0;
    for name in ["baseline", "harmless", "regressed"] {
        let run = folder.location(&format!("runs/{name}"));
        let lake = Store::open(&run).map_err(Failure::work)?;
        let (config, cancel) = (score::ScoreConfig::default(), CancellationToken::new());
        let request = score::Request { run, config, base: PathBuf::new(), cancel };
        let report = score::score(&request, &lake, screen).await?;
        embedded += report.embeddings.map_or(0, |embeddings| embeddings.embedded);
    }
    Ok(embedded)
}

async fn decide_all(folder: &Folder, seed: u64) -> Result<Vec<Decided>, Failure> {
    let changes = [
        ("harmless", "a warmer tone, look-ups in another order, no streaming", analyzer::Answer::Approve),
        (
            "regressed",
            "may skip the order look-up, and retries a payment that is slow",
            analyzer::Answer::Block,
        ),
    ];
    let policy = analyzer::Policy::parse(files::POLICY).context("the demo's own policy is refused")?;
    let mut decided = Vec::new();
    for (name, what, expected) in changes {
        let out = folder.path(&format!("reports/{name}"));
        let request = analyze::Request {
            baseline: folder.location("runs/baseline"),
            candidate: folder.location(&format!("runs/{name}")),
            recorded: None,
            policy: policy.clone(),
            look: analyze::Look::Once,
            calibration: None,
            seed,
            out: out.clone(),
            keys: store::keyring::KeyRing::default(),
        };
        let analysis = analyze::analyze(&request).await?;
        decided.push(Decided { name, what, expected, analysis, folder: out.display().to_string() });
    }
    Ok(decided)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::Color;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_small_loop_records_whole_sessions_and_lets_no_write_escape() {
        let scratch = tempfile::tempdir().expect("a folder");
        let folder = Folder::claim(&scratch.path().join("demo")).expect("claimed");
        let (key, screen) = (RootKey::new([3; 32]), Screen::new(true, Color::Never));
        let size = Size { sessions: 12, trials: 2 };
        let ended = run(&folder, &key, 1, size, &screen).await.expect("the loop runs");
        assert_eq!((ended.recorded.whole, ended.recorded.torn, ended.escaped_writes), (12, 0, 0));
        assert!(ended.replays.iter().all(|summary| summary.ran == 24 && summary.endings.complete == 24));
        assert!(ended.replays.iter().all(|summary| summary.fidelity.exact > 0));
        // Twelve sessions are below every floor: nothing may be approved on them.
        assert!(ended.decided.iter().all(|one| one.analysis.verdict.verdict != analyzer::Answer::Approve));
        assert!(folder.path("reports/harmless/verdict.json").exists());
    }
}
