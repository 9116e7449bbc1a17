//! The verdict as OpenTelemetry events: one `gen_ai.evaluation.result` for the verdict, each metric and each invariant,
//! as an OTLP/JSON export request for logs (`opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest`).
//!
//! The event and its `gen_ai.*` attributes are those of the GenAI semantic conventions v0.1.0, unchanged from the semantic
//! conventions v1.41.0, the last that hold them under a schema address. What they have no name for is `foreshadow.*`.

use serde_json::{Value, json};

use super::{ReportInput, escape, wording};
use crate::analysis::Analysis;
use crate::verdict::{Answer, InvariantResult, MetricResult, MetricState, Verdict};

/// The semantic conventions that the attributes are named by.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.41.0";

/// The event's name.
const EVENT: &str = "gen_ai.evaluation.result";

/// Severity numbers of the log data model.
const INFO: u8 = 9;
const WARN: u8 = 13;
const ERROR: u8 = 17;

/// Writes the export request; `at_nanos` is when the verdict was made, in nanoseconds since 1970.
#[must_use]
pub fn otlp_json(analysis: &Analysis, input: &ReportInput<'_>, at_nanos: u64) -> String {
    let verdict = &analysis.verdict;
    let common = common(verdict, input);
    let mut records = vec![verdict_event(verdict)];
    records.extend(verdict.metrics.iter().map(metric_event));
    records.extend(verdict.invariants.iter().map(invariant_event));
    let records: Vec<Value> =
        records.into_iter().map(|event| record(event, &common, &at_nanos.to_string())).collect();
    let version = escape::name(&verdict.tool_version);
    let request = json!({"resourceLogs": [{
        "resource": {"attributes": [word("service.name", "foreshadow"), word("service.version", &version)]},
        "scopeLogs": [{
            "scope": {"name": "foreshadow", "version": version},
            "logRecords": records,
            "schemaUrl": SCHEMA,
        }],
    }]});
    format!("{request}\n")
}

/// What one event says.
struct Event {
    severity: u8,
    name: String,
    value: Option<f64>,
    label: &'static str,
    explanation: String,
    more: Vec<Value>,
}

fn record(event: Event, common: &[Value], at_nanos: &str) -> Value {
    let mut attributes = vec![word("gen_ai.evaluation.name", &event.name)];
    attributes.extend(event.value.map(|value| number("gen_ai.evaluation.score.value", value)));
    attributes.push(word("gen_ai.evaluation.score.label", event.label));
    attributes.push(word("gen_ai.evaluation.explanation", &event.explanation));
    attributes.extend(common.iter().cloned());
    attributes.extend(event.more);
    json!({
        "timeUnixNano": at_nanos,
        "observedTimeUnixNano": at_nanos,
        "severityNumber": event.severity,
        "eventName": EVENT,
        "attributes": attributes,
    })
}

fn word(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn number(key: &str, value: f64) -> Value {
    json!({"key": key, "value": {"doubleValue": value}})
}

/// A 64-bit integer is a string in the JSON of protocol buffers.
fn count(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

fn truth(key: &str, value: bool) -> Value {
    json!({"key": key, "value": {"boolValue": value}})
}

/// What was compared, on every event: each can be read alone.
fn common(verdict: &Verdict, input: &ReportInput<'_>) -> Vec<Value> {
    let agent = input.candidate.own().next().map(|record| record.trial.agent.to_string());
    let mut common: Vec<Value> =
        agent.iter().map(|agent| word("gen_ai.agent.name", &escape::name(agent))).collect();
    common.extend([
        word("gen_ai.agent.version", &escape::name(&verdict.candidate.build)),
        word("foreshadow.candidate.run", &escape::name(&verdict.candidate.run)),
        word("foreshadow.baseline.build", &escape::name(&verdict.baseline.build)),
        word("foreshadow.baseline.run", &escape::name(&verdict.baseline.run)),
        word("foreshadow.policy.digest", &verdict.policy_digest),
        word("foreshadow.corpus.digest", &verdict.corpus_digest),
    ]);
    common
}

fn verdict_event(verdict: &Verdict) -> Event {
    Event {
        severity: match verdict.verdict {
            Answer::Approve => INFO,
            Answer::Inconclusive => WARN,
            Answer::Block => ERROR,
        },
        name: "verdict".to_owned(),
        value: None,
        label: verdict.verdict.as_str(),
        explanation: wording::why(verdict),
        more: vec![
            count("foreshadow.cases.paired", verdict.pairs.paired),
            count("foreshadow.trials.baseline", verdict.pairs.trials_baseline),
            count("foreshadow.trials.candidate", verdict.pairs.trials_candidate),
            count("foreshadow.need.cases", verdict.need.cases),
        ],
    }
}

fn metric_event(metric: &MetricResult) -> Event {
    let blocks = metric.decides && metric.state == MetricState::Deteriorated;
    Event {
        severity: if blocks { ERROR } else { INFO },
        name: escape::name(&metric.name),
        value: Some(metric.candidate),
        label: metric.state.as_str(),
        explanation: wording::metric_line(metric),
        more: vec![
            number("foreshadow.metric.baseline", metric.baseline),
            number("foreshadow.metric.effect", metric.effect),
            number("foreshadow.metric.interval.low", metric.interval[0]),
            number("foreshadow.metric.interval.high", metric.interval[1]),
            number("foreshadow.metric.margin", metric.margin),
            number("foreshadow.metric.p_block", metric.p_block_adjusted.unwrap_or(metric.p_block)),
            number("foreshadow.metric.p_approve", metric.p_approve),
            truth("foreshadow.metric.decides", metric.decides),
            truth("foreshadow.metric.required", metric.required),
            count("foreshadow.metric.cases", metric.cases),
        ],
    }
}

fn invariant_event(invariant: &InvariantResult) -> Event {
    let (tone, state) = wording::invariant(invariant);
    Event {
        severity: if tone == wording::BAD { ERROR } else { INFO },
        name: format!("invariant.{}", escape::name(&invariant.name)),
        value: Some(crate::cast::to_f64(invariant.violations)),
        label: state,
        explanation: wording::invariant_line(invariant),
        more: vec![
            number("foreshadow.invariant.upper_bound", invariant.upper_bound),
            count("foreshadow.invariant.cases", invariant.cases),
            count("foreshadow.invariant.violations.baseline", invariant.violations_baseline),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn every_number_of_the_verdict_is_an_event_of_the_conventions() {
        let runs = fixture::runs();
        let text = otlp_json(&fixture::analysis(Answer::Block), &runs.input(), 1_700_000_000_000_000_000);
        let request: Value = serde_json::from_str(&text).unwrap();
        let scope = &request["resourceLogs"][0]["scopeLogs"][0];
        assert_eq!(scope["schemaUrl"], SCHEMA);
        let records = scope["logRecords"].as_array().unwrap();
        assert_eq!(records.len(), 1 + 3 + 1);
        for record in records {
            assert_eq!(record["eventName"], EVENT);
            assert_eq!(record["timeUnixNano"], "1700000000000000000");
            let keys: Vec<&str> = record["attributes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["key"].as_str().unwrap())
                .collect();
            assert_eq!(keys[0], "gen_ai.evaluation.name");
            assert!(keys.contains(&"gen_ai.evaluation.score.label") && keys.contains(&"gen_ai.agent.name"));
            let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
            assert_eq!(distinct.len(), keys.len(), "an attribute stands once");
        }
        assert_eq!((&records[0]["severityNumber"], &records[4]["severityNumber"]), (&json!(17), &json!(17)));
        assert!(!text.contains('\u{202e}') && !text.contains('\u{0}'));
    }
}
