//! The picture of the metrics: every interval on one scale, on which zero is "no change" and -1 the tolerated margin.

use serde::Serialize;

use super::{phrases, text};
use crate::verdict::{MetricResult, Verdict};
use crate::words;

/// The farthest the scale reaches to the worse side, margins; beyond it an interval is cut and marked so.
const FARTHEST_WORSE: f64 = -12.0;

/// The farthest the scale reaches to the better side, margins.
const FARTHEST_BETTER: f64 = 8.0;

/// All rows with their common lines.
#[derive(Debug, Serialize)]
pub(super) struct Plot {
    rows: Vec<Row>,
    /// Place of "no change", per cent of the width.
    zero: String,
    /// Place of the margin, per cent of the width.
    margin: String,
    /// From the margin to zero, per cent of the width.
    tolerated: String,
    /// From zero to the right edge, per cent of the width.
    better: String,
    /// How many of the rows decide.
    deciding: usize,
}

/// One interval.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    tone: &'static str,
    state: &'static str,
    decides: bool,
    low: String,
    high: String,
    width: String,
    effect_at: String,
    cut_low: bool,
    cut_high: bool,
    /// Whether the effect itself lies within the picture.
    effect_shown: bool,
    effect: String,
    interval: String,
    margin: String,
    /// The row for who cannot see it.
    spoken: String,
}

/// Draws the metrics that have a margin, the deciding ones first.
pub(super) fn plot(verdict: &Verdict) -> Plot {
    let drawn: Vec<&MetricResult> = verdict.metrics.iter().filter(|metric| metric.margin > 0.0).collect();
    let scaled = |metric: &MetricResult, at: f64| at / metric.margin;
    let lowest = drawn.iter().map(|metric| scaled(metric, metric.interval[0])).fold(-1.0, f64::min);
    let highest = drawn.iter().map(|metric| scaled(metric, metric.interval[1])).fold(0.0, f64::max);
    let scale = Scale {
        low: (lowest - 0.3).clamp(FARTHEST_WORSE, -1.6),
        high: (highest + 0.3).clamp(0.8, FARTHEST_BETTER),
    };
    let decides = |metric: &MetricResult| metric.decides || metric.required;
    let first = drawn.iter().filter(|metric| decides(metric));
    let rest = drawn.iter().filter(|metric| !decides(metric));
    Plot {
        rows: first.chain(rest).map(|metric| row(metric, &scale)).collect(),
        zero: percent(scale.place(0.0)),
        margin: percent(scale.place(-1.0)),
        tolerated: percent(scale.place(0.0) - scale.place(-1.0)),
        better: percent(100.0 - scale.place(0.0)),
        deciding: drawn.iter().filter(|metric| decides(metric)).count(),
    }
}

struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    /// Per cent of the width, within the picture.
    fn place(&self, at: f64) -> f64 {
        100.0 * (at.clamp(self.low, self.high) - self.low) / (self.high - self.low)
    }
}

fn percent(place: f64) -> String {
    format!("{place:.2}%")
}

fn row(metric: &MetricResult, scale: &Scale) -> Row {
    let [low, high] = metric.interval.map(|end| end / metric.margin);
    let (tone, state) = phrases::state(metric);
    let (effect, interval) = (words::effect(metric.unit, metric.effect), phrases::interval(metric));
    let margin = phrases::margin(metric);
    let name = text::name(&metric.name);
    let spoken = format!("{name}: effect {effect}, interval {interval}, margin {margin}: {state}");
    Row {
        name,
        tone,
        state,
        decides: metric.decides || metric.required,
        low: percent(scale.place(low)),
        high: percent(scale.place(high)),
        width: percent(scale.place(high) - scale.place(low)),
        effect_at: percent(scale.place(metric.effect / metric.margin)),
        cut_low: low < scale.low,
        cut_high: high > scale.high,
        effect_shown: (scale.low..=scale.high).contains(&(metric.effect / metric.margin)),
        effect,
        interval,
        margin,
        spoken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use crate::verdict::Answer;

    #[test]
    fn every_interval_lies_in_the_picture_and_a_cut_one_says_so() {
        let plot = plot(&sample::analysis(Answer::Block).verdict);
        assert_eq!(plot.deciding, 2);
        let place = |text: &str| text.trim_end_matches('%').parse::<f64>().unwrap();
        assert!(place(&plot.margin) < place(&plot.zero));
        for row in &plot.rows {
            assert!((0.0..=100.0).contains(&place(&row.low)) && place(&row.high) <= 100.0, "{row:?}");
        }
        assert!(plot.rows[0].interval.starts_with("-39.0 to"), "{:?}", plot.rows[0]);
        assert!(!plot.rows[0].cut_low && plot.rows[0].spoken.contains("-33.0 points"));
        assert!(!plot.rows[1].cut_low);
    }
}
