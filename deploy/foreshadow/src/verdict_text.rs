//! The verdict as text for a terminal of 80 columns. The verdict itself is the last thing on the screen.

use std::collections::BTreeSet;
use std::path::Path;

use analyzer::verdict::{MetricResult, MetricState, Verdict};
use analyzer::{
    Analysis, Decision, Finding, comparison_lines, escape_control, is_in_comparison, metric_cells,
    verdict_sentence,
};

use crate::console::Console;
use crate::format::columns;

/// Cases named under a reason; the output files contain all.
const MAX_FINDINGS: usize = 3;

/// Columns of the name of a metric.
const NAME_COLUMNS: usize = 34;

/// Columns of a lane's value.
const VALUE_COLUMNS: usize = 12;

/// Prints everything but the verdict: what was compared, the numbers, cases to read, the reasons and where the files are.
/// Prints nothing with `--json`.
pub(crate) fn show(analysis: &Analysis, out: &Path, console: &Console) {
    let verdict = &analysis.verdict;
    for line in comparison_lines(verdict) {
        console.line(escape_control(&line));
    }
    table(&verdict.metrics, console);
    for result in &verdict.invariants {
        console.line(escape_control(&format!(
            "invariant {}: {} violations on {} cases (at most {:.2} % of cases), {} on the baseline",
            result.name,
            result.violations,
            result.cases,
            100.0 * result.upper_bound,
            result.violations_baseline
        )));
    }
    for note in verdict.notes.iter().filter(|note| !is_in_comparison(note)) {
        console.line(format!("note: {}", escape_control(note)));
    }
    console.line("");
    let mut shown = BTreeSet::new();
    for reason in &verdict.reasons {
        console.line(format!("{}: {}", reason.code.as_str(), escape_control(&reason.detail)));
        let of_reason =
            analysis.findings.iter().filter(|finding| Some(&finding.subject) == reason.metric.as_ref());
        // A case stands under the first reason that it shows.
        let new = of_reason.filter(|finding| shown.insert(finding.case.as_str()));
        for Finding { case, detail, .. } in new.take(MAX_FINDINGS) {
            console.line(escape_control(&format!("  see case {case}: {detail}")));
        }
    }
    console.line(format!("written to {}", out.display()));
}

/// Prints the verdict in one sentence.
pub(crate) fn conclude(verdict: &Verdict, console: &Console) {
    let color = match verdict.verdict {
        Decision::Approve => "1;32",
        Decision::Block => "1;31",
        Decision::Inconclusive => "1;33",
    };
    console.line(format!("\n{}", console.paint(&escape_control(&verdict_sentence(verdict)), color)));
}

/// The metrics in two lines each: values and effect, then the test.
fn table(metrics: &[MetricResult], console: &Console) {
    if metrics.is_empty() {
        return;
    }
    let row = |name: &str, cells: [&str; 3]| {
        let pad = |text: &str, width: usize| " ".repeat(width.saturating_sub(columns(text)));
        let [baseline, candidate, effect] = cells.map(|cell| format!("{}{cell}", pad(cell, VALUE_COLUMNS)));
        format!("{name}{}  {baseline}  {candidate}  {effect}", pad(name, NAME_COLUMNS))
    };
    console.line("");
    console.line(console.paint(&row("metric", ["baseline", "candidate", "effect"]), "1"));
    for metric in metrics {
        let [baseline, candidate, effect, bounds, margin, state] = metric_cells(metric);
        let role = match (metric.required, metric.decides) {
            (true, _) => " (required)",
            (false, true) => "",
            (false, false) => " (reported)",
        };
        let name = format!("{}{role}", metric.name);
        let line = row(&escape_control(&name), [&baseline, &candidate, &effect]);
        let is_worse = metric.state == MetricState::Deteriorated;
        console.line(if is_worse { console.paint(&line, "31") } else { line });
        console.line(format!("  {state}: bounds {bounds}, tolerated {margin}, {} cases", metric.cases));
    }
}
