//! The verdict as it is written to `verdict.json`, format 1.
//!
//! Fields are only ever added; readers ignore fields that they do not know.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::outcome::OutcomeResult;

mod calibration;
mod drift;
mod invariants;
mod look_history;
#[cfg(test)]
mod reference;
mod slices;

pub use calibration::{
    CALIBRATION_FORMAT, Calibration, CalibrationDecisions, CalibrationMetric, CostForecast,
};
pub use drift::{Drift, DriftEffect, DriftStatistic, DriftedCase, PermutationUnit, ToolRate};
pub use invariants::{
    EnvelopeIdentity, InvariantResult, InvariantState, LaneCheck, MutationCheck, ViolationExample,
};
pub use look_history::{LookHistory, LookMetric, LookResult, MonitoringKind};
pub use slices::{SliceResult, Subgroup, SubgroupSearch};

/// The version of the verdict's shape.
pub const VERDICT_FORMAT: u32 = 1;

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The candidate may roll out.
    Approve,
    /// The candidate must not roll out: harm is proven.
    Block,
    /// Neither is shown; [`Verdict::reasons`] says why and [`Verdict::need`] what it would take.
    Inconclusive,
}

impl Decision {
    /// The word as it is stored and printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Block => "block",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// Why the answer is what it is: a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// Blocks: the candidate broke an invariant that somebody declared and that the baseline keeps.
    InvariantViolated,
    /// Blocks: a deciding metric got worse, proven at the family-wise level, and not shown to stay within its margin.
    Deteriorated,
    /// Approves: a required metric is shown not to be worse than its margin allows.
    NonInferior,
    /// Remark: worse, proven, but shown to stay within the margin.
    DeterioratedWithinMargin,
    /// Inconclusive: a required metric is not shown to stay within its margin; more sessions are needed.
    Underpowered,
    /// Inconclusive: fewer cases than any method needs at this margin.
    BelowFloor,
    /// Inconclusive: the replay's world answered too little as recorded, or the re-run baseline differs from the recording.
    ReplayUnfaithful,
    /// Inconclusive: whether trials that left the recording are counted good or bad changes the answer.
    TooManyUnscorable,
    /// Inconclusive: whether missing or torn trials are counted good or bad changes the answer.
    MissingTrials,
    /// Remark: the baseline itself breaks a declared invariant, so it is compared as a rate.
    BaselineViolatesInvariant,
    /// Inconclusive: the sessions were picked by their outcome, so means regress and say nothing.
    CorpusSelected,
    /// Inconclusive: the baseline is the recording itself, with no re-runs to compare with.
    BaselineIsRecording,
    /// Inconclusive: no metric that approval needs could be computed.
    NoRequiredMetric,
    /// Inconclusive: a metric that the policy requires by name could not be computed.
    MetricAbsent,
    /// Inconclusive: an invariant that the policy declares could not be checked on any trial.
    InvariantUnchecked,
    /// Inconclusive: the two runs have no case in common.
    NoPairs,
    /// Remark: the answers changed, which is for review; it says nothing of better or worse.
    AnswersChanged,
    /// Remark: the candidate's trials are not like the recording that stands for the baseline.
    DiffersFromRecording,
    /// Remark: slices that nobody named stand out; look at them and add sessions there.
    SliceStandsOut,
}

impl ReasonCode {
    /// The code as it is stored and printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvariantViolated => "invariant_violated",
            Self::Deteriorated => "deteriorated",
            Self::NonInferior => "non_inferior",
            Self::DeterioratedWithinMargin => "deteriorated_within_margin",
            Self::Underpowered => "underpowered",
            Self::BelowFloor => "below_floor",
            Self::ReplayUnfaithful => "replay_unfaithful",
            Self::TooManyUnscorable => "too_many_unscorable",
            Self::MissingTrials => "missing_trials",
            Self::BaselineViolatesInvariant => "baseline_violates_invariant",
            Self::CorpusSelected => "corpus_selected",
            Self::BaselineIsRecording => "baseline_is_recording",
            Self::NoRequiredMetric => "no_required_metric",
            Self::MetricAbsent => "metric_absent",
            Self::InvariantUnchecked => "invariant_unchecked",
            Self::NoPairs => "no_pairs",
            Self::AnswersChanged => "answers_changed",
            Self::DiffersFromRecording => "differs_from_recording",
            Self::SliceStandsOut => "slice_stands_out",
        }
    }
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// Its code.
    pub code: ReasonCode,
    /// The metric or invariant that it is about, where it is about one.
    pub metric: Option<String>,
    /// The reason in one sentence, with its numbers.
    pub detail: String,
}

/// A run that was compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunIdentity {
    /// Where it was read from.
    pub run: String,
    /// The build whose trials it holds.
    pub build: String,
}

/// What was compared with what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PairCounts {
    /// Distinct cases in either run.
    pub cases: u64,
    /// Cases with a voting trial in both.
    pub paired: u64,
    /// Cases that only the baseline has.
    pub unpaired_baseline: u64,
    /// Cases that only the candidate has.
    pub unpaired_candidate: u64,
    /// Trials that did not vote because exchanges of them were lost.
    pub incomplete: u64,
    /// The baseline's trials, torn ones included.
    pub trials_baseline: u64,
    /// The candidate's trials, torn ones included.
    pub trials_candidate: u64,
    /// Trials without an outcome in the baseline: planned and not there, of a case that only the other run has, torn,
    /// truncated, or failed by the harness.
    #[serde(default)]
    pub missing_baseline: u64,
    /// The same in the candidate.
    #[serde(default)]
    pub missing_candidate: u64,
}

/// What is known of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MetricState {
    /// Shown not to be worse than its margin.
    NonInferior,
    /// Shown to be worse, and not shown to stay within its margin.
    Deteriorated,
    /// Shown to be worse, and shown to stay within its margin.
    DeterioratedWithinMargin,
    /// Neither is shown.
    Undecided,
}

impl MetricState {
    /// The word as it is stored and printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NonInferior => "non_inferior",
            Self::Deteriorated => "deteriorated",
            Self::DeterioratedWithinMargin => "deteriorated_within_margin",
            Self::Undecided => "undecided",
        }
    }
}

/// What `baseline` and `candidate` of a metric are measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A share between 0 and 1; effect, interval and margin are differences of it.
    Share,
    /// A distance between 0 and 1; effect, interval and margin are differences of it.
    Distance,
    /// Seconds (geometric mean); effect, interval and margin are logarithms of the ratio to base 4.
    Seconds,
    /// Tokens (geometric mean); as for seconds.
    Tokens,
    /// US dollars (geometric mean); as for seconds.
    Usd,
}

impl Unit {
    /// Whether effects are logarithms of a ratio to base 4.
    #[must_use]
    pub fn is_ratio(self) -> bool {
        match self {
            Self::Share | Self::Distance => false,
            Self::Seconds | Self::Tokens | Self::Usd => true,
        }
    }
}

/// How a metric fared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetricResult {
    /// Its name.
    pub name: String,
    /// `outcome`, `effects`, `replay`, `semantic`, `sequence`, `cost` or `invariant`.
    pub family: String,
    /// Whether approval needs it.
    pub required: bool,
    /// Cases compared.
    pub cases: u64,
    /// Mean over the cases, baseline, in `unit`.
    pub baseline: f64,
    /// Mean over the cases, candidate, in `unit`.
    pub candidate: f64,
    /// Mean contrast, candidate minus baseline, oriented so that larger is better.
    pub effect: f64,
    /// One-sided bounds of the effect at level 1 - alpha each; under looks at the level of the last look (repeated
    /// confidence bounds), under `anytime` those of the betting confidence sequence.
    pub interval: [f64; 2],
    /// How much worse is tolerated, on the scale of `effect`.
    pub margin: f64,
    /// One-sided p of "no deterioration"; under looks the smallest alpha at which its boundary has been crossed so far
    /// (a sequential p), under `anytime` 1 / the largest capital so far.
    pub p_block: f64,
    /// The same after Holm's correction over the deciding metrics and critical slices; absent where the metric does not
    /// decide.
    pub p_block_adjusted: Option<f64>,
    /// One-sided p of "worse than the margin"; under looks and `anytime` as for `p_block`.
    pub p_approve: f64,
    /// Whether it may block.
    pub decides: bool,
    /// What is known.
    pub state: MetricState,
    /// What `baseline` and `candidate` are measured in.
    pub unit: Unit,
    /// The fewest cases with which this margin can be shown at all.
    pub floor: u64,
    /// Cases whose contrast was cut to the metric's range.
    #[serde(default)]
    pub clipped: u64,
    /// The effect with what the recordings explain taken out; absent without recordings, and for reading only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjusted: Option<Adjusted>,
}

/// A mean contrast less its regression on the success of the recording (CUPED, Deng et al. 2013).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Adjusted {
    /// Cases with a labelled recording.
    pub cases: u64,
    /// The adjusted mean contrast.
    pub effect: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Share of the contrast's variance that the recording explains.
    pub explained: f64,
}

/// Whether the candidate's trials and the recording of the same case look drawn from one distribution, for a baseline that
/// is a recording. Evidence of a difference, of the builds or of the replay, not of harm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExchangeabilityResult {
    /// What was compared: a metric, `calls` or another description of a trial.
    pub name: String,
    /// Cases compared.
    pub cases: u64,
    /// One-sided p of "the recording is like any of the candidate's trials".
    pub p: f64,
    /// The same after Holm's correction over these comparisons.
    pub p_adjusted: f64,
}

/// A metric that could not be computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AbsentMetric {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// How world answers of the replayed trials were found, over both lanes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FidelityCounts {
    /// The recording held the same canonical arguments.
    pub exact: u64,
    /// The recording held the same arguments after normalisation.
    pub normalised: u64,
    /// Answered without a matching recording.
    pub derived: u64,
    /// Let through to the real service.
    pub live: u64,
    /// Answered by an injected fault.
    pub faulted: u64,
    /// Not answerable.
    pub missed: u64,
}

/// What it would take to approve a build that is as the candidate looks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Need {
    /// Cases in all, not in addition; 0 where nothing more is needed or it cannot be reached.
    pub cases: u64,
    /// Trials of each case in each lane that this counts with.
    pub trials: u64,
    /// Predicted probability of approval with that many.
    pub predicted_approve: f64,
    /// Whether more cases of this kind can lead to approval at all.
    #[serde(default)]
    pub reachable: bool,
    /// Other ways to the same power: cases by trials of each.
    #[serde(default)]
    pub options: Vec<NeedOption>,
    /// What adding cases would bring, by cases added and trials of each.
    #[serde(default)]
    pub table: Vec<NeedRow>,
    /// Trials of each case that reach the power at the least cost; absent where the runs do not say.
    #[serde(default)]
    pub best_trials: Option<u64>,
    /// Whether more cases or more trials of each help more; absent where the runs do not say.
    #[serde(default)]
    pub advice: Option<NeedAdvice>,
    /// The same in one sentence.
    #[serde(default)]
    pub detail: String,
}

/// A way to the wanted power.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NeedOption {
    /// Trials of each case in each lane.
    pub trials: u64,
    /// Cases.
    pub cases: u64,
    /// Trials in all, both lanes.
    pub trials_total: u64,
}

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

/// What a number of cases more would bring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NeedRow {
    /// Cases to add.
    pub extra_cases: u64,
    /// Cases in all.
    pub cases: u64,
    /// Trials in each lane of each case that is added.
    pub trials: u64,
    /// Predicted probability of approval then.
    pub predicted_approve: f64,
    /// Trials to add, both lanes.
    pub trials_added: u64,
    /// What these cost, US dollars, at the mean cost of the trials that are there.
    #[serde(default)]
    pub cost_usd: Option<f64>,
}

/// What helps more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NeedAdvice {
    /// Most of the variance is between cases: more trials of the same cases cannot remove it.
    AddSessions,
    /// Most of the variance is within cases: more trials of each help as well.
    AddSessionsOrTrials,
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
