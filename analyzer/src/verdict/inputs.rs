//! What a verdict says of the runs compared: identity, numbers of trials, replay fidelity.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A run that was compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunIdentity {
    /// Where it was read from.
    pub run: String,
    /// The build whose trials it holds.
    pub build: String,
}

/// What was compared with what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PairCounts {
    /// Distinct cases in either run.
    pub cases: u64,
    /// Cases with a voting trial in both.
    pub paired: u64,
    /// Cases that only the baseline has.
    pub unpaired_baseline: u64,
    /// Cases that only the candidate has.
    pub unpaired_candidate: u64,
    /// Trials that did not vote because exchanges of them were lost.
    pub incomplete: u64,
    /// The baseline's trials, torn ones included.
    pub trials_baseline: u64,
    /// The candidate's trials, torn ones included.
    pub trials_candidate: u64,
    /// Trials without an outcome in the baseline: planned and not there, of a case that only the other run has, torn,
    /// truncated, or failed by the harness.
    #[serde(default)]
    pub missing_baseline: u64,
    /// The same in the candidate.
    #[serde(default)]
    pub missing_candidate: u64,
}

/// How world answers of the replayed trials were found, over both lanes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FidelityCounts {
    /// The recording held the same canonical arguments.
    pub exact: u64,
    /// The recording held the same arguments after normalisation.
    pub normalised: u64,
    /// Answered without a matching recording.
    pub derived: u64,
    /// Let through to the real service.
    pub live: u64,
    /// Answered by an injected fault.
    pub faulted: u64,
    /// Not answerable.
    pub missed: u64,
}
