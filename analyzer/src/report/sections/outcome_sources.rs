//! Sources of the outcome: labels and evaluators, and the agreement of each evaluator with the labels.

use serde::Serialize;

use crate::outcome::{Agreement, OutcomeResult};
use crate::report::severity::Severity;
use crate::report::{escape, number};

#[derive(Debug, Serialize)]
pub(in crate::report) struct OutcomeSection {
    decided_by: Vec<[String; 2]>,
    evaluators: Vec<EvaluatorView>,
}

#[derive(Debug, Serialize)]
struct EvaluatorView {
    name: String,
    kind: String,
    scored: String,
    errors: String,
    rows: Vec<AgreementView>,
}

#[derive(Debug, Serialize)]
struct AgreementView {
    slice: String,
    labels: String,
    agreement: String,
    ac1: String,
    passed: String,
    caught: String,
    severity: Severity,
    state: &'static str,
    why: String,
}

/// `None` without an outcome source and without evaluators.
pub(in crate::report) fn outcome(of: &OutcomeResult) -> Option<OutcomeSection> {
    (!of.decided_by.is_empty() || !of.evaluators.is_empty()).then(|| OutcomeSection {
        decided_by: (of.decided_by.iter())
            .map(|source| [escape::name(&source.source), number::count(source.cases)])
            .collect(),
        evaluators: (of.evaluators.iter())
            .map(|evaluator| EvaluatorView {
                name: escape::name(&evaluator.name),
                kind: escape::name(&evaluator.kind),
                scored: number::count(evaluator.scored),
                errors: number::count(evaluator.errors),
                rows: std::iter::once(&evaluator.overall).chain(&evaluator.slices).map(agreement).collect(),
            })
            .collect(),
    })
}

fn agreement(of: &Agreement) -> AgreementView {
    let bound = |value: Option<f64>, lower: Option<f64>, shown: fn(f64) -> String| match (value, lower) {
        (Some(value), Some(lower)) => format!("{} (at least {})", shown(value), shown(lower)),
        (Some(value), None) => shown(value),
        (None, _) => "unknown".to_owned(),
    };
    let (severity, state) = if of.qualified {
        (Severity::Good, "counts as outcome")
    } else {
        (Severity::Neutral, "does not count")
    };
    AgreementView {
        slice: of.slice.as_deref().map_or_else(|| "all trials".to_owned(), escape::name),
        labels: format!("{} in {}", number::count(of.labels), number::counted(of.cases, "case", "cases")),
        agreement: bound(of.agreement, of.agreement_lower, number::percent),
        ac1: bound(of.ac1, of.ac1_lower, |ac1| format!("{ac1:.2}")),
        passed: format!("{} of {}", number::count(of.successes_passed), number::count(of.successes)),
        caught: format!("{} of {}", number::count(of.failures_caught), number::count(of.failures)),
        severity,
        state,
        why: escape::visible(&of.reason),
    }
}
