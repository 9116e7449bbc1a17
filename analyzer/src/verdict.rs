//! The verdict as it is written to `verdict.json`, format 1.
//!
//! Fields are only ever added; readers ignore fields that they do not know.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod calibration;
mod decision;
mod drift;
mod inputs;
mod invariants;
mod look_history;
mod metrics;
mod need;
mod outcome;
#[cfg(test)]
mod reference;
mod sampling;
mod since;
mod slices;

pub use calibration::{
    CALIBRATION_FORMAT, Calibration, CalibrationDecisions, CalibrationMetric, CostForecast, RunShifts,
};
pub use decision::{Decision, Reason, ReasonCode};
pub use drift::{Drift, DriftEffect, DriftStatistic, DriftedCase, PermutationUnit, ToolRate};
pub use inputs::{FidelityCounts, LaneMisses, MissedCalls, NoOutcome, PairCounts, ReplayMisses, RunIdentity};
pub use invariants::{
    EnvelopeIdentity, InvariantResult, InvariantState, LaneCheck, MutationCheck, ViolationExample,
};
pub use look_history::{LookHistory, LookMetric, LookResult, MonitoringKind};
pub use metrics::{
    AbsentMetric, Adjusted, ExchangeabilityResult, JudgeCorrection, MetricResult, MetricState, Unit,
};
pub use need::{Need, NeedAdvice, NeedOption, NeedRow};
pub use outcome::{Agreement, EvaluatorResult, LaneAgreement, OutcomeResult, SourceCount};
pub use sampling::{RunTiming, Sampling, SamplingUnit};
pub use since::{ReferenceComparison, ReferenceMetric, ReferencePolicyEffect};
pub use slices::{SliceResult, Subgroup, SubgroupSearch};

/// The version of the verdict's shape.
pub const VERDICT_FORMAT: u32 = 1;

/// The verdict as `verdict.json` holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// [`VERDICT_FORMAT`].
    pub format: u32,
    /// Version of the program that decided.
    pub tool_version: String,
    /// The decision.
    pub verdict: Decision,
    /// Number of times the data were looked at.
    pub looks: u32,
    /// Reasons for the decision, the deciding ones first.
    pub reasons: Vec<Reason>,
    /// Run of the current build.
    pub baseline: RunIdentity,
    /// Run of the new build.
    pub candidate: RunIdentity,
    /// Numbers of cases and trials compared.
    pub pairs: PairCounts,
    /// What counts as independent, and how much each case counts.
    #[serde(default)]
    pub sampling: Sampling,
    /// Declared invariants.
    pub invariants: Vec<InvariantResult>,
    /// Metrics over all cases.
    pub metrics: Vec<MetricResult>,
    /// Metrics that could not be computed.
    #[serde(default)]
    pub absent: Vec<AbsentMetric>,
    /// Sources of `success`, with the measured agreement of each evaluator.
    #[serde(default)]
    pub outcome: OutcomeResult,
    /// Counts of replayed answers by how they were found; absent for imported runs, whose fidelity is unknown.
    pub fidelity: Option<FidelityCounts>,
    /// Calls that the world had no answer to; absent for imported runs.
    #[serde(default)]
    pub misses: Option<ReplayMisses>,
    /// Slices that the policy declares, in the policy's order, by metric.
    #[serde(default)]
    pub slices: Vec<SliceResult>,
    /// Changes for a person to review; none of them decides.
    #[serde(default)]
    pub review: Review,
    /// Sample size that an approval would need.
    pub need: Need,
    /// Facts that a reader needs to judge the numbers, such as what was left out.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Error level and looks of the sequential procedure.
    pub monitoring: Monitoring,
    /// BLAKE3 of the policy with its defaults filled in, 64 hexadecimal digits.
    pub policy_digest: String,
    /// The capability envelope, where one was given.
    #[serde(default)]
    pub envelope: Option<EnvelopeIdentity>,
    /// Digest of the recordings that both runs were replayed from; for imported runs, of the cases and trials compared.
    pub corpus_digest: String,
    /// Seed of the permutations.
    pub seed: u64,
    /// Error rates of the decision on sessions of the baseline, where `foreshadow calibrate` measured them.
    #[serde(default)]
    pub calibration: Option<Calibration>,
    /// Sum of the changes since the reference build; absent where none is named.
    #[serde(default)]
    pub since: Option<ReferenceComparison>,
}

impl Verdict {
    /// JSON Schema (draft 2020-12) of `verdict.json`, published as `schemas/verdict.schema.json`.
    #[must_use]
    pub fn json_schema() -> serde_json::Value {
        let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
        let mut schema = settings.into_generator().into_root_schema_for::<Self>();
        schema.insert("title".to_owned(), format!("Verdict of foreshadow, format {VERDICT_FORMAT}").into());
        schema.to_value()
    }
}

/// Changes for a person to review; none of them decides.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Review {
    /// Test of whether the answers changed; absent where `absent` gives the reason for `semantic.drift`.
    #[serde(default)]
    pub drift: Option<Drift>,
    /// Use of each tool, by name; at most 100, those whose use changed most.
    #[serde(default)]
    pub tools: Vec<ToolRate>,
    /// Comparison of the candidate with a baseline that is a recording; empty otherwise.
    #[serde(default)]
    pub exchangeability: Vec<ExchangeabilityResult>,
    /// Result of the search over all slices; absent where the cases have no properties to search.
    #[serde(default)]
    pub subgroup_search: Option<SubgroupSearch>,
}

/// Error level and looks of the sequential procedure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Monitoring {
    /// Family-wise level of the block test and level of each approve test.
    pub alpha: f64,
    /// Results look by look; absent where all data were looked at once.
    #[serde(default)]
    pub look_history: Option<LookHistory>,
}

#[cfg(test)]
mod tests {
    use super::Verdict;

    #[test]
    fn published_schema_matches_the_types() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/verdict.schema.json");
        let mut current = serde_json::to_string_pretty(&Verdict::json_schema()).expect("a schema is JSON");
        current.push('\n');
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(path, &current).expect("the schema file is writable");
        }
        let published = std::fs::read_to_string(path).expect("the schema is published");
        assert!(
            published == current,
            "{path} differs from the types; run `UPDATE_EXPECT=1 cargo test -p analyzer published_schema` to rewrite it"
        );
    }
}
