//! Tests of each metric, and the rule that makes an answer of them (DECISION 1.3 and 1.4).
//!
//! Invariants, fidelity and what forbids approval come from outside; here are only the metrics.

use crate::metrics::{CaseTable, Measured};
use crate::stats::gaffke::{self, Sample};
use crate::stats::holm;
use crate::stats::permutation::Tables;
use crate::stats::stream::StreamKey;
use crate::stats::variance::mean;
use crate::verdict::{Answer, MetricState};

/// What the tests of one metric say.
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

/// Which reading of missing trials is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Missing trials are left out.
    Observed,
    /// Missing trials of the candidate failed, those of the baseline succeeded.
    Worst,
    /// The other way round.
    Best,
}

/// The contrasts of a metric under a reading.
pub(crate) fn tables(metric: &Measured, reading: Reading) -> &[CaseTable] {
    match (&metric.bounds, reading) {
        (Some(bounds), Reading::Worst) => &bounds.worst,
        (Some(bounds), Reading::Best) => &bounds.best,
        (Some(_) | None, _) => &metric.observed,
    }
}

/// Tests every metric under one reading.
pub(crate) fn test(metrics: &[Measured], reading: Reading, alpha: f64, seed: u64) -> Vec<Tested> {
    let mut tested: Vec<Tested> =
        metrics.iter().map(|metric| test_one(metric, reading, alpha, seed)).collect();
    let deciding: Vec<usize> = (0..metrics.len()).filter(|place| metrics[*place].decides).collect();
    let p_values: Vec<f64> = deciding.iter().map(|place| tested[*place].p_block).collect();
    for (place, adjusted) in deciding.into_iter().zip(holm::adjust(&p_values)) {
        tested[place].p_block_adjusted = Some(adjusted);
    }
    for test in &mut tested {
        // A metric that does not decide is shown at its own p, without correction.
        let worse = test.p_block_adjusted.unwrap_or(test.p_block) <= alpha;
        let tolerable = test.p_approve <= alpha && crate::count::of(test.cases) >= test.floor;
        test.state = match (tolerable, worse) {
            (true, false) => MetricState::NonInferior,
            (true, true) => MetricState::DeterioratedWithinMargin,
            (false, true) => MetricState::Deteriorated,
            (false, false) => MetricState::Undecided,
        };
    }
    tested
}

fn test_one(metric: &Measured, reading: Reading, alpha: f64, seed: u64) -> Tested {
    let cases = tables(metric, reading);
    let contrasts: Vec<f64> = cases.iter().map(CaseTable::observed).collect();
    let key = StreamKey::new(seed, &format!("block {}", metric.name));
    Tested {
        cases: cases.len(),
        effect: mean(&contrasts),
        p_block: Tables::new(cases.iter().map(|case| case.contrasts.as_slice())).p_value(key),
        p_block_adjusted: None,
        p_approve: Sample::new(&contrasts, metric.low).p_value(metric.margin),
        floor: gaffke::floor(alpha, metric.margin, metric.low),
        state: MetricState::Undecided,
    }
}

/// One-sided bounds of the mean contrast at level `1 - alpha` each.
pub(crate) fn interval(metric: &Measured, alpha: f64) -> [f64; 2] {
    let contrasts: Vec<f64> = metric.observed.iter().map(CaseTable::observed).collect();
    let mirrored: Vec<f64> = contrasts.iter().map(|contrast| -contrast).collect();
    let low = Sample::new(&contrasts, metric.low).lower_bound(alpha);
    let high = -Sample::new(&mirrored, -metric.high).lower_bound(alpha);
    [low, high]
}

/// The answer that the metrics alone give.
pub(crate) fn answer(metrics: &[Measured], tested: &[Tested]) -> Answer {
    let pairs = || metrics.iter().zip(tested);
    if pairs().any(|(metric, test)| metric.decides && test.state == MetricState::Deteriorated) {
        return Answer::Block;
    }
    let mut required = pairs().filter(|(metric, _)| metric.required).peekable();
    let any = required.peek().is_some();
    if any && required.all(|(_, test)| is_tolerable(test.state)) {
        Answer::Approve
    } else {
        Answer::Inconclusive
    }
}

/// Whether the metric is shown not to be worse than its margin.
pub(crate) fn is_tolerable(state: MetricState) -> bool {
    match state {
        MetricState::NonInferior | MetricState::DeterioratedWithinMargin => true,
        MetricState::Deteriorated | MetricState::Undecided => false,
    }
}
