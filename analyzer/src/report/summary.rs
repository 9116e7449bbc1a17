//! `summary.md`: the verdict as a comment under a pull request.
//!
//! Text from sessions is escaped for Markdown: it neither formats, links nor mentions anyone.

use super::{ReportError, ReportInput, ReportMeta, cases, escape, number, tool_table, wording};
use crate::analysis::Analysis;
use crate::format;
use crate::run::Run;
use crate::verdict::{Answer, MetricResult, MetricState, Reason, ReasonCode, Verdict};

/// Reasons listed.
const REASONS_SHOWN: usize = 6;

/// Cases listed.
const CASES_SHOWN: usize = 5;

/// Characters of a finding.
const DETAIL_SHOWN: usize = 240;

/// Writes the summary; `report.html` beside it holds the rest.
///
/// # Errors
/// The runs are not those that were analyzed.
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
    effects(analysis, input, &mut lines)?;
    reasons(verdict, &mut lines);
    worst_cases(analysis, &mut lines);
    footing(verdict, &mut lines);
    Ok(lines.join("\n") + "\n")
}

fn symbol(answer: Answer) -> &'static str {
    match answer {
        Answer::Approve => "✅",
        Answer::Block => "⛔",
        Answer::Inconclusive => "❔",
    }
}

fn headline(verdict: &Verdict, meta: &ReportMeta, lines: &mut Vec<String>) {
    let answer = wording::answer(verdict.verdict);
    lines.push(format!("## {} Foreshadow: {answer}", symbol(verdict.verdict)));
    lines.push(String::new());
    lines.push(format!("**{}**", escape::markdown(&wording::why(verdict))));
    lines.push(String::new());
    let compared = format!(
        "Candidate {} against baseline {}: {} paired, {} + {} trials.",
        escape::markdown(&escape::name(&verdict.candidate.build)),
        escape::markdown(&escape::name(&verdict.baseline.build)),
        number::counted(verdict.pairs.paired, "case", "cases"),
        number::count(verdict.pairs.trials_baseline),
        number::count(verdict.pairs.trials_candidate),
    );
    let title = escape::markdown(&escape::name(&meta.title));
    lines.push(if title.is_empty() { compared } else { format!("{title}. {compared}") });
    if let Some(need) = wording::need(verdict) {
        lines.extend([String::new(), format!("**Needed:** {}", escape::markdown(&need))]);
    }
}

fn metrics(verdict: &Verdict, lines: &mut Vec<String>) {
    if verdict.metrics.is_empty() {
        return;
    }
    let decides = |metric: &&MetricResult| metric.decides || metric.required;
    let (deciding, reported): (Vec<&MetricResult>, Vec<&MetricResult>) =
        verdict.metrics.iter().partition(decides);
    table(&deciding, lines);
    if deciding.is_empty() {
        table(&reported, lines);
    } else if !reported.is_empty() {
        let worse = reported.iter().filter(|metric| metric.state == MetricState::Deteriorated).count();
        let worse = if worse > 0 { format!(", {worse} of them worse") } else { String::new() };
        let count = number::counted(crate::cast::to_u64(reported.len()), "metric is", "metrics are");
        folded(&format!("{count} reported only{worse}"), lines, |lines| table(&reported, lines));
    }
}

/// Lines that are shown when somebody opens them.
fn folded(title: &str, lines: &mut Vec<String>, inside: impl FnOnce(&mut Vec<String>)) {
    lines.extend([String::new(), format!("<details><summary>{title}</summary>")]);
    inside(lines);
    lines.extend([String::new(), "</details>".to_owned()]);
}

fn table(metrics: &[&MetricResult], lines: &mut Vec<String>) {
    if metrics.is_empty() {
        return;
    }
    lines.push(String::new());
    lines.push(
        "| | metric | baseline | candidate | effect (+ is better) | interval | margin | state |".to_owned(),
    );
    lines.push("|---|---|---:|---:|---:|---:|---:|---|".to_owned());
    for metric in metrics {
        let (tone, state) = wording::state(metric);
        let cells = [
            mark(tone).to_owned(),
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

fn mark(tone: &str) -> &'static str {
    match tone {
        wording::GOOD => "✅",
        wording::BAD => "⛔",
        wording::WARN => "⚠️",
        _ => "❔",
    }
}

fn invariants(verdict: &Verdict, lines: &mut Vec<String>) {
    if verdict.invariants.is_empty() {
        return;
    }
    lines.push(String::new());
    lines.push("| | invariant | violations | baseline | cases | at most (95%) |".to_owned());
    lines.push("|---|---|---:|---:|---:|---:|".to_owned());
    for invariant in &verdict.invariants {
        let (tone, _) = wording::invariant(invariant);
        lines.push(format!(
            "| {} | {} | {} | {} | {} | {} |",
            mark(tone),
            escape::markdown(&escape::name(&invariant.name)),
            number::count(invariant.violations),
            number::count(invariant.violations_baseline),
            number::count(invariant.cases),
            number::percent(invariant.upper_bound),
        ));
    }
}

/// By which tools the candidate's writes differ more often than the baseline's.
fn effects(analysis: &Analysis, input: &ReportInput<'_>, lines: &mut Vec<String>) -> Result<(), ReportError> {
    let has_calls = |run: &Run| run.own().any(|record| !record.calls.is_empty());
    if !has_calls(input.baseline) && !has_calls(input.candidate) {
        return Ok(());
    }
    let by_case = cases::by_case(input, analysis.verdict.seed)?;
    let changed = tool_table::tools(&by_case, &analysis.verdict.tools).headlines;
    if !changed.is_empty() {
        lines.extend([
            String::new(),
            "What the candidate writes otherwise, by tool:".to_owned(),
            String::new(),
        ]);
        lines.extend(changed.iter().map(|line| format!("- {}", escape::markdown(line))));
    }
    Ok(())
}

/// What the table of metrics does not say already is shown, the rest folded.
fn reasons(verdict: &Verdict, lines: &mut Vec<String>) {
    let in_table = |reason: &&Reason| {
        matches!(reason.code, ReasonCode::Deteriorated | ReasonCode::NonInferior)
            && verdict.metrics.iter().any(|metric| Some(&metric.name) == reason.metric.as_ref())
    };
    let (folded_away, shown): (Vec<&Reason>, Vec<&Reason>) = verdict.reasons.iter().partition(in_table);
    if !shown.is_empty() {
        lines.push(String::new());
        list(&shown, lines);
    }
    if !folded_away.is_empty() {
        folded("The tests behind it", lines, |lines| {
            lines.push(String::new());
            list(&folded_away, lines);
        });
    }
}

fn list(reasons: &[&Reason], lines: &mut Vec<String>) {
    for reason in reasons.iter().take(REASONS_SHOWN) {
        lines.push(format!("- `{}` {}", reason.code.as_str(), escape::markdown(&reason.detail)));
    }
    if let Some(more) = reasons.len().checked_sub(REASONS_SHOWN).filter(|more| *more > 0) {
        lines.push(format!("- … {more} more in `report.html`"));
    }
}

fn worst_cases(analysis: &Analysis, lines: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    let worst: Vec<_> = (analysis.findings.iter())
        .filter(|finding| seen.insert(finding.case.as_str()))
        .take(CASES_SHOWN)
        .collect();
    if worst.is_empty() {
        return;
    }
    let more = analysis.findings.len() > worst.len();
    folded("Cases to look at first", lines, |lines| {
        lines.push(String::new());
        for finding in worst {
            lines.push(format!(
                "- **{}** ({}): {}",
                escape::markdown(&escape::name(&finding.case)),
                escape::markdown(&escape::name(&finding.subject)),
                escape::markdown(&escape::shortened(&finding.detail, DETAIL_SHOWN)),
            ));
        }
        if more {
            lines.push("- … more in `report.html`".to_owned());
        }
    });
}

fn footing(verdict: &Verdict, lines: &mut Vec<String>) {
    lines.push(String::new());
    for note in &verdict.notes {
        lines.extend([format!("> {}", escape::markdown(note)), String::new()]);
    }
    lines.push(format!(
        "Full report: `report.html` (sessions side by side), `verdict.json`. Policy `{}`, seed {}, foreshadow {}.",
        verdict.policy_digest.get(..12).unwrap_or(&verdict.policy_digest),
        verdict.seed,
        escape::markdown(&verdict.tool_version),
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    fn summary(answer: Answer) -> String {
        let runs = fixture::runs();
        summary_md(&fixture::analysis(answer), &runs.input(), &ReportMeta::default())
            .expect("the runs are paired")
    }

    #[test]
    fn an_open_verdict_says_what_it_takes() {
        let summary = summary(Answer::Inconclusive);
        assert!(summary.contains("**Needed:** 300 cases in all with 2 trials each"), "{summary}");
    }

    #[test]
    fn reads_as_a_verdict_and_hostile_text_stays_text() {
        let summary = summary(Answer::Block);
        assert!(summary.starts_with("## ⛔ Foreshadow: Block\n\n**"), "{summary}");
        assert!(summary.contains("| ⛔ | success | 90.0 % | 57.0 % | **-33.0 points** |"), "{summary}");
        assert!(
            summary.contains(
                "by tool:\n\n- refund duplicated in 1 of 3 candidate trials, 0 of 3 baseline trials\n"
            ),
            "{summary}"
        );
        assert!(summary.contains("- `deteriorated` success fell by 33.0 points"), "{summary}");
        for active in ["<img", "<b>", "</script>", "@team", "://", "\u{202e}", "\u{0}"] {
            assert!(!summary.contains(active), "{active:?} is in {summary}");
        }
        // Every row of a table keeps its number of cells.
        let cells = |line: &str| line.replace("\\|", "").matches('|').count();
        for line in summary.lines().filter(|line| line.starts_with("| ")) {
            assert!(matches!(cells(line), 7 | 9), "{line}");
        }
    }
}
