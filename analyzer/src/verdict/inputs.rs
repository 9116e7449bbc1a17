//! Runs compared by a verdict: identity, numbers of trials, replay fidelity.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A run of the comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunIdentity {
    /// Path that the run was read from.
    pub run: String,
    /// Build that the run replayed.
    pub build: String,
}

/// Numbers of cases and trials compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PairCounts {
    /// Distinct cases in either run.
    pub cases: u64,
    /// Cases with a complete trial in both runs.
    pub paired: u64,
    /// Cases that only the baseline has.
    pub unpaired_baseline: u64,
    /// Cases that only the candidate has.
    pub unpaired_candidate: u64,
    /// Incomplete trials, which have lost exchanges and count as missing.
    pub incomplete: u64,
    /// Trials of the baseline, incomplete ones included.
    pub trials_baseline: u64,
    /// Trials of the candidate, incomplete ones included.
    pub trials_candidate: u64,
    /// Baseline trials without an outcome, whatever the cause: the sum of `no_outcome_baseline`.
    #[serde(default)]
    pub missing_baseline: u64,
    /// Candidate trials without an outcome, whatever the cause: the sum of `no_outcome_candidate`.
    #[serde(default)]
    pub missing_candidate: u64,
    /// Baseline trials without an outcome, by cause.
    #[serde(default)]
    pub no_outcome_baseline: NoOutcome,
    /// Candidate trials without an outcome, by cause.
    #[serde(default)]
    pub no_outcome_candidate: NoOutcome,
}

/// Numbers of trials of one lane without an outcome, by cause. Each counts once as a success and once as a failure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NoOutcome {
    /// Expected trials that the run does not have: planned and not run, not written to the imported table, or of a case
    /// that only the other run has.
    pub not_written: u64,
    /// Imported rows that belong to no known trial, in excess of `not_written`.
    pub unattributed: u64,
    /// Trials whose label is blank in the imported table.
    pub blank_label: u64,
    /// Trials whose label in the imported table cannot be read.
    pub unreadable_label: u64,
    /// Trials that the evaluator or the end-state check did not score.
    pub not_scored: u64,
    /// Trials that have lost exchanges.
    pub incomplete: u64,
    /// Trials that left their recording and stopped there.
    pub diverged: u64,
    /// Trials that went on after a call that the recording could not answer.
    #[serde(default)]
    pub missed_answer: u64,
    /// Trials in which the harness, its environment or the model provider failed.
    pub infrastructure: u64,
}

impl NoOutcome {
    /// All trials of the lane without an outcome.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.causes().iter().map(|(number, _)| number).sum()
    }

    /// The numbers with their causes in words that complete "trials without an outcome: 3 …".
    #[must_use]
    pub fn causes(&self) -> [(u64, &'static str); 9] {
        let Self {
            not_written,
            unattributed,
            blank_label,
            unreadable_label,
            not_scored,
            incomplete,
            diverged,
            missed_answer,
            infrastructure,
        } = *self;
        [
            (not_written, "not in the run"),
            (unattributed, "in rows that name no trial"),
            (blank_label, "with a blank label"),
            (unreadable_label, "with an unreadable label"),
            (not_scored, "not scored"),
            (incomplete, "incomplete"),
            (diverged, "diverged from the recording"),
            (missed_answer, "with a call that the recording could not answer"),
            (infrastructure, "failed by the infrastructure"),
        ]
    }

    /// The total with its causes, such as `3 (2 not scored, 1 incomplete)`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let causes = self.causes().into_iter().filter(|(number, _)| *number > 0);
        let causes: Vec<String> = causes.map(|(number, cause)| format!("{number} {cause}")).collect();
        if causes.is_empty() { "0".to_owned() } else { format!("{} ({})", self.total(), causes.join(", ")) }
    }

    /// Adds the counts of other trials.
    pub(crate) fn add(&mut self, other: &Self) {
        self.not_written += other.not_written;
        self.unattributed += other.unattributed;
        self.blank_label += other.blank_label;
        self.unreadable_label += other.unreadable_label;
        self.not_scored += other.not_scored;
        self.incomplete += other.incomplete;
        self.diverged += other.diverged;
        self.missed_answer += other.missed_answer;
        self.infrastructure += other.infrastructure;
    }
}

impl PairCounts {
    /// The counts with more trials without an outcome, of the baseline and of the candidate.
    pub(crate) fn with(mut self, unscored: [NoOutcome; 2]) -> Self {
        self.no_outcome_baseline.add(&unscored[0]);
        self.no_outcome_candidate.add(&unscored[1]);
        self.missing_baseline = self.no_outcome_baseline.total();
        self.missing_candidate = self.no_outcome_candidate.total();
        self
    }
}

/// Calls that the world had no answer to, over both lanes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayMisses {
    /// Shares of the baseline, then of the candidate.
    pub lanes: Vec<LaneMisses>,
    /// Missed calls by lane, tool or path, and argument; most calls first.
    pub calls: Vec<MissedCalls>,
    /// Two-sided p-value of equal shares of trials with a miss, by permutation within sessions; absent if no trial of a paired
    /// case has one.
    pub p_lanes: Option<f64>,
}

/// Misses of a lane.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LaneMisses {
    /// `baseline` or `candidate`.
    pub lane: String,
    /// Tool calls.
    pub tool_calls: u64,
    /// Tool calls without an answer.
    pub tool_calls_missed: u64,
    /// Model calls; 0 if the run does not count them apart.
    pub model_calls: u64,
    /// Model calls without an answer.
    pub model_calls_missed: u64,
    /// Replayed trials.
    pub trials: u64,
    /// Trials with at least one miss. They count as missing: once against the candidate and once for it.
    pub trials_missed: u64,
}

/// Missed calls that differ from the recording in the same way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MissedCalls {
    /// `baseline` or `candidate`.
    pub lane: String,
    /// `tool_missed`, `model_missed` or `request_refused`.
    pub kind: String,
    /// The tool, for a tool call.
    pub tool: Option<String>,
    /// The request, where it is no tool call.
    pub path: Option<String>,
    /// JSON pointer of the first argument that differs from the nearest recorded call; absent if there is no such call.
    pub argument: Option<String>,
    /// Number of calls.
    pub calls: u64,
    /// Number of trials that make them.
    pub trials: u64,
}

/// Replayed answers of both lanes by how they were found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FidelityCounts {
    /// The recording has the same canonical arguments.
    pub exact: u64,
    /// The recording has the same arguments after normalisation.
    pub normalised: u64,
    /// Answered without a matching recording.
    pub derived: u64,
    /// The real service answered.
    pub live: u64,
    /// An injected fault answered.
    pub faulted: u64,
    /// No answer was found.
    pub missed: u64,
}
