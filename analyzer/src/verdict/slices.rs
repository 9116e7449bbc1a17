//! Slices of the cases in a verdict: those that the policy names, and those that a search found.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MetricState, Unit};

/// A metric in a slice that the policy names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SliceResult {
    /// The slice's name in the policy.
    pub name: String,
    /// What its cases have in common.
    pub criteria: BTreeMap<String, String>,
    /// Whether the slice may block: it joins Holm's correction with the deciding metrics.
    pub critical: bool,
    /// Whether approval needs the slice to stay within the margin.
    pub required: bool,
    /// The metric.
    pub metric: String,
    /// What `baseline` and `candidate` are measured in.
    pub unit: Unit,
    /// Cases of the slice that have the metric.
    pub cases: u64,
    /// Whether there are enough cases to say anything (30); if not, all p are 1 and the state is `undecided`.
    pub has_enough_cases: bool,
    /// The fewest cases with which the margin can be shown at all.
    pub floor: u64,
    /// Mean over the cases, baseline, in `unit`.
    pub baseline: f64,
    /// Mean over the cases, candidate, in `unit`.
    pub candidate: f64,
    /// Mean contrast, larger is better.
    pub effect: f64,
    /// One-sided bounds of the effect at level 1 - alpha each.
    pub interval: [f64; 2],
    /// How much worse is tolerated, on the scale of `effect`.
    pub margin: f64,
    /// One-sided p of "no deterioration".
    pub p_block: f64,
    /// The same corrected: by Holm with the deciding metrics where the slice is critical, else by Benjamini and Hochberg
    /// over the other slices.
    pub p_block_adjusted: f64,
    /// One-sided p of "worse than the margin".
    pub p_approve: f64,
    /// What is known.
    pub state: MetricState,
}

/// What a search over all slices found; for review, it never decides.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SubgroupSearch {
    /// The metric that was searched.
    pub metric: String,
    /// Slices looked at: conjunctions of up to three conditions with enough cases.
    pub searched: u64,
    /// Slices left out because there were too many, the smallest first; 0 where none.
    pub left_out: u64,
    /// Relabellings that the whole search was repeated on.
    pub permutations: u64,
    /// The score that the worst slice of identical builds exceeds with probability alpha, negative.
    pub critical_score: f64,
    /// Slices that stand out, the worst first.
    pub slices: Vec<Subgroup>,
}

/// A slice that a search found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Subgroup {
    /// What its cases have in common.
    pub criteria: BTreeMap<String, String>,
    /// Its cases that have the metric.
    pub cases: u64,
    /// Mean contrast in the slice, larger is better.
    pub effect: f64,
    /// Mean contrast outside of it.
    pub effect_elsewhere: f64,
    /// Sum of the contrasts over the root of the sum of their squares.
    pub score: f64,
    /// How often the worst slice of a relabelling is as bad: right for the whole search.
    pub p_adjusted: f64,
}
