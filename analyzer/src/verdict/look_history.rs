//! History of the looks at the data.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Decision;

/// Kind of monitoring.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum MonitoringKind {
    /// Planned looks at growing shares of the cases, each spending part of alpha (Lan and DeMets 1983,
    /// O'Brien-Fleming).
    Looks,
    /// A look after every case, by betting (Waudby-Smith and Ramdas 2024); valid at any stopping time.
    Anytime,
}

impl MonitoringKind {
    /// Name in `verdict.json`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Results look by look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LookHistory {
    /// Kind of monitoring.
    pub kind: MonitoringKind,
    /// Number of planned looks; 0 for `anytime`.
    pub planned_looks: u32,
    /// Number of cases at the end of the plan.
    pub planned_cases: u64,
    /// Number of cases at the last look.
    pub cases: u64,
    /// Whether the decision came before the end of the plan.
    pub stopped_early: bool,
    /// Share of alpha that the planned looks spend; the rest is reserved for an extension. 1 without an extension.
    pub plan_share: f64,
    /// Looks after the end of the plan, by betting.
    pub extension_looks: u32,
    /// Looks in order; for `anytime` a sample of them, always with the last.
    pub looks: Vec<LookResult>,
}

/// Results of a look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LookResult {
    /// Number of the look, from 1.
    pub look: u32,
    /// Number of cases looked at so far.
    pub cases: u64,
    /// Share of the planned cases (information fraction); above 1 in an extension.
    pub fraction: f64,
    /// Part of alpha spent so far by one test that has all of it.
    pub alpha_spent: f64,
    /// Boundary of that test for the standard normal quantile of 1 - p; absent for `anytime` and in an extension.
    pub boundary: Option<f64>,
    /// Decision at this look.
    pub decision: Decision,
    /// Metrics in the verdict's order.
    pub metrics: Vec<LookMetric>,
}

/// Results of a metric at a look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LookMetric {
    /// Name of the metric.
    pub name: String,
    /// Number of cases with a value so far.
    pub cases: u64,
    /// Mean contrast so far.
    pub effect: f64,
    /// P of the block test at this look alone; for `anytime` 1 / capital.
    pub p_block: f64,
    /// P of the approve test at this look alone; for `anytime` 1 / capital.
    pub p_approve: f64,
    /// Smallest alpha at which the block test has crossed its boundary so far.
    pub p_block_sequential: f64,
    /// Smallest alpha at which the approve test has crossed its boundary so far.
    pub p_approve_sequential: f64,
}
