//! Calibration: splits the trials of one run at random into two arms, many times, and decides on each split as if one
//! arm were a candidate.
//!
//! Both arms are the same build, so every block is a false alarm on the user's own sessions. The same splits give the
//! variance of a contrast between identical builds, and from it the detectable change and its cost.

use rayon::prelude::*;
use schemas::trial::Trial;

mod between;
mod simulate;

use crate::analysis::{AnalysisRequest, DecisionSummary, MonitoringPlan, decide_pairs};
use crate::decide::Tests;
use crate::format;
use crate::pairs::{PairError, Pairs};
use crate::policy::Policy;
use crate::run::Run;
use crate::sample_size::Power;
use crate::stats::stream::StreamKey;
use crate::stats::variance::{float, mean};
use crate::stats::{gaffke, interval, normal, spending};
use crate::units::CaseUnits;
use crate::verdict::{
    CALIBRATION_FORMAT, Calibration, CalibrationDecisions, CalibrationMetric, CostForecast,
};

/// Power at which a change counts as detectable.
const POWER: f64 = 0.80;

/// Input of a calibration.
#[derive(Debug, Clone, Copy)]
pub struct CalibrateRequest<'a> {
    /// Policy to calibrate.
    pub policy: &'a Policy,
    /// Run whose trials are split.
    pub run: &'a Run,
    /// Other runs of the same build, made apart.
    pub against: &'a [&'a Run],
    /// Seed of the splits.
    pub seed: u64,
    /// Number of splits.
    pub splits: u64,
    /// Looks of each decision, at least 1.
    pub looks: u32,
}

/// A run that cannot be calibrated on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CalibrateError {
    /// The trials cannot be paired.
    #[error(transparent)]
    Pairs(#[from] PairError),
    /// No case has two complete trials.
    #[error(
        "run {run} has no case with two trials that vote, so it cannot be split into two arms; replay it with --trials 2 or more"
    )]
    NoRepeats {
        /// Name of the run.
        run: String,
    },
    /// A run of another build, which shows a change of the build and not what differs between runs.
    #[error(
        "run {other} is of build {other_build}, run {run} of build {build}: --against needs other runs of the same build"
    )]
    OtherBuild {
        /// Name of the calibrated run.
        run: String,
        /// Its build.
        build: String,
        /// Name of the other run.
        other: String,
        /// Its build.
        other_build: String,
    },
}

/// Splits the run, decides on every split, and reports the error rates.
///
/// # Errors
///
/// The run contains a trial twice, or no case with two complete trials.
pub fn calibrate(request: &CalibrateRequest<'_>) -> Result<Calibration, CalibrateError> {
    let CalibrateRequest { policy, run, seed, splits, looks, against } = *request;
    if let Some(other) = against.iter().find(|other| other.manifest.build != run.manifest.build) {
        return Err(CalibrateError::OtherBuild {
            run: run.name.clone(),
            build: run.manifest.build.to_string(),
            other: other.name.clone(),
            other_build: other.manifest.build.to_string(),
        });
    }
    let key = StreamKey::new(seed, "splits");
    let first = Pairs::split(run, &key, 0)?;
    if first.cases.is_empty() {
        return Err(CalibrateError::NoRepeats { run: run.name.clone() });
    }
    let monitoring = if looks > 1 { MonitoringPlan::PlannedLooks(looks) } else { MonitoringPlan::SingleLook };
    let ask = AnalysisRequest { monitoring, forecast: false, ..AnalysisRequest::new(policy, run, run, seed) };
    let decide = |number: u64| -> Result<DecisionSummary, PairError> {
        let pairs = Pairs::split(run, &key, number)?;
        Ok(decide_pairs(AnalysisRequest { seed: seed.wrapping_add(number), ..ask }, pairs))
    };
    let decided: Vec<DecisionSummary> = (0..splits).into_par_iter().map(decide).collect::<Result<_, _>>()?;
    let once = AnalysisRequest { monitoring: MonitoringPlan::SingleLook, ..ask };
    let comparisons = between::compare(&once, run, against)?;
    let mut decisions = CalibrationDecisions::default();
    decided.iter().for_each(|split| decisions.add(split.answer));
    let arms = first.cases.iter().map(|case| (case.baseline.trials.len(), case.candidate.trials.len()));
    let inverse = mean(&arms.map(|(a, b)| 1.0 / float(a) + 1.0 / float(b)).collect::<Vec<_>>());
    let held: usize =
        first.cases.iter().map(|case| case.baseline.trials.len() + case.candidate.trials.len()).sum();
    let trials = float(held) / float(first.cases.len());
    let factor = (2.0 / trials / inverse).sqrt();
    let nulls = simulate::metrics(policy, &first, &decided, factor, seed);
    let units = CaseUnits::default();
    let tests = Tests {
        alpha: normal::cdf(-last_boundary(policy.alpha, looks)),
        seed,
        strict: policy.strict,
        ranks: &[],
        units: &units,
        shared_state: false,
        calibration: None,
    };
    let power = Power { metrics: &nulls, tests };
    let cases_to_approve = power.cases().map(|(cases, _)| cases);
    let plan = Plan { policy, cases: first.cases.len(), trials, inverse, looks };
    Ok(Calibration {
        format: CALIBRATION_FORMAT,
        run: run.name.clone(),
        build: run.manifest.build.to_string(),
        policy_digest: policy.digest(),
        seed,
        looks,
        cases: crate::cast::to_u64(first.cases.len()),
        trials: trials / 2.0,
        splits,
        decisions,
        false_block: crate::cast::to_f64(decisions.block) / crate::cast::to_f64(splits.max(1)),
        false_block_interval: interval::clopper_pearson(decisions.block, splits, 0.95),
        against: against.iter().map(|other| other.name.clone()).collect(),
        metrics: metrics(&plan, &decided, &comparisons, &power, cases_to_approve),
        cases_to_approve,
        cost: cost(&first, &plan, &decided),
        notes: notes(&decided, against.len()),
    })
}

/// Size of a decision on this run.
struct Plan<'a> {
    policy: &'a Policy,
    cases: usize,
    /// Mean number of trials of a case, which each lane of a decision would have.
    trials: f64,
    /// Mean over the cases of 1/k + 1/k' of the arms of a split.
    inverse: f64,
    looks: u32,
}

fn metrics(
    plan: &Plan<'_>,
    decided: &[DecisionSummary],
    comparisons: &[between::Comparison],
    power: &Power<'_>,
    joint: Option<u64>,
) -> Vec<CalibrationMetric> {
    let Some(longest) = decided.iter().max_by_key(|split| split.metrics.len()) else { return Vec::new() };
    let deciding = longest.metrics.iter().filter(|metric| metric.decides).count();
    let of = |first: &crate::analysis::MetricDecisionSummary| {
        let all: Vec<_> = decided
            .iter()
            .filter_map(|split| split.metrics.iter().find(|metric| metric.name == first.name))
            .collect();
        let alarms = all.iter().filter(|metric| metric.alarm).count();
        let spread = mean(&all.iter().map(|metric| metric.variance).collect::<Vec<_>>());
        // Identical builds differ only by variance within a case: 1/k + 1/k' of it in a split, 2/K in a decision.
        let deviation = (spread / plan.inverse * 2.0 / plan.trials).sqrt();
        let alpha = plan.policy.alpha;
        let level = if first.decides { alpha / float(deciding.max(1)) } else { alpha };
        let error = deviation / float(plan.cases).sqrt();
        let beta = normal::quantile(POWER);
        let detectable = (last_boundary(level, plan.looks) + beta) * error;
        let bar = last_boundary(alpha, plan.looks) + beta;
        let of_floor = -first.low * (1.0 - alpha.powf(1.0 / float(plan.cases)));
        let floor = gaffke::floor(alpha, first.margin, first.low);
        let needed = (bar * deviation / first.margin).powi(2);
        let cases = crate::cast::to_u64(plan.cases);
        // Metrics that decide nothing keep the normal approximation.
        let null = power.metrics.iter().find(|one| one.name == first.name);
        let detectable = null.map_or(detectable, |null| power.detectable(null, cases));
        let approvable_margin = null.map_or((bar * error).max(of_floor), |null| power.margin(null, cases));
        let approximate = crate::cast::round(needed.ceil()).max(floor);
        let own = null.and_then(|null| power.cases_for(null)).unwrap_or(approximate);
        // No required metric needs more than all of them together.
        let cases_to_approve = own.min(joint.filter(|_| first.required).unwrap_or(u64::MAX));
        CalibrationMetric {
            name: first.name.clone(),
            unit: first.unit,
            decides: first.decides,
            required: first.required,
            cases: crate::cast::to_u64(first.cases),
            margin: first.margin,
            false_alarm: float(alarms) / float(decided.len().max(1)),
            deviation,
            detectable,
            detectable_text: format::effect(first.unit, -detectable),
            approvable_margin,
            cases_to_approve,
            between: between::shifts(comparisons, &first.name, alpha),
        }
    };
    longest.metrics.iter().map(of).collect()
}

/// Boundary of the last look, on the scale of standard normal quantiles.
fn last_boundary(alpha: f64, looks: u32) -> f64 {
    let fractions: Vec<f64> =
        (1..=looks.max(1)).map(|look| f64::from(look) / f64::from(looks.max(1))).collect();
    spending::boundaries(alpha, &fractions).last().copied().unwrap_or_else(|| -normal::quantile(alpha))
}

fn cost(pairs: &Pairs<'_>, plan: &Plan<'_>, decided: &[DecisionSummary]) -> CostForecast {
    let trials: Vec<&Trial> = pairs.trials().map(|record| &record.trial).collect();
    let planned = 2.0 * plan.trials * float(plan.cases);
    let each = |value: fn(&Trial) -> Option<f64>| {
        let mut known: Vec<f64> = trials.iter().filter_map(|trial| value(trial)).collect();
        // Ascending, so that the numbers of the trials do not affect the last digit of the mean.
        known.sort_by(f64::total_cmp);
        (!known.is_empty()).then(|| mean(&known) * planned)
    };
    let tokens = |trial: &Trial| {
        let total = trial.input_tokens.unwrap_or(0) + trial.output_tokens.unwrap_or(0);
        trial.input_tokens.or(trial.output_tokens).map(|_| crate::cast::to_f64(total))
    };
    CostForecast {
        trials: crate::cast::round(planned),
        tokens: each(tokens),
        usd: each(|trial| trial.cost_usd),
        agent_hours: each(|trial| trial.duration_us.map(|time| crate::cast::to_f64(time / 1000) / 3.6e6)),
        share_used: mean(&decided.iter().map(|split| split.share_used).collect::<Vec<_>>()),
    }
}

fn notes(decided: &[DecisionSummary], others: usize) -> Vec<String> {
    let mut notes = vec![
        "each arm of a split has half of the trials, so decisions with the whole run are more powerful; detectable changes are \
         computed for as many trials per lane as the run has"
            .to_owned(),
    ];
    notes.push(match others {
        0 => "splits of one run share its time, provider and load, so they cannot show what differs between runs made apart; \
              calibrate --against other runs of the same build to measure that"
            .to_owned(),
        1 => "one other run measures the shift between runs with one degree of freedom: with this calibration a block must \
              exceed the shift 6.3 times; four other runs need 2.1 times"
            .to_owned(),
        _ => "with this calibration, a block must exceed the shifts between runs of the same build, too".to_owned(),
    });
    let violated = decided.iter().filter(|split| split.violated).count();
    if violated > 0 {
        notes.push(format!(
            "{violated} splits blocked because a single trial broke an invariant: that invariant blocks identical builds; fix the \
             build or remove the invariant from the policy"
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::labelled;
    use crate::verdict::Decision;
    use schemas::trial::Lane;

    fn outcomes(cases: usize, trials: usize) -> Vec<Vec<bool>> {
        let mut stream = StreamKey::new(6, "outcomes").stream(0);
        (0..cases)
            .map(|_| {
                let chance = 70 + stream.below(30);
                (0..trials).map(|_| stream.below(100) < chance).collect()
            })
            .collect()
    }

    fn request<'a>(policy: &'a Policy, run: &'a Run) -> CalibrateRequest<'a> {
        CalibrateRequest { policy, run, against: &[], seed: 1, splits: 60, looks: 1 }
    }

    #[test]
    fn identical_builds_are_seldom_blocked_and_the_deviation_is_that_of_the_trials() {
        let run = labelled(Lane::Baseline, &outcomes(100, 8));
        let policy = Policy::default();
        let found = calibrate(&request(&policy, &run)).expect("eight trials each");
        assert_eq!((found.cases, found.splits), (100, 60));
        // At 5 % the 99.9 % limit of 60 is 9.
        assert!(found.decisions.block <= 9, "{:?}", found.decisions);
        let success = &found.metrics[0];
        // Success probabilities from .70 to .99: mean p (1 - p) = .13; sqrt(2 * .13 / 8) = .18.
        assert!((success.deviation - 0.18).abs() < 0.02, "{}", success.deviation);
        assert!(success.detectable > 0.05 && success.detectable < 0.11, "{}", success.detectable);
        assert_eq!(found.cost.trials, 1600);
        assert_eq!(found, calibrate(&request(&policy, &run)).expect("again"));
        let looked = CalibrateRequest { looks: 4, ..request(&policy, &run) };
        assert!(calibrate(&looked).expect("four looks").cost.share_used < 1.0);
    }

    #[test]
    fn sizes_and_changes_hold_for_all_required_metrics_together() {
        let run = labelled(Lane::Baseline, &outcomes(100, 4));
        let policy = Policy::default();
        let found =
            calibrate(&CalibrateRequest { splits: 20, ..request(&policy, &run) }).expect("four trials");
        let own = |name: &str| found.metrics.iter().find(|metric| metric.name == name).cloned();
        let success = own("success").expect("measured");
        let joint = found.cases_to_approve.expect("reachable");
        assert!(joint >= success.cases_to_approve && joint < 2000, "{joint} {success:?}");
        assert!(success.cases_to_approve >= 59, "{success:?}");
        // A change that breaks some cases varies more than one that is spread over all of them.
        let spread = 2.49 * success.deviation / 10.0;
        assert!(success.detectable > spread && success.detectable < 3.0 * spread, "{success:?}");
        assert!(success.approvable_margin > 0.03 && success.approvable_margin < 0.12, "{success:?}");
    }

    #[test]
    fn a_block_exceeds_the_shift_between_runs_of_one_build() {
        let first = labelled(Lane::Baseline, &outcomes(100, 4));
        // The same build on a bad day: every fifth trial fails on top.
        let shifted = |name: &str, lane: Lane, every: usize| {
            let mut run = labelled(lane, &outcomes(100, 4));
            run.name = name.to_owned();
            for record in run.trials.iter_mut().skip(1).step_by(every) {
                record.trial.success = Some(false);
            }
            run
        };
        let other = shifted("runs/later", Lane::Baseline, 5);
        let policy = Policy::parse("metrics = [\"success\"]").expect("a policy");
        let ask = request(&policy, &first);
        let against = [&other];
        let found = calibrate(&CalibrateRequest { against: &against, ..ask }).expect("two runs");
        let shifts = found.metrics[0].between.clone().expect("measured");
        assert!(shifts.drifts && shifts.freedom == 1 && shifts.shifts[0] < -0.1, "{shifts:?}");
        assert!((shifts.deviation - shifts.shifts[0].abs()).abs() < 1e-12, "{shifts:?}");
        let candidate = shifted("runs/candidate", Lane::Candidate, 4);
        let plain =
            AnalysisRequest { forecast: false, ..AnalysisRequest::new(&policy, &first, &candidate, 1) };
        let decide = |ask: &AnalysisRequest<'_>| crate::analyze(ask).expect("two runs").verdict.verdict;
        assert_eq!(decide(&plain), Decision::Block);
        assert_eq!(decide(&AnalysisRequest { calibration: Some(&found), ..plain }), Decision::Inconclusive);
        let same = calibrate(&ask).expect("one run");
        assert_eq!(decide(&AnalysisRequest { calibration: Some(&same), ..plain }), Decision::Block);
        assert!(same.notes.iter().any(|note| note.contains("--against")), "{:?}", same.notes);
        let mut foreign = other.clone();
        foreign.manifest.build = schemas::id::BuildId::parse("another").expect("id");
        let error = calibrate(&CalibrateRequest { against: &[&foreign], ..ask }).expect_err("another build");
        assert!(error.to_string().contains("the same build"), "{error}");
    }

    #[test]
    fn a_run_of_single_trials_cannot_be_split() {
        let run = labelled(Lane::Baseline, &outcomes(10, 1));
        let error = calibrate(&request(&Policy::default(), &run)).expect_err("single trials");
        assert!(error.to_string().contains("--trials 2"), "{error}");
    }
}
