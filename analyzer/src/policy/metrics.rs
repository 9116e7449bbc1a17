//! Metrics that a policy can name, and their defaults.

use serde::Serialize;

/// A metric of the analyzer with its defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MetricSpec {
    /// Name in verdicts and policies.
    pub name: &'static str,
    /// Family: `outcome`, `effects`, `replay`, `semantic`, `sequence` or `cost`.
    pub family: &'static str,
    /// Default margin.
    pub margin: Margin,
    /// Whether the metric can block by default.
    pub decides: bool,
    /// Whether approval needs the metric by default.
    pub required: bool,
}

/// Tolerated worsening.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Margin {
    /// A difference on the metric's own scale.
    Difference(f64),
    /// A ratio above 1, for times, tokens and money.
    Ratio(f64),
    /// A share of the baseline's own dispersion.
    OfDispersion(f64),
}

const fn spec(
    name: &'static str,
    family: &'static str,
    margin: Margin,
    decides: bool,
    required: bool,
) -> MetricSpec {
    MetricSpec { name, family, margin, decides, required }
}

/// Every metric, in the order of a verdict.
pub const METRICS: [MetricSpec; 18] = [
    spec("success", "outcome", Margin::Difference(0.05), true, true),
    spec("pass_k", "outcome", Margin::Difference(0.10), true, true),
    spec("agreement", "outcome", Margin::Difference(0.10), false, false),
    spec("effects.duplicated", "effects", Margin::Difference(0.02), true, false),
    spec("effects.missing", "effects", Margin::Difference(0.05), true, false),
    spec("effects.extra", "effects", Margin::Difference(0.05), true, false),
    spec("effects.changed", "effects", Margin::Difference(0.05), false, false),
    spec("effects.drift", "effects", Margin::OfDispersion(0.10), false, false),
    spec("unscorable", "replay", Margin::Difference(0.02), true, false),
    spec("semantic.drift", "semantic", Margin::OfDispersion(0.10), false, false),
    spec("semantic.dispersion", "semantic", Margin::OfDispersion(0.20), false, false),
    spec("sequence.drift", "sequence", Margin::OfDispersion(0.10), false, false),
    spec("sequence.dispersion", "sequence", Margin::OfDispersion(0.20), false, false),
    spec("latency", "cost", Margin::Ratio(1.10), false, false),
    spec("tail_latency", "cost", Margin::Difference(0.02), false, false),
    spec("tokens", "cost", Margin::Ratio(1.10), false, false),
    spec("cost", "cost", Margin::Ratio(1.10), false, false),
    spec("cost_mean", "cost", Margin::Ratio(1.10), false, false),
];

/// Default of `metric.pass_k.k`.
pub(crate) const DEFAULT_K: usize = 3;

/// Contrasts of ratios are clipped at a ratio of 4 and divided by its logarithm.
pub(crate) const RATIO_RANGE_LN: f64 = 2.0 * std::f64::consts::LN_2;

/// Contrasts of distances are clipped at this multiple of the mean distance of two trials of a case, of any lane.
pub(crate) const DISPERSION_RANGE: f64 = 1.5;

/// Margin of an invariant that is compared as a rate because the baseline breaks it too.
pub const DEMOTED_MARGIN: f64 = 0.02;

/// Settings of one metric in the policy; absent settings have the defaults of [`METRICS`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct MetricSettings {
    /// Tolerated worsening.
    pub margin: Option<Margin>,
    /// Whether the metric can block.
    pub decides: Option<bool>,
    /// Whether approval needs the metric.
    pub required: Option<bool>,
    /// `pass_k`: number of trials that must all succeed.
    pub k: Option<usize>,
    /// `tail_latency`: bound, milliseconds; by default the 95th percentile of both lanes together.
    pub bound_ms: Option<u64>,
    /// `cost_mean`: cap of a trial's cost, US dollars; by default the dearest trial of both lanes.
    pub cap_usd: Option<f64>,
}
