//! Acceptance figures, one file per kind, and the code that they share.

use analyzer::{AnalysisRequest, MonitoringPlan, Policy, Verdict};
use schemas::trial::Lane;

use crate::rng::SimulationRng;
use crate::table::{self, Table};

mod approve;
mod baselines;
mod block;
mod determinism;
mod fidelity;
mod judge;
mod kernel;
mod numbers;
mod power;
mod real;
mod sampling;
mod shifts;
mod speed;

/// Size of the simulation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scale {
    /// Seconds, for the test suite.
    Short,
    /// Named command: this share of the repetitions of the acceptance table.
    Full(f64),
}

impl Scale {
    /// Full size, times `FORESHADOW_CALIBRATION_SHARE`.
    pub(crate) fn full() -> Self {
        let share = std::env::var("FORESHADOW_CALIBRATION_SHARE").ok();
        let share = share.map_or(1.0, |text| text.parse().expect("FORESHADOW_CALIBRATION_SHARE is a number"));
        Self::Full(share)
    }

    /// Number of repetitions: of the acceptance table, or of the short version.
    pub(crate) fn times(self, full: u32, short: u32) -> u32 {
        match self {
            Self::Short => short,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a small count"
            )]
            Self::Full(share) => (f64::from(full) * share).round().max(1.0) as u32,
        }
    }
}

/// Policy in which success, `pass_k`, agreement and latency decide and are required.
pub(crate) const FOUR_METRICS: &str = "policy = 1\n\
    [metric.agreement]\ndecides = true\nrequired = true\n\
    [metric.latency]\ndecides = true\nrequired = true\n";

/// Policy of [`FOUR_METRICS`] with tokens and cost.
pub(crate) const SIX_METRICS: &str = "policy = 1\n\
    [metric.agreement]\ndecides = true\nrequired = true\n\
    [metric.latency]\ndecides = true\nrequired = true\n\
    [metric.tokens]\ndecides = true\nrequired = true\n\
    [metric.cost]\ndecides = true\nrequired = true\n";

/// Policy in which only success decides.
pub(crate) const SUCCESS: &str = "policy = 1\nmetrics = [\"success\"]\n";

/// Parses a policy.
pub(crate) fn policy(text: &str) -> Policy {
    Policy::parse(text).expect("the policies of the figures are right")
}

/// Planned looks of the sequential figures.
pub(crate) const LOOKS: u32 = 4;

/// Decides on these trials in one look.
pub(crate) fn decide(policy: &Policy, trials: &(Table, Table), rng: &mut SimulationRng) -> Verdict {
    decide_in(policy, trials, MonitoringPlan::SingleLook, rng)
}

/// Decides on these trials by a monitoring plan, without the sample size forecast, which takes longer than the
/// decision.
pub(crate) fn decide_in(
    policy: &Policy,
    trials: &(Table, Table),
    monitoring: MonitoringPlan<'_>,
    rng: &mut SimulationRng,
) -> Verdict {
    let (baseline, candidate) =
        (table::run(Lane::Baseline, &trials.0), table::run(Lane::Candidate, &trials.1));
    let seed = u64::try_from(rng.below(1 << 31)).expect("31 bits");
    let request = AnalysisRequest {
        monitoring,
        forecast: false,
        ..AnalysisRequest::new(policy, &baseline, &candidate, seed)
    };
    analyzer::analyze(&request).expect("both runs hold trials").verdict
}
