//! Calibration: the error rates of the decision on these sessions, measured by splitting one build's trials.

use serde::Serialize;

use crate::format;
use crate::report::{escape, number};
use crate::verdict::{Calibration, CalibrationMetric};

#[derive(Debug, Serialize)]
pub(in crate::report) struct CalibrationSection {
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

/// Largest multiple of the margin that the chart shows.
const MAX_MULTIPLE: f64 = 20.0;

/// Detectable loss and approvable margin of one metric, both in multiples of its margin.
#[derive(Debug, Serialize)]
pub(in crate::report) struct CalibrationPoint {
    name: String,
    detectable: f64,
    approvable: f64,
}

pub(in crate::report) fn calibration(of: &Calibration) -> CalibrationSection {
    let [low, high] = of.false_block_interval;
    let fact = |name: &str, value: String| [name.to_owned(), value];
    let mut facts = vec![
        fact("Run", escape::name(&of.run)),
        fact("Build", escape::name(&of.build)),
        fact("Cases; trials of each per arm", format!("{}; {:.1}", number::count(of.cases), of.trials)),
        fact(
            "Splits: approved, blocked, inconclusive",
            format!(
                "{}, {}, {}",
                number::count(of.decisions.approve),
                number::count(of.decisions.block),
                number::count(of.decisions.inconclusive)
            ),
        ),
        fact("Cases used before the decision (early stopping)", number::percent(of.cost.share_used)),
        fact("Trials per decision", number::count(of.cost.trials)),
    ];
    facts.extend(of.cost.tokens.map(|tokens| fact("Tokens per decision", format!("{tokens:.0}"))));
    facts.extend(of.cost.usd.map(|usd| fact("US dollars per decision", format!("{usd:.2}"))));
    facts.extend(of.cost.agent_hours.map(|hours| fact("Agent hours per decision", format!("{hours:.1}"))));
    CalibrationSection {
        sentence: format!(
            "{} of {} random splits of one build's trials were blocked: the false block rate on these sessions is {} (95 % \
             interval {} to {}).",
            number::count(of.decisions.block),
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

/// Chart points of the metrics with a margin.
pub(in crate::report) fn points(of: &Calibration) -> Vec<CalibrationPoint> {
    let drawn = of.metrics.iter().filter(|metric| metric.margin > 0.0);
    drawn
        .map(|metric| CalibrationPoint {
            name: escape::name(&metric.name),
            detectable: number::rounded((metric.detectable / metric.margin).min(MAX_MULTIPLE)),
            approvable: number::rounded((metric.approvable_margin / metric.margin).min(MAX_MULTIPLE)),
        })
        .collect()
}
