//! What the page's charts are drawn from, in the units in which they are drawn. The charts themselves are drawn by the
//! charting library that the page carries (`charts/`).

use serde::Serialize;

use super::sections::answer_drift::{self, DriftPoint};
use super::sections::calibration::{self, CalibrationPoint};
use super::sections::look_history::{self, CoursePoint};
use super::sections::slices;
use super::{escape, number, wording};
use crate::analysis::{Analysis, MetricDetail};
use crate::format;
use crate::verdict::{MetricResult, SliceResult, Unit, Verdict};

/// The farthest the scale reaches to the worse side, margins; beyond it an interval is cut and marked so.
const FARTHEST_WORSE: f64 = -12.0;

/// The farthest the scale reaches to the better side, margins.
const FARTHEST_BETTER: f64 = 8.0;

/// Everything that is drawn.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    /// The level of the tests.
    alpha: f64,
    intervals: Intervals,
    moves: Vec<Moves>,
    drift: Vec<DriftPoint>,
    course: Vec<CoursePoint>,
    slices: Intervals,
    calibration: Vec<CalibrationPoint>,
}

/// Every metric's interval on one scale, on which zero is "no change" and -1 the tolerated margin.
#[derive(Debug, Serialize)]
struct Intervals {
    low: f64,
    high: f64,
    rows: Vec<Row>,
}

/// One interval, cut to the scale.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    tone: &'static str,
    state: &'static str,
    decides: bool,
    low: f64,
    high: f64,
    cut_low: bool,
    cut_high: bool,
    /// Absent where it lies beyond the scale.
    effect: Option<f64>,
    effect_text: String,
    interval_text: String,
    margin_text: String,
}

/// In how many cases a metric got worse, stayed, got better.
#[derive(Debug, Serialize)]
struct Moves {
    name: String,
    worse: usize,
    same: usize,
    better: usize,
}

/// Gathers what is drawn.
pub(super) fn figures(analysis: &Analysis) -> Figures {
    let pairs = analysis.verdict.metrics.iter().zip(&analysis.details);
    let deciding = pairs.filter(|(metric, _)| decides(metric));
    Figures {
        alpha: analysis.verdict.alpha,
        intervals: intervals(&analysis.verdict),
        moves: deciding.map(|(metric, detail)| moves(metric, detail)).collect(),
        drift: answer_drift::points(analysis),
        course: look_history::points(&analysis.verdict),
        slices: slice_intervals(&analysis.verdict),
        calibration: analysis.verdict.calibration.as_ref().map(calibration::points).unwrap_or_default(),
    }
}

fn decides(metric: &MetricResult) -> bool {
    metric.decides || metric.required
}

/// Places the metrics that have a margin, the deciding ones first.
fn intervals(verdict: &Verdict) -> Intervals {
    let drawn: Vec<Drawn> =
        verdict.metrics.iter().filter(|metric| metric.margin > 0.0).map(Drawn::metric).collect();
    let (first, rest): (Vec<Drawn>, Vec<Drawn>) = drawn.into_iter().partition(|drawn| drawn.decides);
    on_one_scale(&[first, rest].concat())
}

/// The slices that the policy names, in its order.
fn slice_intervals(verdict: &Verdict) -> Intervals {
    let drawn: Vec<Drawn> =
        verdict.slices.iter().filter(|slice| slice.margin > 0.0).map(Drawn::slice).collect();
    on_one_scale(&drawn)
}

fn on_one_scale(drawn: &[Drawn]) -> Intervals {
    let lowest = drawn.iter().map(|one| one.interval[0] / one.margin).fold(-1.0, f64::min);
    let highest = drawn.iter().map(|one| one.interval[1] / one.margin).fold(0.0, f64::max);
    let low = (lowest - 0.3).clamp(FARTHEST_WORSE, -1.6);
    let high = (highest + 0.3).clamp(0.8, FARTHEST_BETTER);
    Intervals { low, high, rows: drawn.iter().map(|one| row(one, low, high)).collect() }
}

/// What is drawn as an interval against a margin.
#[derive(Debug, Clone)]
struct Drawn {
    name: String,
    tone: &'static str,
    state: &'static str,
    decides: bool,
    unit: Unit,
    effect: f64,
    interval: [f64; 2],
    margin: f64,
}

impl Drawn {
    fn metric(metric: &MetricResult) -> Self {
        let (tone, state) = wording::state(metric);
        Self {
            name: escape::name(&metric.name),
            tone,
            state,
            decides: decides(metric),
            unit: metric.unit,
            effect: metric.effect,
            interval: metric.interval,
            margin: metric.margin,
        }
    }

    fn slice(slice: &SliceResult) -> Self {
        let (tone, state) = slices::state(slice);
        Self {
            name: format!("{} \u{b7} {}", escape::name(&slice.name), escape::name(&slice.metric)),
            tone,
            state,
            decides: slice.critical || slice.required,
            unit: slice.unit,
            effect: slice.effect,
            interval: slice.interval,
            margin: slice.margin,
        }
    }
}

fn row(drawn: &Drawn, lowest: f64, highest: f64) -> Row {
    let [low, high] = drawn.interval.map(|end| end / drawn.margin);
    let effect = drawn.effect / drawn.margin;
    Row {
        name: drawn.name.clone(),
        tone: drawn.tone,
        state: drawn.state,
        decides: drawn.decides,
        low: number::rounded(low.clamp(lowest, highest)),
        high: number::rounded(high.clamp(lowest, highest)),
        cut_low: low < lowest,
        cut_high: high > highest,
        effect: (lowest..=highest).contains(&effect).then(|| number::rounded(effect)),
        effect_text: format::effect(drawn.unit, drawn.effect),
        interval_text: wording::ends(drawn.unit, drawn.interval),
        margin_text: format::effect(drawn.unit, -drawn.margin),
    }
}

fn moves(metric: &MetricResult, detail: &MetricDetail) -> Moves {
    // A share moves or does not; of a measured value only what exceeds the margin is told.
    let least = match metric.unit {
        Unit::Share => 0.0,
        Unit::Distance | Unit::Seconds | Unit::Tokens | Unit::Usd => metric.margin,
    };
    let worse = detail.contrasts.iter().filter(|case| case.effect < -least).count();
    let better = detail.contrasts.iter().filter(|case| case.effect > least).count();
    Moves { name: escape::name(&metric.name), worse, same: detail.contrasts.len() - worse - better, better }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;
    use crate::verdict::Answer;

    #[test]
    fn every_interval_lies_in_the_picture_and_a_cut_one_says_so() {
        let figures = figures(&fixture::analysis(Answer::Block));
        let Intervals { low, high, rows } = &figures.intervals;
        assert!(*low <= -1.6 && *high >= 0.8);
        assert_eq!(rows.iter().map(|row| row.decides).collect::<Vec<_>>(), [true, true, false]);
        for row in rows {
            assert!(*low <= row.low && row.low <= row.high && row.high <= *high, "{row:?}");
        }
        assert!(rows[0].interval_text.starts_with("-39.0 to"), "{:?}", rows[0]);
        assert!(!rows[0].cut_low && rows[0].effect.is_some());
        let far = row(&Drawn::metric(&fixture::analysis(Answer::Block).verdict.metrics[0]), -2.0, 2.0);
        assert!(far.cut_low && far.effect.is_none() && far.low == -2.0, "{far:?}");
    }

    #[test]
    fn cases_are_counted_by_where_they_went() {
        let figures = figures(&fixture::analysis(Answer::Block));
        let [success, _] = &figures.moves[..] else { panic!("two deciding metrics") };
        assert_eq!((success.worse, success.same, success.better), (1, 2, 0));
    }
}
