//! How the data were looked at: one look, planned looks, every session; and what was known when.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Decision;

/// How the data were looked at.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum MonitoringKind {
    /// Planned looks at growing shares of the cases, each at its part of alpha (Lan and DeMets 1983, O'Brien-Fleming).
    Looks,
    /// After every case, by betting (Waudby-Smith and Ramdas 2024): valid whenever one stops.
    Anytime,
}

impl MonitoringKind {
    /// The word as it is stored and printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How a verdict was come to, look by look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LookHistory {
    /// How the data were looked at.
    pub kind: MonitoringKind,
    /// Planned looks; 0 for `anytime`.
    pub planned_looks: u32,
    /// Cases that the plan ends with.
    pub planned_cases: u64,
    /// Cases looked at when it was decided, or in the end.
    pub cases: u64,
    /// Whether it was decided before the plan's end.
    pub stopped_early: bool,
    /// Part of alpha that the planned looks had; the rest was kept for an extension. 1 without one.
    pub plan_share: f64,
    /// Looks taken after the plan's end, by betting.
    pub extension_looks: u32,
    /// The looks in their order; for `anytime` some of them, the last one always.
    pub looks: Vec<LookResult>,
}

/// What was known at a look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LookResult {
    /// Its number, from 1.
    pub look: u32,
    /// Cases looked at so far.
    pub cases: u64,
    /// The share of the planned cases (information fraction); over 1 in an extension.
    pub fraction: f64,
    /// Part of alpha spent so far by one test that has all of it.
    pub alpha_spent: f64,
    /// What that test's standard normal quantile of 1 - p must reach here; absent for `anytime` and in an extension.
    pub boundary: Option<f64>,
    /// The answer at this look.
    pub decision: Decision,
    /// The metrics in the verdict's order.
    pub metrics: Vec<LookMetric>,
}

/// A metric at a look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LookMetric {
    /// The metric.
    pub name: String,
    /// Cases with a value so far.
    pub cases: u64,
    /// Mean contrast so far.
    pub effect: f64,
    /// The block test's p at this look alone; for `anytime` 1 / capital.
    pub p_block: f64,
    /// The approve test's p at this look alone; for `anytime` 1 / capital.
    pub p_approve: f64,
    /// The smallest alpha at which the block test has crossed its boundary so far.
    pub p_block_sequential: f64,
    /// The smallest alpha at which the approve test has crossed its boundary so far.
    pub p_approve_sequential: f64,
}
