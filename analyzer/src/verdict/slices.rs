//! Slices of the cases: those that the policy declares, and those that the subgroup search found.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MetricState, Unit};

/// Result of a metric in a declared slice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SliceResult {
    /// Name of the slice in the policy.
    pub name: String,
    /// Slice names and values that its cases share.
    pub criteria: BTreeMap<String, String>,
    /// Whether the slice can block; it then joins Holm's correction with the deciding metrics.
    pub critical: bool,
    /// Whether approval needs the slice to stay within the margin.
    pub required: bool,
    /// Name of the metric.
    pub metric: String,
    /// Unit of `baseline` and `candidate`.
    pub unit: Unit,
    /// Number of cases of the slice with a value.
    pub cases: u64,
    /// Whether there are enough cases for a test (30); without them every p is 1 and the state is `undecided`.
    pub has_enough_cases: bool,
    /// Smallest number of cases with which any method can show the margin.
    pub floor: u64,
    /// Mean of the baseline over the cases, in `unit`.
    pub baseline: f64,
    /// Mean of the candidate over the cases, in `unit`.
    pub candidate: f64,
    /// Mean contrast, larger is better.
    pub effect: f64,
    /// One-sided bounds of the effect, each at level 1 - alpha.
    pub interval: [f64; 2],
    /// Tolerated worsening, on the scale of `effect`.
    pub margin: f64,
    /// One-sided p of "no deterioration".
    pub p_block: f64,
    /// The same p corrected: by Holm with the deciding metrics if the slice is critical, else by Benjamini and
    /// Hochberg over the other slices.
    pub p_block_adjusted: f64,
    /// One-sided p of "worse than the margin".
    pub p_approve: f64,
    /// State of the metric in the slice.
    pub state: MetricState,
}

/// Result of the subgroup search; it is for review and never decides.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SubgroupSearch {
    /// Name of the metric searched.
    pub metric: String,
    /// Number of slices scored: conjunctions of up to three conditions with enough cases.
    pub searched: u64,
    /// Number of slices left out because there were too many, the smallest first.
    pub left_out: u64,
    /// Number of permutations on which the search was repeated.
    pub permutations: u64,
    /// Score that the worst slice of identical builds falls below with probability alpha; negative.
    pub critical_score: f64,
    /// Slices that stand out, the worst first.
    pub slices: Vec<Subgroup>,
}

/// A slice found by the subgroup search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Subgroup {
    /// Properties and values that its cases share.
    pub criteria: BTreeMap<String, String>,
    /// Number of cases of the slice with a value.
    pub cases: u64,
    /// Mean contrast in the slice, larger is better.
    pub effect: f64,
    /// Mean contrast outside the slice.
    pub effect_elsewhere: f64,
    /// Sum of the contrasts divided by the root of the sum of their squares.
    pub score: f64,
    /// Share of permutations whose worst slice is at least as bad; corrected for the whole search.
    pub p_adjusted: f64,
}
