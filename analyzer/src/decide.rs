//! Tests of each metric, and the decision rule over the metrics (DECISION 1.3 and 1.4).
//!
//! Invariants, fidelity and the other conditions of approval are in `analysis::reasons`.

use rayon::prelude::*;

use crate::metrics::{CaseTable, Measured};
use crate::stats::betting::{Bets, Side};
use crate::stats::gaffke::{self, Sample, UnitMean};
use crate::stats::holm;
use crate::stats::session_rates::{self, SessionCounts};
use crate::stats::stream::StreamKey;
use crate::stats::student;
use crate::units::{self, CaseUnits, Design, Unit};
use crate::verdict::{Calibration, Decision, MetricState};

/// Test results of one metric.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tested {
    pub(crate) cases: usize,
    /// Independent units that the cases count as for the floor.
    pub(crate) units: u64,
    pub(crate) effect: f64,
    pub(crate) p_block: f64,
    pub(crate) p_block_adjusted: Option<f64>,
    pub(crate) p_approve: f64,
    pub(crate) floor: u64,
    pub(crate) state: MetricState,
}

/// Treatment of missing trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MissingDataScenario {
    /// Missing trials are left out.
    Observed,
    /// Missing candidate trials count as failures, missing baseline trials as successes.
    Worst,
    /// Missing candidate trials count as successes, missing baseline trials as failures.
    Best,
}

/// Contrasts of a metric in a missing-data scenario.
pub(crate) fn tables(metric: &Measured, scenario: MissingDataScenario) -> &[CaseTable] {
    match (&metric.bounds, scenario) {
        (Some(bounds), MissingDataScenario::Worst) => &bounds.worst,
        (Some(bounds), MissingDataScenario::Best) => &bounds.best,
        (Some(_) | None, _) => &metric.observed,
    }
}

/// Settings of the tests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tests<'a> {
    pub(crate) alpha: f64,
    pub(crate) seed: u64,
    /// Whether the approve test bets on the contrasts in their order instead of using Gaffke's bound.
    pub(crate) strict: bool,
    /// Position in the seeded order of each case of [`crate::pairs::Pairs::cases`].
    pub(crate) ranks: &'a [usize],
    /// Sampling units and weights of the cases.
    pub(crate) units: &'a CaseUnits,
    /// Whether the trials of a case share state.
    pub(crate) shared_state: bool,
    /// Calibration whose shifts between runs of one build a block must exceed.
    pub(crate) calibration: Option<&'a Calibration>,
}

impl Tests<'_> {
    /// Units in the seeded order of their last case; planned cases without a trial come last.
    pub(crate) fn ordered<'t>(&self, tables: &'t [CaseTable]) -> Vec<(usize, Unit<'t>)> {
        let rank = |table: &CaseTable| self.ranks.get(table.place).copied().unwrap_or(usize::MAX);
        let last = |unit: &Unit<'_>| unit.cases.iter().map(|(_, table)| rank(table)).max();
        let units = self.units.group(tables).into_iter();
        let mut ranked: Vec<(usize, Unit<'t>)> =
            units.map(|unit| (last(&unit).unwrap_or(usize::MAX), unit)).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked
    }

    /// Means of the units in their seeded order, each times its share of the mean weight, so that their mean is the
    /// effect; and the factor by which the range widens.
    pub(crate) fn scaled(&self, tables: &[CaseTable]) -> (Vec<f64>, f64) {
        let units: Vec<UnitMean> = self.ordered(tables).iter().map(|(_, unit)| unit.mean()).collect();
        let total: f64 = units.iter().map(|unit| unit.weight).sum();
        let average = total / crate::stats::variance::float(units.len().max(1));
        let widest = units.iter().map(|unit| unit.weight / average).fold(1.0, f64::max);
        (units.iter().map(|unit| unit.mean * (unit.weight / average)).collect(), widest)
    }

    /// P-value of the block test, at least that of "the builds differ as two runs of one build do".
    ///
    /// The deviation between runs is known with as many degrees of freedom as there were other runs, so the effect is
    /// compared with Student's t. It never counts as smaller than the standard error of this comparison.
    pub(crate) fn beyond_runs(&self, metric: &Measured, units: &[UnitMean], p_block: f64) -> f64 {
        let Some([effect, deviation, freedom]) = self.between_runs(metric, units) else { return p_block };
        let t = if effect < 0.0 { effect / deviation } else { 0.0 };
        p_block.max(student::cdf(t, freedom))
    }

    /// Upper bound of the effect that inverts [`Self::beyond_runs`] at this level; minus infinity without a calibration.
    fn upper_bound_beyond_runs(&self, metric: &Measured, units: &[UnitMean], level: f64) -> f64 {
        let Some([effect, deviation, freedom]) = self.between_runs(metric, units) else {
            return f64::NEG_INFINITY;
        };
        // The quantile of Student's t by bisection; with one degree of freedom it is far out.
        let (mut low, mut high) = (-1e6, 0.0);
        for _ in 0..80 {
            let middle = 0.5 * (low + high);
            if student::cdf(middle, freedom) <= level { low = middle } else { high = middle }
        }
        effect - low * deviation
    }

    /// Effect, its deviation between runs of one build, and the degrees of freedom of that deviation; absent without a
    /// calibration against other runs.
    fn between_runs(&self, metric: &Measured, units: &[UnitMean]) -> Option<[f64; 3]> {
        let name = metric.slice.as_ref().map_or(&metric.name, |slice| &slice.metric);
        let all = self.calibration.map(|calibration| calibration.metrics.as_slice()).unwrap_or_default();
        let shifts = all.iter().find(|one| one.name == *name)?.between.as_ref()?;
        let total: f64 = units.iter().map(|unit| unit.weight).sum();
        let effect = units.iter().map(|unit| unit.weight * unit.mean).sum::<f64>() / total;
        let squares = units.iter().map(|unit| (unit.weight * (unit.mean - effect)).powi(2));
        let error = squares.sum::<f64>().sqrt() / total;
        Some([effect, shifts.deviation.max(error), crate::cast::to_f64(shifts.freedom.max(1))])
    }

    fn design(&self, metric: &Measured) -> Design {
        Design { clustered: self.units.clustered, shared_state: self.shared_state, mirrored: metric.mirrored }
    }

    /// Units of a metric as betting sequence.
    pub(crate) fn bets(&self, metric: &Measured, scenario: MissingDataScenario) -> Bets {
        let means: Vec<UnitMean> =
            self.ordered(tables(metric, scenario)).iter().map(|(_, unit)| unit.mean()).collect();
        Bets::of_units(&means, metric.low, metric.high)
    }
}

/// Tests every metric in one scenario, at one look.
pub(crate) fn test(metrics: &[Measured], scenario: MissingDataScenario, tests: &Tests<'_>) -> Vec<Tested> {
    let mut tested = nominal(metrics, scenario, tests);
    conclude(metrics, &mut tested, tests.alpha);
    tested
}

/// P-values of every metric as if this were the only look, without any conclusion.
pub(crate) fn nominal(metrics: &[Measured], scenario: MissingDataScenario, tests: &Tests<'_>) -> Vec<Tested> {
    metrics.par_iter().map(|metric| test_one(metric, scenario, tests)).collect()
}

/// Corrects the p-values of the deciding metrics and sets the state of each metric.
pub(crate) fn conclude(metrics: &[Measured], tested: &mut [Tested], alpha: f64) {
    let deciding: Vec<usize> = (0..metrics.len()).filter(|place| metrics[*place].decides).collect();
    let p_values: Vec<f64> = deciding.iter().map(|place| tested[*place].p_block).collect();
    for (place, adjusted) in deciding.into_iter().zip(holm::adjust(&p_values)) {
        tested[place].p_block_adjusted = Some(adjusted);
    }
    for (metric, test) in metrics.iter().zip(tested) {
        // A metric that does not decide keeps its own, uncorrected p.
        let worse = test.p_block_adjusted.unwrap_or(test.p_block) <= alpha;
        let enough = test.units >= test.floor && metric.has_enough_cases(test.cases);
        let tolerable = test.p_approve <= alpha && enough;
        test.state = match (tolerable, worse) {
            (true, false) => MetricState::NonInferior,
            (true, true) => MetricState::DeterioratedWithinMargin,
            (false, true) => MetricState::Deteriorated,
            (false, false) => MetricState::Undecided,
        };
    }
}

fn test_one(metric: &Measured, scenario: MissingDataScenario, tests: &Tests<'_>) -> Tested {
    let units = tests.units.group(tables(metric, scenario));
    let cases = Unit::cases(&units);
    let enough = metric.has_enough_cases(cases);
    let undecided = Tested {
        cases,
        units: effective(&units.iter().map(|unit| unit.weight).collect::<Vec<_>>(), metric),
        effect: Unit::effect(&units),
        p_block: 1.0,
        p_block_adjusted: None,
        p_approve: 1.0,
        floor: gaffke::floor(tests.alpha, metric.margin, metric.low),
        state: MetricState::Undecided,
    };
    if !enough {
        return undecided;
    }
    if let Some(correction) = &metric.correction {
        let key = StreamKey::new(tests.seed, &format!("block {}", metric.name));
        let range = [metric.low, metric.high];
        let corrected = correction.mean(tables(metric, scenario), tests.units, range, key);
        return Tested {
            effect: corrected.estimate,
            p_block: tests.beyond_runs(metric, &Unit::means(&units), corrected.p_block()),
            p_approve: corrected.p_approve(metric.margin),
            ..undecided
        };
    }
    let p_approve = if tests.strict {
        tests.bets(metric, scenario).p_value(-metric.margin, Side::Above)
    } else {
        Sample::of_units(&Unit::means(&units), metric.low).p_value(metric.margin)
    };
    let design = tests.design(metric);
    // Trials that depend on each other across a session, or sessions of one unit, are relabelled as a whole.
    let counts = violation_counts(metric, scenario).filter(|_| !design.clustered && !design.shared_state);
    let p_block = match counts {
        Some(sessions) => session_rates::p_value(&sessions),
        None => units::p_block(&units, design, tests.seed, &metric.name),
    };
    let p_block = tests.beyond_runs(metric, &Unit::means(&units), p_block);
    Tested { p_block, p_approve, ..undecided }
}

/// Number of units that units of these weights count as for the floor of the metric.
pub(crate) fn effective(weights: &[f64], metric: &Measured) -> u64 {
    crate::cast::round((gaffke::effective_units(weights, metric.margin, metric.low) + 1e-9).floor())
}

/// Violating trials by session, for an invariant that is compared as a rate; its block test is exact. In the extreme
/// scenarios of missing trials only the contrasts are known.
fn violation_counts(metric: &Measured, scenario: MissingDataScenario) -> Option<Vec<SessionCounts>> {
    let observed = metric.bounds.is_none() || scenario == MissingDataScenario::Observed;
    let arms = metric.arms.as_ref().filter(|_| metric.family == "invariant" && observed)?;
    let count = |values: &[f64]| crate::cast::to_u64(values.iter().filter(|value| **value > 0.5).count());
    let session = |(before, after): &(Vec<f64>, Vec<f64>)| SessionCounts {
        trials: crate::cast::to_u64(before.len() + after.len()),
        candidate: crate::cast::to_u64(after.len()),
        violations: count(before) + count(after),
        of_candidate: count(after),
    };
    Some(arms.iter().map(session).collect())
}

/// Kind of the bounds of an effect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bounds {
    /// One-sided, each at this level.
    At(f64),
    /// By betting, each at this level, valid at any stopping time.
    Bets(f64),
    /// No bound is available at this look.
    None,
}

/// Level at which Holm's correction tested the metric: its p is at most this level exactly where the adjusted p is at
/// most `alpha`.
pub(crate) fn block_level(test: &Tested, alpha: f64, deciding: usize) -> f64 {
    let strictest = 1.0 / crate::stats::variance::float(deciding.max(1));
    match test.p_block_adjusted {
        Some(adjusted) if adjusted > 0.0 => alpha * (test.p_block / adjusted).clamp(strictest, 1.0),
        Some(_) => alpha * strictest,
        None => alpha,
    }
}

/// One-sided bounds of the mean contrast: the lower one inverts the approve test, the upper one the block test, each at
/// the level at which it decided. So the upper bound is below 0 exactly where the metric is shown to be worse, and a
/// bound never denies the state beside it.
pub(crate) fn interval(metric: &Measured, test: &Tested, bounds: [Bounds; 2], tests: &Tests<'_>) -> [f64; 2] {
    let is_worse = test.p_block_adjusted.unwrap_or(test.p_block) <= tests.alpha;
    let low = lower_bound(metric, bounds[0], tests);
    let exact = upper_bound(metric, bounds[1], tests);
    let high = match bounds[1] {
        // Gaffke's bound needs no symmetry. It is printed unless it would deny what the block test shows.
        Bounds::At(level) if metric.correction.is_none() && is_worse => {
            let inverted = block_bound(metric, level, tests);
            if exact >= 0.0 { inverted } else { inverted.max(exact) }
        }
        Bounds::At(_) | Bounds::Bets(_) | Bounds::None => exact,
    };
    // A sequential p counts a boundary crossed at an earlier look, and a sampled p has a sampling error. The state is
    // that of the p, so are the bounds.
    let high = if is_worse { high.min(JUST_BELOW_ZERO) } else { high.max(0.0) };
    let low = if test.p_approve <= tests.alpha { low.max(-metric.margin) } else { low };
    [low, high.max(low)]
}

/// Upper bound of an effect that is shown to be below 0 by an earlier look only.
const JUST_BELOW_ZERO: f64 = -1e-9;

fn lower_bound(metric: &Measured, bounds: Bounds, tests: &Tests<'_>) -> f64 {
    match bounds {
        Bounds::At(alpha) if metric.correction.is_some() => corrected_bounds(metric, alpha, tests)[0],
        // No corrected mean is valid at any stopping time.
        Bounds::Bets(_) if metric.correction.is_some() => metric.low,
        // Bets need no correction for looks.
        Bounds::At(_) | Bounds::Bets(_) if tests.strict => {
            tests.bets(metric, MissingDataScenario::Observed).bound(tests.alpha, Side::Above)
        }
        Bounds::At(alpha) => {
            let means = Unit::means(&tests.units.group(&metric.observed));
            Sample::of_units(&means, metric.low).lower_bound(alpha)
        }
        Bounds::Bets(alpha) => tests.bets(metric, MissingDataScenario::Observed).bound(alpha, Side::Above),
        Bounds::None => metric.low,
    }
}

fn upper_bound(metric: &Measured, bounds: Bounds, tests: &Tests<'_>) -> f64 {
    match bounds {
        Bounds::At(alpha) if metric.correction.is_some() => corrected_bounds(metric, alpha, tests)[1],
        Bounds::Bets(_) if metric.correction.is_some() => metric.high,
        Bounds::At(alpha) => {
            let means = Unit::means(&tests.units.group(&metric.observed));
            let mirrored: Vec<UnitMean> =
                means.iter().map(|unit| UnitMean { mean: -unit.mean, ..*unit }).collect();
            -Sample::of_units(&mirrored, -metric.high).lower_bound(alpha)
        }
        Bounds::Bets(alpha) => tests.bets(metric, MissingDataScenario::Observed).bound(alpha, Side::Below),
        Bounds::None => metric.high,
    }
}

fn corrected_bounds(metric: &Measured, alpha: f64, tests: &Tests<'_>) -> [f64; 2] {
    let Some(correction) = &metric.correction else { return [metric.low, metric.high] };
    let key = StreamKey::new(tests.seed, &format!("block {}", metric.name));
    correction.mean(&metric.observed, tests.units, [metric.low, metric.high], key).bounds(alpha)
}

fn block_bound(metric: &Measured, level: f64, tests: &Tests<'_>) -> f64 {
    let units = tests.units.group(&metric.observed);
    if units.is_empty() {
        return metric.high;
    }
    let inverted = units::upper_bound(&units, tests.design(metric), level, tests.seed, &metric.name);
    inverted.max(tests.upper_bound_beyond_runs(metric, &Unit::means(&units), level)).min(metric.high)
}

/// Decision that follows from the metrics alone.
pub(crate) fn answer(metrics: &[Measured], tested: &[Tested]) -> Decision {
    let pairs = || metrics.iter().zip(tested);
    if pairs().any(|(metric, test)| metric.decides && test.state == MetricState::Deteriorated) {
        return Decision::Block;
    }
    let mut required = pairs().filter(|(metric, _)| metric.required).peekable();
    let any = required.peek().is_some();
    if any && required.all(|(_, test)| is_tolerable(test.state)) {
        Decision::Approve
    } else {
        Decision::Inconclusive
    }
}

/// Whether the metric is shown not to be worse than its margin.
pub(crate) fn is_tolerable(state: MetricState) -> bool {
    match state {
        MetricState::NonInferior | MetricState::DeterioratedWithinMargin => true,
        MetricState::Deteriorated | MetricState::Undecided => false,
    }
}
