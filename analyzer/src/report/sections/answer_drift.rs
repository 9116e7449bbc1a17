//! Drift of the answers between the builds, as distances of their embeddings.

use std::collections::HashMap;

use serde::Serialize;

use crate::analysis::Analysis;
use crate::report::severity::Severity;
use crate::report::{anchor, escape, number};
use crate::verdict::{Drift, DriftEffect, DriftStatistic, PermutationUnit};

/// Cases in the chart; of more cases it shows those with the largest drift.
const CASES_IN_CHART: usize = 1500;

#[derive(Debug, Serialize)]
pub(in crate::report) struct AnswerDriftSection {
    severity: Severity,
    state: &'static str,
    detail: String,
    consequence: &'static str,
    facts: Vec<[String; 2]>,
    statistics: Vec<[String; 4]>,
    drifted_cases: Vec<DriftedCase>,
}

#[derive(Debug, Serialize)]
struct DriftedCase {
    case: String,
    anchor: String,
    drift: String,
    p: String,
}

/// A case in the chart.
#[derive(Debug, Serialize)]
pub(in crate::report) struct DriftPoint {
    case: String,
    anchor: String,
    drift: f64,
    /// Rise of the distance between the answers to this case; 0 with one trial.
    dispersion: f64,
    /// Whether the case's `success` got worse.
    worse: bool,
}

pub(in crate::report) fn answer_drift(drift: &Drift) -> AnswerDriftSection {
    let (severity, state) = match (drift.changed, drift.effect) {
        (false, _) => (Severity::Good, "no change found"),
        (true, DriftEffect::Review) => (Severity::Warning, "changed, needs a review"),
        (true, DriftEffect::Block) => (Severity::Bad, "changed"),
    };
    let distance = |value: Option<f64>| {
        value.map_or("unknown (one trial per case)".to_owned(), |value| format!("{value:.3}"))
    };
    let fact = |name: &str, value: String| [name.to_owned(), value];
    AnswerDriftSection {
        severity,
        state,
        detail: escape::visible(&drift.detail),
        consequence: match drift.effect {
            DriftEffect::Review => "Changed answers are not harm. They need a review and block nothing.",
            DriftEffect::Block => {
                "The policy declares this build neutral in behaviour, so the metric semantic.drift may block."
            }
        },
        facts: vec![
            fact("Mean distance within the baseline", distance(drift.distance_baseline)),
            fact("Mean distance within the candidate", distance(drift.distance_candidate)),
            fact("Mean distance between the builds", format!("{:.3}", drift.distance_between)),
            fact("Drift (between, less within)", distance(drift.drift)),
            fact("Cases", number::count(drift.cases)),
            fact(
                "Answers, baseline + candidate",
                format!(
                    "{} + {}",
                    number::count(drift.trials_baseline),
                    number::count(drift.trials_candidate)
                ),
            ),
            fact("Embedding model", escape::name(&drift.model)),
            fact("Permutations", permutations(drift)),
        ],
        statistics: drift.statistics.iter().map(statistic).collect(),
        drifted_cases: (drift.drifted.iter())
            .map(|moved| DriftedCase {
                case: escape::name(&moved.case),
                anchor: anchor::case_id(&moved.case),
                drift: format!("{:.3}", moved.drift),
                p: number::p_value(moved.p),
            })
            .collect(),
    }
}

fn permutations(drift: &Drift) -> String {
    let of = match drift.permutation_unit {
        PermutationUnit::Trials => "trials of a case",
        PermutationUnit::Sessions => "lanes of a case",
    };
    let all = if drift.is_exact { "all " } else { "" };
    format!("{all}{}, permuting the {of}", number::count(drift.permutations))
}

fn statistic(of: &DriftStatistic) -> [String; 4] {
    let meaning = match of.name.as_str() {
        "within" => "change of each case by itself",
        "cross" => "change that the cases share",
        "dispersion" => "more or less variety of answers",
        "single" => "a lane's only trial differs from the other lane",
        _ => "",
    };
    [escape::name(&of.name), meaning.to_owned(), number::count(of.cases), number::p_value(of.p)]
}

/// Chart points, one per case, the largest drift first.
pub(in crate::report) fn points(analysis: &Analysis) -> Vec<DriftPoint> {
    let of = |name: &str| analysis.details.iter().find(|detail| detail.name == name);
    let Some(drift) = of("semantic.drift") else { return Vec::new() };
    let by_case = |name: &str| {
        let contrasts = of(name).into_iter().flat_map(|detail| &detail.contrasts);
        contrasts.map(|one| (one.case.as_str(), one.effect)).collect::<HashMap<_, _>>()
    };
    let (dispersion, success) = (by_case("semantic.dispersion"), by_case("success"));
    let mut points: Vec<DriftPoint> = (drift.contrasts.iter())
        .map(|one| DriftPoint {
            case: escape::name(&one.case),
            anchor: anchor::case_id(&one.case),
            // Contrasts are oriented so that larger is better.
            drift: number::rounded(-one.effect),
            dispersion: number::rounded(dispersion.get(one.case.as_str()).map_or(0.0, |effect| -effect)),
            worse: success.get(one.case.as_str()).is_some_and(|effect| *effect < 0.0),
        })
        .collect();
    points.sort_by(|a, b| b.drift.total_cmp(&a.drift).then_with(|| a.case.cmp(&b.case)));
    points.truncate(CASES_IN_CHART);
    points
}
