//! How the verdict was come to, look by look, for a reader.

use serde::Serialize;

use crate::report::{escape, number, number::rounded, wording};
use crate::verdict::{Course, CourseKind, LookMetric, Verdict};

/// Below this a p is drawn at the picture's edge.
const SMALLEST_P: f64 = 1e-4;

/// The section.
#[derive(Debug, Serialize)]
pub(in crate::report) struct CourseView {
    sentence: String,
    has_boundary: bool,
    looks: Vec<LookView>,
}

#[derive(Debug, Serialize)]
struct LookView {
    look: u32,
    cases: String,
    fraction: String,
    alpha_spent: String,
    boundary: String,
    tone: &'static str,
    answer: &'static str,
}

/// What a deciding metric's tests said at a look: the smallest level at which each has spoken so far.
#[derive(Debug, Serialize)]
pub(in crate::report) struct CoursePoint {
    name: String,
    cases: u64,
    block: f64,
    approve: f64,
}

pub(in crate::report) fn course(course: &Course) -> CourseView {
    CourseView {
        sentence: sentence(course),
        has_boundary: course.looks.iter().any(|look| look.boundary.is_some()),
        looks: (course.looks.iter())
            .map(|look| LookView {
                look: look.look,
                cases: number::count(look.cases),
                fraction: number::percent(look.fraction),
                alpha_spent: number::p_value(look.alpha_spent),
                boundary: look.boundary.map_or_else(String::new, |boundary| format!("{boundary:.3}")),
                tone: wording::answer_tone(look.answer),
                answer: wording::answer(look.answer),
            })
            .collect(),
    }
}

fn sentence(course: &Course) -> String {
    let cases = number::counted(course.cases, "case", "cases");
    let how = match course.kind {
        CourseKind::Looks => format!(
            "{} planned at growing shares of {}; each spends its part of alpha, so looking more than once costs no \
             false alarms",
            number::counted(u64::from(course.planned_looks), "look was", "looks were"),
            number::counted(course.planned_cases, "case", "cases"),
        ),
        CourseKind::Anytime => {
            "The data were looked at after every case, by betting: the verdict holds whenever one stops"
                .to_owned()
        }
    };
    let end = if course.stopped_early {
        format!("it was decided early, after {cases}")
    } else {
        format!("it went to the end, {cases}")
    };
    let more = match course.extension_looks {
        0 => String::new(),
        looks => format!(
            ", and {} after the plan's end by betting",
            number::counted(u64::from(looks), "look was taken", "looks were taken")
        ),
    };
    format!("{how}; {end}{more}.")
}

/// The deciding metrics at each look.
pub(in crate::report) fn points(verdict: &Verdict) -> Vec<CoursePoint> {
    let Some(course) = &verdict.course else { return Vec::new() };
    let decides = |metric: &&LookMetric| {
        verdict.metrics.iter().any(|one| one.name == metric.name && (one.decides || one.required))
    };
    let drawn = |p: f64| rounded(p.clamp(SMALLEST_P, 1.0));
    let mut points = Vec::new();
    for look in &course.looks {
        points.extend(look.metrics.iter().filter(decides).map(|metric| CoursePoint {
            name: escape::name(&metric.name),
            cases: look.cases,
            block: drawn(metric.p_block_sequential),
            approve: drawn(metric.p_approve_sequential),
        }));
    }
    points
}
