//! Decides the response and the delay of a tool call, for every protocol.
//!
//! No tool is ever executed. The decision is made under the trial's lock; the caller waits after it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Response, StatusCode};
use schemas::exchange::{Edge, Effect, Ending, Operation, OperationKind, Protocol};
use serde_json::{Value, json};

use super::active_trial::{ActiveTrial, Miss, TrialState};
use super::request::WorldRequest;
use super::responses::{WorldBody, bytes_response, error_value, status, trial_ended};
use crate::case_recording::Arguments;
use crate::faults::{Fault, FaultKey};
use crate::shorten::shorten;
use crate::tool_answer::ToolAnswer;
use crate::tool_index::{MatchKind, MatchResult};

/// A tool call, decoded from its protocol.
#[derive(Debug)]
pub(crate) struct ToolCall {
    pub(crate) tool: String,
    pub(crate) arguments: Arguments,
    pub(crate) protocol: Protocol,
    pub(crate) method: Option<String>,
    /// HTTP method and path.
    pub(crate) http: (String, String),
    pub(crate) request: Bytes,
}

/// Response to a tool call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ToolResponse {
    /// A recorded answer.
    Answer(ToolAnswer),
    /// The arguments violate the tool's input schema.
    Invalid(String),
    /// The recording has no answer to the call.
    Missed(String),
    /// An injected fault refuses the call with this status.
    Refused(u16),
    /// An injected fault loses the answer.
    TimedOut,
}

/// A response, and the delay before the world sends it.
#[derive(Debug)]
pub(crate) struct Decision {
    /// Number of the exchange within the trial.
    pub(crate) seq: usize,
    pub(crate) response: ToolResponse,
    pub(crate) delay: Duration,
}

/// Decides the response to a call. Returns `None` once the trial is closed.
pub(crate) fn decide(trial: &ActiveTrial, call: ToolCall) -> Option<Decision> {
    let settings = trial.settings();
    let recording = &trial.case().recording;
    let effects = recording.effects.get(&call.tool).copied().unwrap_or_default();
    let mut operation = Operation::new(OperationKind::CallTool);
    operation.method = call.method;
    operation.tool = Some(call.tool.clone());
    operation.effect = effects.effect;
    operation.reversible = effects.reversible;
    operation.idempotent = effects.idempotent;
    match &call.arguments {
        Arguments::Canonical(text) => operation.arguments = Some(text.clone()),
        Arguments::Verbatim(text) => operation.arguments_verbatim = Some(text.clone()),
    }
    let mut exchange = trial.begin_exchange(Edge::Tool, call.protocol, operation, call.request);
    exchange.http = Some(call.http);
    let mut state = trial.state()?;
    let count = state.tool_calls.entry(call.tool.clone()).or_insert(0);
    let number = *count;
    *count += 1;
    let seq = state.open(exchange);
    let key = FaultKey { run_seed: settings.run_seed, case: &recording.case, trial: trial.number() };
    let fault = if trial.is_probe() { None } else { settings.faults.draw(key, &call.tool, number) };
    if let Some(Fault::Status { status }) = fault {
        state.tool_fidelity.faulted += 1;
        return Some(Decision { seq, response: ToolResponse::Refused(status), delay: Duration::ZERO });
    }
    let lookup = Lookup { tool: &call.tool, arguments: &call.arguments, effect: effects.effect, seq };
    let times_out = matches!(fault, Some(Fault::Timeout { .. }));
    let (response, recorded) = look_up(trial, &mut state, &lookup, times_out);
    let scaled = scale(recorded.unwrap_or_default(), settings.delay_scale).min(settings.delay_cap);
    let recorded = if trial.is_probe() { Duration::ZERO } else { scaled };
    let (response, delay) = match fault {
        Some(Fault::Timeout { after_us }) => (ToolResponse::TimedOut, Duration::from_micros(after_us)),
        Some(Fault::Delay { after_us }) => (response, recorded + Duration::from_micros(after_us)),
        Some(Fault::Status { .. }) | None => (response, recorded),
    };
    Some(Decision { seq, response, delay })
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

/// Validates the arguments, matches the call and counts the result. Returns the recorded duration with the response.
fn look_up(
    trial: &ActiveTrial,
    state: &mut TrialState,
    lookup: &Lookup<'_>,
    times_out: bool,
) -> (ToolResponse, Option<Duration>) {
    let case = trial.case();
    if !case.tool_index.contains_exactly(lookup.tool, lookup.arguments)
        && let Some(problem) = schema_violation(trial, lookup)
    {
        if times_out {
            state.tool_fidelity.faulted += 1;
        } else {
            state.tool_fidelity.derived += 1;
        }
        return (ToolResponse::Invalid(problem), None);
    }
    let found = state.tool_matcher.find(&case.tool_index, lookup.tool, lookup.arguments);
    if found.earlier_identical > 0 && lookup.effect == Effect::Write {
        state.duplicated_writes += 1;
    }
    match found.result {
        _ if times_out => {
            state.tool_fidelity.faulted += 1;
            (ToolResponse::TimedOut, None)
        }
        MatchResult::Matched { call, kind } => {
            match kind {
                MatchKind::Exact => state.tool_fidelity.exact += 1,
                MatchKind::Normalised => state.tool_fidelity.normalised += 1,
            }
            (ToolResponse::Answer(call.answer.clone()), call.duration)
        }
        MatchResult::Missed { nearest, argument } => {
            state.tool_fidelity.missed += 1;
            let detail = format!("called with {}; {nearest}", shorten(lookup.arguments.as_str()));
            let tool = Some(lookup.tool.to_owned());
            state
                .add_divergence(lookup.seq, Miss { kind: "tool_missed", tool, path: None, argument, detail });
            // The text does not quote the recording, which could change the behaviour of the candidate.
            let text = format!(
                "replay: no recorded answer matches this call of {}; it was not executed",
                lookup.tool
            );
            (ToolResponse::Missed(text), None)
        }
    }
}

/// The violation of the tool's input schema, if any.
fn schema_violation(trial: &ActiveTrial, lookup: &Lookup<'_>) -> Option<String> {
    let validator = trial.case().validators.get(lookup.tool)?;
    let problem = match lookup.arguments {
        Arguments::Verbatim(_) => "the arguments are not JSON".to_owned(),
        Arguments::Canonical(text) => {
            let value: Value = serde_json::from_str(text).ok()?;
            validator.validate(&value).err()?.to_string()
        }
    };
    Some(format!("Input validation error: {problem}"))
}

/// Completes the exchange with its response.
pub(crate) fn finish(
    trial: &ActiveTrial,
    seq: usize,
    response: &ToolResponse,
    status: StatusCode,
    bytes: &Bytes,
) {
    trial.finish(seq, |exchange| {
        exchange.status = Some(status.as_u16());
        exchange.response = bytes.clone();
        let operation = &mut exchange.operation;
        match response {
            ToolResponse::Answer(answer) => {
                operation.result = Some(answer.text());
                operation.is_error = Some(answer.is_error());
                if let ToolAnswer::Broken { detail, .. } = answer {
                    exchange.ending = Some(Ending::Failed);
                    exchange.ending_detail = Some(format!("as in the recording: {detail}"));
                }
            }
            ToolResponse::Invalid(text) => {
                operation.result = Some(text.clone());
                operation.is_error = Some(true);
            }
            ToolResponse::Missed(text) => {
                // `is_error` stays absent: the world, not the tool, refused the call, so a write counts as possibly made.
                operation.result = Some(text.clone());
                exchange.ending_detail = Some("missed: the recording has no answer to this call".to_owned());
            }
            ToolResponse::Refused(status) => {
                operation.is_error = Some(true);
                exchange.ending_detail = Some(format!("injected fault: status {status}"));
            }
            ToolResponse::TimedOut => {
                exchange.ending = Some(Ending::Failed);
                exchange.ending_detail = Some("injected fault: the answer was lost".to_owned());
            }
        }
    });
}

/// Answers `POST /tools/<name>`: the request body is the arguments, the response body is the answer.
pub(crate) async fn answer(
    trial: &Arc<ActiveTrial>,
    tool: &str,
    request: WorldRequest,
) -> Response<WorldBody> {
    let text = String::from_utf8_lossy(&request.body).into_owned();
    let call = ToolCall {
        tool: tool.to_owned(),
        arguments: Arguments::parse(&text),
        protocol: Protocol::GenericJson,
        method: None,
        http: (request.method.to_string(), request.path_and_query()),
        request: request.body,
    };
    let Some(Decision { seq, response, delay }) = decide(trial, call) else {
        return trial_ended();
    };
    tokio::time::sleep(delay).await;
    let (number, bytes) = match &response {
        ToolResponse::Answer(answer) => answer.to_http(),
        ToolResponse::Invalid(text) => (422, json!({"error": {"message": text}}).to_string().into_bytes()),
        ToolResponse::Missed(text) => (424, json!({"error": {"message": text}}).to_string().into_bytes()),
        ToolResponse::Refused(status) => {
            (*status, error_value("the tool is not available").to_string().into_bytes())
        }
        ToolResponse::TimedOut => {
            (504, error_value("the tool did not answer in time").to_string().into_bytes())
        }
    };
    let (status, bytes) = (status(number), Bytes::from(bytes));
    finish(trial, seq, &response, status, &bytes);
    bytes_response(status, "application/json", bytes)
}
