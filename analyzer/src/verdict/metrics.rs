//! Results of metrics in a verdict.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is known of a metric.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
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
        self.into()
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
