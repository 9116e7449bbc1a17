//! Top of the page: decision, reasons, worst cases, next steps and the sample size for approval.

use serde::Serialize;

use crate::plain;
use crate::report::cases::CaseList;
use crate::report::input::ReportMeta;
use crate::report::severity::Severity;
use crate::report::{escape, number, wording};
use crate::verdict::{Decision, NeedRow, Reason, ReasonCode, Verdict};

/// Cases linked at the top of the page.
const WORST_CASES_LISTED: usize = 5;

#[derive(Debug, Serialize)]
pub(in crate::report) struct SummarySection {
    pub(in crate::report) title: String,
    pub(in crate::report) decision: &'static str,
    pub(in crate::report) severity: Severity,
    pub(in crate::report) exit_code: u8,
    pub(in crate::report) sentence: String,
    /// Further reasons of the same severity, each with its metrics.
    pub(in crate::report) also: Vec<String>,
    pub(in crate::report) consequence: &'static str,
    pub(in crate::report) facts: Vec<Fact>,
    /// What was compared, what was missing and why, and what was tested.
    pub(in crate::report) comparison: Vec<String>,
    pub(in crate::report) reasons: Vec<ReasonView>,
    pub(in crate::report) worst_cases: Vec<WorstCase>,
    /// Next steps, the most important first.
    pub(in crate::report) advice: Vec<&'static str>,
    pub(in crate::report) sample_size: SampleSizeView,
    /// Limits of the data that the reader must know.
    pub(in crate::report) notes: Vec<String>,
}

/// One number under the decision.
#[derive(Debug, Serialize)]
pub(in crate::report) struct Fact {
    name: &'static str,
    value: String,
    detail: String,
}

#[derive(Debug, Serialize)]
pub(in crate::report) struct ReasonView {
    code: &'static str,
    detail: String,
    severity: Severity,
}

#[derive(Debug, Serialize)]
pub(in crate::report) struct WorstCase {
    case: String,
    anchor: String,
    subject: String,
    detail: String,
}

/// The sample size that approval needs, for an inconclusive verdict.
#[derive(Debug, Serialize)]
pub(in crate::report) struct SampleSizeView {
    sentence: Option<String>,
    /// Designs of equal power: trials per case and lane, cases, trials in all.
    designs: Vec<[String; 3]>,
    /// Forecast: cases to add, trials of each per lane, trials to add, probability of approval, cost.
    forecast: Vec<[String; 5]>,
}

pub(in crate::report) fn summary(verdict: &Verdict, cases: &CaseList, meta: &ReportMeta) -> SummarySection {
    let title = if meta.title.is_empty() {
        format!(
            "{} against {}",
            escape::name(&verdict.candidate.build),
            escape::name(&verdict.baseline.build)
        )
    } else {
        escape::name(&meta.title)
    };
    SummarySection {
        title,
        decision: wording::decision(verdict.verdict),
        severity: wording::decision_severity(verdict.verdict),
        exit_code: wording::exit_code(verdict.verdict),
        sentence: wording::why(verdict),
        also: also(verdict),
        consequence: wording::consequence(verdict.verdict),
        facts: facts(verdict),
        comparison: plain::comparison_lines(verdict).iter().map(|line| escape::visible(line)).collect(),
        reasons: verdict.reasons.iter().map(reason_view).collect(),
        worst_cases: worst_cases(verdict, cases),
        advice: advice(verdict),
        sample_size: SampleSizeView {
            sentence: wording::sample_size(verdict),
            designs: designs(verdict),
            forecast: forecast(verdict),
        },
        notes: (verdict.notes.iter())
            .filter(|note| !plain::is_in_comparison(note))
            .map(|note| escape::visible(note))
            .collect(),
    }
}

fn facts(verdict: &Verdict) -> Vec<Fact> {
    let pairs = &verdict.pairs;
    let deciding = || verdict.metrics.iter().filter(|metric| metric.decides || metric.required);
    let worse = deciding().filter(|metric| wording::metric(metric).0 == Severity::Bad).count();
    let within = deciding().filter(|metric| wording::is_within_margin(metric.state)).count();
    let violations: u64 = verdict.invariants.iter().map(|invariant| invariant.violations).sum();
    vec![
        Fact {
            name: "Cases compared",
            value: number::count(pairs.paired),
            detail: format!("of {} in either run", number::count(pairs.cases)),
        },
        Fact {
            name: "Trials",
            value: format!(
                "{} + {}",
                number::count(pairs.trials_baseline),
                number::count(pairs.trials_candidate)
            ),
            detail: "baseline + candidate".to_owned(),
        },
        Fact {
            name: "Deciding metrics within margin",
            value: format!("{within} of {}", deciding().count()),
            detail: format!("{worse} proven worse"),
        },
        Fact {
            name: "Invariant violations",
            value: if verdict.invariants.is_empty() {
                "none declared".to_owned()
            } else {
                number::count(violations)
            },
            detail: match verdict.invariants.len() {
                0 => "declare invariants in the policy".to_owned(),
                1 => "1 invariant checked on every trial".to_owned(),
                declared => format!("{declared} invariants checked on every trial"),
            },
        },
    ]
}

fn also(verdict: &Verdict) -> Vec<String> {
    let Some(first) = verdict.reasons.first() else { return Vec::new() };
    if first.code == ReasonCode::NonInferior {
        // The sentence names these metrics already.
        return Vec::new();
    }
    let severity = wording::reason_severity(first.code);
    let others = verdict.reasons.iter().skip(1);
    let same = others.filter(|reason| wording::reason_severity(reason.code) == severity);
    let mut by_reason: Vec<(ReasonCode, Vec<String>)> = Vec::new();
    for (code, metric) in same.filter_map(|reason| Some((reason.code, reason.metric.as_deref()?))) {
        if Some(metric) == first.metric.as_deref() {
            continue;
        }
        match by_reason.iter_mut().find(|(known, _)| *known == code) {
            Some((_, metrics)) => metrics.push(escape::name(metric)),
            None => by_reason.push((code, vec![escape::name(metric)])),
        }
    }
    let in_words = |(code, metrics): (ReasonCode, Vec<String>)| {
        format!("{}: {}", wording::short_reason(code), metrics.join(", "))
    };
    by_reason.into_iter().map(in_words).collect()
}

fn advice(verdict: &Verdict) -> Vec<&'static str> {
    let mut advice: Vec<&'static str> = Vec::new();
    if verdict.verdict == Decision::Approve {
        advice.push("Roll out the candidate.");
    }
    for reason in &verdict.reasons {
        let next = wording::advice(reason.code, &verdict.need);
        if !next.is_empty() && !advice.contains(&next) {
            advice.push(next);
        }
    }
    advice
}

fn designs(verdict: &Verdict) -> Vec<[String; 3]> {
    let rows = verdict.need.options.iter();
    rows.map(|option| [option.trials, option.cases, option.trials_total].map(number::count)).collect()
}

fn forecast(verdict: &Verdict) -> Vec<[String; 5]> {
    let row = |row: &NeedRow| {
        let [cases, trials, added] = [row.extra_cases, row.trials, row.trials_added].map(number::count);
        let cost = row.cost_usd.map_or_else(|| "unknown".to_owned(), |usd| format!("${usd:.2}"));
        [cases, trials, added, number::percent(row.predicted_approve), cost]
    };
    verdict.need.table.iter().map(row).collect()
}

fn reason_view(reason: &Reason) -> ReasonView {
    ReasonView {
        code: reason.code.as_str(),
        detail: escape::visible(&reason.detail),
        severity: wording::reason_severity(reason.code),
    }
}

/// The worst cases of the first reason; none if it is not about a metric or an invariant.
fn worst_cases(verdict: &Verdict, cases: &CaseList) -> Vec<WorstCase> {
    let Some(subject) = verdict.reasons.first().and_then(|reason| reason.metric.as_deref()) else {
        return Vec::new();
    };
    let subject = escape::name(subject);
    let of_reason = cases
        .cases
        .iter()
        .filter_map(|case| Some((case, case.findings.iter().find(|finding| finding.subject == subject)?)));
    of_reason
        .take(WORST_CASES_LISTED)
        .map(|(case, finding)| WorstCase {
            case: case.case.clone(),
            anchor: case.anchor.clone(),
            subject: finding.subject.clone(),
            detail: finding.detail.clone(),
        })
        .collect()
}
