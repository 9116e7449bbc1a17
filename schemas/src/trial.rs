//! Trials: one replay of one case by one build, or one imported run of it, and the run that holds them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, BuildId, CaseId, SessionId, TenantId};

/// Whose trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// What production did.
    Recorded,
    /// The current build replayed.
    Baseline,
    /// The new build replayed.
    Candidate,
}

impl Lane {
    /// The lane's name as it is stored and printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Baseline => "baseline",
            Self::Candidate => "candidate",
        }
    }
}

/// How a trial ended. A trial that timed out or failed is a failed trial, never a missing one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrialEnding {
    /// The candidate answered every turn.
    Complete,
    /// The candidate refused, crashed or answered with an error.
    Failed,
    /// The candidate did not answer in time.
    TimedOut,
    /// The replay left what the recording can answer, and the policy was to stop there.
    Truncated,
    /// The harness or its surroundings failed, for a reason fixed beforehand (the one kind that may be retried).
    Infrastructure,
}

/// How many of a trial's world answers were found how. Absent in an imported run: absent is not perfect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fidelity {
    /// The recording held the same canonical arguments.
    pub exact: u32,
    /// The recording held the same arguments after normalisation.
    pub normalised: u32,
    /// Answered from a write that this trial made before.
    pub overlaid: u32,
    /// Derived from other recordings.
    pub derived: u32,
    /// Let through to the real service.
    pub live: u32,
    /// Answered by an injected fault.
    pub faulted: u32,
    /// Not answerable; the candidate got an error.
    pub missed: u32,
}

impl Fidelity {
    /// Adds the counts of another trial.
    pub fn add(&mut self, other: &Self) {
        self.exact += other.exact;
        self.normalised += other.normalised;
        self.overlaid += other.overlaid;
        self.derived += other.derived;
        self.live += other.live;
        self.faulted += other.faulted;
        self.missed += other.missed;
    }

    /// All world answers.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.exact + self.normalised + self.overlaid + self.derived + self.live + self.faulted + self.missed
    }
}

/// A place where a trial left the recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// The exchange of the trial.
    pub seq: u32,
    /// `tool_missed`, `model_missed`, `turn_no_longer_follows`.
    pub kind: String,
    /// The tool, where it was one.
    pub tool: Option<String>,
    /// What was asked and what the recording held nearest to it.
    pub detail: String,
}

/// One replay of one case by one build, or one imported run of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Whose traffic.
    pub tenant: TenantId,
    /// Which agent.
    pub agent: AgentId,
    /// Which version of it.
    pub build: Option<BuildId>,
    /// Whose trial.
    pub lane: Lane,
    /// The case; the same name in two runs pairs them.
    pub case: CaseId,
    /// The trial's number within (lane, case), from 0.
    pub trial: u32,
    /// What its exchanges are stored under: unique within the run.
    pub session: SessionId,
    /// Seed of everything random in this trial; the same in both lanes.
    pub seed: Option<u64>,
    /// When it started, UTC, microseconds since 1970; absent where an imported table does not say.
    pub started_at: Option<i64>,
    /// How long the agent took, microseconds: the sum over its turns.
    pub duration_us: Option<u64>,
    /// How it ended.
    pub ending: TrialEnding,
    /// Why, in words.
    pub ending_detail: Option<String>,
    /// Whether the work was done right, where a label came with it or an evaluator said so.
    pub success: Option<bool>,
    /// Where `success` comes from: `label`, `evaluator:NAME`.
    pub success_source: Option<String>,
    /// The agent's last answer.
    pub answer: Option<String>,
    /// Tokens read.
    pub input_tokens: Option<u64>,
    /// Tokens written.
    pub output_tokens: Option<u64>,
    /// US dollars.
    pub cost_usd: Option<f64>,
    /// How many exchanges it has; 0 for an outcome table without transcripts.
    pub exchanges: u32,
    /// Whether exchanges, and so tool calls, are stored at all. `false` for an outcome table.
    pub has_transcript: bool,
    /// How its world answers were found; absent for an imported trial.
    pub fidelity: Option<Fidelity>,
    /// Where it left the recording.
    pub divergences: Vec<Divergence>,
    /// The faults it was given, as JSON; absent where none were planned.
    pub fault_plan: Option<String>,
    /// Whether its recording was whole; a torn one never votes. Absent where there is nothing to check.
    pub complete: Option<bool>,
    /// Slices it belongs to.
    pub slices: BTreeMap<String, String>,
}

/// What a run is about; the content of `run.json`, written before the first trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunManifest {
    /// [`crate::FORMAT`].
    pub format: u32,
    /// The version of the program that wrote it.
    pub tool_version: String,
    /// The lane of its trials; a replayed run holds its cases' recordings too, as lane `recorded`.
    pub lane: Lane,
    /// The build whose trials these are.
    pub build: BuildId,
    /// Where the trials come from: `replay`, or `import:FORMAT`.
    pub source: String,
    /// What answered the candidate's model calls in a replay: `live` or `recorded`; absent for an import.
    #[serde(default)]
    pub model: Option<String>,
    /// Whether the sessions were picked by their outcome: such a run never supports a mean test.
    pub selected: bool,
    /// How many trials of each case were planned; absent for an import.
    pub planned_trials: Option<u32>,
    /// How many cases were planned; absent for an import.
    pub planned_cases: Option<u32>,
    /// Seed of the replay.
    pub seed: Option<u64>,
    /// Names exactly which recordings were read: BLAKE3 over the sorted (session, exchange count) of the corpus.
    pub corpus_digest: Option<String>,
    /// Digest of everything else that must not change when a run is resumed (candidate, faults, world settings).
    pub plan_digest: Option<String>,
}
