//! Tests of each metric, and the decision rule over the metrics (DECISION 1.3 and 1.4).
//!
//! Invariants, fidelity and the other conditions of approval are in `analysis::reasons`.

use rayon::prelude::*;

use crate::metrics::{CaseTable, Measured};
use crate::stats::betting::{Bets, Side};
use crate::stats::gaffke::{self, Sample};
use crate::stats::holm;
use crate::stats::permutation::Tables;
use crate::stats::stream::StreamKey;
use crate::stats::variance::mean;
use crate::verdict::{Decision, MetricState};

/// Test results of one metric.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tested {
    pub(crate) cases: usize,
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
}

impl Tests<'_> {
    /// Contrasts in the seeded order of their cases; planned cases without a trial come last.
    pub(crate) fn ordered(&self, tables: &[CaseTable]) -> Vec<f64> {
        let rank = |table: &CaseTable| self.ranks.get(table.place).copied().unwrap_or(usize::MAX);
        let mut ranked: Vec<(usize, f64)> =
            tables.iter().map(|table| (rank(table), table.observed())).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, contrast)| contrast).collect()
    }

    /// Contrasts of a metric as betting sequence.
    pub(crate) fn bets(&self, metric: &Measured, scenario: MissingDataScenario) -> Bets {
        Bets::new(&self.ordered(tables(metric, scenario)), metric.low, metric.high)
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
        let enough = crate::cast::to_u64(test.cases) >= test.floor && metric.has_enough_cases(test.cases);
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
    let cases = tables(metric, scenario);
    let contrasts: Vec<f64> = cases.iter().map(CaseTable::observed).collect();
    let key = StreamKey::new(tests.seed, &format!("block {}", metric.name));
    let floor = gaffke::floor(tests.alpha, metric.margin, metric.low);
    let enough = metric.has_enough_cases(cases.len());
    if let Some(correction) = metric.correction.as_ref().filter(|_| enough) {
        let corrected = correction.mean(cases, [metric.low, metric.high], key);
        return Tested {
            cases: cases.len(),
            effect: corrected.estimate,
            p_block: corrected.p_block(),
            p_block_adjusted: None,
            p_approve: corrected.p_approve(metric.margin),
            floor,
            state: MetricState::Undecided,
        };
    }
    let p_approve = || {
        if tests.strict {
            tests.bets(metric, scenario).p_value(-metric.margin, Side::Above)
        } else {
            Sample::new(&contrasts, metric.low).p_value(metric.margin)
        }
    };
    let p_block = || Tables::new(cases.iter().map(|case| case.contrasts.as_slice())).p_value(key);
    Tested {
        cases: cases.len(),
        effect: mean(&contrasts),
        p_block: if enough { p_block() } else { 1.0 },
        p_block_adjusted: None,
        p_approve: if enough { p_approve() } else { 1.0 },
        floor,
        state: MetricState::Undecided,
    }
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

/// One-sided bounds of the mean contrast.
pub(crate) fn interval(metric: &Measured, bounds: Bounds, tests: &Tests<'_>) -> [f64; 2] {
    match bounds {
        Bounds::At(alpha) if let Some(correction) = &metric.correction => {
            let key = StreamKey::new(tests.seed, &format!("block {}", metric.name));
            correction.mean(&metric.observed, [metric.low, metric.high], key).bounds(alpha)
        }
        // No corrected mean is valid at any stopping time.
        Bounds::Bets(_) if metric.correction.is_some() => [metric.low, metric.high],
        Bounds::At(alpha) if !tests.strict => {
            let contrasts: Vec<f64> = metric.observed.iter().map(CaseTable::observed).collect();
            let mirrored: Vec<f64> = contrasts.iter().map(|contrast| -contrast).collect();
            let low = Sample::new(&contrasts, metric.low).lower_bound(alpha);
            [low, -Sample::new(&mirrored, -metric.high).lower_bound(alpha)]
        }
        Bounds::At(alpha) | Bounds::Bets(alpha) => {
            let bets = tests.bets(metric, MissingDataScenario::Observed);
            [bets.bound(alpha, Side::Above), bets.bound(alpha, Side::Below)]
        }
        Bounds::None => [metric.low, metric.high],
    }
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
