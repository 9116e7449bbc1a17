//! `summary.md`: the verdict as a pull request comment.
//!
//! Text of sessions is escaped for Markdown: it formats nothing, links nothing and mentions no one.

use std::collections::BTreeSet;

use super::error::ReportError;
use super::input::{ReportInput, ReportMeta};
use super::severity::Severity;
use super::{escape, number, tool_table, trials, wording};
use crate::analysis::Analysis;
use crate::cast;
use crate::finding::Finding;
use crate::run::Run;
use crate::verdict::{Decision, MetricResult, MetricState, Reason, ReasonCode, Verdict};
use crate::{format, plain};

/// Reasons listed.
const REASONS_LISTED: usize = 6;

/// Cases listed.
const CASES_LISTED: usize = 5;

/// Longest description of a finding, characters.
const MAX_DETAIL_CHARS: usize = 240;

/// Digits shown of the policy digest.
const DIGEST_DIGITS: usize = 12;

/// Renders the summary. `report.html` holds the details.
///
/// # Errors
/// The runs differ from the analyzed ones: they cannot be paired.
pub fn summary_md(
    analysis: &Analysis,
    input: &ReportInput<'_>,
    meta: &ReportMeta,
) -> Result<String, ReportError> {
    let verdict = &analysis.verdict;
    let mut lines = Vec::new();
    headline(verdict, meta, &mut lines);
    metrics(verdict, &mut lines);
    invariants(verdict, &mut lines);
    write_changes(analysis, input, &mut lines)?;
    reasons(verdict, &mut lines);
    worst_cases(analysis, &mut lines);
    footer(verdict, &mut lines);
    Ok(lines.join("\n") + "\n")
}

fn headline(verdict: &Verdict, meta: &ReportMeta, lines: &mut Vec<String>) {
    let symbol = match verdict.verdict {
        Decision::Approve => "✅",
        Decision::Block => "⛔",
        Decision::Inconclusive => "❔",
    };
    lines.push(format!("## {symbol} Foreshadow: {}", wording::decision(verdict.verdict)));
    lines.push(String::new());
    lines.push(format!("**{}**", escape::markdown(&wording::why(verdict))));
    lines.push(String::new());
    if !meta.title.is_empty() {
        lines.extend([escape::markdown(&escape::name(&meta.title)), String::new()]);
    }
    for line in plain::comparison_lines(verdict) {
        lines.push(format!("- {}", escape::markdown(&escape::name(&line))));
    }
    if let Some(need) = wording::sample_size(verdict) {
        lines.extend([String::new(), format!("**Sample size for approval:** {}", escape::markdown(&need))]);
    }
}

/// The deciding metrics as a table; the others folded.
fn metrics(verdict: &Verdict, lines: &mut Vec<String>) {
    if verdict.metrics.is_empty() {
        return;
    }
    let decides = |metric: &&MetricResult| metric.decides || metric.required;
    let (deciding, reported): (Vec<&MetricResult>, Vec<&MetricResult>) =
        verdict.metrics.iter().partition(decides);
    metric_table(&deciding, lines);
    if deciding.is_empty() {
        metric_table(&reported, lines);
    } else if !reported.is_empty() {
        let worse = reported.iter().filter(|metric| metric.state == MetricState::Deteriorated).count();
        let worse = if worse > 0 { format!(", {worse} of them worse") } else { String::new() };
        let count = number::counted(cast::to_u64(reported.len()), "metric is", "metrics are");
        folded(&format!("{count} reported only{worse}"), lines, |lines| metric_table(&reported, lines));
    }
}

/// Lines that the reader unfolds.
fn folded(title: &str, lines: &mut Vec<String>, inside: impl FnOnce(&mut Vec<String>)) {
    lines.extend([String::new(), format!("<details><summary>{title}</summary>")]);
    inside(lines);
    lines.extend([String::new(), "</details>".to_owned()]);
}

fn metric_table(metrics: &[&MetricResult], lines: &mut Vec<String>) {
    if metrics.is_empty() {
        return;
    }
    lines.push(String::new());
    lines.push(
        "| | metric | baseline | candidate | effect (+ is better) | interval | margin | state |".to_owned(),
    );
    lines.push("|---|---|---:|---:|---:|---:|---:|---|".to_owned());
    for metric in metrics {
        let (severity, state) = wording::metric(metric);
        let cells = [
            symbol(severity).to_owned(),
            escape::markdown(&escape::name(&metric.name)),
            format::value(metric.unit, metric.baseline),
            format::value(metric.unit, metric.candidate),
            format!("**{}**", format::effect(metric.unit, metric.effect)),
            wording::interval(metric),
            wording::margin(metric),
            format!("{state} ({})", wording::role(metric)),
        ];
        lines.push(format!("| {} |", cells.join(" | ")));
    }
}

fn symbol(severity: Severity) -> &'static str {
    match severity {
        Severity::Good => "✅",
        Severity::Bad => "⛔",
        Severity::Warning => "⚠️",
        Severity::Neutral => "❔",
    }
}

fn invariants(verdict: &Verdict, lines: &mut Vec<String>) {
    if verdict.invariants.is_empty() {
        return;
    }
    lines.push(String::new());
    lines.push(
        "| | invariant | state | violations, candidate | violations, baseline | cases | at most (95 %) |"
            .to_owned(),
    );
    lines.push("|---|---|---|---:|---:|---:|---:|".to_owned());
    for invariant in &verdict.invariants {
        let (severity, state) = wording::invariant(invariant);
        lines.push(format!(
            "| {} | {} | {state} | {} | {} | {} | {} |",
            symbol(severity),
            escape::markdown(&escape::name(&invariant.name)),
            number::count(invariant.violations),
            number::count(invariant.violations_baseline),
            number::count(invariant.cases),
            number::percent(invariant.upper_bound),
        ));
    }
}

/// The write changes that the candidate shows more often than the baseline.
fn write_changes(
    analysis: &Analysis,
    input: &ReportInput<'_>,
    lines: &mut Vec<String>,
) -> Result<(), ReportError> {
    let has_calls = |run: &Run| run.own().any(|record| !record.calls.is_empty());
    if !has_calls(input.baseline) && !has_calls(input.candidate) {
        return Ok(());
    }
    let by_case = trials::by_case(input, analysis.verdict.seed)?;
    let headlines = tool_table::tool_table(&by_case, &analysis.verdict.review.tools).headlines;
    if !headlines.is_empty() {
        lines.extend([String::new(), "Changed writes, by tool:".to_owned(), String::new()]);
        lines.extend(headlines.iter().map(|line| format!("- {}", escape::markdown(line))));
    }
    Ok(())
}

/// The reasons that the table of metrics does not show; the others folded.
fn reasons(verdict: &Verdict, lines: &mut Vec<String>) {
    let is_in_table = |reason: &&Reason| {
        matches!(reason.code, ReasonCode::Deteriorated | ReasonCode::NonInferior)
            && verdict.metrics.iter().any(|metric| Some(&metric.name) == reason.metric.as_ref())
    };
    let (in_table, others): (Vec<&Reason>, Vec<&Reason>) = verdict.reasons.iter().partition(is_in_table);
    if !others.is_empty() {
        lines.push(String::new());
        list(&others, lines);
    }
    if !in_table.is_empty() {
        folded("Tests of these metrics", lines, |lines| {
            lines.push(String::new());
            list(&in_table, lines);
        });
    }
}

fn list(reasons: &[&Reason], lines: &mut Vec<String>) {
    for reason in reasons.iter().take(REASONS_LISTED) {
        lines.push(format!("- `{}` {}", reason.code.as_str(), escape::markdown(&reason.detail)));
    }
    if let Some(more) = reasons.len().checked_sub(REASONS_LISTED).filter(|more| *more > 0) {
        lines.push(format!("- … {more} more in `report.html`"));
    }
}

fn worst_cases(analysis: &Analysis, lines: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    // Cases of the first reason, if it has any.
    let first = analysis.verdict.reasons.first().and_then(|reason| reason.metric.as_deref());
    let has_own = analysis.findings.iter().any(|finding| Some(finding.subject.as_str()) == first);
    let worst: Vec<&Finding> = (analysis.findings.iter())
        .filter(|finding| !has_own || Some(finding.subject.as_str()) == first)
        .filter(|finding| seen.insert(finding.case.as_str()))
        .take(CASES_LISTED)
        .collect();
    if worst.is_empty() {
        return;
    }
    let has_more = analysis.findings.len() > worst.len();
    folded("Worst cases", lines, |lines| {
        lines.push(String::new());
        for finding in worst {
            lines.push(format!(
                "- **{}** ({}): {}",
                escape::markdown(&escape::name(&finding.case)),
                escape::markdown(&escape::name(&finding.subject)),
                escape::markdown(&escape::shortened(&finding.detail, MAX_DETAIL_CHARS)),
            ));
        }
        if has_more {
            lines.push("- … more in `report.html`".to_owned());
        }
    });
}

fn footer(verdict: &Verdict, lines: &mut Vec<String>) {
    lines.push(String::new());
    for note in verdict.notes.iter().filter(|note| !plain::is_in_comparison(note)) {
        lines.extend([format!("> {}", escape::markdown(note)), String::new()]);
    }
    lines.push(format!(
        "Details: `report.html` (sessions side by side) and `verdict.json`. Policy `{}`, seed {}, foreshadow {}.",
        verdict.policy_digest.get(..DIGEST_DIGITS).unwrap_or(&verdict.policy_digest),
        verdict.seed,
        escape::markdown(&verdict.tool_version),
    ));
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::report::fixture;

    fn check(decision: Decision, expected: &Expect) {
        let runs = fixture::plain_runs();
        let summary = summary_md(&fixture::plain_analysis(decision), &runs.input(), &ReportMeta::default());
        expected.assert_eq(&summary.expect("the runs are paired"));
    }

    #[test]
    fn a_blocked_build() {
        check(
            Decision::Block,
            &expect![[r#"
                ## ⛔ Foreshadow: Block

                **Successful trials: 90.0 % → 57.0 % (success) over 3 cases, tolerated -5.0 points.**

                - Compared: 3 of 3 cases with 3 baseline and 3 candidate trials; cand against base; success is decided by labels (3 cases)
                - Missing: no trial
                - Tested: replayed trials; answers 10 as recorded; not answered: 

                | | metric | baseline | candidate | effect (+ is better) | interval | margin | state |
                |---|---|---:|---:|---:|---:|---:|---|
                | ⛔ | success | 90.0 % | 57.0 % | **-33.0 points** | -39.0 to -27.0 points | -5.0 points | worse, blocks (required, may block) |
                | ❔ | effects.duplicated | 90.0 % | 88.0 % | **-2.0 points** | -8.0 to +4.0 points | -5.0 points | undecided (may block) |

                <details><summary>1 metric is reported only</summary>

                | | metric | baseline | candidate | effect (+ is better) | interval | margin | state |
                |---|---|---:|---:|---:|---:|---:|---|
                | ✅ | latency | 900 ms | 900 ms | **x1.00** | x1.09 to x0.92 | x1.07 | within margin (reported only) |

                </details>

                | | invariant | state | violations, candidate | violations, baseline | cases | at most (95 %) |
                |---|---|---|---:|---:|---:|---:|
                | ⛔ | idempotency | violated, blocks | 1 | 0 | 3 | 80.0 % |
                | ⚠️ | no-refund-without-look | vacuous, proves nothing | 0 | 0 | 3 | 63.0 % |

                Changed writes, by tool:

                - duplicated write refund in 1 of 3 candidate trials, 0 of 3 baseline trials

                <details><summary>Tests of these metrics</summary>

                - `deteriorated` success fell by 33.0 points order 7, 20 USD

                </details>

                <details><summary>Worst cases</summary>

                - **three** (success): duplicated write: refund 2 times with order 7, 20 USD
                - … more in `report.html`

                </details>

                > order 7, 20 USD

                Details: `report.html` (sessions side by side) and `verdict.json`. Policy `000000000000`, seed 7, foreshadow 0.1.0.
            "#]],
        );
    }

    #[test]
    fn an_approved_build() {
        check(
            Decision::Approve,
            &expect![[r#"
                ## ✅ Foreshadow: Approve

                **Successful trials: 90.0 % → 57.0 % (success) stays within its margin, tested over 3 cases.**

                - Compared: 3 of 3 cases with 3 baseline and 3 candidate trials; cand against base; success is decided by labels (3 cases)
                - Missing: no trial
                - Tested: replayed trials; answers 10 as recorded; not answered: 

                | | metric | baseline | candidate | effect (+ is better) | interval | margin | state |
                |---|---|---:|---:|---:|---:|---:|---|
                | ⛔ | success | 90.0 % | 57.0 % | **-33.0 points** | -39.0 to -27.0 points | -5.0 points | worse, blocks (required, may block) |
                | ❔ | effects.duplicated | 90.0 % | 88.0 % | **-2.0 points** | -8.0 to +4.0 points | -5.0 points | undecided (may block) |

                <details><summary>1 metric is reported only</summary>

                | | metric | baseline | candidate | effect (+ is better) | interval | margin | state |
                |---|---|---:|---:|---:|---:|---:|---|
                | ✅ | latency | 900 ms | 900 ms | **x1.00** | x1.09 to x0.92 | x1.07 | within margin (reported only) |

                </details>

                | | invariant | state | violations, candidate | violations, baseline | cases | at most (95 %) |
                |---|---|---|---:|---:|---:|---:|
                | ⛔ | idempotency | violated, blocks | 1 | 0 | 3 | 80.0 % |
                | ⚠️ | no-refund-without-look | vacuous, proves nothing | 0 | 0 | 3 | 63.0 % |

                Changed writes, by tool:

                - duplicated write refund in 1 of 3 candidate trials, 0 of 3 baseline trials

                <details><summary>Tests of these metrics</summary>

                - `non_inferior` success fell by 33.0 points order 7, 20 USD

                </details>

                <details><summary>Worst cases</summary>

                - **three** (success): duplicated write: refund 2 times with order 7, 20 USD
                - … more in `report.html`

                </details>

                > order 7, 20 USD

                Details: `report.html` (sessions side by side) and `verdict.json`. Policy `000000000000`, seed 7, foreshadow 0.1.0.
            "#]],
        );
    }

    #[test]
    fn an_inconclusive_comparison_names_the_sample_size() {
        check(
            Decision::Inconclusive,
            &expect![[r#"
                ## ❔ Foreshadow: Inconclusive

                **Success fell by 33.0 points order 7, 20 USD.**

                - Compared: 3 of 3 cases with 3 baseline and 3 candidate trials; cand against base; success is decided by labels (3 cases)
                - Missing: no trial
                - Tested: replayed trials; answers 10 as recorded; not answered: 

                **Sample size for approval:** 300 cases in all, 2 trials each per lane. Predicted probability of approval: 80.0 %.

                | | metric | baseline | candidate | effect (+ is better) | interval | margin | state |
                |---|---|---:|---:|---:|---:|---:|---|
                | ⛔ | success | 90.0 % | 57.0 % | **-33.0 points** | -39.0 to -27.0 points | -5.0 points | worse, blocks (required, may block) |
                | ❔ | effects.duplicated | 90.0 % | 88.0 % | **-2.0 points** | -8.0 to +4.0 points | -5.0 points | undecided (may block) |

                <details><summary>1 metric is reported only</summary>

                | | metric | baseline | candidate | effect (+ is better) | interval | margin | state |
                |---|---|---:|---:|---:|---:|---:|---|
                | ✅ | latency | 900 ms | 900 ms | **x1.00** | x1.09 to x0.92 | x1.07 | within margin (reported only) |

                </details>

                | | invariant | state | violations, candidate | violations, baseline | cases | at most (95 %) |
                |---|---|---|---:|---:|---:|---:|
                | ⛔ | idempotency | violated, blocks | 1 | 0 | 3 | 80.0 % |
                | ⚠️ | no-refund-without-look | vacuous, proves nothing | 0 | 0 | 3 | 63.0 % |

                Changed writes, by tool:

                - duplicated write refund in 1 of 3 candidate trials, 0 of 3 baseline trials

                - `underpowered` success fell by 33.0 points order 7, 20 USD

                <details><summary>Worst cases</summary>

                - **three** (success): duplicated write: refund 2 times with order 7, 20 USD
                - … more in `report.html`

                </details>

                > order 7, 20 USD

                Details: `report.html` (sessions side by side) and `verdict.json`. Policy `000000000000`, seed 7, foreshadow 0.1.0.
            "#]],
        );
    }

    #[test]
    fn hostile_text_stays_text() {
        let runs = fixture::runs();
        let analysis = fixture::analysis(Decision::Block);
        let summary =
            summary_md(&analysis, &runs.input(), &ReportMeta::default()).expect("the runs are paired");
        for active in ["<img", "<b>", "</script>", "@team", "://", "\u{202e}", "\u{0}"] {
            assert!(!summary.contains(active), "{active:?} is in {summary}");
        }
        // Every row of a table keeps its number of cells.
        let cells = |line: &str| line.replace("\\|", "").matches('|').count();
        for line in summary.lines().filter(|line| line.starts_with("| ")) {
            assert!(matches!(cells(line), 8 | 9), "{line}");
        }
    }
}
