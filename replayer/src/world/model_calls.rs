//! Answers model calls from the recording, or forwards them to the provider.
//!
//! The recorded answer is found by the history that a request continues: by equal messages, then by equal content of the
//! messages. Only if neither is recorded, the answer is the one with the same number in the recording (`derived`).

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Response, StatusCode};
use schemas::exchange::{Edge, Operation, OperationKind, Protocol};
use serde_json::Value;
use wire::openai_chat::{content_text, write_stream};

use super::active_trial::{ActiveTrial, CapturedExchange, Miss, TrialState};
use super::live_model;
use super::model_call::admit;
use super::refusals::{Refusal, path_name, refuse_of};
use super::request::WorldRequest;
use super::responses::{WorldBody, bytes_response, error_value, status, trial_ended};
use crate::case_recording::RecordedModelCall;
use crate::model_inputs::{self, ModelRequest, differences};
use crate::openai_chat::{complete_fields, completion, content_hash, request_hash};
use crate::plan::ModelMode;
use crate::shorten::shorten;

/// Answers a chat completion.
pub(crate) async fn answer(trial: &Arc<ActiveTrial>, request: WorldRequest) -> Response<WorldBody> {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    // The provider judges a malformed request itself; a recording cannot.
    if trial.settings().model == ModelMode::Recorded && !body["messages"].is_array() {
        let cause = "the request is not JSON with a list of messages".to_owned();
        let refusal = Refusal::of_http(&request, StatusCode::BAD_REQUEST, cause);
        return refuse_of(trial, request, &refusal);
    }
    let path = path_name(&request.method, &request.path);
    let operation = Operation::new(OperationKind::Chat);
    let mut exchange =
        trial.begin_exchange(Edge::Model, Protocol::OpenaiChat, operation, request.body.clone());
    exchange.http = Some((request.method.to_string(), request.path_and_query()));
    match trial.settings().model {
        ModelMode::Recorded => answer_from_recording(trial, &body, exchange, path),
        ModelMode::Live => match admit(trial, exchange) {
            Some(call) => live_model::forward(trial, call, request).await,
            None => trial_ended(),
        },
    }
}

fn answer_from_recording(
    trial: &ActiveTrial,
    request: &Value,
    exchange: CapturedExchange,
    path: String,
) -> Response<WorldBody> {
    let asked = ModelRequest::read(request, None);
    let Some(mut state) = trial.state() else { return trial_ended() };
    let seq = state.open(exchange);
    let recorded = &trial.case().recording.model_calls;
    let is_first = state.model_calls == 0;
    let found = find(recorded, &mut state, request);
    if let Some(found) = found {
        let is_first = is_first && recorded.first() == Some(found);
        model_inputs::add(&mut state.model_inputs, differences(&found.request, &asked, is_first));
    }
    if found.is_none() {
        let detail = miss(trial, &state, request);
        state.add_divergence(seq, Miss { kind: "model_missed", path: Some(path), ..Miss::new(detail) });
    }
    drop(state);
    let Some(recorded) = found else {
        let text = "no recorded model answer matches this call";
        let bytes = Bytes::from(error_value(text).to_string());
        // Clients do not retry a 400, so a miss is counted once.
        trial.finish(seq, |exchange| {
            exchange.status = Some(400);
            exchange.response = bytes.clone();
        });
        return bytes_response(StatusCode::BAD_REQUEST, "application/json", bytes);
    };
    let id = format!("{}-{seq}", trial.endpoint().token);
    let (content_type, bytes) = in_requested_form(recorded, request, &id);
    trial.finish(seq, |exchange| {
        exchange.status = Some(recorded.status);
        exchange.response = bytes.clone();
    });
    bytes_response(status(recorded.status), content_type, bytes)
}

/// Finds the recorded answer to a request, and counts the way in which it was found.
fn find<'a>(
    recorded: &'a [RecordedModelCall],
    state: &mut TrialState,
    request: &Value,
) -> Option<&'a RecordedModelCall> {
    let number = state.model_calls as usize;
    state.model_calls += 1;
    let content = content_hash(request);
    let occurrence = match content {
        Some(content) => {
            let count = state.model_calls_by_content.entry(content).or_insert(0);
            *count += 1;
            *count - 1
        }
        None => 0,
    };
    let exact = request_hash(request);
    let nth = |is_match: &dyn Fn(&RecordedModelCall) -> bool| {
        let matching: Vec<&RecordedModelCall> = recorded.iter().filter(|call| is_match(call)).collect();
        matching.get(occurrence).or(matching.last()).copied()
    };
    if let Some(found) = nth(&|call| exact.is_some() && call.request_hash == exact) {
        state.model_fidelity.exact += 1;
        return Some(found);
    }
    if let Some(found) = nth(&|call| content.is_some() && call.content_hash == content) {
        state.model_fidelity.normalised += 1;
        return Some(found);
    }
    if let Some(found) = recorded.get(number) {
        state.model_fidelity.derived += 1;
        return Some(found);
    }
    state.model_fidelity.missed += 1;
    None
}

/// Describes a request to which the recording has no answer.
fn miss(trial: &ActiveTrial, state: &TrialState, request: &Value) -> String {
    let messages = request["messages"].as_array();
    let last = messages.and_then(|messages| messages.last());
    let last = last.and_then(|last| content_text(&last["content"]));
    format!(
        "model call {} ends with {:?}; the recording contains {} model calls",
        state.model_calls - 1,
        shorten(&last.unwrap_or_default()),
        trial.case().recording.model_calls.len()
    )
}

/// The recorded answer as a stream or a plain completion, whichever the request asks for.
///
/// An answer that was recorded in that form is unchanged, except for required fields that an imported one lacks.
fn in_requested_form(recorded: &RecordedModelCall, request: &Value, id: &str) -> (&'static str, Bytes) {
    let wants_stream = request["stream"].as_bool().unwrap_or(false);
    let plain = serde_json::from_slice::<Value>(&recorded.answer).ok();
    let content_type = if wants_stream { "text/event-stream" } else { "application/json" };
    let unchanged = || Bytes::from(recorded.answer.clone());
    let model = request["model"].as_str().unwrap_or("recorded");
    match (wants_stream, plain) {
        (true, None) => (content_type, unchanged()),
        (true, Some(mut plain)) if plain["choices"].is_array() => {
            complete_fields(&mut plain, model, id);
            let include_usage = request["stream_options"]["include_usage"].as_bool().unwrap_or(false);
            (content_type, Bytes::from(write_stream(&plain, include_usage)))
        }
        (false, None) => match completion(&recorded.answer) {
            Some(completion) => (content_type, Bytes::from(completion.to_string())),
            None => (content_type, unchanged()),
        },
        (false, Some(mut plain)) if plain["choices"].is_array() && plain.get("id").is_none() => {
            complete_fields(&mut plain, model, id);
            (content_type, Bytes::from(plain.to_string()))
        }
        // An error body is the same in both forms.
        (true | false, Some(_)) => ("application/json", unchanged()),
    }
}
