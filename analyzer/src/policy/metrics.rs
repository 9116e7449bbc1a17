//! Metrics that a policy can name, and their defaults.

use serde::Serialize;

/// A metric the analyzer can compute, and its defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MetricSpec {
    /// Its name.
    pub name: &'static str,
    /// Its family.
    pub family: &'static str,
    /// The default margin.
    pub margin: Margin,
    /// Whether it may block.
    pub decides: bool,
    /// Whether approval needs it.
    pub required: bool,
}

/// How much worse is tolerated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Margin {
    /// A difference on the metric's own scale.
    Difference(f64),
    /// A ratio above 1: of times, tokens or money.
    Ratio(f64),
    /// A share of what the baseline differs from itself.
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

/// Every metric by name, in the order in which a verdict lists them.
pub const METRICS: [MetricSpec; 17] = [
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
];

/// `pass_k`: how many trials must all succeed, where the policy does not say.
pub(crate) const DEFAULT_K: usize = 3;

/// Contrasts of ratios are cut at a ratio of 4 and divided by its logarithm.
pub(crate) const RATIO_RANGE_LN: f64 = 2.0 * std::f64::consts::LN_2;

/// Contrasts of distances are cut at this many times the baseline's own mean dispersion.
pub(crate) const DISPERSION_RANGE: f64 = 1.5;

/// Margin of an invariant that is compared as a rate because the baseline breaks it too.
pub const DEMOTED_MARGIN: f64 = 0.02;

/// What the policy says of one metric; what it does not say is the default of [`METRICS`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct MetricSettings {
    /// How much worse is tolerated.
    pub margin: Option<Margin>,
    /// Whether it may block.
    pub decides: Option<bool>,
    /// Whether approval needs it.
    pub required: Option<bool>,
    /// `pass_k`: how many trials must all succeed.
    pub k: Option<usize>,
    /// `tail_latency`: the bound, milliseconds; else the 95th percentile of both lanes together.
    pub bound_ms: Option<u64>,
}
