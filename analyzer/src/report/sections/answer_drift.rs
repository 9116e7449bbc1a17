//! Whether the answers changed in meaning: the drift section of the verdict for a reader.

use serde::Serialize;

use crate::analysis::Analysis;
use crate::report::number::rounded;
use crate::report::{anchor, escape, number, wording};
use crate::verdict::{Drift, DriftEffect, DriftStatistic, Relabelled};

/// Cases on the map; on a larger corpus it shows those that moved most.
const CASES_DRAWN: usize = 1500;

/// The section.
#[derive(Debug, Serialize)]
pub(in crate::report) struct DriftView {
    tone: &'static str,
    state: &'static str,
    detail: String,
    consequence: &'static str,
    facts: Vec<[String; 2]>,
    statistics: Vec<[String; 4]>,
    moved: Vec<MovedView>,
}

#[derive(Debug, Serialize)]
struct MovedView {
    case: String,
    anchor: String,
    drift: String,
    p: String,
}

/// A case on the map.
#[derive(Debug, Serialize)]
pub(in crate::report) struct DriftPoint {
    case: String,
    anchor: String,
    drift: f64,
    /// How much more the candidate's answers differ from each other than the baseline's; absent with one trial.
    dispersion: f64,
    /// Whether `success` of the case got worse.
    worse: bool,
}

pub(in crate::report) fn drift(drift: &Drift) -> DriftView {
    let (tone, state) = match (drift.changed, drift.effect) {
        (false, _) => (wording::GOOD, "no change found"),
        (true, DriftEffect::Review) => (wording::WARN, "changed: to be looked at"),
        (true, DriftEffect::Block) => (wording::BAD, "changed"),
    };
    let distance =
        |value: Option<f64>| value.map_or("one trial each".to_owned(), |value| format!("{value:.3}"));
    let fact = |name: &str, value: String| [name.to_owned(), value];
    DriftView {
        tone,
        state,
        detail: escape::visible(&drift.detail),
        consequence: match drift.effect {
            DriftEffect::Review => {
                "A change of answers is no harm by itself: it asks for a look and blocks nothing."
            }
            DriftEffect::Block => {
                "The policy declares this build neutral in behaviour, so the metric semantic.drift decides."
            }
        },
        facts: vec![
            fact("Mean distance within the baseline", distance(drift.distance_baseline)),
            fact("Mean distance within the candidate", distance(drift.distance_candidate)),
            fact("Mean distance between them", format!("{:.3}", drift.distance_between)),
            fact("Drift beyond their own spread", distance(drift.drift)),
            fact("Cases", number::count(drift.cases)),
            fact(
                "Answers, baseline + candidate",
                format!(
                    "{} + {}",
                    number::count(drift.trials_baseline),
                    number::count(drift.trials_candidate)
                ),
            ),
            fact("Embedded by", escape::name(&drift.model)),
            fact("Relabellings", relabellings(drift)),
        ],
        statistics: drift.statistics.iter().map(statistic).collect(),
        moved: (drift.moved.iter())
            .map(|moved| MovedView {
                case: escape::name(&moved.case),
                anchor: anchor::anchor(&moved.case),
                drift: format!("{:.3}", moved.drift),
                p: number::p_value(moved.p),
            })
            .collect(),
    }
}

fn relabellings(drift: &Drift) -> String {
    let of = match drift.relabelled {
        Relabelled::Trials => "trials of a case",
        Relabelled::Sessions => "whole arms of a case",
    };
    let all = if drift.is_exact { "all " } else { "" };
    format!("{all}{} of {of}", number::count(drift.relabellings))
}

fn statistic(of: &DriftStatistic) -> [String; 4] {
    let meaning = match of.name.as_str() {
        "within" => "each case's own change",
        "cross" => "a change that the cases have in common",
        "dispersion" => "more or less variety than before",
        "single" => "the only trial of a lane is unlike the other lane's",
        _ => "",
    };
    [escape::name(&of.name), meaning.to_owned(), number::count(of.cases), number::p_value(of.p)]
}

/// The map: one point a case, those that moved most first.
pub(in crate::report) fn points(analysis: &Analysis) -> Vec<DriftPoint> {
    let of = |name: &str| analysis.details.iter().find(|detail| detail.name == name);
    let Some(drift) = of("semantic.drift") else { return Vec::new() };
    let by_case = |name: &str| {
        let contrasts = of(name).into_iter().flat_map(|detail| &detail.contrasts);
        contrasts.map(|one| (one.case.as_str(), one.effect)).collect::<std::collections::HashMap<_, _>>()
    };
    let (dispersion, success) = (by_case("semantic.dispersion"), by_case("success"));
    let mut points: Vec<DriftPoint> = (drift.contrasts.iter())
        .map(|one| DriftPoint {
            case: escape::name(&one.case),
            anchor: anchor::anchor(&one.case),
            // Contrasts are oriented so that larger is better.
            drift: rounded(-one.effect),
            dispersion: rounded(dispersion.get(one.case.as_str()).map_or(0.0, |effect| -effect)),
            worse: success.get(one.case.as_str()).is_some_and(|effect| *effect < 0.0),
        })
        .collect();
    points.sort_by(|a, b| b.drift.total_cmp(&a.drift).then_with(|| a.case.cmp(&b.case)));
    points.truncate(CASES_DRAWN);
    points
}
