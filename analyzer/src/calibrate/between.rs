//! Shifts between runs of one build that were made apart.

use crate::analysis::{AnalysisRequest, DecisionSummary, decide_pairs};
use crate::pairs::{PairError, Pairs};
use crate::run::Run;
use crate::stats::variance::{float, mean, variance};
use crate::verdict::RunShifts;

/// The calibrated run compared with another one, in both directions.
pub(super) struct Comparison {
    forward: DecisionSummary,
    backward: DecisionSummary,
}

/// Compares the calibrated run with each other run.
///
/// # Errors
///
/// A run is empty or contains a trial twice.
pub(super) fn compare(
    request: &AnalysisRequest<'_>,
    run: &Run,
    others: &[&Run],
) -> Result<Vec<Comparison>, PairError> {
    let decide = |before: &Run, after: &Run| -> Result<DecisionSummary, PairError> {
        Ok(decide_pairs(*request, Pairs::new(before, after, None)?))
    };
    others
        .iter()
        .map(|other| Ok(Comparison { forward: decide(run, other)?, backward: decide(other, run)? }))
        .collect()
}

/// Shifts of a metric; absent if no other run has the metric.
pub(super) fn shifts(comparisons: &[Comparison], name: &str, alpha: f64) -> Option<RunShifts> {
    let find = |summary: &DecisionSummary| -> Option<(f64, f64, f64)> {
        let metric = summary.metrics.iter().find(|metric| metric.name == name)?;
        Some((metric.effect, metric.p_block, (metric.variance / float(metric.cases.max(1))).sqrt()))
    };
    let mut found = Vec::new();
    for comparison in comparisons {
        let (effect, p_worse, within) = find(&comparison.forward)?;
        let (_, p_better, _) = find(&comparison.backward)?;
        found.push((effect, (2.0 * p_worse.min(p_better)).min(1.0), within));
    }
    let shifts: Vec<f64> = found.iter().map(|(effect, ..)| *effect).collect();
    if shifts.is_empty() {
        return None;
    }
    // Positions of all runs relative to the calibrated one, which is at 0.
    let positions: Vec<f64> = std::iter::once(0.0).chain(shifts.iter().copied()).collect();
    let smallest = found.iter().map(|(_, p, _)| *p).fold(1.0, f64::min);
    let p = (smallest * float(found.len())).min(1.0);
    Some(RunShifts {
        deviation: (2.0 * variance(&positions)).sqrt(),
        within: mean(&found.iter().map(|(.., within)| *within).collect::<Vec<_>>()),
        freedom: crate::cast::to_u64(shifts.len()),
        shifts,
        p,
        drifts: p <= alpha,
    })
}
