//! The verdict as text for a terminal.

use analyzer::verdict::{MetricResult, MetricState};
use analyzer::{Analysis, Decision, escape_control, metric_cells, verdict_sentence};

use crate::console::Console;

/// Findings on the terminal; the output files contain all.
const MAX_FINDINGS: usize = 5;

/// Prints the verdict, its reasons and its numbers; prints nothing with `--json`.
pub(crate) fn show(analysis: &Analysis, console: &Console) {
    let verdict = &analysis.verdict;
    let color = match verdict.verdict {
        Decision::Approve => "1;32",
        Decision::Block => "1;31",
        Decision::Inconclusive => "1;33",
    };
    console.line(console.paint(&escape_control(&verdict_sentence(verdict)), color));
    for reason in verdict.reasons.iter().skip(1) {
        console.line(format!("  also {}: {}", reason.code.as_str(), escape_control(&reason.detail)));
    }
    let pairs = &verdict.pairs;
    console.line(format!(
        "\n{} of {} cases are paired; {} baseline trials, {} candidate trials, {} incomplete trials",
        pairs.paired, pairs.cases, pairs.trials_baseline, pairs.trials_candidate, pairs.incomplete
    ));
    for result in &verdict.invariants {
        console.line(format!(
            "invariant {}: {} violations on {} cases (at most {:.2} % of cases), {} on the baseline",
            result.name,
            result.violations,
            result.cases,
            100.0 * result.upper_bound,
            result.violations_baseline
        ));
    }
    table(&verdict.metrics, console);
    for finding in analysis.findings.iter().take(MAX_FINDINGS) {
        let line = format!("see {} in case {}: {}", finding.subject, finding.case, finding.detail);
        console.line(escape_control(&line));
    }
    for note in &verdict.notes {
        console.line(format!("note: {}", escape_control(note)));
    }
}

fn table(metrics: &[MetricResult], console: &Console) {
    if metrics.is_empty() {
        return;
    }
    let head = ["metric", "cases", "baseline", "candidate", "effect", "bounds", "tolerated", "state"];
    let mut rows = vec![head.map(str::to_owned)];
    for metric in metrics {
        let [baseline, candidate, effect, bounds, margin, state] = metric_cells(metric);
        let role = match (metric.required, metric.decides) {
            (true, _) => " (required)",
            (false, true) => "",
            (false, false) => " (reported)",
        };
        let cases = metric.cases.to_string();
        rows.push([
            format!("{}{role}", metric.name),
            cases,
            baseline,
            candidate,
            effect,
            bounds,
            margin,
            state,
        ]);
    }
    let widths: Vec<usize> = (0..head.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    console.line("");
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            // Text columns are aligned left, number columns right.
            let cell = if column == 0 || column == head.len() - 1 {
                format!("{cell}{pad}")
            } else {
                format!("{pad}{cell}")
            };
            line.push_str(&cell);
            line.push_str("  ");
        }
        let worse = number > 0 && metrics[number - 1].state == MetricState::Deteriorated;
        let line = line.trim_end();
        let code = if number == 0 { "1" } else { "31" };
        console.line(if number == 0 || worse { console.paint(line, code) } else { line.to_owned() });
    }
    console.line("");
}
