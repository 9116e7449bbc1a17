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
    /// Baseline trials without an outcome: planned and not run, of a case that only the other run has, incomplete,
    /// truncated, or failed by the infrastructure.
    #[serde(default)]
    pub missing_baseline: u64,
    /// Candidate trials without an outcome.
    #[serde(default)]
    pub missing_candidate: u64,
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
