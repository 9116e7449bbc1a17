//! `junit.xml`: the verdict for the test view of a CI system, one suite for each metric family and one test for each
//! metric or invariant.
//!
//! A result that blocks is a failure. A result that is undecided is skipped, never passed. An inconclusive verdict is
//! an error of the test `verdict`, so that no CI system shows it as an approval.

use std::collections::BTreeSet;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::error::ReportError;
use super::{escape, wording};
use crate::analysis::Analysis;
use crate::verdict::{
    AbsentMetric, Decision, InvariantResult, InvariantState, MetricResult, MetricState, Verdict,
};

/// Violating sessions listed in one test's output.
const EXAMPLES_SHOWN: usize = 20;

/// Renders the file.
///
/// # Errors
/// Only by a defect of this crate: it writes to memory.
pub fn junit_xml(analysis: &Analysis) -> Result<String, ReportError> {
    Ok(report(&analysis.verdict).to_string()?)
}

/// Suites in the order: verdict, invariants, each metric family, metrics that could not be computed.
fn report(verdict: &Verdict) -> Report {
    let mut report = Report::new("foreshadow");
    report.add_test_suite(suite("verdict", [verdict_test(verdict)]));
    if !verdict.invariants.is_empty() {
        report.add_test_suite(suite("invariants", verdict.invariants.iter().map(invariant_test)));
    }
    let mut seen = BTreeSet::new();
    for family in verdict.metrics.iter().map(|metric| &metric.family).filter(|family| seen.insert(*family)) {
        let of_family = verdict.metrics.iter().filter(|metric| &metric.family == family);
        report.add_test_suite(suite(family, of_family.map(metric_test)));
    }
    if !verdict.absent.is_empty() {
        report.add_test_suite(suite("not-computed", verdict.absent.iter().map(absent_test)));
    }
    report
}

fn suite(name: &str, tests: impl IntoIterator<Item = TestCase>) -> TestSuite {
    let name = escape::name(name);
    let mut suite = TestSuite::new(&name);
    for mut test in tests {
        test.set_classname(format!("foreshadow.{name}"));
        suite.add_test_case(test);
    }
    suite
}

fn test(name: &str, status: TestCaseStatus, output: &str) -> TestCase {
    let mut test = TestCase::new(xml_text(name), status);
    if !output.is_empty() {
        test.set_system_out(xml_text(output));
    }
    test
}

fn failed(kind: NonSuccessKind, code: &str, message: &str) -> TestCaseStatus {
    let message = xml_text(message);
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(code).set_message(&message).set_description(&message);
    status
}

fn skipped(message: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    status.set_message(xml_text(message));
    status
}

/// Control characters become visible symbols. The XML writer would drop them, and the reader would not see that a
/// session had sent them.
fn xml_text(raw: &str) -> String {
    escape::visible_lines(raw)
}

fn verdict_test(verdict: &Verdict) -> TestCase {
    let sentence = wording::why(verdict);
    let status = match verdict.verdict {
        Decision::Approve => TestCaseStatus::success(),
        Decision::Block => failed(NonSuccessKind::Failure, "block", &sentence),
        Decision::Inconclusive => failed(NonSuccessKind::Error, "inconclusive", &sentence),
    };
    let reasons = verdict.reasons.iter().map(|reason| format!("{}: {}", reason.code.as_str(), reason.detail));
    let lines: Vec<String> =
        std::iter::once(sentence).chain(reasons).chain(wording::sample_size(verdict)).collect();
    test("verdict", status, &lines.join("\n"))
}

fn invariant_test(invariant: &InvariantResult) -> TestCase {
    let counts = wording::invariant_line(invariant);
    let details = invariant.details.iter().map(String::as_str).chain(std::iter::repeat(""));
    let examples = invariant.examples.iter().zip(details).take(EXAMPLES_SHOWN);
    let listed = examples.map(|(session, detail)| format!("{session}: {detail}"));
    let (_, state) = wording::invariant(invariant);
    let status = match invariant.state {
        InvariantState::Kept => TestCaseStatus::success(),
        InvariantState::Violated => failed(NonSuccessKind::Failure, "invariant_violated", &counts),
        InvariantState::Demoted
        | InvariantState::Unchecked
        | InvariantState::Vacuous
        | InvariantState::TooFewCases => skipped(&format!("{counts}: {state}")),
    };
    let output: Vec<String> = std::iter::once(counts.clone()).chain(listed).collect();
    test(&invariant.name, status, &output.join("\n"))
}

fn metric_test(metric: &MetricResult) -> TestCase {
    let line = wording::metric_line(metric);
    let status = match metric.state {
        MetricState::Deteriorated if metric.decides => failed(NonSuccessKind::Failure, "deteriorated", &line),
        MetricState::Undecided => skipped(&line),
        MetricState::Deteriorated | MetricState::DeterioratedWithinMargin | MetricState::NonInferior => {
            TestCaseStatus::success()
        }
    };
    test(&metric.name, status, &line)
}

fn absent_test(absent: &AbsentMetric) -> TestCase {
    test(&absent.name, skipped(&format!("not computed: {}", absent.reason)), "")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use schemas::trial::Lane;

    use super::*;
    use crate::fixture::labelled;
    use crate::policy::Policy;
    use crate::report::fixture;

    /// The status of every test, read back from the XML: suite and test, then its status.
    fn statuses(xml: &str) -> Vec<(String, &'static str)> {
        let report = Report::deserialize_from_str(xml).unwrap();
        let mut statuses = Vec::new();
        for suite in &report.test_suites {
            for test in &suite.test_cases {
                let status = match &test.status {
                    TestCaseStatus::Success { .. } => "passed",
                    TestCaseStatus::NonSuccess { kind: NonSuccessKind::Failure, .. } => "failed",
                    TestCaseStatus::NonSuccess { kind: NonSuccessKind::Error, .. } => "error",
                    TestCaseStatus::Skipped { .. } => "skipped",
                };
                statuses.push((format!("{}/{}", suite.name.as_str(), test.name.as_str()), status));
            }
        }
        statuses
    }

    #[test]
    fn blocking_results_fail_undecided_ones_are_skipped() {
        let xml = junit_xml(&fixture::analysis(Decision::Block)).unwrap();
        let statuses = statuses(&xml);
        let statuses: Vec<(&str, &str)> =
            statuses.iter().map(|(name, status)| (name.as_str(), *status)).collect();
        assert_eq!(
            statuses,
            [
                ("verdict/verdict", "failed"),
                ("invariants/idempotency", "failed"),
                ("outcome/success", "failed"),
                ("effects/effects.duplicated", "skipped"),
                ("cost/latency", "passed"),
                ("not-computed/pass_k", "skipped"),
            ]
        );
    }

    #[test]
    fn a_blocked_build() {
        let xml = junit_xml(&fixture::plain_analysis(Decision::Block)).unwrap();
        expect![[r#"
            <?xml version="1.0" encoding="UTF-8"?>
            <testsuites name="foreshadow" tests="7" skipped="3" failures="3" errors="0">
                <testsuite name="verdict" tests="1" skipped="0" errors="0" failures="1">
                    <testcase name="verdict" classname="foreshadow.verdict">
                        <failure message="Successful trials: 90.0 % → 57.0 % (success) over 3 cases, tolerated -5.0 points." type="block">Successful trials: 90.0 % → 57.0 % (success) over 3 cases, tolerated -5.0 points.</failure>
                        <system-out>Successful trials: 90.0 % → 57.0 % (success) over 3 cases, tolerated -5.0 points.
            deteriorated: success fell by 33.0 points order 7, 20 USD</system-out>
                    </testcase>
                </testsuite>
                <testsuite name="invariants" tests="2" skipped="1" errors="0" failures="1">
                    <testcase name="idempotency" classname="foreshadow.invariants">
                        <failure message="1 violation in 3 cases of the candidate, 0 of the baseline" type="invariant_violated">1 violation in 3 cases of the candidate, 0 of the baseline</failure>
                        <system-out>1 violation in 3 cases of the candidate, 0 of the baseline
            three-0: order 7, 20 USD</system-out>
                    </testcase>
                    <testcase name="no-refund-without-look" classname="foreshadow.invariants">
                        <skipped message="0 violations in 3 cases of the candidate, 0 of the baseline: vacuous, proves nothing"/>
                        <system-out>0 violations in 3 cases of the candidate, 0 of the baseline</system-out>
                    </testcase>
                </testsuite>
                <testsuite name="outcome" tests="1" skipped="0" errors="0" failures="1">
                    <testcase name="success" classname="foreshadow.outcome">
                        <failure message="worse, blocks (required, may block): Successful trials: 90.0 % → 57.0 % (success); effect -33.0 points, interval -39.0 to -27.0 points, margin -5.0 points, 3 cases, p block 0.002, p approve 0.980" type="deteriorated">worse, blocks (required, may block): Successful trials: 90.0 % → 57.0 % (success); effect -33.0 points, interval -39.0 to -27.0 points, margin -5.0 points, 3 cases, p block 0.002, p approve 0.980</failure>
                        <system-out>worse, blocks (required, may block): Successful trials: 90.0 % → 57.0 % (success); effect -33.0 points, interval -39.0 to -27.0 points, margin -5.0 points, 3 cases, p block 0.002, p approve 0.980</system-out>
                    </testcase>
                </testsuite>
                <testsuite name="effects" tests="1" skipped="1" errors="0" failures="0">
                    <testcase name="effects.duplicated" classname="foreshadow.effects">
                        <skipped message="undecided (may block): Writes made more than once: 90.0 % → 88.0 % of trials (effects.duplicated); effect -2.0 points, interval -8.0 to +4.0 points, margin -5.0 points, 3 cases, p block 0.002, p approve 0.980"/>
                        <system-out>undecided (may block): Writes made more than once: 90.0 % → 88.0 % of trials (effects.duplicated); effect -2.0 points, interval -8.0 to +4.0 points, margin -5.0 points, 3 cases, p block 0.002, p approve 0.980</system-out>
                    </testcase>
                </testsuite>
                <testsuite name="cost" tests="1" skipped="0" errors="0" failures="0">
                    <testcase name="latency" classname="foreshadow.cost">
                        <system-out>within margin (reported only): Time per trial: 900 ms → 900 ms (latency); effect x1.00, interval x1.09 to x0.92, margin x1.07, 3 cases, p block 0.002, p approve 0.980</system-out>
                    </testcase>
                </testsuite>
                <testsuite name="not-computed" tests="1" skipped="1" errors="0" failures="0">
                    <testcase name="pass_k" classname="foreshadow.not-computed">
                        <skipped message="not computed: fewer than 3 trials"/>
                    </testcase>
                </testsuite>
            </testsuites>
        "#]].assert_eq(&xml);
    }

    #[test]
    fn hostile_text_is_escaped_and_its_control_characters_are_visible() {
        let xml = junit_xml(&fixture::analysis(Decision::Block)).unwrap();
        assert!(!xml.contains("<img") && !xml.contains("]]>"), "{xml}");
        let forbidden = |c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\r');
        assert!(!xml.contains(forbidden), "{xml}");
        assert!(xml.contains("⟨U+0000⟩⟨U+001B⟩[31m"), "{xml}");
    }

    #[test]
    fn a_real_analysis_counts_one_test_per_metric_and_one_for_the_verdict() {
        let mut before = labelled(Lane::Baseline, &vec![vec![true]; 80]);
        before.name = "a & \"b\" <c>\u{1}".to_owned();
        let after = labelled(Lane::Candidate, &vec![vec![false]; 80]);
        let analysis = crate::analyze_once(&Policy::default(), &before, &after, None, 1).expect("two runs");
        let verdict = &analysis.verdict;
        let report = report(verdict);
        assert_eq!(report.tests, 1 + verdict.metrics.len() + verdict.absent.len());
        assert!(report.failures >= 2 && report.errors == 0, "{} {}", report.failures, report.errors);
    }

    #[test]
    fn an_inconclusive_verdict_is_an_error() {
        let xml = junit_xml(&fixture::analysis(Decision::Inconclusive)).unwrap();
        assert_eq!(statuses(&xml)[0], ("verdict/verdict".to_owned(), "error"));
    }
}
