//! The decision and the reasons for it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The answer.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
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
        self.into()
    }
}

/// Why the answer is what it is: a closed list.
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
        self.into()
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
