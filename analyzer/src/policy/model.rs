//! The policy with its defaults filled in.

use std::collections::BTreeMap;

use serde::Serialize;

use super::invariants::InvariantPolicy;
use super::judge::JudgePolicy;
use super::metrics::{
    DEFAULT_K, DISPERSION_RANGE, METRICS, Margin, MetricSettings, MetricSpec, RATIO_RANGE_LN,
};
use crate::stats::gaffke;

/// Family-wise level of the block test, and the level of each approve test.
pub const DEFAULT_ALPHA: f64 = 0.05;

/// Share of world answers that may be missed before a replay says too little.
pub const DEFAULT_MAX_MISSED: f64 = 0.05;

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
