//! Sampling units of a verdict: what counts as independent, and how much each case counts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Unit that is sampled independently of the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SamplingUnit {
    /// A case.
    #[default]
    Case,
    /// A cluster of cases.
    Cluster,
}

/// Whether the lanes ran at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunTiming {
    /// The trials of both lanes ran in the same batches or at the same times.
    Interleaved,
    /// The lanes ran apart: a shift in time cannot be told from a change of the build.
    Apart,
    /// Neither batches nor times are known.
    #[default]
    Unknown,
}

/// Sampling units of the cases compared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sampling {
    /// Unit of the tests, bounds and floors.
    pub unit: SamplingUnit,
    /// Number of units.
    pub units: u64,
    /// Number of cases of the largest unit.
    pub largest: u64,
    /// Whether the means are weighted: by the sampling weights of the cases, or by shares of the traffic.
    pub weighted: bool,
    /// Number of units of equal weight with the same variance of a mean (Kish 1965).
    pub effective_units: f64,
    /// Whether the lanes ran at the same time.
    pub runs: RunTiming,
}
