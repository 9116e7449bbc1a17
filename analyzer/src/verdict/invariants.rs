//! Results of declared invariants: rates and bounds, violations by call, mutation check, the envelope.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Result of an invariant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InvariantResult {
    /// Name, equal to the key in the policy.
    pub name: String,
    /// Candidate trials that break the invariant, each confirmed by a second evaluation of the stored trial.
    pub violations: u64,
    /// Candidate cases on which the invariant was checked.
    pub cases: u64,
    /// Upper 95 % bound of the share of cases in which the candidate breaks the invariant (Clopper-Pearson).
    pub upper_bound: f64,
    /// Candidate sessions that break the invariant; the first 20.
    pub examples: Vec<String>,
    /// First violation of each session in `examples`, in words.
    #[serde(default)]
    pub details: Vec<String>,
    /// Baseline trials that break the invariant; above 0, the invariant is compared as a rate.
    #[serde(default)]
    pub violations_baseline: u64,
    /// State of the invariant.
    #[serde(default)]
    pub state: InvariantState,
    /// Counts of the candidate's trials.
    #[serde(default)]
    pub candidate: LaneCheck,
    /// Counts of the baseline's trials.
    #[serde(default)]
    pub baseline: LaneCheck,
    /// Counts of the recordings, one per case, if there are any.
    #[serde(default)]
    pub recorded: Option<LaneCheck>,
    /// Violations of the sessions in `examples`, at most 100.
    #[serde(default)]
    pub violation_examples: Vec<ViolationExample>,
    /// Largest value of `upper_bound` that the policy allows, if set.
    #[serde(default)]
    pub max_rate: Option<f64>,
    /// Candidate violations that a second evaluation did not confirm; they do not block.
    #[serde(default)]
    pub unconfirmed: u64,
    /// Candidate trials with redacted values that the invariant cannot be checked on; above 0, approval is forbidden.
    #[serde(default)]
    pub redacted: u64,
    /// Mutation check of the invariant; absent if it was not run.
    #[serde(default)]
    pub mutation_check: Option<MutationCheck>,
}

/// State of an invariant.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum InvariantState {
    /// No candidate trial breaks the invariant.
    #[default]
    Kept,
    /// A candidate trial breaks the invariant and no baseline trial does: blocks.
    Violated,
    /// The baseline breaks the invariant too: compared as a rate, the metric `invariant.NAME`.
    Demoted,
    /// The invariant applies to no candidate trial, or redaction hides what it would check: forbids approval.
    Unchecked,
    /// No changed baseline trial breaks the invariant: forbids approval.
    Vacuous,
    /// Kept, but by too few cases for the bound that the policy demands: forbids approval.
    TooFewCases,
}

impl InvariantState {
    /// Name in `verdict.json`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Counts of an invariant over the trials of one lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LaneCheck {
    /// Trials on which the invariant was checked.
    pub trials: u64,
    /// Trials that break the invariant.
    pub violations: u64,
    /// Cases on which the invariant was checked.
    pub cases: u64,
    /// Cases in which a trial breaks the invariant.
    pub violating_cases: u64,
    /// `violating_cases` divided by `cases`; 0 without cases.
    pub rate: f64,
    /// Upper 95 % bound of that share (Clopper-Pearson); 1 without cases.
    pub upper_bound: f64,
}

/// A violation by a candidate trial.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ViolationExample {
    /// Id of the case.
    pub case: String,
    /// Number of the trial.
    pub trial: u32,
    /// Session id of the trial's exchanges in its run.
    pub session: String,
    /// Sequence number of the exchange in its session, for a call.
    pub seq: Option<u32>,
    /// Name of the tool, for a call.
    pub tool: Option<String>,
    /// Name of the rule, if the invariant has several.
    pub rule: Option<String>,
    /// JSON pointer into the arguments or the answer; empty for the whole.
    pub pointer: String,
    /// The violation in words.
    pub detail: String,
}

/// Mutation test of an invariant on baseline trials: each rule is checked on trials changed to break it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MutationCheck {
    /// Whether no changed trial broke any rule, so that keeping the invariant shows nothing.
    pub vacuous: bool,
    /// Number of changed trials (mutants).
    pub mutants: u64,
    /// Mutants that broke the rule they were changed for.
    pub killed: u64,
    /// Rules that no mutant broke, each with the reason.
    pub vacuous_rules: Vec<String>,
}

/// Capability envelope that every trial was checked against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnvelopeIdentity {
    /// BLAKE3 of the envelope, schema files included.
    pub digest: String,
    /// Agent that the envelope is for, if set.
    pub agent: Option<String>,
    /// Version of the envelope, if set.
    pub version: Option<String>,
    /// Keys of the envelope that this build does not check, with their lines.
    pub not_checked: Vec<String>,
}
