//! Trials and runs: a trial is one replay of one case by one build, or one imported run of it; a run is a set of trials.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::columns;
use crate::columns::text_values;
use crate::id::{AgentId, BuildId, CaseId, SessionId, TenantId};

/// The side of a comparison that a trial belongs to.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Lane {
    /// Recorded in production.
    Recorded,
    /// Replayed with the current build.
    Baseline,
    /// Replayed with the new build.
    Candidate,
}

impl Lane {
    /// The name as stored and printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How a trial ended. A trial that timed out or failed is a failed trial, never a missing one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum TrialEnding {
    /// The candidate answered every turn.
    Complete,
    /// The candidate refused, crashed or answered with an error.
    Failed,
    /// The candidate did not answer in time.
    TimedOut,
    /// The trial left the recording and stopped there. Imported runs may have it; the replayer goes on with an error
    /// instead.
    Truncated,
    /// The harness or its environment failed, for a reason fixed in advance. This is the only ending that is retried.
    Infrastructure,
}

text_values! {
    Lane: |value| (*value).into();
    TrialEnding: |value| (*value).into();
}

columns! {
    /// Counts of a trial's tool and model calls by how the world answered them. Null in an imported run.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub struct Fidelity {
        /// Answered from a recording with the same canonical arguments or request.
        pub exact: u32,
        /// Answered from a recording with the same arguments or request after normalisation.
        pub normalised: u32,
        /// Answered without a matching recording: a model call by its number in the trial, a tool call with arguments outside
        /// the tool's schema by a validation error.
        pub derived: u32,
        /// Forwarded to the real model provider.
        pub live: u32,
        /// Answered by an injected fault.
        pub faulted: u32,
        /// Not answerable; the candidate received an error.
        pub missed: u32,
    }
}

impl Fidelity {
    /// Adds the counts of another trial.
    pub fn add(&mut self, other: &Self) {
        self.exact += other.exact;
        self.normalised += other.normalised;
        self.derived += other.derived;
        self.live += other.live;
        self.faulted += other.faulted;
        self.missed += other.missed;
    }

    /// All tool and model calls that the world answered.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.exact + self.normalised + self.derived + self.live + self.faulted + self.missed
    }
}

columns! {
    /// A point where a trial left its recording.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Divergence {
        /// `seq` of the trial's exchange.
        pub seq: u32,
        /// Kind: `tool_missed`, `model_missed`, `request_refused`, `turn_no_longer_follows`.
        pub kind: String,
        /// The tool, for a tool call.
        pub tool: Option<String>,
        /// Method and path of an HTTP request, or the JSON-RPC method, that the world does not answer.
        pub path: Option<String>,
        /// JSON pointer of the first argument that differs from the nearest recorded call.
        pub argument: Option<String>,
        /// The request and the nearest recorded one.
        #[column(payload)]
        pub detail: String,
    }
}

columns! {
    /// Comparison of a trial's model requests with those of the recording.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct ModelInputs {
        /// Number of model requests that had a recorded counterpart.
        pub compared: u32,
        /// Number of these whose prompt, model, tools or parameters differ.
        pub changed: u32,
        /// Name of the first part that differs: `model`, `system prompt`, `tools`, a parameter.
        pub first_part: Option<String>,
        /// The first difference in words.
        #[column(payload)]
        pub first_change: Option<String>,
        /// The distinct differences, at most 32, with dates, times and identifiers masked, so that trials of two runs can be
        /// compared.
        #[column(payload)]
        #[serde(default)]
        pub changes: Vec<String>,
    }
}

/// Value of [`Trial::outcome_missing`]: the table says nothing about the outcome.
pub const BLANK_LABEL: &str = "blank_label";

/// Value of [`Trial::outcome_missing`]: the table has a label that cannot be read.
pub const UNREADABLE_LABEL: &str = "unreadable_label";

columns! {
    /// One replay of one case by one build, or one imported run of it.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Trial {
        /// Tenant of the traffic.
        pub tenant: TenantId,
        /// Agent of the traffic.
        pub agent: AgentId,
        /// Build of the agent, if known.
        pub build: Option<BuildId>,
        /// Side of the comparison: `recorded`, `baseline` or `candidate`.
        pub lane: Lane,
        /// Case; equal case ids pair the trials of two runs.
        pub case: CaseId,
        /// Number of the trial within (lane, case), from 0.
        pub trial: u32,
        /// Session of the trial's exchanges, unique within the run.
        #[column(lookup)]
        pub session: SessionId,
        /// Seed of every random choice in the trial; both lanes use the same.
        pub seed: Option<u64>,
        /// Start, UTC; null if an imported table has no times.
        pub started_at: Option<i64>,
        /// Microseconds that the agent took, summed over its turns.
        pub duration_us: Option<u64>,
        /// How it ended: `complete`, `failed`, `timed_out`, `truncated` or `infrastructure`.
        pub ending: TrialEnding,
        /// Reason of the ending.
        #[column(payload)]
        pub ending_detail: Option<String>,
        /// Whether the task succeeded, by a label or an evaluator.
        pub success: Option<bool>,
        /// Source of `success`: `label` or `evaluator:NAME`.
        pub success_source: Option<String>,
        /// The agent's last answer.
        #[column(payload)]
        pub answer: Option<String>,
        /// Input tokens of the agent's model calls.
        pub input_tokens: Option<u64>,
        /// Output tokens of the agent's model calls.
        pub output_tokens: Option<u64>,
        /// Cost of the agent's model calls in US dollars.
        pub cost_usd: Option<f64>,
        /// Number of exchanges; 0 for an outcome table without transcripts.
        pub exchanges: u32,
        /// Whether exchanges, and so tool calls, are stored; `false` for an outcome table.
        pub has_transcript: bool,
        /// How the world answered the trial's calls; null for an imported trial.
        pub fidelity: Option<Fidelity>,
        /// The part of `fidelity` that counts model calls; null if it is not known.
        pub model_fidelity: Option<Fidelity>,
        /// Points where the trial left the recording.
        pub divergences: Vec<Divergence>,
        /// Model requests compared with the recording's; null where no recorded model answered.
        pub model_inputs: Option<ModelInputs>,
        /// Attempts that the world repeated because the model provider failed; null for an imported trial.
        pub provider_retries: Option<u32>,
        /// Model calls that the provider failed after all attempts; null for an imported trial.
        pub provider_failures: Option<u32>,
        /// Planned faults as JSON; null if none were planned.
        #[column(payload)]
        pub fault_plan: Option<String>,
        /// Whether the trial's session is complete; an incomplete trial never counts. Null if there is nothing to check.
        pub complete: Option<bool>,
        /// Slices of the trial.
        #[column(payload)]
        pub slices: BTreeMap<String, String>,
        /// Independent unit that the case belongs to: a principal, a tenant, a ticket. Null where the case is its own unit.
        #[column(payload)]
        pub cluster: Option<String>,
        /// Sampling weight of the case, positive; null where all cases weigh the same.
        pub weight: Option<f64>,
        /// Batch of trials that ran together, such as one invocation of the replay; null if unknown.
        pub batch: Option<String>,
        /// Reason why an imported trial has no outcome: `blank_label` or `unreadable_label`. Null if the outcome is known, or
        /// the trial was replayed.
        pub outcome_missing: Option<String>,
    }
}

/// Drops the trials that a resumed replay ran again because the infrastructure had failed them, and returns their number.
///
/// Of the rows of one trial, those that the infrastructure failed give way to any other, and if it failed all of them, the
/// last one stays. Rows with another ending are never dropped: twice the same trial is an error of the run.
pub fn supersede(trials: &mut Vec<Trial>) -> usize {
    let key = |trial: &Trial| (trial.lane, trial.case.clone(), trial.trial);
    // Whether a row has a result comes first, so that the infrastructure's failures are the lowest.
    let rank = |trial: &Trial| (trial.ending != TrialEnding::Infrastructure, trial.started_at);
    let mut best: BTreeMap<_, (bool, Option<i64>)> = BTreeMap::new();
    for trial in trials.iter() {
        let highest = best.entry(key(trial)).or_insert_with(|| rank(trial));
        *highest = (*highest).max(rank(trial));
    }
    let before = trials.len();
    trials.retain(|trial| {
        let is_failure = trial.ending == TrialEnding::Infrastructure;
        !is_failure || best.get(&key(trial)).is_none_or(|highest| *highest == rank(trial))
    });
    before - trials.len()
}

/// The content of `run.json`, written before the first trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunManifest {
    /// [`crate::FORMAT`].
    pub format: u32,
    /// Version of the program that wrote the run.
    pub tool_version: String,
    /// Lane of the trials. A replayed run contains the recordings of its cases too, as lane `recorded`.
    pub lane: Lane,
    /// Build of the trials.
    pub build: BuildId,
    /// Source of the trials: `replay` or `import:FORMAT`.
    pub source: String,
    /// Source of the answers to the candidate's model calls: `live` or `recorded`; absent for an import.
    #[serde(default)]
    pub model: Option<String>,
    /// Whether the sessions were selected by their outcome; such a run never supports a mean test.
    pub selected: bool,
    /// Planned trials of each case; absent for an import.
    pub planned_trials: Option<u32>,
    /// Planned cases; absent for an import.
    pub planned_cases: Option<u32>,
    /// Seed of the replay.
    pub seed: Option<u64>,
    /// BLAKE3 over the sorted (session, exchange count) pairs of the recordings that were read.
    pub corpus_digest: Option<String>,
    /// Digest of the candidate, faults and world settings, which must not change when a run is resumed.
    pub plan_digest: Option<String>,
    /// Texts of `--infrastructure`: a failed trial whose error contains one of them was failed by the infrastructure.
    #[serde(default)]
    pub infrastructure: Vec<String>,
    /// Retries of live model calls, in words; absent without live model calls.
    #[serde(default)]
    pub model_retry: Option<String>,
}

/// The content of `_imports/<source>.json` of a run, one for each imported file, written before the commit of its trials. It
/// says what the import set aside; without it a row that cannot be read would leave no trace in the run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRecord {
    /// [`crate::FORMAT`].
    pub format: u32,
    /// Version of the program that imported the file.
    pub tool_version: String,
    /// Name of the file, without its folders.
    pub file: String,
    /// Trials written.
    pub trials: u64,
    /// Rows or items that name no case and trial that can be read. Their outcomes are lost.
    pub lost_rows: u64,
    /// Trials whose label cannot be read. Their outcomes are missing.
    pub unreadable_labels: u64,
    /// Trials whose messages are not in the file or cannot be read. They are incomplete.
    pub lost_messages: u64,
    /// Trials without a label.
    pub blank_labels: u64,
    /// Optional cells that cannot be read; the trial lacks the value.
    pub unreadable_cells: u64,
    /// Repetitions of a trial that equal it, left out.
    pub duplicates: u64,
    /// Trials that `--trial`, `--where` or `--limit` left out.
    pub excluded: u64,
    /// Line and field of the first items that are set aside.
    pub first: Vec<String>,
}
