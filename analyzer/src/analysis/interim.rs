//! Interim looks: all data at once, planned looks, waves, or a look after every case.
//!
//! Each look uses the pairs of the first cases of the seeded order only. So `analyze` on finished runs finds what
//! `gate` would have found while they grew. Invariants, fidelity and the other conditions of approval use all trials
//! at every look.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::context::AnalysisContext;
use super::evidence::Evidence;
use super::reasons;
use super::request::{MonitoringPlan, PLANNED_ALPHA_SHARE};
use crate::decide::{self, Bounds, MissingDataScenario, Tested, Tests};
use crate::metrics::{Measured, Measurement};
use crate::pairs::Pairs;
use crate::stats::betting::{Side, p_of};
use crate::stats::gaffke::UnitMean;
use crate::stats::normal;
use crate::stats::spending::{Schedule, boundaries, spent};
use crate::stats::variance::float;
use crate::units::CaseUnits;
use crate::verdict::{
    Decision, LookHistory, LookMetric, LookResult, MetricState, MonitoringKind, PairCounts,
};

/// Number of looks of an `anytime` decision that the history keeps, besides the last.
const SHOWN_STEPS: usize = 25;

/// Results of one look.
pub(super) struct Look<'a> {
    pub(super) pairs: Cow<'a, Pairs<'a>>,
    pub(super) measurement: Measurement,
    ranks: Vec<usize>,
    /// Sampling units and weights of the cases.
    pub(super) units: CaseUnits,
    pub(super) tested: Vec<Tested>,
    /// Bounds of the metrics' effects; empty until [`Self::bound`] is called.
    pub(super) intervals: Vec<[f64; 2]>,
    /// Levels of the bounds.
    level: LookLevel,
    /// Decisions over the metrics with missing trials counted against the candidate, and for it.
    pub(super) bounds: Option<(Decision, Decision)>,
    pub(super) look_history: Option<LookHistory>,
}

/// Levels of the bounds at a look.
#[derive(Debug, Clone, PartialEq)]
enum LookLevel {
    /// The only look.
    Single,
    /// The last look of a plan at these information fractions, which has this share of alpha.
    Planned { fractions: Vec<f64>, share: f64 },
    /// By betting, with this share of alpha.
    Bets { share: f64 },
}

impl LookLevel {
    /// Bound of a test that has `alpha` over all looks (a repeated confidence bound, Jennison and Turnbull 1989).
    fn bounds(&self, alpha: f64) -> Bounds {
        match self {
            Self::Single => Bounds::At(alpha),
            Self::Planned { fractions, share } => match boundaries(alpha * share, fractions).last() {
                Some(limit) if limit.is_finite() => Bounds::At(normal::cdf(-limit)),
                Some(_) | None => Bounds::None,
            },
            Self::Bets { share } => Bounds::Bets(alpha * share),
        }
    }
}

impl<'a> Look<'a> {
    fn new(context: &'a AnalysisContext<'a>, pairs: Cow<'a, Pairs<'a>>) -> Self {
        let ranks = context.ranks(&pairs);
        let units = context.units.of(&pairs);
        let measurement = context.measure(&pairs);
        Self {
            pairs,
            measurement,
            ranks,
            units,
            tested: Vec::new(),
            intervals: Vec::new(),
            level: LookLevel::Single,
            bounds: None,
            look_history: None,
        }
    }

    pub(super) fn tests<'l>(&'l self, context: &'l AnalysisContext<'_>) -> Tests<'l> {
        context.tests(&self.ranks, &self.units)
    }

    /// Tests the metrics as observed and, if trials are missing, in both extreme scenarios.
    fn read(&mut self, mut read: impl FnMut(&Self, MissingDataScenario) -> Vec<Tested>) {
        let tested = read(self, MissingDataScenario::Observed);
        let matters = |metric: &Measured| metric.bounds.is_some() && (metric.decides || metric.required);
        if self.measurement.metrics.iter().any(matters) {
            let mut of = |scenario| decide::answer(&self.measurement.metrics, &read(self, scenario));
            self.bounds = Some((of(MissingDataScenario::Worst), of(MissingDataScenario::Best)));
        }
        self.tested = tested;
    }

    /// Bounds the metrics' effects at the level of this look.
    pub(super) fn bound(&mut self, context: &AnalysisContext<'_>) {
        let tests = self.tests(context);
        let alpha = context.request.policy.alpha;
        let deciding = self.measurement.metrics.iter().filter(|metric| metric.decides).count();
        let all = self.measurement.metrics.par_iter().zip(&self.tested);
        let of = |(metric, test): (&Measured, &Tested)| {
            let levels = [alpha, decide::block_level(test, alpha, deciding)];
            decide::interval(metric, test, levels.map(|level| self.level.bounds(level)), &tests)
        };
        self.intervals = all.map(of).collect();
    }

    /// Numbers of cases and trials, with those that have no outcome.
    pub(super) fn counts(&self) -> PairCounts {
        self.pairs.counts.with(self.measurement.unscored)
    }

    pub(super) fn evidence<'l>(&'l self, context: &'l AnalysisContext<'_>) -> Evidence<'l> {
        Evidence {
            policy: context.request.policy,
            pairs: &self.pairs,
            units: &context.units,
            counts: self.counts(),
            case_units: &self.units,
            checked: &context.checked,
            measurement: &self.measurement,
            tested: &self.tested,
            intervals: &self.intervals,
            fidelity: &context.fidelity,
            infrastructure: &context.infrastructure,
            drift: context.drift.as_ref().map(|found| &found.drift),
            mean_tests_disabled: context.mean_tests_disabled,
            bounds: self.bounds,
        }
    }
}

/// Looks at the data by the monitoring plan.
pub(super) fn look<'a>(context: &'a AnalysisContext<'a>) -> Look<'a> {
    match context.request.monitoring {
        MonitoringPlan::SingleLook => once(context),
        MonitoringPlan::PlannedLooks(looks) => {
            let all = context.order.len();
            let end = |look: usize| (all * look).div_ceil(looks.max(1) as usize);
            let ends: BTreeSet<usize> =
                (1..=looks as usize).map(|look| context.end_of_cluster(end(look))).collect();
            let ends: Vec<usize> = ends.into_iter().collect();
            planned(context, &ends, all, 1.0, true)
        }
        MonitoringPlan::Waves(waves) => {
            let share = if waves.extension { PLANNED_ALPHA_SHARE } else { 1.0 };
            planned(context, waves.ends, waves.planned, share, false)
        }
        MonitoringPlan::Anytime => anytime(context),
    }
}

fn once<'a>(context: &'a AnalysisContext<'a>) -> Look<'a> {
    let mut look = Look::new(context, Cow::Borrowed(&context.pairs));
    look.read(|look, scenario| decide::test(&look.measurement.metrics, scenario, &look.tests(context)));
    look
}

// === planned looks ===

/// P-values of all looks so far, by scenario and metric: of the block test, then of the approve test.
struct SequentialPValues {
    schedule: Schedule,
    /// Share of alpha that the planned looks spend.
    share: f64,
    strict: bool,
    values: BTreeMap<(MissingDataScenario, String), [Vec<f64>; 2]>,
}

impl SequentialPValues {
    /// Adds a look and returns the sequential test results; `planned` is false for a look of an extension.
    fn add(
        &mut self,
        look: &Look<'_>,
        scenario: MissingDataScenario,
        tests: &Tests<'_>,
        planned: bool,
    ) -> Vec<Tested> {
        let metrics = &look.measurement.metrics;
        let mut tested = decide::nominal(metrics, scenario, tests);
        for (metric, test) in metrics.iter().zip(&mut tested) {
            let held = self.values.entry((scenario, metric.name.clone())).or_default();
            if planned {
                held[0].push(test.p_block);
                held[1].push(test.p_approve);
            }
            let mut sequential = |values: &[f64]| {
                let levels = values.iter().enumerate().map(|(look, p)| self.schedule.level(look, *p));
                levels.fold(1.0, f64::min) / self.share
            };
            let mut block = sequential(&held[0]);
            let mut approve = sequential(&held[1]);
            // Bets know no correction of a judge's errors.
            if self.share < 1.0 && metric.correction.is_none() && metric.has_enough_cases(test.cases) {
                let bets = tests.bets(metric, scenario);
                let worse = bets.p_value(0.0, Side::Below) / (1.0 - self.share);
                let ordered = tests.ordered(decide::tables(metric, scenario));
                let means: Vec<UnitMean> = ordered.iter().map(|(_, unit)| unit.mean()).collect();
                block = block.min(tests.beyond_runs(metric, &means, worse));
                approve = approve.min(bets.p_value(-metric.margin, Side::Above) / (1.0 - self.share));
            }
            test.p_block = block.min(1.0);
            // A betting p-value needs no correction for looks.
            let bets = self.strict && metric.correction.is_none();
            test.p_approve = if bets { test.p_approve } else { approve.min(1.0) };
        }
        decide::conclude(metrics, &mut tested, tests.alpha);
        tested
    }

    /// P-values of the last planned look alone.
    fn last(&self, metric: &str) -> [f64; 2] {
        let held = self.values.get(&(MissingDataScenario::Observed, metric.to_owned()));
        let last = |values: &[f64]| values.last().copied().unwrap_or(1.0);
        held.map_or([1.0; 2], |held| [last(&held[0]), last(&held[1])])
    }
}

fn planned<'a>(
    context: &'a AnalysisContext<'a>,
    ends: &[usize],
    planned: usize,
    share: f64,
    stops: bool,
) -> Look<'a> {
    let alpha = context.request.policy.alpha * share;
    let fraction = |end: usize| float(end) / float(planned.max(1));
    let inside: Vec<f64> = ends.iter().filter(|end| **end <= planned).map(|end| fraction(*end)).collect();
    let limits = boundaries(alpha, &inside);
    let mut past = SequentialPValues {
        schedule: Schedule::new(alpha, &inside),
        share,
        strict: context.request.policy.strict,
        values: BTreeMap::new(),
    };
    let mut history = LookHistory {
        kind: MonitoringKind::Looks,
        planned_looks: 0,
        planned_cases: crate::cast::to_u64(planned),
        cases: 0,
        stopped_early: false,
        plan_share: share,
        extension_looks: 0,
        looks: Vec::new(),
    };
    let mut last = None;
    for (number, end) in ends.iter().enumerate() {
        let mut look = Look::new(context, Cow::Owned(context.part(*end)));
        let limit = limits.get(number).copied();
        look.read(|look, scenario| past.add(look, scenario, &look.tests(context), limit.is_some()));
        let answer = reasons::answer(&look.evidence(context));
        history.cases = crate::cast::to_u64(*end);
        history.extension_looks += u32::from(limit.is_none());
        history.looks.push(LookResult {
            look: u32::try_from(number + 1).unwrap_or(u32::MAX),
            cases: crate::cast::to_u64(*end),
            fraction: fraction(*end),
            alpha_spent: spent(alpha, fraction(*end)),
            boundary: limit.filter(|limit| limit.is_finite()),
            decision: answer,
            metrics: look_metrics(&look, |metric| past.last(metric)),
        });
        history.stopped_early = *end < planned && answer != Decision::Inconclusive;
        last = Some((look, limit));
        // A violated invariant decides at once, and then all trials are reported.
        if stops && answer != Decision::Inconclusive && !context.is_violated() {
            break;
        }
    }
    let Some((mut look, limit)) = last else { return once(context) };
    history.planned_looks = u32::try_from(inside.len()).unwrap_or(u32::MAX);
    look.level = match limit {
        Some(_) => {
            let done = history.looks.len().min(inside.len());
            LookLevel::Planned { fractions: inside[..done].to_vec(), share }
        }
        None => LookLevel::Bets { share: 1.0 - share },
    };
    look.look_history = Some(history);
    look
}

fn look_metrics(look: &Look<'_>, alone: impl Fn(&str) -> [f64; 2]) -> Vec<LookMetric> {
    let all = look.measurement.metrics.iter().zip(&look.tested);
    let own = all.filter(|(metric, _)| metric.slice.is_none());
    let of = |(metric, test): (&Measured, &Tested)| {
        let [p_block, p_approve] = alone(&metric.name);
        LookMetric {
            name: metric.name.clone(),
            cases: crate::cast::to_u64(test.cases),
            effect: test.effect,
            p_block,
            p_approve,
            p_block_sequential: test.p_block,
            p_approve_sequential: test.p_approve,
        }
    };
    own.map(of).collect()
}

// === a look after every case ===

/// P-values of a metric after each of its units, with the positions of their last cases in the order.
struct EvidencePath {
    ranks: Vec<usize>,
    /// Cases, weight and weighted sum of each unit.
    units: Vec<(usize, f64, f64)>,
    block: Vec<f64>,
    approve: Vec<f64>,
    floor: u64,
    /// P-value of the shifts between runs of one build, after each unit.
    shifts: Vec<f64>,
}

impl EvidencePath {
    fn new(metric: &Measured, scenario: MissingDataScenario, tests: &Tests<'_>) -> Self {
        let ordered = tests.ordered(decide::tables(metric, scenario));
        let bets = tests.bets(metric, scenario);
        let running = |path: Vec<f64>| {
            let mut most: f64 = 0.0;
            path.into_iter()
                // Bets know no correction of a judge's errors, so they decide nothing where a judge does.
                .map(|log| if metric.correction.is_some() { 0.0 } else { log })
                .map(|log| {
                    most = most.max(log);
                    p_of(&[most])
                })
                .collect()
        };
        Self {
            block: running(bets.against(0.0, Side::Below)),
            approve: running(bets.against(-metric.margin, Side::Above)),
            shifts: (1..=ordered.len())
                .map(|units| {
                    let known: Vec<UnitMean> = ordered[..units].iter().map(|(_, unit)| unit.mean()).collect();
                    tests.beyond_runs(metric, &known, 0.0)
                })
                .collect(),
            ranks: ordered.iter().map(|(rank, _)| *rank).collect(),
            units: ordered.iter().map(|(_, unit)| (unit.cases.len(), unit.weight, unit.sum)).collect(),
            floor: crate::stats::gaffke::floor(tests.alpha, metric.margin, metric.low),
        }
    }

    /// Test results of the metric after this many cases of the order.
    fn at(&self, metric: &Measured, end: usize) -> Tested {
        let units = &self.units[..self.ranks.partition_point(|rank| *rank < end)];
        let cases: usize = units.iter().map(|(cases, ..)| cases).sum();
        let weight: f64 = units.iter().map(|(_, weight, _)| weight).sum();
        let sum: f64 = units.iter().map(|(.., sum)| sum).sum();
        let p = |path: &[f64]| {
            if cases > 0 && metric.has_enough_cases(cases) { path[units.len() - 1] } else { 1.0 }
        };
        let weights: Vec<f64> = units.iter().map(|(_, weight, _)| *weight).collect();
        Tested {
            cases,
            units: decide::effective(&weights, metric),
            effect: if weight > 0.0 { sum / weight } else { 0.0 },
            p_block: p(&self.block).max(units.len().checked_sub(1).map_or(0.0, |last| self.shifts[last])),
            p_block_adjusted: None,
            p_approve: p(&self.approve),
            floor: self.floor,
            state: MetricState::Undecided,
        }
    }
}

fn anytime<'a>(context: &'a AnalysisContext<'a>) -> Look<'a> {
    let mut whole = Look::new(context, Cow::Borrowed(&context.pairs));
    let (all, alpha) = (context.order.len(), context.request.policy.alpha);
    let mut paths: BTreeMap<MissingDataScenario, Vec<EvidencePath>> = BTreeMap::new();
    for scenario in [MissingDataScenario::Observed, MissingDataScenario::Worst, MissingDataScenario::Best] {
        let tests = whole.tests(context);
        let of = |metric: &Measured| EvidencePath::new(metric, scenario, &tests);
        paths.insert(scenario, whole.measurement.metrics.iter().map(of).collect());
    }
    let known = |look: &Look<'_>, scenario: MissingDataScenario, end: usize| {
        // Planned cases without trials have no position in the order; they count at the end.
        let end = if end == all { usize::MAX } else { end };
        let metrics = &look.measurement.metrics;
        let mut tested: Vec<Tested> =
            metrics.iter().zip(&paths[&scenario]).map(|(metric, path)| path.at(metric, end)).collect();
        decide::conclude(metrics, &mut tested, alpha);
        tested
    };
    let early = context.pairs.unseen.cases == 0 && !context.is_violated();
    let (mut looks, mut end) = (Vec::new(), if early { 1 } else { all });
    let answer = loop {
        whole.read(|look, scenario| known(look, scenario, end));
        let answer = reasons::answer(&whole.evidence(context));
        let is_last = answer != Decision::Inconclusive || end >= all;
        if is_last || end % all.div_ceil(SHOWN_STEPS) == 0 {
            looks.push(step(&whole, end, all, alpha, answer));
        }
        if is_last {
            break answer;
        }
        end += 1;
    };
    let mut look = if end < all { Look::new(context, Cow::Owned(context.part(end))) } else { whole };
    // The same p-values, for the metrics that the first cases have.
    look.read(|look, scenario| {
        let tests = look.tests(context);
        let metrics = &look.measurement.metrics;
        let of = |metric: &Measured| EvidencePath::new(metric, scenario, &tests).at(metric, usize::MAX);
        let mut tested: Vec<Tested> = metrics.iter().map(of).collect();
        decide::conclude(metrics, &mut tested, alpha);
        tested
    });
    look.level = LookLevel::Bets { share: 1.0 };
    look.look_history = Some(LookHistory {
        kind: MonitoringKind::Anytime,
        planned_looks: 0,
        planned_cases: crate::cast::to_u64(all),
        cases: crate::cast::to_u64(end),
        stopped_early: end < all && answer != Decision::Inconclusive,
        plan_share: 1.0,
        extension_looks: 0,
        looks,
    });
    look
}

fn step(look: &Look<'_>, end: usize, all: usize, alpha: f64, answer: Decision) -> LookResult {
    let mut metrics = look_metrics(look, |_| [1.0; 2]);
    for metric in &mut metrics {
        (metric.p_block, metric.p_approve) = (metric.p_block_sequential, metric.p_approve_sequential);
    }
    LookResult {
        look: u32::try_from(end).unwrap_or(u32::MAX),
        cases: crate::cast::to_u64(end),
        fraction: float(end) / float(all.max(1)),
        alpha_spent: alpha,
        boundary: None,
        decision: answer,
        metrics,
    }
}
