//! One pass of the demo: record, replay three builds, decide on two changes.

use std::path::PathBuf;
use std::time::Instant;

use analyzer::{Analysis, Decision};
use anyhow::Context as _;
use decision::{DecisionRequest, LookPlan};
use replayer::{Summary, World};
use schemas::keys::RootKey;
use schemas::trial::Lane;
use scoring::{ScoreConfig, ScoreRequest};
use serde::{Serialize, Serializer};
use store::Store;
use store::keyring::KeyRing;
use tokio_util::sync::CancellationToken;

use crate::backend::{Case, Ledger};
use crate::error::DemoError;
use crate::live_traffic::{self, RecordingCounts};
use crate::model_server::ModelServer;
use crate::output_folder::OutputFolder;
use crate::replays::{self, Replay};
use crate::tool_server::{self, ToolServer};
use crate::{builds, config_files};

/// Number of sessions and trials.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Sessions to record.
    pub sessions: u32,
    /// Trials of each session against each build.
    pub trials: u32,
}

impl Size {
    /// The size of the demo: enough sessions to decide at margins of five points.
    pub const FULL: Self = Self { sessions: 200, trials: 5 };
}

/// One pass of the demo.
#[derive(Debug)]
pub struct Scenario<'a> {
    /// Receives every file of the pass.
    pub folder: &'a OutputFolder,
    /// Root key of the recorder and the replays.
    pub key: &'a RootKey,
    /// Seed of customers, model, faults and decision.
    pub seed: u64,
    /// Number of sessions and trials.
    pub size: Size,
    /// Microseconds since 1970, UTC.
    pub clock: fn() -> i64,
}

/// An event of a pass.
#[derive(Debug)]
pub enum DemoEvent<'a> {
    /// The customers start to write.
    RecordingStarted {
        /// Sessions to record.
        sessions: u32,
    },
    /// One session is over.
    SessionRecorded,
    /// All sessions are recorded.
    Recorded {
        /// Counts of the recording.
        counts: &'a RecordingCounts,
        /// Duration, seconds.
        seconds: f64,
    },
    /// The replays start.
    ReplaysStarted {
        /// Trials of each session against each build.
        trials: u32,
    },
    /// The replay against one build starts.
    BuildStarted {
        /// Name of the run.
        name: &'static str,
        /// Trials of this build.
        trials: u32,
    },
    /// This many trials of the current build are finished.
    TrialsFinished(usize),
    /// The replay against one build is over.
    BuildReplayed {
        /// Name of the run.
        name: &'static str,
        /// Result of the replay.
        summary: &'a Summary,
        /// Calls that the model server answered.
        model_calls: u64,
        /// Duration, seconds.
        seconds: f64,
    },
    /// All replays are over.
    ReplaysFinished {
        /// Writes that reached the backend during the replays; 0 if the world answered every call.
        escaped_writes: u64,
    },
    /// The answers of all runs are embedded.
    Embedded {
        /// Number of answers.
        answers: u64,
        /// Duration, seconds.
        seconds: f64,
    },
    /// The decisions start.
    DecisionsStarted,
}

/// The result of a pass.
#[derive(Debug, Serialize)]
pub struct ScenarioResult {
    /// Seed of the pass.
    pub seed: u64,
    /// Counts of the recording.
    pub recorded: RecordingCounts,
    /// One summary per build.
    pub replays: Vec<Summary>,
    /// Writes that reached the backend during the replays.
    pub escaped_writes: u64,
    /// One entry per change.
    pub decided: Vec<DecidedChange>,
}

/// A change with its verdict.
#[derive(Debug, Serialize)]
pub struct DecidedChange {
    /// `harmless` or `regressed`.
    pub name: &'static str,
    /// Description of the change.
    pub what: &'static str,
    /// The correct verdict.
    pub expected: Decision,
    /// The analysis; serialised as its verdict.
    #[serde(rename = "verdict", serialize_with = "verdict_only")]
    pub analysis: Analysis,
    /// Folder of the report.
    pub folder: String,
}

fn verdict_only<S: Serializer>(analysis: &Analysis, serializer: S) -> Result<S::Ok, S::Error> {
    analysis.verdict.serialize(serializer)
}

impl DecidedChange {
    /// Whether the verdict is the correct one.
    #[must_use]
    pub fn is_correct(&self) -> bool {
        self.analysis.verdict.verdict == self.expected
    }
}

impl ScenarioResult {
    /// Everything that went wrong; empty if both verdicts are correct, no exchange was lost and no write escaped.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for DecidedChange { name, expected, analysis, .. } in &self.decided {
            let found = analysis.verdict.verdict;
            if found != *expected {
                problems
                    .push(format!("the {name} change got {found:?} instead of {expected:?}").to_lowercase());
            }
        }
        if self.recorded.torn > 0 || self.recorded.shed > 0 {
            let RecordingCounts { torn, shed, .. } = self.recorded;
            problems.push(format!("{torn} recorded sessions are incomplete, {shed} exchanges are lost"));
        }
        if self.escaped_writes > 0 {
            problems.push(format!("{} writes reached the backend during the replays", self.escaped_writes));
        }
        problems
    }
}

impl Scenario<'_> {
    /// Records, replays and decides; leaves configuration, store, runs and reports in the folder.
    ///
    /// # Errors
    /// A stage fails.
    pub async fn run(
        &self,
        on_event: &mut (dyn FnMut(DemoEvent<'_>) + Send),
    ) -> Result<ScenarioResult, DemoError> {
        let Self { folder, seed, size, .. } = *self;
        folder.write("tools.json", tool_server::CATALOG)?;
        folder.write("faults.toml", config_files::FAULTS)?;
        folder.write("policy.toml", config_files::POLICY)?;
        folder.write("README.md", &config_files::readme(folder))?;
        let cases: Vec<Case> = (0..size.sessions).map(|number| Case::draw(seed, number)).collect();
        let model = ModelServer::start(seed).await?;
        let tools = ToolServer::start(Ledger::new(&cases)).await?;

        on_event(DemoEvent::RecordingStarted { sessions: size.sessions });
        let started = Instant::now();
        let events = std::sync::Mutex::new(&mut *on_event);
        let on_session = || {
            let mut events = events.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            (events)(DemoEvent::SessionRecorded);
        };
        let recorded =
            live_traffic::record(folder, self.key, &cases, &model, &tools, self.clock, &on_session).await?;
        let seconds = started.elapsed().as_secs_f64();
        on_event(DemoEvent::Recorded { counts: &recorded, seconds });

        let writes_before = tools.writes();
        let replays = self.replay_all(&model, on_event).await?;
        let escaped_writes = tools.writes() - writes_before;
        on_event(DemoEvent::ReplaysFinished { escaped_writes });
        tools.stop().await;
        model.stop().await;
        let started = Instant::now();
        let answers = self.embed_all().await?;
        on_event(DemoEvent::Embedded { answers, seconds: started.elapsed().as_secs_f64() });

        on_event(DemoEvent::DecisionsStarted);
        let decided = self.decide_all().await?;
        Ok(ScenarioResult { seed, recorded, replays, escaped_writes, decided })
    }

    async fn replay_all(
        &self,
        model: &ModelServer,
        on_event: &mut (dyn FnMut(DemoEvent<'_>) + Send),
    ) -> anyhow::Result<Vec<Summary>> {
        let Size { sessions, trials } = self.size;
        on_event(DemoEvent::ReplaysStarted { trials });
        let address = "127.0.0.1:0".parse().context("the loopback address cannot be parsed")?;
        let world = World::bind(address).await.context("the world cannot start")?;
        let planned = [
            ("baseline", Lane::Baseline, builds::CURRENT),
            ("harmless", Lane::Candidate, builds::HARMLESS),
            ("regressed", Lane::Candidate, builds::REGRESSED),
        ];
        let mut summaries = Vec::new();
        for (name, lane, agent) in planned {
            let started = Instant::now();
            let calls_before = model.calls();
            on_event(DemoEvent::BuildStarted { name, trials: sessions * trials });
            let replay = Replay { name, lane, agent, trials, seed: self.seed };
            let mut on_trials = |done| on_event(DemoEvent::TrialsFinished(done));
            let summary = replays::replay(
                self.folder,
                self.key,
                &world,
                &model.url(),
                replay,
                self.clock,
                &mut on_trials,
            )
            .await?;
            let (model_calls, seconds) = (model.calls() - calls_before, started.elapsed().as_secs_f64());
            on_event(DemoEvent::BuildReplayed { name, summary: &summary, model_calls, seconds });
            summaries.push(summary);
        }
        world.shutdown().await;
        Ok(summaries)
    }

    /// Embeds the answers of all runs, so that the decision can compare their meaning; returns the number of answers.
    async fn embed_all(&self) -> anyhow::Result<u64> {
        let mut embedded = 0;
        for name in ["baseline", "harmless", "regressed"] {
            let run = self.folder.location(&format!("runs/{name}"));
            let store = Store::open(&run)?;
            let request = ScoreRequest {
                run,
                config: ScoreConfig::default(),
                base: PathBuf::new(),
                clock: self.clock,
                cancel: CancellationToken::new(),
            };
            let report = scoring::score(&request, &store, &|_| None, &mut |_| {}).await?;
            embedded += report.embeddings.map_or(0, |embeddings| embeddings.embedded);
        }
        Ok(embedded)
    }

    async fn decide_all(&self) -> anyhow::Result<Vec<DecidedChange>> {
        let changes = [
            ("harmless", "a warmer tone, look-ups in another order, no streaming", Decision::Approve),
            ("regressed", "may skip the order look-up, and retries a payment that is slow", Decision::Block),
        ];
        let policy =
            analyzer::Policy::parse(config_files::POLICY).context("the policy of the demo is refused")?;
        let mut decided = Vec::new();
        for (name, what, expected) in changes {
            let out = self.folder.path(&format!("reports/{name}"));
            let request = DecisionRequest {
                baseline: self.folder.location("runs/baseline"),
                candidate: self.folder.location(&format!("runs/{name}")),
                recorded: None,
                reference: None,
                policy: policy.clone(),
                looks: LookPlan::Once,
                calibration: None,
                seed: self.seed,
                out: out.clone(),
                keys: KeyRing::default(),
                clock: self.clock,
            };
            let analysis = decision::decide(&request).await?;
            decided.push(DecidedChange { name, what, expected, analysis, folder: out.display().to_string() });
        }
        Ok(decided)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_small_pass_records_complete_sessions_and_no_write_escapes() {
        let scratch = tempfile::tempdir().expect("a folder");
        let folder = OutputFolder::claim(&scratch.path().join("demo")).expect("claimed");
        let key = RootKey::new([3; 32]);
        let size = Size { sessions: 12, trials: 2 };
        let mut events = 0;
        let scenario =
            Scenario { folder: &folder, key: &key, seed: 1, size, clock: || 1_780_000_000_000_000 };
        let result = scenario.run(&mut |_| events += 1).await.expect("the pass runs");
        assert_eq!((result.recorded.whole, result.recorded.torn, result.escaped_writes), (12, 0, 0));
        assert!(result.replays.iter().all(|summary| summary.ran == 24 && summary.endings.complete == 24));
        assert!(result.replays.iter().all(|summary| summary.fidelity.exact > 0));
        assert!(events > 12 + 3 * 24, "{events} events");
        // Twelve sessions are below every floor, so no build can be approved.
        assert!(result.decided.iter().all(|one| one.analysis.verdict.verdict != Decision::Approve));
        assert!(folder.path("reports/harmless/verdict.json").exists());
    }
}
