//! Results of metrics in a verdict.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// State of a metric.
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
    /// Name in `verdict.json`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Unit of a metric's `baseline` and `candidate` values.
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
    /// US dollars (arithmetic mean, each trial up to the cap); effect, interval and margin are shares of the baseline's
    /// mean.
    UsdMean,
}

impl Unit {
    /// Whether effects are logarithms of a ratio to base 4.
    #[must_use]
    pub fn is_ratio(self) -> bool {
        match self {
            Self::Share | Self::Distance | Self::UsdMean => false,
            Self::Seconds | Self::Tokens | Self::Usd => true,
        }
    }
}

/// Result of a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetricResult {
    /// Name of the metric.
    pub name: String,
    /// Family: `outcome`, `effects`, `replay`, `semantic`, `sequence`, `cost` or `invariant`.
    pub family: String,
    /// Whether approval needs the metric.
    pub required: bool,
    /// Number of cases compared.
    pub cases: u64,
    /// Mean of the baseline over the cases, in `unit`.
    pub baseline: f64,
    /// Mean of the candidate over the cases, in `unit`.
    pub candidate: f64,
    /// Mean contrast, candidate minus baseline, oriented so that larger is better.
    pub effect: f64,
    /// One-sided bounds of the effect, each at level 1 - alpha or stricter. The upper bound inverts the block test at the
    /// level at which it decided: corrected for the other deciding metrics (Holm) and, with planned looks, the boundary
    /// of the look (repeated confidence bounds, Jennison and Turnbull 1989). So it is below 0 exactly where the metric
    /// is shown to be worse. The lower bound inverts the approve test. For `anytime`, the bounds are those of the betting
    /// confidence sequence.
    pub interval: [f64; 2],
    /// Tolerated worsening, on the scale of `effect`.
    pub margin: f64,
    /// One-sided p of "no deterioration". With planned looks, a sequential p: the smallest alpha at which the boundary
    /// has been crossed so far. For `anytime`, 1 / the largest capital so far.
    pub p_block: f64,
    /// The same p after Holm's correction over the deciding metrics and critical slices; absent if the metric does not
    /// decide.
    pub p_block_adjusted: Option<f64>,
    /// One-sided p of "worse than the margin", in the sense of `p_block`.
    pub p_approve: f64,
    /// Whether the metric can block.
    pub decides: bool,
    /// State of the metric.
    pub state: MetricState,
    /// Unit of `baseline` and `candidate`.
    pub unit: Unit,
    /// Smallest number of independent units with which any method can show this margin.
    pub floor: u64,
    /// Number of independent units that the cases count as for the floor: the clusters, fewer if their weights differ.
    #[serde(default)]
    pub units: u64,
    /// Number of cases whose contrast was clipped to the metric's range.
    #[serde(default)]
    pub clipped: u64,
    /// Effect adjusted for the recordings; absent without recordings; never decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjusted: Option<Adjusted>,
    /// Correction of the judges' errors by labels; absent where no judge decides a case. `effect`, `interval` and the
    /// p-values are of the corrected effect, `baseline` and `candidate` are means of the scores as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeCorrection>,
    /// Tool whose writes explain at least nine tenths of the change; absent for other metrics and where no single tool
    /// does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// Share of the cost that the dearest 5 % of the trials carry, of the baseline and of the candidate; of `cost_mean`
    /// alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<[f64; 2]>,
}

/// Correction of an effect for the errors of the judges that scored it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JudgeCorrection {
    /// Cases that judges decide.
    pub judged: u64,
    /// Baseline cases with labels and scores.
    pub labelled_baseline: u64,
    /// Candidate cases with labels and scores.
    pub labelled_candidate: u64,
    /// Effect in the scores as given.
    pub scores: f64,
    /// Mean error (label minus score) of the candidate minus that of the baseline, over the cases that judges decide.
    pub correction: f64,
    /// Effect by the plain form (Rogan and Gladen 1978): each lane's share of passes corrected by its own sensitivity
    /// and specificity; absent if either is unknown. It decides nothing.
    pub rogan_gladen: Option<f64>,
}

/// A mean contrast minus its regression on the success of the recording (CUPED, Deng et al. 2013).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Adjusted {
    /// Number of cases with a labelled recording.
    pub cases: u64,
    /// Adjusted mean contrast.
    pub effect: f64,
    /// Standard error of the adjusted mean.
    pub standard_error: f64,
    /// Share of the contrast's variance that the recording explains.
    pub explained: f64,
}

/// Test of whether the candidate's trials and the recording of the same case come from one distribution, for a
/// baseline that is a recording. Shows a difference of build or replay, not harm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExchangeabilityResult {
    /// Quantity compared: `success`, `writes` or `calls`.
    pub name: String,
    /// Number of cases compared.
    pub cases: u64,
    /// One-sided p of "the recording is exchangeable with the candidate's trials".
    pub p: f64,
    /// The same p after Holm's correction over these comparisons.
    pub p_adjusted: f64,
}

/// A metric that could not be computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AbsentMetric {
    /// Name of the metric.
    pub name: String,
    /// Reason in words.
    pub reason: String,
}
