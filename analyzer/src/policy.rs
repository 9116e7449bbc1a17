//! The policy: what may block, what approval needs, how much worse is tolerated; from `policy.toml`, every key optional.
//!
//! It knows nothing of data: a margin is what the business tolerates and is fixed before a candidate is seen.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::stats::gaffke;

mod invariants;
mod judge;
mod parse;

pub use invariants::{
    DeclaredEnvelope, Forbidden, INVARIANTS, Idempotency, InvariantPolicy, MonotonicEffects, OrderRule,
};
pub use judge::JudgePolicy;
pub use parse::PolicyError;

/// Family-wise level of the block test, and the level of each approve test.
pub const DEFAULT_ALPHA: f64 = 0.05;

/// Share of world answers that may be missed before a replay says too little.
pub const DEFAULT_MAX_MISSED: f64 = 0.05;

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

/// How far a replay may stray from the recording before it says too little.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FidelityPolicy {
    /// Share of world answers in a lane that may be missed.
    pub max_missed: f64,
    /// Require that the re-run baseline is shown to equal the recording within half the margin of `success`; otherwise
    /// only a proven difference over that counts.
    pub equivalence: bool,
}

/// How a change of answers is looked for, and what it leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DriftPolicy {
    /// The candidate is declared to behave as the baseline does: metric `semantic.drift` may block, and approval needs it,
    /// unless the policy says otherwise of that metric itself.
    pub behaviour_neutral: bool,
    /// Trials of a session share state (a prompt cache, a seed), so that only whole arms may be relabelled.
    pub shared_state: bool,
}

/// A slice of the cases that the policy names before data are seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SlicePolicy {
    /// What its cases have in common: slices and their values.
    pub criteria: BTreeMap<String, String>,
    /// Whether it may block: then it joins the correction over the deciding metrics.
    pub critical: bool,
    /// Whether approval needs it to stay within the margin.
    pub required: bool,
    /// The metrics that are tested in it.
    pub metrics: Vec<String>,
}

/// What sessions and trials cost, one against the other, for the number of trials that is proposed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct NeedPolicy {
    /// Cost of one more session, apart from its trials (recording and labelling it), in any unit.
    pub session_cost: f64,
    /// Cost of one more trial, in the same unit.
    pub trial_cost: f64,
}

/// The policy with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Policy {
    /// Family-wise level of the block test and level of each approve test.
    pub alpha: f64,
    /// How many looks a gate takes; `analyze` takes one.
    pub looks: u32,
    /// The approve test bets on the contrasts in their seeded order (proven for every distribution) instead of taking
    /// Gaffke's bound (more powerful, its general validity a conjecture).
    pub strict: bool,
    /// Where given, only these metrics decide.
    pub metrics: Option<Vec<String>>,
    /// What is said of single metrics.
    pub metric: BTreeMap<String, MetricSettings>,
    /// The declared invariants.
    pub invariant: InvariantPolicy,
    /// Slices of the cases that are judged apart, by name.
    pub slice: BTreeMap<String, SlicePolicy>,
    /// The fidelity that approval needs.
    pub fidelity: FidelityPolicy,
    /// How a change of answers is looked for.
    pub drift: DriftPolicy,
    /// What sessions and trials cost.
    pub need: NeedPolicy,
    /// What a judge must be shown to agree with labels before it votes.
    pub judge: JudgePolicy,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            alpha: DEFAULT_ALPHA,
            looks: 4,
            strict: false,
            metrics: None,
            metric: BTreeMap::new(),
            invariant: InvariantPolicy::default(),
            slice: BTreeMap::new(),
            fidelity: FidelityPolicy { max_missed: DEFAULT_MAX_MISSED, equivalence: false },
            drift: DriftPolicy::default(),
            need: NeedPolicy { session_cost: 1.0, trial_cost: 1.0 },
            judge: JudgePolicy::default(),
        }
    }
}

impl Policy {
    /// Reads `policy.toml`.
    ///
    /// # Errors
    /// Names the key, what was expected and what was found.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        parse::parse(text)
    }

    /// Names the policy as understood, defaults included: BLAKE3, 64 hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        let text = serde_json::to_string(self).expect("a policy holds only finite numbers and text keys");
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    /// What the policy says of a metric.
    #[must_use]
    pub fn settings(&self, name: &str) -> MetricSettings {
        self.metric.get(name).copied().unwrap_or_default()
    }

    /// Whether the metric may block; `default` is what its specification says.
    #[must_use]
    pub fn decides(&self, name: &str, default: bool) -> bool {
        match &self.metrics {
            Some(list) => list.iter().any(|listed| listed == name),
            None => self.settings(name).decides.unwrap_or(default),
        }
    }

    /// The fewest cases with which each metric that approval needs by default or by name can be shown to stay within its
    /// margin, with this many trials of each case in each lane.
    #[must_use]
    pub fn floors(&self, trials: u32) -> Vec<(&'static str, u64)> {
        let needed = METRICS.iter().filter(|spec| self.requires(spec.name, spec.required));
        let computable = needed.filter(|spec| {
            let k = self.settings(spec.name).k.unwrap_or(DEFAULT_K);
            spec.name != "pass_k" || trials as usize >= k
        });
        let floor = |spec: &MetricSpec| {
            let share = match self.settings(spec.name).margin.unwrap_or(spec.margin) {
                Margin::Difference(share) => share,
                Margin::Ratio(ratio) => ratio.ln() / RATIO_RANGE_LN,
                Margin::OfDispersion(share) => share / DISPERSION_RANGE,
            };
            (spec.name, gaffke::floor(self.alpha, share, -1.0))
        };
        computable.map(floor).collect()
    }

    /// Whether approval needs the metric; `default` is what its specification says.
    #[must_use]
    pub fn requires(&self, name: &str, default: bool) -> bool {
        let listed = self.metrics.as_ref().is_none_or(|list| list.iter().any(|listed| listed == name));
        listed && self.settings(name).required.unwrap_or(default)
    }
}
