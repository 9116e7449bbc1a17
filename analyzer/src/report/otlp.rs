//! The verdict as OpenTelemetry events: one `gen_ai.evaluation.result` for the verdict, each metric and each invariant,
//! as an OTLP/JSON export request for logs (`opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest`).
//!
//! Event and `gen_ai.*` attributes follow the GenAI semantic conventions v0.1.0. They are unchanged from the semantic
//! conventions v1.41.0, the last version with a schema address for them. Attributes without a conventional name are
//! `foreshadow.*`.

use serde_json::{Value, json};

use super::input::ReportInput;
use super::severity::Severity;
use super::{escape, wording};
use crate::analysis::Analysis;
use crate::verdict::{Decision, InvariantResult, MetricResult, MetricState, Verdict};

/// Schema address of the semantic conventions.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.41.0";

/// Event name of the semantic conventions.
const EVENT: &str = "gen_ai.evaluation.result";

/// `INFO` in the log data model of OpenTelemetry.
const INFO: u8 = 9;
/// `WARN` in the log data model.
const WARN: u8 = 13;
/// `ERROR` in the log data model.
const ERROR: u8 = 17;

/// Renders the export request; `at_nanos` is the time of the verdict, nanoseconds since 1970.
#[must_use]
pub fn otlp_json(analysis: &Analysis, input: &ReportInput<'_>, at_nanos: u64) -> String {
    let verdict = &analysis.verdict;
    let common = common_attributes(verdict, input);
    let mut records = vec![verdict_event(verdict)];
    records.extend(verdict.metrics.iter().map(metric_event));
    records.extend(verdict.invariants.iter().map(invariant_event));
    let records: Vec<Value> =
        records.into_iter().map(|event| record(event, &common, &at_nanos.to_string())).collect();
    let version = escape::name(&verdict.tool_version);
    let request = json!({"resourceLogs": [{
        "resource": {"attributes": [string("service.name", "foreshadow"), string("service.version", &version)]},
        "scopeLogs": [{
            "scope": {"name": "foreshadow", "version": version},
            "logRecords": records,
            "schemaUrl": SCHEMA,
        }],
    }]});
    format!("{request}\n")
}

/// The fields of one event that differ between events.
struct Event {
    severity: u8,
    name: String,
    value: Option<f64>,
    label: &'static str,
    explanation: String,
    attributes: Vec<Value>,
}

fn record(event: Event, common: &[Value], at_nanos: &str) -> Value {
    let mut attributes = vec![string("gen_ai.evaluation.name", &event.name)];
    attributes.extend(event.value.map(|value| double("gen_ai.evaluation.score.value", value)));
    attributes.push(string("gen_ai.evaluation.score.label", event.label));
    attributes.push(string("gen_ai.evaluation.explanation", &event.explanation));
    attributes.extend(common.iter().cloned());
    attributes.extend(event.attributes);
    json!({
        "timeUnixNano": at_nanos,
        "observedTimeUnixNano": at_nanos,
        "severityNumber": event.severity,
        "eventName": EVENT,
        "attributes": attributes,
    })
}

fn string(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn double(key: &str, value: f64) -> Value {
    json!({"key": key, "value": {"doubleValue": value}})
}

/// The JSON mapping of protocol buffers writes a 64-bit integer as a string.
fn integer(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

fn boolean(key: &str, value: bool) -> Value {
    json!({"key": key, "value": {"boolValue": value}})
}

/// Attributes of every event: a reader of one event knows the compared runs.
fn common_attributes(verdict: &Verdict, input: &ReportInput<'_>) -> Vec<Value> {
    let agent = input.candidate.own().next().map(|record| record.trial.agent.to_string());
    let mut attributes: Vec<Value> =
        agent.iter().map(|agent| string("gen_ai.agent.name", &escape::name(agent))).collect();
    attributes.extend([
        string("gen_ai.agent.version", &escape::name(&verdict.candidate.build)),
        string("foreshadow.candidate.run", &escape::name(&verdict.candidate.run)),
        string("foreshadow.baseline.build", &escape::name(&verdict.baseline.build)),
        string("foreshadow.baseline.run", &escape::name(&verdict.baseline.run)),
        string("foreshadow.policy.digest", &verdict.policy_digest),
        string("foreshadow.corpus.digest", &verdict.corpus_digest),
    ]);
    attributes
}

fn verdict_event(verdict: &Verdict) -> Event {
    Event {
        severity: match verdict.verdict {
            Decision::Approve => INFO,
            Decision::Inconclusive => WARN,
            Decision::Block => ERROR,
        },
        name: "verdict".to_owned(),
        value: None,
        label: verdict.verdict.as_str(),
        explanation: wording::why(verdict),
        attributes: vec![
            integer("foreshadow.cases.paired", verdict.pairs.paired),
            integer("foreshadow.trials.baseline", verdict.pairs.trials_baseline),
            integer("foreshadow.trials.candidate", verdict.pairs.trials_candidate),
            integer("foreshadow.need.cases", verdict.need.cases),
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
        attributes: vec![
            double("foreshadow.metric.baseline", metric.baseline),
            double("foreshadow.metric.effect", metric.effect),
            double("foreshadow.metric.interval.low", metric.interval[0]),
            double("foreshadow.metric.interval.high", metric.interval[1]),
            double("foreshadow.metric.margin", metric.margin),
            double("foreshadow.metric.p_block", metric.p_block_adjusted.unwrap_or(metric.p_block)),
            double("foreshadow.metric.p_approve", metric.p_approve),
            boolean("foreshadow.metric.decides", metric.decides),
            boolean("foreshadow.metric.required", metric.required),
            integer("foreshadow.metric.cases", metric.cases),
        ],
    }
}

fn invariant_event(invariant: &InvariantResult) -> Event {
    let (severity, _) = wording::invariant(invariant);
    Event {
        severity: if severity == Severity::Bad { ERROR } else { INFO },
        name: format!("invariant.{}", escape::name(&invariant.name)),
        value: Some(crate::cast::to_f64(invariant.violations)),
        label: invariant.state.as_str(),
        explanation: wording::invariant_line(invariant),
        attributes: vec![
            double("foreshadow.invariant.upper_bound", invariant.upper_bound),
            integer("foreshadow.invariant.cases", invariant.cases),
            integer("foreshadow.invariant.violations.baseline", invariant.violations_baseline),
        ],
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::report::fixture;

    /// One line for each event: name, severity, label, value and explanation.
    fn event_line(record: &Value) -> String {
        let attribute = |key: &str| {
            let attributes = record["attributes"].as_array().unwrap();
            let found = attributes.iter().find(|one| one["key"] == format!("gen_ai.evaluation.{key}"));
            found.and_then(|one| one["value"].as_object()?.values().next()).cloned().unwrap_or(Value::Null)
        };
        let [name, label, value, explanation] =
            ["name", "score.label", "score.value", "explanation"].map(attribute);
        format!("{name} severity {} {label} {value} {explanation}", record["severityNumber"])
    }

    #[test]
    fn a_blocked_build() {
        let runs = fixture::plain_runs();
        let text =
            otlp_json(&fixture::plain_analysis(Decision::Block), &runs.input(), 1_700_000_000_000_000_000);
        let request: Value = serde_json::from_str(&text).unwrap();
        let records = request["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap();
        let lines: Vec<String> = records.iter().map(event_line).collect();
        expect![[r#"
            "verdict" severity 17 "block" null "Successful trials: 90.0 % → 57.0 % (success) over 3 cases, tolerated -5.0 points."
            "success" severity 17 "deteriorated" 0.5700000000000001 "worse, blocks (required, may block): Successful trials: 90.0 % → 57.0 % (success); effect -33.0 points, interval -39.0 to -27.0 points, margin -5.0 points, 3 cases, p block 0.002, p approve 0.980"
            "effects.duplicated" severity 9 "undecided" 0.88 "undecided (may block): Writes made more than once: 90.0 % → 88.0 % of trials (effects.duplicated); effect -2.0 points, interval -8.0 to +4.0 points, margin -5.0 points, 3 cases, p block 0.002, p approve 0.980"
            "latency" severity 9 "non_inferior" 0.9 "within margin (reported only): Time per trial: 900 ms → 900 ms (latency); effect x1.00, interval x1.09 to x0.92, margin x1.07, 3 cases, p block 0.002, p approve 0.980"
            "invariant.idempotency" severity 17 "violated" 1.0 "1 violation in 3 cases of the candidate, 0 of the baseline"
            "invariant.no-refund-without-look" severity 9 "vacuous" 0.0 "0 violations in 3 cases of the candidate, 0 of the baseline""#]].assert_eq(&lines.join("\n"));
    }

    #[test]
    fn the_attributes_of_a_metric() {
        let runs = fixture::plain_runs();
        let text = otlp_json(&fixture::plain_analysis(Decision::Block), &runs.input(), 1);
        let request: Value = serde_json::from_str(&text).unwrap();
        let metric = &request["resourceLogs"][0]["scopeLogs"][0]["logRecords"][1];
        let attributes = metric["attributes"].as_array().unwrap();
        let lines: Vec<String> =
            attributes.iter().map(|one| format!("{} {}", one["key"], one["value"])).collect();
        expect![[r#"
            "gen_ai.evaluation.name" {"stringValue":"success"}
            "gen_ai.evaluation.score.value" {"doubleValue":0.5700000000000001}
            "gen_ai.evaluation.score.label" {"stringValue":"deteriorated"}
            "gen_ai.evaluation.explanation" {"stringValue":"worse, blocks (required, may block): Successful trials: 90.0 % → 57.0 % (success); effect -33.0 points, interval -39.0 to -27.0 points, margin -5.0 points, 3 cases, p block 0.002, p approve 0.980"}
            "gen_ai.agent.name" {"stringValue":"a"}
            "gen_ai.agent.version" {"stringValue":"cand"}
            "foreshadow.candidate.run" {"stringValue":"runs/cand"}
            "foreshadow.baseline.build" {"stringValue":"base"}
            "foreshadow.baseline.run" {"stringValue":"runs/base"}
            "foreshadow.policy.digest" {"stringValue":"0000000000000000000000000000000000000000000000000000000000000000"}
            "foreshadow.corpus.digest" {"stringValue":"1111111111111111111111111111111111111111111111111111111111111111"}
            "foreshadow.metric.baseline" {"doubleValue":0.9}
            "foreshadow.metric.effect" {"doubleValue":-0.33}
            "foreshadow.metric.interval.low" {"doubleValue":-0.39}
            "foreshadow.metric.interval.high" {"doubleValue":-0.27}
            "foreshadow.metric.margin" {"doubleValue":0.05}
            "foreshadow.metric.p_block" {"doubleValue":0.0021}
            "foreshadow.metric.p_approve" {"doubleValue":0.98}
            "foreshadow.metric.decides" {"boolValue":true}
            "foreshadow.metric.required" {"boolValue":true}
            "foreshadow.metric.cases" {"intValue":"3"}"#]].assert_eq(&lines.join("\n"));
    }

    #[test]
    fn every_metric_and_invariant_is_a_conventional_event() {
        let runs = fixture::runs();
        let text = otlp_json(&fixture::analysis(Decision::Block), &runs.input(), 1_700_000_000_000_000_000);
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
            assert_eq!(distinct.len(), keys.len(), "no attribute repeats");
        }
        assert_eq!((&records[0]["severityNumber"], &records[4]["severityNumber"]), (&json!(17), &json!(17)));
        assert!(!text.contains('\u{202e}') && !text.contains('\u{0}'));
    }
}
