//! The policy with its defaults filled in.

use std::collections::BTreeMap;

use schemas::equality::ArgumentRules;
use serde::Serialize;

use super::invariants::InvariantPolicy;
use super::judge::JudgePolicy;
use super::metrics::{
    DEFAULT_K, DISPERSION_RANGE, METRICS, Margin, MetricSettings, MetricSpec, RATIO_RANGE_LN,
};
use super::sampling::{SamplingPolicy, TrafficPolicy};
use crate::stats::gaffke;

/// Default family-wise level of the block test, and level of each approve test.
pub const DEFAULT_ALPHA: f64 = 0.05;

/// Default share of answers that a faithful replay can miss.
pub const DEFAULT_MAX_MISSED: f64 = 0.05;

/// Default share of trials that the model provider or the infrastructure may have failed.
const DEFAULT_MAX_PROVIDER_FAILURES: f64 = 0.05;
/// Default of the smallest success rate of the baseline that a comparison needs.
pub const DEFAULT_LEAST_BASELINE_SUCCESS: f64 = 0.20;

/// Fidelity that approval needs of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FidelityPolicy {
    /// Largest share of answers per lane that the recordings lack.
    pub max_missed: f64,
    /// Largest share of trials per lane that the model provider or the infrastructure failed.
    pub max_provider_failures: f64,
    /// Whether the re-run baseline must be shown to equal the recording within half the margin of `success`; otherwise
    /// only a proven difference beyond that fails.
    pub equivalence: bool,
}

/// Settings of the drift test.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DriftPolicy {
    /// Declares that the candidate behaves as the baseline: metric `semantic.drift` can block and approval needs it,
    /// unless the policy sets that metric otherwise.
    pub behaviour_neutral: bool,
    /// Whether trials of a session share state (a prompt cache, a seed), so that only all trials of a lane together
    /// are permuted, in the drift test and in every metric.
    pub shared_state: bool,
}

/// A slice that the policy declares before data are seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SlicePolicy {
    /// Slice names and values that its cases share.
    pub criteria: BTreeMap<String, String>,
    /// Whether the slice can block; it then joins the correction over the deciding metrics.
    pub critical: bool,
    /// Whether approval needs the slice to stay within the margin.
    pub required: bool,
    /// Metrics tested in the slice.
    pub metrics: Vec<String>,
}

/// Reference build, with which every candidate is compared besides its baseline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReferencePolicy {
    /// Location of the reference run.
    pub run: Option<String>,
    /// Whether a proven deterioration since the reference blocks.
    pub blocks: bool,
}

/// Relative costs of sessions and trials, for the proposed number of trials.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct NeedPolicy {
    /// Cost of recording and labelling one more session, in any unit.
    pub session_cost: f64,
    /// Cost of one more trial, in the same unit.
    pub trial_cost: f64,
}

/// The policy with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Policy {
    /// Family-wise level of the block test and level of each approve test.
    pub alpha: f64,
    /// Number of looks of a gate; `analyze` takes one.
    pub looks: u32,
    /// Whether the approve test bets on the contrasts in their seeded order, which is proven for every distribution,
    /// instead of using Gaffke's bound, which is more powerful and whose general validity is a conjecture.
    pub strict: bool,
    /// Smallest success rate of the baseline with which a candidate can be approved: not being worse than a build that
    /// fails shows nothing.
    pub least_baseline_success: f64,
    /// The only metrics that decide, if given. Invariants that the baseline breaks too decide in any case.
    pub metrics: Option<Vec<String>>,
    /// Settings by metric.
    pub metric: BTreeMap<String, MetricSettings>,
    /// Declared invariants.
    pub invariant: InvariantPolicy,
    /// How arguments of writes are compared, where not by canonical JSON. A policy without such rules keeps its digest.
    #[serde(skip_serializing_if = "ArgumentRules::is_empty")]
    pub argument: ArgumentRules,
    /// Declared slices by name.
    pub slice: BTreeMap<String, SlicePolicy>,
    /// Fidelity that approval needs.
    pub fidelity: FidelityPolicy,
    /// Settings of the drift test.
    pub drift: DriftPolicy,
    /// How the sessions were sampled.
    pub sampling: SamplingPolicy,
    /// Shares of the traffic by the values of a slice, if given.
    pub traffic: Option<TrafficPolicy>,
    /// Relative costs of sessions and trials.
    pub need: NeedPolicy,
    /// Agreement with labels that a judge needs.
    pub judge: JudgePolicy,
    /// Reference build.
    pub reference: ReferencePolicy,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            alpha: DEFAULT_ALPHA,
            looks: 4,
            strict: false,
            least_baseline_success: DEFAULT_LEAST_BASELINE_SUCCESS,
            metrics: None,
            metric: BTreeMap::new(),
            invariant: InvariantPolicy::default(),
            argument: ArgumentRules::default(),
            slice: BTreeMap::new(),
            fidelity: FidelityPolicy {
                max_missed: DEFAULT_MAX_MISSED,
                max_provider_failures: DEFAULT_MAX_PROVIDER_FAILURES,
                equivalence: false,
            },
            drift: DriftPolicy::default(),
            sampling: SamplingPolicy::default(),
            traffic: None,
            need: NeedPolicy { session_cost: 1.0, trial_cost: 1.0 },
            judge: JudgePolicy::default(),
            reference: ReferencePolicy::default(),
        }
    }
}

impl Policy {
    /// Digest of the policy with its defaults: BLAKE3, 64 hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        let text = serde_json::to_string(self).expect("a policy holds only finite numbers and text keys");
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    /// Settings of a metric.
    #[must_use]
    pub fn settings(&self, name: &str) -> MetricSettings {
        self.metric.get(name).copied().unwrap_or_default()
    }

    /// Whether the metric can block; `default` is that of its specification.
    #[must_use]
    pub fn decides(&self, name: &str, default: bool) -> bool {
        match &self.metrics {
            Some(list) => list.iter().any(|listed| listed == name),
            None => self.settings(name).decides.unwrap_or(default),
        }
    }

    /// Whether a metric can block, and whether approval needs it. `cost_mean` has the roles of `cost` unless the policy
    /// sets its own: whoever requires the cost means what is paid.
    pub(crate) fn roles(&self, spec: &MetricSpec) -> (bool, bool) {
        let own = (self.decides(spec.name, spec.decides), self.requires(spec.name, spec.required));
        if spec.name != "cost_mean" {
            return own;
        }
        let settings = self.settings(spec.name);
        (
            settings.decides.unwrap_or(own.0 || self.decides("cost", false)),
            settings.required.unwrap_or(own.1 || self.requires("cost", false)),
        )
    }

    /// Floor of each metric that approval needs: the smallest number of cases that can show its margin, with this many
    /// trials per case and lane.
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

    /// Whether approval needs the metric; `default` is that of its specification.
    #[must_use]
    pub fn requires(&self, name: &str, default: bool) -> bool {
        let listed = self.metrics.as_ref().is_none_or(|list| list.iter().any(|listed| listed == name));
        listed && self.settings(name).required.unwrap_or(default)
    }
}
