//! The figures, a file for each kind, and what they share.

use analyzer::{AnalysisRequest, MonitoringPlan, Policy, Verdict};
use schemas::trial::Lane;

use crate::rng::Dice;
use crate::table::{self, Table};

mod approve;
mod baselines;
mod block;
mod determinism;
mod kernel;
mod numbers;
mod power;
mod real;
mod speed;

/// How much is simulated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scale {
    /// Among the tests: seconds.
    Short,
    /// By the named command: this share of what the acceptance table asks for.
    Full(f64),
}

impl Scale {
    /// The full size, times `FORESHADOW_CALIBRATION_SHARE`.
    pub(crate) fn full() -> Self {
        let share = std::env::var("FORESHADOW_CALIBRATION_SHARE").ok();
        let share = share.map_or(1.0, |text| text.parse().expect("FORESHADOW_CALIBRATION_SHARE is a number"));
        Self::Full(share)
    }

    /// Repetitions: what the acceptance table asks for, and what the short version can afford.
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

/// Success, `pass_k`, agreement and latency decide, and approval needs all four.
pub(crate) const FOUR_METRICS: &str = "policy = 1\n\
    [metric.agreement]\ndecides = true\nrequired = true\n\
    [metric.latency]\ndecides = true\nrequired = true\n";

/// The same with tokens and cost.
pub(crate) const SIX_METRICS: &str = "policy = 1\n\
    [metric.agreement]\ndecides = true\nrequired = true\n\
    [metric.latency]\ndecides = true\nrequired = true\n\
    [metric.tokens]\ndecides = true\nrequired = true\n\
    [metric.cost]\ndecides = true\nrequired = true\n";

/// Nothing but success.
pub(crate) const SUCCESS: &str = "policy = 1\nmetrics = [\"success\"]\n";

/// A policy of this text.
pub(crate) fn policy(text: &str) -> Policy {
    Policy::parse(text).expect("the policies of the figures are right")
}

/// Planned looks of the sequential figures.
pub(crate) const LOOKS: u32 = 4;

/// What the analyzer says of these trials in one look.
pub(crate) fn decide(policy: &Policy, trials: &(Table, Table), dice: &mut Dice) -> Verdict {
    decide_in(policy, trials, MonitoringPlan::SingleLook, dice)
}

/// What it says where the data are looked at so; without the price of an inconclusive verdict, which takes longer than the
/// verdict itself.
pub(crate) fn decide_in(
    policy: &Policy,
    trials: &(Table, Table),
    monitoring: MonitoringPlan<'_>,
    dice: &mut Dice,
) -> Verdict {
    let (baseline, candidate) =
        (table::run(Lane::Baseline, &trials.0), table::run(Lane::Candidate, &trials.1));
    let seed = u64::try_from(dice.below(1 << 31)).expect("31 bits");
    let request = AnalysisRequest {
        monitoring,
        forecast: false,
        ..AnalysisRequest::new(policy, &baseline, &candidate, seed)
    };
    analyzer::analyze(&request).expect("both runs hold trials").verdict
}
