//! A trial as an evaluator sees it: its row and its exchanges in conversation order.
//!
//! The view contains no label and no score, so that they cannot influence the evaluator.

use std::collections::BTreeMap;

use schemas::exchange::{Edge, Effect};
use schemas::id::SessionId;
use schemas::trial::{Trial, TrialEnding};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// Columns of an exchange that a view reads.
pub(crate) const COLUMNS: [&str; 12] = [
    "session",
    "seq",
    "edge",
    "started_at",
    "operation.input",
    "operation.output",
    "operation.tool",
    "operation.arguments",
    "operation.arguments_verbatim",
    "operation.result",
    "operation.is_error",
    "operation.effect",
];

/// An exchange without bodies.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ExchangeRow {
    pub(crate) session: SessionId,
    seq: u32,
    edge: Edge,
    started_at: i64,
    operation: OperationRow,
}

#[derive(Debug, Clone, Deserialize)]
struct OperationRow {
    input: Option<String>,
    output: Option<String>,
    tool: Option<String>,
    arguments: Option<String>,
    arguments_verbatim: Option<String>,
    result: Option<String>,
    is_error: Option<bool>,
    effect: Effect,
}

/// One step of the conversation.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Step {
    /// A message of the user.
    User {
        /// The text.
        text: String,
    },
    /// An answer of the agent.
    Agent {
        /// The text.
        text: String,
    },
    /// A response of the model; only in trials without recorded turns.
    Model {
        /// The text.
        text: String,
    },
    /// A tool call.
    Tool {
        /// Name of the tool.
        tool: String,
        /// The arguments: JSON, or a JSON string if they are not JSON.
        arguments: Box<RawValue>,
        /// Text of the result, if recorded.
        result: Option<String>,
        /// The tool reported an error.
        is_error: Option<bool>,
        /// Declared effect of the tool.
        effect: Effect,
    },
}

/// A trial as an evaluator sees it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TrialView {
    /// Version of this JSON format.
    format: u32,
    lane: &'static str,
    case: String,
    trial: u32,
    session: String,
    agent: String,
    build: Option<String>,
    ending: TrialEnding,
    seconds: Option<f64>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cost_usd: Option<f64>,
    slices: BTreeMap<String, String>,
    answer: Option<String>,
    steps: Vec<Step>,
}

impl TrialView {
    /// Builds the view from the trial row and its exchanges.
    pub(crate) fn new(trial: &Trial, mut rows: Vec<ExchangeRow>) -> Self {
        rows.sort_by_key(|row| (row.started_at, row.seq));
        Self {
            format: schemas::FORMAT,
            lane: trial.lane.as_str(),
            case: trial.case.to_string(),
            trial: trial.trial,
            session: trial.session.to_string(),
            agent: trial.agent.to_string(),
            build: trial.build.as_ref().map(ToString::to_string),
            ending: trial.ending,
            seconds: trial.duration_us.map(|micros| std::time::Duration::from_micros(micros).as_secs_f64()),
            input_tokens: trial.input_tokens,
            output_tokens: trial.output_tokens,
            cost_usd: trial.cost_usd,
            slices: trial.slices.clone(),
            answer: trial.answer.clone(),
            steps: steps(rows, trial.answer.as_deref()),
        }
    }

    /// The view as one line of JSON.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }

    /// Case id.
    pub(crate) fn case(&self) -> &str {
        &self.case
    }

    /// Slice values by slice name.
    pub(crate) fn slices(&self) -> &BTreeMap<String, String> {
        &self.slices
    }

    /// An empty trial, to render a template once.
    pub(crate) fn probe() -> Self {
        Self {
            format: schemas::FORMAT,
            lane: "candidate",
            case: String::new(),
            trial: 0,
            session: String::new(),
            agent: String::new(),
            build: None,
            ending: TrialEnding::Complete,
            seconds: None,
            input_tokens: None,
            output_tokens: None,
            cost_usd: None,
            slices: BTreeMap::new(),
            answer: None,
            steps: Vec::new(),
        }
    }

    /// Last answer of the agent.
    pub(crate) fn answer(&self) -> Option<&str> {
        self.answer.as_deref()
    }

    /// The steps as lines. The middle of a text longer than `max_bytes` is replaced by its length.
    pub(crate) fn transcript(&self, max_bytes: usize) -> String {
        let lines: Vec<String> = self.steps.iter().map(Step::line).collect();
        let text = if lines.is_empty() {
            format!("[agent] {}", self.answer.as_deref().unwrap_or("(no answer)"))
        } else {
            lines.join("\n")
        };
        elide_middle(text, max_bytes)
    }
}

impl Step {
    fn line(&self) -> String {
        match self {
            Self::User { text } => format!("[user] {text}"),
            Self::Agent { text } => format!("[agent] {text}"),
            Self::Model { text } => format!("[model] {text}"),
            Self::Tool { tool, arguments, result, is_error, .. } => {
                let failed = if *is_error == Some(true) { " failed:" } else { "" };
                let result = result.as_deref().unwrap_or("(no result)");
                format!("[tool] {tool}({arguments}) →{failed} {result}")
            }
        }
    }
}

/// Orders the steps: the answer of a turn comes after the calls that the agent made for it, before the next turn.
fn steps(rows: Vec<ExchangeRow>, last_answer: Option<&str>) -> Vec<Step> {
    let has_turns = rows.iter().any(|row| row.edge == Edge::Turn);
    let mut steps = Vec::new();
    let mut open: Option<Step> = None;
    for row in rows {
        let OperationRow { input, output, tool, arguments, arguments_verbatim, result, is_error, effect } =
            row.operation;
        match row.edge {
            Edge::Turn => {
                steps.extend(open.take());
                steps.extend(input.map(|text| Step::User { text }));
                open = output.map(|text| Step::Agent { text });
            }
            Edge::Model if !has_turns => steps.extend(output.map(|text| Step::Model { text })),
            Edge::Model => {}
            Edge::Tool => {
                // An MCP `initialize` or list exchange calls no tool.
                let Some(tool) = tool else { continue };
                let arguments = raw(arguments.or(arguments_verbatim));
                steps.push(Step::Tool { tool, arguments, result, is_error, effect });
            }
        }
    }
    steps.extend(open);
    if !has_turns && !steps.is_empty() {
        steps.extend(last_answer.map(|text| Step::Agent { text: text.to_owned() }));
    }
    steps
}

/// The answers of a trial by turn number from 0. Without recorded turns, the last answer without a number. Blank answers
/// are left out.
pub(crate) fn turn_answers(trial: &Trial, rows: &[ExchangeRow]) -> Vec<(Option<u32>, String)> {
    let mut turns: Vec<&ExchangeRow> = rows.iter().filter(|row| row.edge == Edge::Turn).collect();
    turns.sort_by_key(|row| (row.started_at, row.seq));
    let is_not_blank = |text: &String| !text.trim().is_empty();
    if turns.is_empty() {
        return trial.answer.clone().filter(is_not_blank).map(|text| (None, text)).into_iter().collect();
    }
    let answers = turns.into_iter().zip(0..);
    let answers = answers.filter_map(|(row, turn)| Some((Some(turn), row.operation.output.clone()?)));
    answers.filter(|(_, text)| is_not_blank(text)).collect()
}

/// The text as JSON: unchanged if it is JSON, otherwise as a JSON string.
fn raw(text: Option<String>) -> Box<RawValue> {
    let text = text.unwrap_or_else(|| "null".to_owned());
    let whole = RawValue::from_string(text.clone());
    whole.or_else(|_| RawValue::from_string(Value::String(text).to_string())).unwrap_or_default()
}

/// Replaces the middle of a text longer than `max_bytes` by its length.
fn elide_middle(text: String, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text;
    }
    let (mut head, mut tail) = (max_bytes / 2, text.len() - max_bytes / 2);
    while !text.is_char_boundary(head) {
        head -= 1;
    }
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    format!("{}\n[{} bytes left out]\n{}", &text[..head], tail - head, &text[tail..])
}

#[cfg(test)]
pub(crate) mod tests {
    use schemas::id::{AgentId, CaseId, TenantId};
    use schemas::trial::Lane;

    use super::*;

    /// A trial of a table, without a transcript.
    pub(crate) fn trial(case: &str, number: u32, answer: &str) -> Trial {
        Trial {
            model_fidelity: None,
            model_inputs: None,
            provider_retries: None,
            provider_failures: None,
            cluster: None,
            weight: None,
            batch: None,
            outcome_missing: None,
            tenant: TenantId::parse("t").expect("id"),
            agent: AgentId::parse("a").expect("id"),
            build: None,
            lane: Lane::Candidate,
            case: CaseId::parse(case).expect("id"),
            trial: number,
            session: SessionId::parse(&format!("{case}~{number}")).expect("id"),
            seed: None,
            started_at: None,
            duration_us: Some(1_500_000),
            ending: TrialEnding::Complete,
            ending_detail: None,
            success: Some(true),
            success_source: Some("label".to_owned()),
            answer: Some(answer.to_owned()),
            input_tokens: None,
            output_tokens: None,
            cost_usd: None,
            exchanges: 0,
            has_transcript: false,
            fidelity: None,
            divergences: Vec::new(),
            fault_plan: None,
            complete: None,
            slices: BTreeMap::from([("domain".to_owned(), "airline".to_owned())]),
        }
    }

    fn row(seq: u32, edge: Edge, texts: [Option<&str>; 5]) -> ExchangeRow {
        let [input, output, tool, arguments, result] = texts.map(|text| text.map(str::to_owned));
        let operation = OperationRow {
            input,
            output,
            tool,
            arguments,
            arguments_verbatim: None,
            result,
            is_error: Some(false),
            effect: Effect::Write,
        };
        ExchangeRow { session: SessionId::parse("s").expect("id"), seq, edge, started_at: 0, operation }
    }

    #[test]
    fn an_answer_follows_its_tool_calls_and_the_view_has_no_label() {
        let rows = vec![
            row(2, Edge::Tool, [None, None, Some("refund"), Some("{\"a\":1}"), Some("ok")]),
            row(0, Edge::Turn, [Some("hi"), Some("hello"), None, None, None]),
            row(1, Edge::Model, [None, Some("thinking"), None, None, None]),
            row(3, Edge::Turn, [Some("bye"), None, None, None, None]),
        ];
        let view = TrialView::new(&trial("c", 0, "hello"), rows);
        assert_eq!(
            view.transcript(1000),
            "[user] hi\n[tool] refund({\"a\":1}) → ok\n[agent] hello\n[user] bye"
        );
        let json = view.json();
        assert!(json.contains(r#""arguments":{"a":1}"#) && json.contains(r#""domain":"airline""#), "{json}");
        assert!(!json.contains("success"), "{json}");
    }

    #[test]
    fn the_view_falls_back_to_model_responses_and_to_the_last_answer() {
        let rows = vec![row(0, Edge::Model, [None, Some("thinking"), None, None, None])];
        let view = TrialView::new(&trial("c", 0, "done"), rows);
        assert_eq!(view.transcript(1000), "[model] thinking\n[agent] done");
        assert_eq!(TrialView::new(&trial("c", 0, "done"), vec![]).transcript(1000), "[agent] done");
    }

    #[test]
    fn answers_have_the_number_of_their_turn() {
        let rows = vec![
            row(3, Edge::Turn, [Some("c"), Some("third"), None, None, None]),
            row(0, Edge::Turn, [Some("a"), Some("first"), None, None, None]),
            row(2, Edge::Turn, [Some("b"), Some(" "), None, None, None]),
            row(1, Edge::Model, [None, Some("thinking"), None, None, None]),
        ];
        let answers = turn_answers(&trial("c", 0, "third"), &rows);
        assert_eq!(answers, [(Some(0), "first".to_owned()), (Some(2), "third".to_owned())]);
        assert_eq!(turn_answers(&trial("c", 0, "only"), &[]), [(None, "only".to_owned())]);
        assert!(turn_answers(&trial("c", 0, "\n"), &[]).is_empty());
    }

    #[test]
    fn a_long_transcript_is_elided_in_the_middle() {
        let view = TrialView::new(&trial("c", 0, &"é".repeat(2000)), vec![]);
        let text = view.transcript(1001);
        assert!(text.len() < 1100 && text.contains("bytes left out"), "{}", text.len());
    }

    #[test]
    fn arguments_that_are_not_json_become_a_json_string() {
        assert_eq!(raw(Some("{'a".to_owned())).get(), "\"{'a\"");
        assert_eq!(raw(None).get(), "null");
    }
}
