//! Comparison with a reference build in a verdict.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RunIdentity, Unit};

/// Comparison of the candidate with the reference build that the policy names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReferenceComparison {
    /// The reference run.
    pub reference: RunIdentity,
    /// Number of cases with trials in both runs.
    pub cases: u64,
    /// What follows for the verdict.
    pub effect: ReferencePolicyEffect,
    /// Metrics that decide or that approval needs.
    pub metrics: Vec<ReferenceMetric>,
}

/// What follows from the comparison with the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReferencePolicyEffect {
    /// No deciding metric is proven to be worse.
    None,
    /// A deciding metric is worse; the policy only shows it.
    Shown,
    /// A deciding metric is worse, and the policy blocks.
    Blocks,
}

/// A metric compared with the reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReferenceMetric {
    /// Name of the metric.
    pub name: String,
    /// Unit of the values.
    pub unit: Unit,
    /// Number of cases compared.
    pub cases: u64,
    /// Mean of the reference.
    pub reference: f64,
    /// Mean of the candidate.
    pub candidate: f64,
    /// Sum of the changes since the reference, on the scale of effects.
    pub effect: f64,
    /// One-sided bounds of the effect, as for the metrics of the verdict.
    pub interval: [f64; 2],
    /// One-sided p of "no deterioration since the reference" after Holm's correction; absent if the metric does not
    /// decide.
    pub p_block_adjusted: Option<f64>,
    /// Whether a deterioration is proven that is not shown to stay within the margin.
    pub worse: bool,
}
