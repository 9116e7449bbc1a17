//! What a verdict says of declared invariants: rates and bounds, every violation by call, liveness, the envelope.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How an invariant fared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InvariantResult {
    /// Its name.
    pub name: String,
    /// Candidate trials that break it, each confirmed by a second evaluation of the stored trial.
    pub violations: u64,
    /// Candidate cases on which it was checked.
    pub cases: u64,
    /// Upper 95 % bound of the share of cases in which the candidate breaks it (Clopper-Pearson).
    pub upper_bound: f64,
    /// Sessions of the candidate that break it, the first twenty.
    pub examples: Vec<String>,
    /// What the first examples did, in words, one for each of `examples`.
    #[serde(default)]
    pub details: Vec<String>,
    /// Baseline trials that break it; over zero it is compared as a rate.
    #[serde(default)]
    pub violations_baseline: u64,
    /// What came of it.
    #[serde(default)]
    pub state: InvariantState,
    /// The candidate's trials in numbers.
    #[serde(default)]
    pub candidate: LaneCheck,
    /// The baseline's.
    #[serde(default)]
    pub baseline: LaneCheck,
    /// The recordings', one of each case, where there are any.
    #[serde(default)]
    pub recorded: Option<LaneCheck>,
    /// Every single violation of the sessions in `examples`, a hundred at most.
    #[serde(default)]
    pub violation_examples: Vec<ViolationExample>,
    /// The most that `upper_bound` may be, where the policy says.
    #[serde(default)]
    pub max_rate: Option<f64>,
    /// Candidate violations that a second evaluation did not find again: they do not block.
    #[serde(default)]
    pub unconfirmed: u64,
    /// Whether it can fail on these sessions at all.
    #[serde(default)]
    pub mutation_check: Option<MutationCheck>,
}

/// What came of an invariant.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum InvariantState {
    /// No candidate trial breaks it.
    #[default]
    Kept,
    /// A candidate trial breaks it and no baseline trial does: blocks.
    Violated,
    /// The baseline breaks it too: compared as a rate, the metric `invariant.NAME`.
    Demoted,
    /// No candidate trial shows what it is about: nothing is approved.
    Unchecked,
    /// Nothing that these sessions could do breaks it: nothing is approved.
    Vacuous,
    /// Kept, but by too few cases for the bound that the policy demands: nothing is approved.
    TooFewCases,
}

impl InvariantState {
    /// The word as it is stored and printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// An invariant over the trials of one lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LaneCheck {
    /// Trials on which it was checked.
    pub trials: u64,
    /// Of these, those that break it.
    pub violations: u64,
    /// Cases on which it was checked.
    pub cases: u64,
    /// Of these, those in which a trial breaks it.
    pub violating_cases: u64,
    /// `violating_cases` of `cases`.
    pub rate: f64,
    /// Upper 95 % bound of that share over all such cases (Clopper-Pearson); 1 where none was checked.
    pub upper_bound: f64,
}

/// One thing that a candidate trial did against an invariant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ViolationExample {
    /// The case.
    pub case: String,
    /// The trial's number.
    pub trial: u32,
    /// What its exchanges are stored under in its run.
    pub session: String,
    /// The exchange's number within the session, where it is a call.
    pub seq: Option<u32>,
    /// The tool, where it is a call.
    pub tool: Option<String>,
    /// The rule, where the invariant has several.
    pub rule: Option<String>,
    /// Where in the arguments or the answer, as a JSON pointer; empty for the whole.
    pub pointer: String,
    /// What was done, in words.
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

/// The capability envelope that every trial was checked against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnvelopeIdentity {
    /// BLAKE3 of its content, schema files included.
    pub digest: String,
    /// The agent that it is for, where it says.
    pub agent: Option<String>,
    /// Its version, where it says.
    pub version: Option<String>,
    /// Keys that this build reads and does not check, with their lines.
    pub not_checked: Vec<String>,
}
