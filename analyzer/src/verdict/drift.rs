//! Changes for review: answers that drift, tools used more or less.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Drift test of the answers (DECISION 1.9): evidence of change, not of harm.
///
/// Distances are cosine distances of the embedded answers. The drift of a case is the mean distance between the lanes
/// minus the mean distance within the lanes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Drift {
    /// Model that embedded the answers.
    pub model: String,
    /// Number of cases with an embedded answer in both lanes.
    pub cases: u64,
    /// Embedded answers of the baseline in these cases.
    pub trials_baseline: u64,
    /// Embedded answers of the candidate in these cases.
    pub trials_candidate: u64,
    /// Unit of the permutations.
    pub permutation_unit: PermutationUnit,
    /// Number of permutations evaluated, the observed labels included.
    pub permutations: u64,
    /// Whether all permutations were evaluated.
    pub is_exact: bool,
    /// Bandwidth of the Gaussian kernel: the median Euclidean distance of two answers to one case.
    pub bandwidth: f64,
    /// Mean distance of two baseline answers to one case; absent with one trial per case.
    pub distance_baseline: Option<f64>,
    /// Mean distance of two candidate answers to one case; absent with one trial per case.
    pub distance_candidate: Option<f64>,
    /// Mean distance between a baseline answer and a candidate answer to one case.
    pub distance_between: f64,
    /// Mean drift over the cases with two trials in both lanes; 0 on average for identical builds.
    pub drift: Option<f64>,
    /// Results of each statistic.
    pub statistics: Vec<DriftStatistic>,
    /// Westfall-Young min-p: probability for identical builds that the smallest p of the statistics is at most this
    /// small (Westfall and Young 1993).
    pub p_min: f64,
    /// Whether the answers changed: `p_min` is at most the policy's alpha.
    pub changed: bool,
    /// Consequence of a change.
    pub effect: DriftEffect,
    /// Cases with the largest drift, in descending order; at most 20.
    pub drifted: Vec<DriftedCase>,
    /// Result in one sentence.
    pub detail: String,
}

/// Unit that the permutations of the drift test exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PermutationUnit {
    /// Trials of a case.
    Trials,
    /// Whole arms of a case, because the policy declares that its trials share state.
    Sessions,
}

/// Consequence of a change of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriftEffect {
    /// The change is for review.
    Review,
    /// The policy declares the build neutral: metric `semantic.drift` can block, and approval needs it.
    Block,
}

/// Result of a drift statistic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DriftStatistic {
    /// `within` (change of each session), `cross` (change common to the sessions), `dispersion` (more or less variety)
    /// or `single` (the only trial of a lane differs from the other lane's).
    pub name: String,
    /// Number of cases with this statistic.
    pub cases: u64,
    /// Value of the statistic.
    pub value: f64,
    /// Probability of a value as extreme for identical builds.
    pub p: f64,
    /// The same probability as a share of the evaluated permutations; `p` is more exact in the tail, where it comes
    /// from a saddlepoint approximation.
    pub p_permutation: f64,
}

/// A case with large drift.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DriftedCase {
    /// Id of the case.
    pub case: String,
    /// Drift of the case.
    pub drift: f64,
    /// Share of the case's own permutations with a distance between the lanes at least as large.
    pub p: f64,
}

/// Use of a tool. A change is for review and never decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ToolRate {
    /// Name of the tool.
    pub tool: String,
    /// Share of the baseline's trials that call the tool, mean over the cases.
    pub called_baseline: f64,
    /// Share of the candidate's trials that call the tool, mean over the cases.
    pub called_candidate: f64,
    /// Two-sided p of "no change" by within-session permutation; not corrected for the number of tools.
    pub p_called: f64,
    /// Number of cases with transcripts in both lanes.
    pub cases: u64,
    /// Share of the baseline's trials with a write of the tool in another order than the recording, mean over the
    /// cases; absent without a recording or if the tool does not write.
    pub reordered_baseline: Option<f64>,
    /// The same share of the candidate's trials.
    pub reordered_candidate: Option<f64>,
}
