//! `junit.xml`: the verdict for a pipeline's test view, one suite per family, one test per metric or invariant.
//!
//! What blocks is a failure; what is not shown either way is skipped, never passed; an inconclusive verdict is an error
//! of its own test, so that no pipeline's test view takes it for an approval.

use std::collections::BTreeSet;
use std::io;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

use super::{ReportError, phrases, text};
use crate::analysis::Analysis;
use crate::verdict::{Answer, InvariantResult, InvariantState, MetricResult, MetricState, Verdict};

/// Violating sessions named in a failure.
const EXAMPLES_SHOWN: usize = 20;

/// One test of the file.
struct Test {
    name: String,
    result: TestResult,
    /// What was measured.
    output: String,
}

enum TestResult {
    Passed,
    /// Kind, and the message.
    Failed(&'static str, String),
    Skipped(String),
    /// Neither: the verdict itself is open.
    Open(String),
}

/// Writes the file.
///
/// # Errors
/// Only by a defect of this crate: it is written to memory.
pub fn junit_xml(analysis: &Analysis) -> Result<String, ReportError> {
    let suites = suites(&analysis.verdict);
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let [tests, failures, errors, skipped] = totals(suites.iter().flat_map(|(_, tests)| tests));
    writer
        .create_element("testsuites")
        .with_attributes([
            ("name", "foreshadow"),
            ("tests", tests.as_str()),
            ("failures", failures.as_str()),
            ("errors", errors.as_str()),
            ("skipped", skipped.as_str()),
        ])
        .write_inner_content(|writer| {
            for (name, tests) in &suites {
                write_suite(writer, name, tests)?;
            }
            Ok(())
        })?;
    let bytes = writer.into_inner();
    let mut xml = String::from_utf8_lossy(&bytes).into_owned();
    xml.push('\n');
    Ok(xml)
}

/// Tests, failures, errors, skipped.
fn totals<'a>(tests: impl Iterator<Item = &'a Test>) -> [String; 4] {
    let mut counts = [0_u64; 4];
    for test in tests {
        counts[0] += 1;
        match test.result {
            TestResult::Passed => {}
            TestResult::Failed(..) => counts[1] += 1,
            TestResult::Open(_) => counts[2] += 1,
            TestResult::Skipped(_) => counts[3] += 1,
        }
    }
    counts.map(|count| count.to_string())
}

fn write_suite(writer: &mut Writer<Vec<u8>>, name: &str, tests: &[Test]) -> io::Result<()> {
    let [count, failures, errors, skipped] = totals(tests.iter());
    writer
        .create_element("testsuite")
        .with_attributes([
            ("name", name),
            ("tests", count.as_str()),
            ("failures", failures.as_str()),
            ("errors", errors.as_str()),
            ("skipped", skipped.as_str()),
        ])
        .write_inner_content(|writer| {
            let class = format!("foreshadow.{name}");
            tests.iter().try_for_each(|test| write_test(writer, &class, test))
        })?;
    Ok(())
}

fn write_test(writer: &mut Writer<Vec<u8>>, class: &str, test: &Test) -> io::Result<()> {
    let element = writer
        .create_element("testcase")
        .with_attributes([("classname", class), ("name", xml_text(&test.name).as_str())]);
    element.write_inner_content(|writer| {
        match &test.result {
            TestResult::Passed => {}
            TestResult::Failed(kind, message) => {
                writer
                    .create_element("failure")
                    .with_attributes([("type", *kind), ("message", xml_text(message).as_str())])
                    .write_text_content(BytesText::new(&xml_text(message)))?;
            }
            TestResult::Open(message) => {
                writer
                    .create_element("error")
                    .with_attributes([("type", "inconclusive"), ("message", xml_text(message).as_str())])
                    .write_text_content(BytesText::new(&xml_text(message)))?;
            }
            TestResult::Skipped(message) => {
                writer
                    .create_element("skipped")
                    .with_attribute(("message", xml_text(message).as_str()))
                    .write_empty()?;
            }
        }
        if !test.output.is_empty() {
            writer
                .create_element("system-out")
                .write_text_content(BytesText::new(&xml_text(&test.output)))?;
        }
        Ok(())
    })?;
    Ok(())
}

/// Text without the characters that XML 1.0 has no place for: they are shown by pictures or code points.
fn xml_text(raw: &str) -> String {
    text::visible_lines(raw)
}

/// The verdict, the invariants, and the metrics by family, in the verdict's order.
fn suites(verdict: &Verdict) -> Vec<(String, Vec<Test>)> {
    let mut suites = vec![("verdict".to_owned(), vec![verdict_test(verdict)])];
    if !verdict.invariants.is_empty() {
        let tests = verdict.invariants.iter().map(invariant_test).collect();
        suites.push(("invariants".to_owned(), tests));
    }
    let mut seen = BTreeSet::new();
    for family in verdict.metrics.iter().map(|metric| &metric.family).filter(|family| seen.insert(*family)) {
        let of_family = verdict.metrics.iter().filter(|metric| &metric.family == family);
        suites.push((text::name(family), of_family.map(metric_test).collect()));
    }
    if !verdict.absent.is_empty() {
        let tests = verdict.absent.iter().map(|absent| Test {
            name: absent.name.clone(),
            result: TestResult::Skipped(format!("not computed: {}", absent.why)),
            output: String::new(),
        });
        suites.push(("absent".to_owned(), tests.collect()));
    }
    suites
}

fn verdict_test(verdict: &Verdict) -> Test {
    let sentence = phrases::why(verdict);
    let result = match verdict.verdict {
        Answer::Approve => TestResult::Passed,
        Answer::Block => TestResult::Failed("block", sentence.clone()),
        Answer::Inconclusive => TestResult::Open(sentence.clone()),
    };
    let reasons = verdict.reasons.iter().map(|reason| format!("{}: {}", reason.code.as_str(), reason.detail));
    let lines: Vec<String> = std::iter::once(sentence).chain(reasons).chain(phrases::need(verdict)).collect();
    Test { name: "verdict".to_owned(), result, output: lines.join("\n") }
}

fn invariant_test(invariant: &InvariantResult) -> Test {
    let counts = phrases::invariant_line(invariant);
    let details = invariant.details.iter().map(String::as_str).chain(std::iter::repeat(""));
    let examples = invariant.examples.iter().zip(details).take(EXAMPLES_SHOWN);
    let listed: Vec<String> = examples.map(|(session, detail)| format!("{session}: {detail}")).collect();
    let (_, state) = phrases::invariant(invariant);
    let result = match invariant.state {
        InvariantState::Kept => TestResult::Passed,
        InvariantState::Violated => TestResult::Failed("invariant_violated", counts.clone()),
        InvariantState::Demoted
        | InvariantState::Unchecked
        | InvariantState::NotLive
        | InvariantState::TooFewCases => TestResult::Skipped(format!("{counts}: {state}")),
    };
    Test {
        name: invariant.name.clone(),
        result,
        output: std::iter::once(counts).chain(listed).collect::<Vec<_>>().join("\n"),
    }
}

fn metric_test(metric: &MetricResult) -> Test {
    let line = phrases::metric_line(metric);
    let result = match metric.state {
        MetricState::Deteriorated if metric.decides => TestResult::Failed("deteriorated", line.clone()),
        MetricState::Undecided => TestResult::Skipped(line.clone()),
        MetricState::Deteriorated | MetricState::DeterioratedWithinMargin | MetricState::NonInferior => {
            TestResult::Passed
        }
    };
    Test { name: metric.name.clone(), result, output: line }
}

#[cfg(test)]
mod tests {
    use schemas::trial::Lane;

    use super::*;
    use crate::fixture::labelled;
    use crate::policy::Policy;
    use crate::report::sample;

    #[test]
    fn what_blocks_fails_what_is_open_is_skipped_and_the_file_is_xml_1_0() {
        let xml = junit_xml(&sample::analysis(Answer::Block)).unwrap();
        assert!(
            xml.contains(
                "<testsuites name=\"foreshadow\" tests=\"6\" failures=\"3\" errors=\"0\" skipped=\"2\">"
            ),
            "{xml}"
        );
        assert!(!xml.contains("<img") && !xml.contains("]]>"), "{xml}");
        let forbidden = |c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\r');
        assert!(!xml.contains(forbidden), "{xml}");
        let mut reader = quick_xml::Reader::from_str(&xml);
        let mut tests = 0;
        loop {
            match reader.read_event().unwrap() {
                Event::Start(tag) if tag.name().as_ref() == "testcase" => tests += 1,
                Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!(tests, 6);
    }

    #[test]
    fn a_real_analysis_counts_one_test_per_metric_and_one_for_the_verdict() {
        let mut before = labelled(Lane::Baseline, &vec![vec![true]; 80]);
        before.name = "a & \"b\" <c>\u{1}".to_owned();
        let after = labelled(Lane::Candidate, &vec![vec![false]; 80]);
        let analysis = crate::analyse(&Policy::default(), &before, &after, None, 1).expect("two runs");
        let verdict = &analysis.verdict;
        let suites = suites(verdict);
        let [tests, failures, errors, _] = totals(suites.iter().flat_map(|(_, tests)| tests));
        assert_eq!(tests, (1 + verdict.metrics.len() + verdict.absent.len()).to_string());
        assert!(failures.parse::<u32>().expect("a number") >= 2 && errors == "0", "{failures} {errors}");
    }

    #[test]
    fn an_inconclusive_verdict_never_passes() {
        let xml = junit_xml(&sample::analysis(Answer::Inconclusive)).unwrap();
        assert!(
            xml.contains(
                "<testsuite name=\"verdict\" tests=\"1\" failures=\"0\" errors=\"1\" skipped=\"0\">"
            ),
            "{xml}"
        );
    }
}
