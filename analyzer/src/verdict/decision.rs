//! The decision and the reasons for it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Decision on the candidate.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Decision {
    /// The candidate can roll out.
    Approve,
    /// The candidate must not roll out: harm is proven.
    Block,
    /// Neither is shown. The verdict's `reasons` give the causes and `need` the sample size.
    Inconclusive,
}

impl Decision {
    /// Name in `verdict.json`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Reason code of a decision; the list is closed.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ReasonCode {
    /// Blocks: the candidate broke a declared invariant that the baseline keeps.
    InvariantViolated,
    /// Blocks: a deciding metric got worse, proven at the family-wise level, and is not shown to stay within its
    /// margin.
    Deteriorated,
    /// Approves: a required metric is shown not to be worse than its margin allows.
    NonInferior,
    /// Remark: a metric got worse, proven, but is shown to stay within its margin.
    DeterioratedWithinMargin,
    /// Inconclusive: the baseline succeeds in fewer trials than the policy demands, so a comparison with it shows nothing.
    BaselineFails,
    /// Inconclusive: the built-in success check can fail in too few cases.
    SuccessCheckVacuous,
    /// Inconclusive: a required metric is not shown to stay within its margin; more sessions are needed.
    Underpowered,
    /// Inconclusive: fewer cases than any method needs at this margin.
    BelowFloor,
    /// Inconclusive: the candidate asks for what the recordings do not hold, and the decision hangs on these trials.
    ReplayLeftRecording,
    /// Inconclusive: the recordings lack too many answers, or the re-run baseline differs from the recording.
    ReplayUnfaithful,
    /// Inconclusive: with a recorded model, the model requests of one lane differ from the recording's, so the recorded
    /// answers say nothing about them. Only a violated invariant still blocks.
    ModelInputChanged,
    /// Inconclusive: the decision depends on whether trials that diverged from the recording count as good or bad.
    TooManyUnscorable,
    /// Inconclusive: the decision depends on whether missing or incomplete trials count as good or bad.
    MissingTrials,
    /// Remark: the baseline itself breaks a declared invariant, so the invariant is compared as a rate.
    BaselineViolatesInvariant,
    /// Inconclusive: the model provider or the infrastructure failed more trials of a lane than the policy allows.
    ProviderFailures,
    /// Inconclusive: the sessions were selected by their outcome, so means regress and show nothing.
    CorpusSelected,
    /// Inconclusive: the baseline is the recording itself, without re-runs.
    BaselineIsRecording,
    /// Inconclusive: no metric that approval needs could be computed.
    NoRequiredMetric,
    /// Inconclusive: a metric that the policy requires by name could not be computed.
    MetricAbsent,
    /// Inconclusive: a declared invariant could not be checked on any trial, or is vacuous.
    InvariantUnchecked,
    /// Inconclusive: the two runs have no case in common.
    NoPairs,
    /// Inconclusive: the lanes are not known to have run at the same time, and the policy refuses to decide on such
    /// runs.
    RunsApart,
    /// Inconclusive: no case stands for a part of the traffic that the policy declares.
    TrafficUncovered,
    /// Remark: the answers changed. The change is for review and is neither better nor worse.
    AnswersChanged,
    /// Remark: the candidate's trials differ from the recording that is the baseline.
    DiffersFromRecording,
    /// Blocks, or a remark, as the policy says: a deciding metric got worse since the reference build, proven.
    WorseThanReference,
    /// Remark: the subgroup search found slices that stand out; review them and add sessions there.
    SliceStandsOut,
}

impl ReasonCode {
    /// Code in `verdict.json`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether more sessions of the same kind can remove this reason of an inconclusive verdict. Where it is false, the
    /// verdict forecasts no sample size: no number of sessions would be enough.
    #[must_use]
    pub fn more_sessions_help(self) -> bool {
        match self {
            Self::Underpowered | Self::BelowFloor => true,
            Self::InvariantViolated
            | Self::Deteriorated
            | Self::NonInferior
            | Self::DeterioratedWithinMargin
            | Self::ReplayLeftRecording
            | Self::BaselineFails
            | Self::SuccessCheckVacuous
            | Self::ReplayUnfaithful
            | Self::ModelInputChanged
            | Self::TooManyUnscorable
            | Self::MissingTrials
            | Self::BaselineViolatesInvariant
            | Self::CorpusSelected
            | Self::BaselineIsRecording
            | Self::NoRequiredMetric
            | Self::MetricAbsent
            | Self::InvariantUnchecked
            | Self::NoPairs
            | Self::AnswersChanged
            | Self::DiffersFromRecording
            | Self::WorseThanReference
            | Self::SliceStandsOut
            | Self::ProviderFailures
            | Self::RunsApart
            | Self::TrafficUncovered => false,
        }
    }
}

/// A reason of the decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// Reason code.
    pub code: ReasonCode,
    /// Metric or invariant concerned, if any.
    pub metric: Option<String>,
    /// The reason in one sentence, with its numbers.
    pub detail: String,
}
