//! `summary.md`: the verdict for a pull request.
//!
//! Text that comes from sessions is put where Markdown and HTML in it are shown, not run.

use std::fmt::Write as _;

use crate::analysis::Analysis;
use crate::verdict::{Answer, Verdict};
use crate::words::{escaped, metric_words};

/// Findings shown under the table.
const SHOWN_FINDINGS: usize = 10;

/// Writes the summary.
#[must_use]
pub fn summary_md(analysis: &Analysis) -> String {
    let verdict = &analysis.verdict;
    let mut out = String::new();
    head(verdict, &mut out);
    invariants(verdict, &mut out);
    metrics(verdict, &mut out);
    need(verdict, &mut out);
    findings(analysis, &mut out);
    notes(verdict, &mut out);
    out
}

// Writing to a string cannot fail, so the results of `writeln!` are dropped throughout.

fn head(verdict: &Verdict, out: &mut String) {
    let (mark, word) = match verdict.verdict {
        Answer::Approve => ("✅", "approve"),
        Answer::Block => ("⛔", "block"),
        Answer::Inconclusive => ("❔", "inconclusive"),
    };
    let _ = writeln!(out, "## {mark} Foreshadow: {word}\n");
    for reason in &verdict.reasons {
        let _ = writeln!(out, "- **`{}`** {}", reason.code.as_str(), text(&reason.detail));
    }
    let pairs = &verdict.pairs;
    let _ = writeln!(
        out,
        "\nBaseline {} against candidate {}: {} paired cases, {} and {} trials{}.\n",
        code(&verdict.baseline.build),
        code(&verdict.candidate.build),
        pairs.paired,
        pairs.trials_baseline,
        pairs.trials_candidate,
        unpaired(verdict)
    );
}

fn unpaired(verdict: &Verdict) -> String {
    let pairs = &verdict.pairs;
    let mut out = String::new();
    if pairs.unpaired_baseline + pairs.unpaired_candidate > 0 {
        let _ = write!(
            out,
            "; {} and {} cases without a partner",
            pairs.unpaired_baseline, pairs.unpaired_candidate
        );
    }
    if pairs.torn > 0 {
        let _ = write!(out, "; {} torn trials did not vote", pairs.torn);
    }
    out
}

fn invariants(verdict: &Verdict, out: &mut String) {
    if verdict.invariants.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "| invariant | violations | baseline | cases | upper bound of the share of cases |\n|---|--:|--:|--:|--:|"
    );
    for result in &verdict.invariants {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {:.2} % |",
            result.name,
            result.violations,
            result.violations_baseline,
            result.cases,
            100.0 * result.upper_bound
        );
    }
    out.push('\n');
}

fn metrics(verdict: &Verdict, out: &mut String) {
    if verdict.metrics.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "| metric | cases | baseline | candidate | effect | {:.0} % bounds | tolerated | state |\n|---|--:|--:|--:|--:|--:|--:|---|",
        100.0 * (1.0 - verdict.alpha)
    );
    for metric in &verdict.metrics {
        let [baseline, candidate, effect, bounds, margin, state] = metric_words(metric);
        let name = match (metric.required, metric.decides) {
            (true, _) => format!("**{}**", metric.name),
            (false, true) => metric.name.clone(),
            (false, false) => format!("_{}_", metric.name),
        };
        let _ = writeln!(
            out,
            "| {name} | {} | {baseline} | {candidate} | {effect} | {bounds} | {margin} | {state} |",
            metric.cases
        );
    }
    let _ = writeln!(
        out,
        "\n**Bold**: approval needs it. _Italic_: reported, does not decide. Larger effects are better; for times, tokens \
         and money the effect is candidate over baseline, so below x1.00 is better.\n"
    );
}

fn need(verdict: &Verdict, out: &mut String) {
    if verdict.verdict == Answer::Inconclusive && !verdict.need.detail.is_empty() {
        let _ = writeln!(out, "**What it takes:** {}.\n", text(&verdict.need.detail));
        for option in &verdict.need.options {
            let _ = writeln!(
                out,
                "- {} trial(s) of each case: about {} cases, {} trials in all",
                option.trials, option.cases, option.trials_total
            );
        }
        out.push('\n');
    }
}

fn findings(analysis: &Analysis, out: &mut String) {
    if analysis.findings.is_empty() {
        return;
    }
    let _ = writeln!(out, "<details><summary>Sessions that explain it, the worst first</summary>\n");
    for finding in analysis.findings.iter().take(SHOWN_FINDINGS) {
        let sessions: Vec<String> = finding
            .examples
            .iter()
            .map(|example| format!("{} {}", example.lane, code(&example.session)))
            .collect();
        let (subject, case) = (code(&finding.subject), code(&finding.case));
        let _ = writeln!(out, "- {subject} case {case}: {} ({})", text(&finding.detail), sessions.join(", "));
    }
    let left = analysis.findings.len().saturating_sub(SHOWN_FINDINGS);
    if left > 0 {
        let _ = writeln!(out, "- {left} more in the report");
    }
    let _ = writeln!(out, "\n</details>\n");
}

fn notes(verdict: &Verdict, out: &mut String) {
    let absent = verdict.absent.iter().map(|absent| format!("{} is absent: {}", absent.name, absent.why));
    let notes: Vec<String> = verdict.notes.iter().cloned().chain(absent).collect();
    if notes.is_empty() {
        return;
    }
    let _ = writeln!(out, "<details><summary>Notes</summary>\n");
    for note in notes {
        let _ = writeln!(out, "- {}", text(&note));
    }
    let digest = verdict.policy_digest.get(..12).unwrap_or_default();
    let _ = writeln!(out, "- seed {}, policy `{digest}`, {} look", verdict.seed, verdict.looks);
    let _ = writeln!(out, "\n</details>");
}

/// Text in running Markdown: everything that could start markup is written as a character reference.
fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in escaped(raw).chars() {
        match c {
            '<' | '>' | '&' | '*' | '`' | '[' | ']' | '|' | '\\' | '#' | '@' | '!' | '~' => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            // Inside a word an underscore is no markup in GitHub's Markdown.
            _ => out.push(c),
        }
    }
    out
}

/// Text as code.
fn code(raw: &str) -> String {
    format!("<code>{}</code>", text(raw))
}

#[cfg(test)]
mod tests {
    use schemas::trial::Lane;

    use super::*;
    use crate::fixture::labelled;
    use crate::policy::Policy;

    #[test]
    fn a_pull_request_reads_the_verdict_first() {
        let before = labelled(Lane::Baseline, &vec![vec![true]; 80]);
        let mut outcomes = vec![vec![true]; 60];
        outcomes.extend(vec![vec![false]; 20]);
        let after = labelled(Lane::Candidate, &outcomes);
        let analysis = crate::analyse(&Policy::default(), &before, &after, None, 1).expect("two runs");
        let summary = summary_md(&analysis);
        assert!(
            summary.starts_with(
                "## ⛔ Foreshadow: block\n\n- **`deteriorated`** success got worse: -25.0 points"
            ),
            "{summary}"
        );
        assert!(summary.contains("| **success** | 80 | 100.0 % | 75.0 % | -25.0 points |"), "{summary}");
    }

    #[test]
    fn markup_in_sessions_is_shown_not_run() {
        assert_eq!(text("<img onerror=x>|`a`"), "&#60;img onerror=x&#62;&#124;&#96;a&#96;");
        assert_eq!(code("a_b"), "<code>a_b</code>");
    }
}
