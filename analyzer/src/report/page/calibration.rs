//! How the decision does on these sessions when nothing changed, for a reader.

use serde::Serialize;

use crate::format;
use crate::report::{figures::rounded, text};
use crate::verdict::{Calibration, CalibrationMetric};

/// The section.
#[derive(Debug, Serialize)]
pub(super) struct CalibrationView {
    sentence: String,
    facts: Vec<[String; 2]>,
    metrics: Vec<CalibrationRow>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct CalibrationRow {
    name: String,
    decides: bool,
    margin: String,
    detectable: String,
    approvable: String,
    cases_to_approve: String,
    false_alarm: String,
}

/// What could be seen of a metric, in units of its margin.
#[derive(Debug, Serialize)]
pub(in crate::report) struct CalibrationPoint {
    name: String,
    detectable: f64,
    approvable: f64,
}

pub(super) fn calibration(of: &Calibration) -> CalibrationView {
    let [low, high] = of.false_block_interval;
    let fact = |name: &str, value: String| [name.to_owned(), value];
    let mut facts = vec![
        fact("Run that was split", text::name(&of.run)),
        fact("Build", text::name(&of.build)),
        fact("Cases, trials of each in an arm", format!("{}, {:.1}", text::count(of.cases), of.trials)),
        fact(
            "Splits approved, blocked, inconclusive",
            format!(
                "{}, {}, {}",
                text::count(of.answers.approve),
                text::count(of.answers.block),
                text::count(of.answers.inconclusive)
            ),
        ),
        fact("Cases looked at before a decision", text::percent(of.cost.share_used)),
        fact("Trials of a decision of this size", text::count(of.cost.trials)),
    ];
    facts.extend(of.cost.tokens.map(|tokens| fact("Tokens", format!("{tokens:.0}"))));
    facts.extend(of.cost.usd.map(|usd| fact("US dollars", format!("{usd:.2}"))));
    facts.extend(of.cost.agent_hours.map(|hours| fact("Hours of agent time", format!("{hours:.1}"))));
    CalibrationView {
        sentence: format!(
            "{} of {} random splits of one build's own trials were blocked: a false alarm rate of {} ({} to {}) on these \
             sessions.",
            text::count(of.answers.block),
            text::count(of.splits),
            text::percent(of.false_block),
            text::percent(low),
            text::percent(high),
        ),
        facts,
        metrics: of.metrics.iter().map(row).collect(),
        notes: of.notes.iter().map(|note| text::visible(note)).collect(),
    }
}

fn row(metric: &CalibrationMetric) -> CalibrationRow {
    CalibrationRow {
        name: text::name(&metric.name),
        decides: metric.decides || metric.required,
        margin: format::size(metric.unit, metric.margin),
        detectable: text::visible(&metric.detectable_text),
        approvable: format::size(metric.unit, metric.approvable_margin),
        cases_to_approve: text::count(metric.cases_to_approve),
        false_alarm: text::percent(metric.false_alarm),
    }
}

/// The metrics that have a margin.
pub(in crate::report) fn points(of: &Calibration) -> Vec<CalibrationPoint> {
    let drawn = of.metrics.iter().filter(|metric| metric.margin > 0.0);
    drawn
        .map(|metric| CalibrationPoint {
            name: text::name(&metric.name),
            detectable: rounded((metric.detectable / metric.margin).min(20.0)),
            approvable: rounded((metric.approvable_margin / metric.margin).min(20.0)),
        })
        .collect()
}
