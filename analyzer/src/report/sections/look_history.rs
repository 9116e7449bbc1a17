//! History of the interim looks.

use serde::Serialize;

use crate::report::severity::Severity;
use crate::report::{escape, number, wording};
use crate::verdict::{LookHistory, LookMetric, MonitoringKind, Verdict};

/// The chart's smallest p; smaller ones are drawn at its edge.
const SMALLEST_P: f64 = 1e-4;

#[derive(Debug, Serialize)]
pub(in crate::report) struct LookHistorySection {
    sentence: String,
    /// Whether any look has a boundary; betting has none.
    has_boundary: bool,
    looks: Vec<LookRow>,
}

#[derive(Debug, Serialize)]
struct LookRow {
    look: u32,
    cases: String,
    fraction: String,
    alpha_spent: String,
    boundary: String,
    severity: Severity,
    decision: &'static str,
}

/// Sequential p values of a deciding metric at one look: the smallest alpha at which its test would have stopped so far.
#[derive(Debug, Serialize)]
pub(in crate::report) struct LookPoint {
    name: String,
    cases: u64,
    block: f64,
    approve: f64,
}

pub(in crate::report) fn look_history(history: &LookHistory) -> LookHistorySection {
    LookHistorySection {
        sentence: sentence(history),
        has_boundary: history.looks.iter().any(|look| look.boundary.is_some()),
        looks: (history.looks.iter())
            .map(|look| LookRow {
                look: look.look,
                cases: number::count(look.cases),
                fraction: number::percent(look.fraction),
                alpha_spent: number::p_value(look.alpha_spent),
                boundary: look.boundary.map_or_else(String::new, |boundary| format!("{boundary:.3}")),
                severity: wording::decision_severity(look.decision),
                decision: wording::decision(look.decision),
            })
            .collect(),
    }
}

fn sentence(history: &LookHistory) -> String {
    let plan = match history.kind {
        MonitoringKind::Looks => format!(
            "The plan had {} over {}. Each look spends its part of alpha, so repeated looks cause no extra false alarms.",
            number::counted(u64::from(history.planned_looks), "look", "looks"),
            number::counted(history.planned_cases, "case", "cases"),
        ),
        MonitoringKind::Anytime => {
            "The tests ran after every case, by betting. Their error rates hold whenever one stops."
                .to_owned()
        }
    };
    let cases = number::counted(history.cases, "case", "cases");
    let end = if history.stopped_early {
        format!("The decision came early, after {cases}.")
    } else {
        format!("All {cases} were used.")
    };
    let extension = match history.extension_looks {
        0 => String::new(),
        looks => format!(
            " {} followed after the end of the plan, by betting.",
            number::counted(u64::from(looks), "look", "looks")
        ),
    };
    format!("{plan} {end}{extension}")
}

/// Chart points of the deciding metrics at each look.
pub(in crate::report) fn points(verdict: &Verdict) -> Vec<LookPoint> {
    let Some(history) = &verdict.monitoring.look_history else { return Vec::new() };
    let decides = |metric: &&LookMetric| {
        verdict.metrics.iter().any(|one| one.name == metric.name && (one.decides || one.required))
    };
    let drawn = |p: f64| number::rounded(p.clamp(SMALLEST_P, 1.0));
    let mut points = Vec::new();
    for look in &history.looks {
        points.extend(look.metrics.iter().filter(decides).map(|metric| LookPoint {
            name: escape::name(&metric.name),
            cases: look.cases,
            block: drawn(metric.p_block_sequential),
            approve: drawn(metric.p_approve_sequential),
        }));
    }
    points
}
