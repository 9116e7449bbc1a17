//! `junit.xml`: the verdict as test results, for pipelines that show those.
//!
//! One test case for the verdict, one per invariant, one per metric. A failure is what blocks; what is only undecided
//! is skipped, with its numbers, and an inconclusive verdict is an error of its own case.

use quick_xml::Writer;
use quick_xml::events::BytesText;

use crate::analysis::Analysis;
use crate::verdict::{Answer, MetricState, Verdict};
use crate::words::{escaped, metric_words, sentence};

/// How a test case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failure,
    Error,
    Skipped,
}

struct Case {
    class: &'static str,
    name: String,
    outcome: Outcome,
    text: String,
}

/// Writes the results.
#[must_use]
pub fn junit_xml(analysis: &Analysis) -> String {
    let cases = cases(&analysis.verdict);
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    // Writing to memory cannot fail.
    let written = write(&mut writer, &cases);
    written.expect("writing to memory cannot fail");
    let body = String::from_utf8(writer.into_inner()).expect("only text was written");
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}\n")
}

fn cases(verdict: &Verdict) -> Vec<Case> {
    let outcome = match verdict.verdict {
        Answer::Approve => Outcome::Passed,
        Answer::Block => Outcome::Failure,
        Answer::Inconclusive => Outcome::Error,
    };
    let mut cases =
        vec![Case { class: "verdict", name: "verdict".to_owned(), outcome, text: sentence(verdict) }];
    for result in &verdict.invariants {
        let blocks = result.violations > 0 && result.violations_baseline == 0;
        let outcome = if blocks { Outcome::Failure } else { Outcome::Passed };
        let text = format!(
            "{} violations on {} cases; {}",
            result.violations,
            result.cases,
            result.details.join("; ")
        );
        cases.push(Case { class: "invariant", name: result.name.clone(), outcome, text });
    }
    for metric in &verdict.metrics {
        let [baseline, candidate, effect, bounds, margin, state] = metric_words(metric);
        let outcome = match metric.state {
            MetricState::Deteriorated if metric.decides => Outcome::Failure,
            MetricState::NonInferior | MetricState::DeterioratedWithinMargin => Outcome::Passed,
            MetricState::Deteriorated | MetricState::Undecided => Outcome::Skipped,
        };
        let text = format!(
            "{state}: baseline {baseline}, candidate {candidate}, effect {effect} ({bounds}), tolerated {margin}, {} cases",
            metric.cases
        );
        cases.push(Case { class: "metric", name: metric.name.clone(), outcome, text });
    }
    cases
}

fn write(writer: &mut Writer<Vec<u8>>, cases: &[Case]) -> std::io::Result<()> {
    let count = |outcome: Outcome| cases.iter().filter(|case| case.outcome == outcome).count().to_string();
    let totals = [
        ("name", "foreshadow".to_owned()),
        ("tests", cases.len().to_string()),
        ("failures", count(Outcome::Failure)),
        ("errors", count(Outcome::Error)),
        ("skipped", count(Outcome::Skipped)),
    ];
    let attributes = || totals.iter().map(|(key, value)| (*key, value.as_str()));
    let suites = writer
        .create_element("testsuites")
        .with_attributes(attributes().filter(|(key, _)| *key != "skipped"));
    suites.write_inner_content(|writer| {
        let suite = writer.create_element("testsuite").with_attributes(attributes());
        suite.write_inner_content(|writer| cases.iter().try_for_each(|case| write_case(writer, case)))?;
        Ok(())
    })?;
    Ok(())
}

fn write_case(writer: &mut Writer<Vec<u8>>, case: &Case) -> std::io::Result<()> {
    let (name, class) = (clean(&case.name), format!("foreshadow.{}", case.class));
    let text = clean(&case.text);
    let element = writer
        .create_element("testcase")
        .with_attributes([("classname", class.as_str()), ("name", name.as_str())]);
    element.write_inner_content(|writer| {
        let inner = match case.outcome {
            Outcome::Passed => {
                writer.create_element("system-out").write_text_content(BytesText::new(&text))?;
                return Ok(());
            }
            Outcome::Failure => "failure",
            Outcome::Error => "error",
            Outcome::Skipped => "skipped",
        };
        writer.create_element(inner).with_attribute(("message", text.as_str())).write_empty()?;
        Ok(())
    })?;
    Ok(())
}

/// XML 1.0 has no way to write most control characters, so they are spelled out.
fn clean(text: &str) -> String {
    escaped(text).chars().filter(|c| !matches!(c, '\u{fffe}' | '\u{ffff}')).collect()
}

#[cfg(test)]
mod tests {
    use quick_xml::Reader;
    use quick_xml::events::Event;
    use schemas::trial::Lane;

    use super::*;
    use crate::fixture::labelled;
    use crate::policy::Policy;

    #[test]
    fn a_real_parser_reads_it_and_counts_agree() {
        let mut before = labelled(Lane::Baseline, &vec![vec![true]; 80]);
        before.name = "a & \"b\" <c>\u{1}".to_owned();
        let after = labelled(Lane::Candidate, &vec![vec![false]; 80]);
        let analysis = crate::analyse(&Policy::default(), &before, &after, None, 1).expect("two runs");
        let xml = junit_xml(&analysis);
        let mut reader = Reader::from_str(&xml);
        let (mut cases, mut failures) = (0, 0);
        loop {
            match reader.read_event().expect("well-formed") {
                Event::Start(tag) if tag.name().as_ref() == "testcase" => cases += 1,
                Event::Empty(tag) if tag.name().as_ref() == "failure" => failures += 1,
                Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!(cases, 1 + analysis.verdict.metrics.len());
        assert!(failures >= 2 && xml.contains(&format!("failures=\"{failures}\"")), "{xml}");
    }
}
