//! Tool calls: which answer a call gets and when, whatever protocol it came in.
//!
//! Nothing is ever executed. The decision is made at once, under the trial's lock; the waiting comes after it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Response, StatusCode};
use schemas::exchange::{Edge, Effect, Ending, Operation, OperationKind, Protocol};
use serde_json::{Value, json};

use super::Asked;
use super::active_trial::{State, TrialWorld};
use super::responses::{Reply, bytes_reply, error_reply, error_value, status};
use crate::case_recording::Arguments;
use crate::faults::{Draw, Fault};
use crate::tool_answer::ToolAnswer;
use crate::tool_index::{Outcome, Rung, shorten};

/// A tool call as it was read from the wire.
#[derive(Debug)]
pub(crate) struct ToolCall {
    pub(crate) tool: String,
    pub(crate) arguments: Arguments,
    pub(crate) protocol: Protocol,
    pub(crate) method: Option<String>,
    pub(crate) http: (String, String),
    pub(crate) request: Bytes,
}

/// What a call gets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// A recorded answer.
    Answer(ToolAnswer),
    /// The arguments do not fit the tool's schema: it fails as it would.
    Invalid(String),
    /// The recording cannot answer it.
    Missed(String),
    /// An injected refusal.
    Refused(u16),
    /// An injected loss of the answer.
    Lost,
}

/// A decision, and how long the world waits before it says it.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) seq: usize,
    pub(crate) verdict: Verdict,
    pub(crate) hold: Duration,
}

/// Decides what a call gets; `None` where the trial is over.
pub(crate) fn decide(trial: &TrialWorld, call: ToolCall) -> Option<Decision> {
    let settings = trial.settings();
    let script = &trial.case().script;
    let observed = script.observed.get(&call.tool).copied().unwrap_or_default();
    let mut operation = Operation::new(OperationKind::CallTool);
    operation.method = call.method;
    operation.tool = Some(call.tool.clone());
    operation.effect = observed.effect;
    operation.reversible = observed.reversible;
    operation.idempotent = observed.idempotent;
    match &call.arguments {
        Arguments::Canonical(text) => operation.arguments = Some(text.clone()),
        Arguments::Verbatim(text) => operation.arguments_verbatim = Some(text.clone()),
    }
    let mut raw = trial.raw(Edge::Tool, call.protocol, operation, call.request);
    raw.http = Some(call.http);
    let mut state = trial.state()?;
    let count = state.tool_calls.entry(call.tool.clone()).or_insert(0);
    let number = *count;
    *count += 1;
    let seq = state.open(raw);
    let whose = Draw { seed: settings.run_seed, case: &script.case, trial: trial.number() };
    let fault = if trial.is_probe() { None } else { settings.faults.draw(whose, &call.tool, number) };
    if let Some(Fault::Status { status }) = fault {
        state.fidelity.faulted += 1;
        return Some(Decision { seq, verdict: Verdict::Refused(status), hold: Duration::ZERO });
    }
    let asked = Lookup { tool: &call.tool, arguments: &call.arguments, effect: observed.effect, seq };
    let lost = matches!(fault, Some(Fault::Timeout { .. }));
    let (verdict, recorded) = look_up(trial, &mut state, &asked, lost);
    let scaled = scale(recorded.unwrap_or_default(), settings.delay_scale).min(settings.delay_cap);
    let recorded = if trial.is_probe() { Duration::ZERO } else { scaled };
    let (verdict, hold) = match fault {
        Some(Fault::Timeout { after_us }) => (Verdict::Lost, Duration::from_micros(after_us)),
        Some(Fault::Delay { after_us }) => (verdict, recorded + Duration::from_micros(after_us)),
        Some(Fault::Status { .. }) | None => (verdict, recorded),
    };
    Some(Decision { seq, verdict, hold })
}

fn scale(time: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() * factor).unwrap_or(Duration::ZERO)
}

struct Lookup<'a> {
    tool: &'a str,
    arguments: &'a Arguments,
    effect: Effect,
    seq: usize,
}

/// Asks the schema and the ladder, counts what they say, and gives the recorded duration beside it.
fn look_up(
    trial: &TrialWorld,
    state: &mut State,
    asked: &Lookup<'_>,
    lost: bool,
) -> (Verdict, Option<Duration>) {
    let case = trial.case();
    if !case.tape.holds_exactly(asked.tool, asked.arguments)
        && let Some(problem) = invalid(trial, asked)
    {
        if lost {
            state.fidelity.faulted += 1;
        } else {
            state.fidelity.derived += 1;
        }
        return (Verdict::Invalid(problem), None);
    }
    let found = case.tape.answer(&mut state.cursor, asked.tool, asked.arguments);
    if found.earlier > 0 && asked.effect == Effect::Write {
        state.duplicated_writes += 1;
    }
    match found.outcome {
        _ if lost => {
            state.fidelity.faulted += 1;
            (Verdict::Lost, None)
        }
        Outcome::Recorded { recording, rung } => {
            match rung {
                Rung::Exact => state.fidelity.exact += 1,
                Rung::Normalised => state.fidelity.normalised += 1,
            }
            (Verdict::Answer(recording.answer.clone()), recording.duration)
        }
        Outcome::Missed { nearest } => {
            state.fidelity.missed += 1;
            let detail = format!("asked {}; {nearest}", shorten(asked.arguments.as_str()));
            state.diverge(asked.seq, "tool_missed", Some(asked.tool), detail);
            // What is recorded is not told: a candidate that learns it would no longer be itself.
            let text =
                format!("replay: no answer is at hand for this call of {}; it was not executed", asked.tool);
            (Verdict::Missed(text), None)
        }
    }
}

/// What the tool's schema has against the arguments.
fn invalid(trial: &TrialWorld, asked: &Lookup<'_>) -> Option<String> {
    let validator = trial.case().validators.get(asked.tool)?;
    let problem = match asked.arguments {
        Arguments::Verbatim(_) => "the arguments are not JSON".to_owned(),
        Arguments::Canonical(text) => {
            let value: Value = serde_json::from_str(text).ok()?;
            validator.validate(&value).err()?.to_string()
        }
    };
    Some(format!("Input validation error: {problem}"))
}

/// Notes on the exchange what was answered, beside status and bytes.
pub(crate) fn note(trial: &TrialWorld, seq: usize, verdict: &Verdict, status: StatusCode, bytes: &Bytes) {
    trial.finish(seq, |raw| {
        raw.status = Some(status.as_u16());
        raw.response = bytes.clone();
        let operation = &mut raw.operation;
        match verdict {
            Verdict::Answer(answer) => {
                operation.result = Some(answer.text());
                operation.is_error = Some(answer.is_error());
                if let ToolAnswer::Broken { detail, .. } = answer {
                    raw.ending = Some(Ending::Failed);
                    raw.ending_detail = Some(format!("as in the recording: {detail}"));
                }
            }
            Verdict::Invalid(text) => {
                operation.result = Some(text.clone());
                operation.is_error = Some(true);
            }
            Verdict::Missed(text) => {
                // The world could not answer, which is not the tool's refusal: a write that the candidate tried counts
                // as one that it may have made.
                operation.result = Some(text.clone());
                raw.ending_detail = Some("missed: the recording holds no answer to this call".to_owned());
            }
            Verdict::Refused(status) => {
                operation.is_error = Some(true);
                raw.ending_detail = Some(format!("injected fault: status {status}"));
            }
            Verdict::Lost => {
                raw.ending = Some(Ending::Failed);
                raw.ending_detail = Some("injected fault: the answer was lost".to_owned());
            }
        }
    });
}

/// Answers `POST /tools/<name>`: JSON arguments in, the recorded body out.
pub(crate) async fn answer(trial: &Arc<TrialWorld>, tool: &str, asked: Asked) -> Response<Reply> {
    let text = String::from_utf8_lossy(&asked.body).into_owned();
    let call = ToolCall {
        tool: tool.to_owned(),
        arguments: Arguments::parse(&text),
        protocol: Protocol::GenericJson,
        method: None,
        http: (asked.method.to_string(), asked.path_and_query()),
        request: asked.body,
    };
    let Some(Decision { seq, verdict, hold }) = decide(trial, call) else {
        return error_reply(StatusCode::GONE, "this trial is over");
    };
    tokio::time::sleep(hold).await;
    let (number, bytes) = match &verdict {
        Verdict::Answer(answer) => answer.to_http(),
        Verdict::Invalid(text) => (422, json!({"error": {"message": text}}).to_string().into_bytes()),
        Verdict::Missed(text) => (424, json!({"error": {"message": text}}).to_string().into_bytes()),
        Verdict::Refused(status) => {
            (*status, error_value("the tool is not available").to_string().into_bytes())
        }
        Verdict::Lost => (504, error_value("the tool did not answer in time").to_string().into_bytes()),
    };
    let (status, bytes) = (status(number), Bytes::from(bytes));
    note(trial, seq, &verdict, status, &bytes);
    bytes_reply(status, "application/json", bytes)
}
