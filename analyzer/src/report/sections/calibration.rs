//! How the decision does on these sessions when nothing changed, for a reader.

use serde::Serialize;

use crate::format;
use crate::report::{escape, number, number::rounded};
use crate::verdict::{Calibration, CalibrationMetric};

/// The section.
#[derive(Debug, Serialize)]
pub(in crate::report) struct CalibrationView {
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

pub(in crate::report) fn calibration(of: &Calibration) -> CalibrationView {
    let [low, high] = of.false_block_interval;
    let fact = |name: &str, value: String| [name.to_owned(), value];
    let mut facts = vec![
        fact("Run that was split", escape::name(&of.run)),
        fact("Build", escape::name(&of.build)),
        fact("Cases, trials of each in an arm", format!("{}, {:.1}", number::count(of.cases), of.trials)),
        fact(
            "Splits approved, blocked, inconclusive",
            format!(
                "{}, {}, {}",
                number::count(of.answers.approve),
                number::count(of.answers.block),
                number::count(of.answers.inconclusive)
            ),
        ),
        fact("Cases looked at before a decision", number::percent(of.cost.share_used)),
        fact("Trials of a decision of this size", number::count(of.cost.trials)),
    ];
    facts.extend(of.cost.tokens.map(|tokens| fact("Tokens", format!("{tokens:.0}"))));
    facts.extend(of.cost.usd.map(|usd| fact("US dollars", format!("{usd:.2}"))));
    facts.extend(of.cost.agent_hours.map(|hours| fact("Hours of agent time", format!("{hours:.1}"))));
    CalibrationView {
        sentence: format!(
            "{} of {} random splits of one build's own trials were blocked: a false alarm rate of {} ({} to {}) on these \
             sessions.",
            number::count(of.answers.block),
            number::count(of.splits),
            number::percent(of.false_block),
            number::percent(low),
            number::percent(high),
        ),
        facts,
        metrics: of.metrics.iter().map(row).collect(),
        notes: of.notes.iter().map(|note| escape::visible(note)).collect(),
    }
}

fn row(metric: &CalibrationMetric) -> CalibrationRow {
    CalibrationRow {
        name: escape::name(&metric.name),
        decides: metric.decides || metric.required,
        margin: format::size(metric.unit, metric.margin),
        detectable: escape::visible(&metric.detectable_text),
        approvable: format::size(metric.unit, metric.approvable_margin),
        cases_to_approve: number::count(metric.cases_to_approve),
        false_alarm: number::percent(metric.false_alarm),
    }
}

/// The metrics that have a margin.
pub(in crate::report) fn points(of: &Calibration) -> Vec<CalibrationPoint> {
    let drawn = of.metrics.iter().filter(|metric| metric.margin > 0.0);
    drawn
        .map(|metric| CalibrationPoint {
            name: escape::name(&metric.name),
            detectable: rounded((metric.detectable / metric.margin).min(20.0)),
            approvable: rounded((metric.approvable_margin / metric.margin).min(20.0)),
        })
        .collect()
}
