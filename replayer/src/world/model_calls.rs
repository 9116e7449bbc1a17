//! Model calls: answered from the recording, or let through to the configured provider.
//!
//! A recorded answer is found by the history it continues: the very same messages, then what was said in them, and only
//! then by its number in the trial, which is marked as derived.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Response, StatusCode};
use schemas::exchange::{Edge, Operation, OperationKind, Protocol};
use serde_json::Value;

use super::Asked;
use super::active_trial::{Raw, State, TrialWorld};
use super::live_model;
use super::responses::{Reply, bytes_reply, error_reply, error_value, status};
use crate::case_recording::ModelRecording;
use crate::openai_chat;
use crate::plan::ModelMode;
use crate::tool_index::shorten;

/// A model call that was let in.
#[derive(Debug)]
pub(crate) struct ModelCall {
    /// Its number among the trial's exchanges.
    pub(crate) seq: usize,
    /// Its number among the trial's model calls, from 0.
    pub(crate) number: u32,
    /// Its body as JSON.
    pub(crate) request: Value,
}

/// Answers a chat completion.
pub(crate) async fn answer(trial: &Arc<TrialWorld>, asked: Asked) -> Response<Reply> {
    let request: Value = match serde_json::from_slice(&asked.body) {
        Ok(request) => request,
        Err(error) => {
            return error_reply(StatusCode::BAD_REQUEST, &format!("the request is not JSON: {error}"));
        }
    };
    let mut operation = Operation::new(OperationKind::Chat);
    operation.model = request["model"].as_str().map(str::to_owned);
    let mut raw = trial.raw(Edge::Model, Protocol::OpenaiChat, operation, asked.body.clone());
    raw.http = Some((asked.method.to_string(), asked.path_and_query()));
    match trial.settings().model {
        ModelMode::Recorded => recorded(trial, request, raw),
        ModelMode::Live => match let_in(trial, raw) {
            Some((seq, number)) => live_model::answer(trial, ModelCall { seq, number, request }, asked).await,
            None => error_reply(StatusCode::GONE, "this trial is over"),
        },
    }
}

fn let_in(trial: &TrialWorld, raw: Raw) -> Option<(usize, u32)> {
    let mut state = trial.state()?;
    let number = state.model_calls;
    state.model_calls += 1;
    state.fidelity.live += 1;
    Some((state.open(raw), number))
}

fn recorded(trial: &TrialWorld, request: Value, raw: Raw) -> Response<Reply> {
    let Some(mut state) = trial.state() else { return error_reply(StatusCode::GONE, "this trial is over") };
    let seq = state.open(raw);
    let found = find(&trial.case().script.models, &mut state, &request, seq);
    drop(state);
    let Some(recording) = found else {
        let text = "no recorded model answer is at hand for this call";
        let bytes = Bytes::from(error_value(text).to_string());
        // Clients do not retry a 400, so a miss is counted once.
        trial.finish(seq, |raw| {
            raw.status = Some(400);
            raw.response = bytes.clone();
        });
        return bytes_reply(StatusCode::BAD_REQUEST, "application/json", bytes);
    };
    let (content_type, bytes) =
        spoken_as_asked(recording, &request, &format!("{}-{seq}", trial.place().token));
    trial.finish(seq, |raw| {
        let (operation, usage) = openai_chat::decode(&request, &bytes);
        raw.status = Some(recording.status);
        raw.response = bytes.clone();
        raw.operation = operation;
        raw.usage = usage;
    });
    bytes_reply(status(recording.status), content_type, bytes)
}

/// Finds the recorded answer to a request, and counts how it was found.
fn find<'a>(
    models: &'a [ModelRecording],
    state: &mut State,
    request: &Value,
    seq: usize,
) -> Option<&'a ModelRecording> {
    let number = state.model_calls as usize;
    state.model_calls += 1;
    let said = openai_chat::said_chain(request);
    let occurrence = match &said {
        Some(said) => {
            let count = state.chains.entry(said.clone()).or_insert(0);
            *count += 1;
            *count - 1
        }
        None => 0,
    };
    let exact = openai_chat::exact_chain(request);
    let nth = |same: &dyn Fn(&ModelRecording) -> bool| {
        let alike: Vec<&ModelRecording> = models.iter().filter(|model| same(model)).collect();
        alike.get(occurrence).or(alike.last()).copied()
    };
    if let Some(found) = nth(&|model| exact.is_some() && model.exact == exact) {
        state.fidelity.exact += 1;
        return Some(found);
    }
    if let Some(found) = nth(&|model| said.is_some() && model.said == said) {
        state.fidelity.normalised += 1;
        return Some(found);
    }
    if let Some(found) = models.get(number) {
        state.fidelity.derived += 1;
        return Some(found);
    }
    state.fidelity.missed += 1;
    let last = request["messages"]
        .as_array()
        .and_then(|messages| messages.last())
        .map(|last| openai_chat::text_of(&last["content"]));
    let detail = format!(
        "model call {number} ends with {:?}; the recording holds {} model calls",
        shorten(&last.unwrap_or_default()),
        models.len()
    );
    state.diverge(seq, "model_missed", None, detail);
    None
}

/// The recorded answer, streamed or plain as the request asks for it; unchanged where it was recorded that way.
fn spoken_as_asked(recording: &ModelRecording, request: &Value, id: &str) -> (&'static str, Bytes) {
    let wanted = request["stream"].as_bool().unwrap_or(false);
    let plain = serde_json::from_slice::<Value>(&recording.answer).ok();
    let content_type = if wanted { "text/event-stream" } else { "application/json" };
    let unchanged = || Bytes::from(recording.answer.clone());
    let model = request["model"].as_str().unwrap_or("recorded");
    match (wanted, plain) {
        (true, None) => (content_type, unchanged()),
        (true, Some(mut plain)) if plain["choices"].is_array() => {
            openai_chat::complete_fields(&mut plain, model, id);
            let with_usage = request["stream_options"]["include_usage"].as_bool().unwrap_or(false);
            (content_type, Bytes::from(openai_chat::stream(&plain, with_usage)))
        }
        (false, None) => match openai_chat::completion(&recording.answer) {
            Some(whole) => (content_type, Bytes::from(whole.to_string())),
            None => (content_type, unchanged()),
        },
        (false, Some(mut plain)) if plain["choices"].is_array() && plain.get("id").is_none() => {
            openai_chat::complete_fields(&mut plain, model, id);
            (content_type, Bytes::from(plain.to_string()))
        }
        // An error body is the same in both forms.
        (true | false, Some(_)) => ("application/json", unchanged()),
    }
}
