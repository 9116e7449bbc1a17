//! Data of the page's charts, in the units of the drawing. The charting library of the page (`page/charts/`) draws them.

use serde::Serialize;

use super::sections::answer_drift::{self, DriftPoint};
use super::sections::calibration::{self, CalibrationPoint};
use super::sections::look_history::{self, LookPoint};
use super::sections::slices;
use super::severity::Severity;
use super::{escape, number, wording};
use crate::analysis::{Analysis, MetricDetail};
use crate::format;
use crate::verdict::{MetricResult, SliceResult, Unit, Verdict};

/// Largest loss on the scale, in margins. A bound beyond it is drawn at the edge and marked.
const FARTHEST_WORSE: f64 = -12.0;

/// Largest gain on the scale, in margins.
const FARTHEST_BETTER: f64 = 8.0;

/// Data of all charts.
#[derive(Debug, Serialize)]
pub(super) struct ChartData {
    alpha: f64,
    intervals: IntervalChart,
    direction_counts: Vec<DirectionCounts>,
    answer_drift: Vec<DriftPoint>,
    look_history: Vec<LookPoint>,
    slices: IntervalChart,
    calibration: Vec<CalibrationPoint>,
}

/// Intervals on one scale: 0 is no change, -1 the tolerated margin.
#[derive(Debug, Serialize)]
struct IntervalChart {
    low: f64,
    high: f64,
    rows: Vec<ChartRow>,
}

/// One interval, clipped to the scale.
#[derive(Debug, Serialize)]
struct ChartRow {
    name: String,
    severity: Severity,
    state: &'static str,
    decides: bool,
    low: f64,
    high: f64,
    /// Whether the lower bound is beyond the scale.
    clipped_low: bool,
    /// Whether the upper bound is beyond the scale.
    clipped_high: bool,
    /// `None` beyond the scale.
    effect: Option<f64>,
    format_effect: String,
    interval_text: String,
    margin_text: String,
}

/// Cases in which a metric got worse, stayed the same, got better.
#[derive(Debug, Serialize)]
struct DirectionCounts {
    name: String,
    worse: usize,
    same: usize,
    better: usize,
}

pub(super) fn chart_data(analysis: &Analysis) -> ChartData {
    let verdict = &analysis.verdict;
    let deciding = verdict.metrics.iter().zip(&analysis.details).filter(|(metric, _)| decides(metric));
    ChartData {
        alpha: verdict.monitoring.alpha,
        intervals: metric_intervals(verdict),
        direction_counts: deciding.map(|(metric, detail)| direction_counts(metric, detail)).collect(),
        answer_drift: answer_drift::points(analysis),
        look_history: look_history::points(verdict),
        slices: slice_intervals(verdict),
        calibration: verdict.calibration.as_ref().map(calibration::points).unwrap_or_default(),
    }
}

fn decides(metric: &MetricResult) -> bool {
    metric.decides || metric.required
}

/// The metrics with a margin, the deciding ones first.
fn metric_intervals(verdict: &Verdict) -> IntervalChart {
    let intervals: Vec<Interval> =
        verdict.metrics.iter().filter(|metric| metric.margin > 0.0).map(Interval::of_metric).collect();
    let (first, rest): (Vec<Interval>, Vec<Interval>) = intervals.into_iter().partition(|one| one.decides);
    on_one_scale(&[first, rest].concat())
}

/// The slices of the policy, in its order.
fn slice_intervals(verdict: &Verdict) -> IntervalChart {
    let intervals: Vec<Interval> =
        verdict.slices.iter().filter(|slice| slice.margin > 0.0).map(Interval::of_slice).collect();
    on_one_scale(&intervals)
}

fn on_one_scale(intervals: &[Interval]) -> IntervalChart {
    let lowest = intervals.iter().map(|one| one.bounds[0] / one.margin).fold(-1.0, f64::min);
    let highest = intervals.iter().map(|one| one.bounds[1] / one.margin).fold(0.0, f64::max);
    let low = (lowest - 0.3).clamp(FARTHEST_WORSE, -1.6);
    let high = (highest + 0.3).clamp(0.8, FARTHEST_BETTER);
    IntervalChart { low, high, rows: intervals.iter().map(|one| chart_row(one, low, high)).collect() }
}

/// An effect with its bounds and margin, all in the metric's unit.
#[derive(Debug, Clone)]
struct Interval {
    name: String,
    severity: Severity,
    state: &'static str,
    decides: bool,
    unit: Unit,
    effect: f64,
    bounds: [f64; 2],
    margin: f64,
}

impl Interval {
    fn of_metric(metric: &MetricResult) -> Self {
        let (severity, state) = wording::metric(metric);
        Self {
            name: escape::name(&metric.name),
            severity,
            state,
            decides: decides(metric),
            unit: metric.unit,
            effect: metric.effect,
            bounds: metric.interval,
            margin: metric.margin,
        }
    }

    fn of_slice(slice: &SliceResult) -> Self {
        let (severity, state) = slices::state(slice);
        Self {
            name: format!("{} \u{b7} {}", escape::name(&slice.name), escape::name(&slice.metric)),
            severity,
            state,
            decides: slice.critical || slice.required,
            unit: slice.unit,
            effect: slice.effect,
            bounds: slice.interval,
            margin: slice.margin,
        }
    }
}

/// Clips an interval to a scale from `lowest` to `highest` margins.
fn chart_row(interval: &Interval, lowest: f64, highest: f64) -> ChartRow {
    let [low, high] = interval.bounds.map(|bound| bound / interval.margin);
    let effect = interval.effect / interval.margin;
    ChartRow {
        name: interval.name.clone(),
        severity: interval.severity,
        state: interval.state,
        decides: interval.decides,
        low: number::rounded(low.clamp(lowest, highest)),
        high: number::rounded(high.clamp(lowest, highest)),
        clipped_low: low < lowest,
        clipped_high: high > highest,
        effect: (lowest..=highest).contains(&effect).then(|| number::rounded(effect)),
        format_effect: format::effect(interval.unit, interval.effect),
        interval_text: wording::bounds(interval.unit, interval.bounds),
        margin_text: format::effect(interval.unit, -interval.margin),
    }
}

fn direction_counts(metric: &MetricResult, detail: &MetricDetail) -> DirectionCounts {
    // A share differs or does not. A measured value counts as changed beyond the margin only.
    let least = match metric.unit {
        Unit::Share => 0.0,
        Unit::Distance | Unit::Seconds | Unit::Tokens | Unit::Usd | Unit::UsdMean => metric.margin,
    };
    let worse = detail.contrasts.iter().filter(|case| case.effect < -least).count();
    let better = detail.contrasts.iter().filter(|case| case.effect > least).count();
    DirectionCounts {
        name: escape::name(&metric.name),
        worse,
        same: detail.contrasts.len() - worse - better,
        better,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;
    use crate::verdict::Decision;

    #[test]
    fn intervals_beyond_the_scale_are_clipped_and_marked() {
        let data = chart_data(&fixture::analysis(Decision::Block));
        let IntervalChart { low, high, rows } = &data.intervals;
        assert!(*low <= -1.6 && *high >= 0.8);
        assert_eq!(rows.iter().map(|row| row.decides).collect::<Vec<_>>(), [true, true, false]);
        for row in rows {
            assert!(*low <= row.low && row.low <= row.high && row.high <= *high, "{row:?}");
        }
        assert!(rows[0].interval_text.starts_with("-39.0 to"), "{:?}", rows[0]);
        assert!(!rows[0].clipped_low && rows[0].effect.is_some());
        let far = chart_row(
            &Interval::of_metric(&fixture::analysis(Decision::Block).verdict.metrics[0]),
            -2.0,
            2.0,
        );
        assert!(far.clipped_low && far.effect.is_none() && far.low == -2.0, "{far:?}");
    }

    #[test]
    fn cases_count_by_the_direction_of_their_change() {
        let data = chart_data(&fixture::analysis(Decision::Block));
        let [success, _] = &data.direction_counts[..] else { panic!("two deciding metrics") };
        assert_eq!((success.worse, success.same, success.better), (1, 2, 0));
    }
}
