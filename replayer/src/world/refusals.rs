//! Requests that the world does not answer: each is a miss of its trial, or of the run if its trial is unknown.
//!
//! A refusal looks like the answer of a server without that endpoint, and many agents go on after it. Without a count, a
//! candidate whose every call was refused would look like one that made no call.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, Response, StatusCode};
use schemas::exchange::{Edge, Operation, OperationKind, Protocol};
use serde_json::Value;

use super::active_trial::{ActiveTrial, Miss, TrialState};
use super::registry::{Registry, TrialLookup};
use super::request::WorldRequest;
use super::responses::{WorldBody, bytes_response, error_value, json_response, trial_ended};

/// Longest path that is kept, bytes. A longer one is cut, so that a candidate cannot fill the run with one request.
const MAX_PATH_BYTES: usize = 200;

/// Endings of the paths of model providers, whatever stands before them.
const MODEL_OPERATIONS: [&str; 9] = [
    "/chat/completions",
    "/completions",
    "/responses",
    "/messages",
    "/embeddings",
    "/invoke",
    "/converse",
    "/converse-stream",
    "/invoke-with-response-stream",
];

/// Beginnings of the paths of model providers.
const MODEL_PREFIXES: [&str; 6] = ["/v1/", "/v1beta/", "/openai/", "/model/", "/api/chat", "/api/generate"];

/// A request that gets an error because the recording, the provider and the world have no answer to it.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Method and path, or the JSON-RPC method.
    pub(crate) path: String,
    /// The request is a call of a model, not of a tool.
    pub(crate) is_model: bool,
    /// Protocol by which the request was read.
    pub(crate) protocol: Protocol,
    pub(crate) status: StatusCode,
    /// Body of the response.
    pub(crate) body: Value,
    /// Why the request is refused.
    pub(crate) cause: String,
}

impl Refusal {
    /// Refuses an HTTP request with an error in the shape of `OpenAI`.
    pub(crate) fn of_http(request: &WorldRequest, status: StatusCode, cause: String) -> Self {
        Self {
            path: path_name(&request.method, &request.path),
            is_model: is_model_path(&request.path),
            protocol: Protocol::Opaque,
            status,
            body: error_value(&cause),
            cause,
        }
    }

    fn miss(&self) -> Miss {
        Miss { kind: "request_refused", path: Some(self.path.clone()), ..Miss::new(self.cause.clone()) }
    }
}

/// Method and path as divergences name them. The query is left out, because it differs from request to request.
pub(crate) fn path_name(method: &Method, path: &str) -> String {
    cut(format!("{method} {path}"))
}

/// Cuts a name to its first [`MAX_PATH_BYTES`].
pub(crate) fn cut(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(MAX_PATH_BYTES));
    name
}

/// Whether clients of model providers use this path.
pub(crate) fn is_model_path(path: &str) -> bool {
    MODEL_PREFIXES.iter().any(|prefix| path.starts_with(prefix))
        || MODEL_OPERATIONS.iter().any(|operation| path.ends_with(operation))
}

/// Refuses a request, and counts it.
pub(crate) fn refuse(
    registry: &Registry,
    lookup: &TrialLookup,
    request: WorldRequest,
    refusal: &Refusal,
) -> Response<WorldBody> {
    match lookup {
        TrialLookup::Running(trial) => return refuse_of(trial, request, refusal),
        TrialLookup::Finished => {
            registry.count_late();
            return trial_ended();
        }
        TrialLookup::Unknown => {
            registry.count_uncorrelated(&refusal.path, refusal.is_model, request.method == Method::GET);
        }
    }
    json_response(refusal.status, &refusal.body)
}

/// Refuses a request of a known trial, and counts it.
pub(crate) fn refuse_of(
    trial: &Arc<ActiveTrial>,
    request: WorldRequest,
    refusal: &Refusal,
) -> Response<WorldBody> {
    let bytes = Bytes::from(refusal.body.to_string());
    record(trial, request, refusal, &bytes);
    bytes_response(refusal.status, "application/json", bytes)
}

/// Adds the refused request to the trial, as an exchange and as a miss.
fn record(trial: &Arc<ActiveTrial>, request: WorldRequest, refusal: &Refusal, bytes: &Bytes) {
    let edge = if refusal.is_model { Edge::Model } else { Edge::Tool };
    let (kind, method) = match refusal.protocol {
        Protocol::Mcp => (OperationKind::Other, Some(refusal.path.clone())),
        Protocol::OpenaiChat | Protocol::GenericJson | Protocol::Opaque | Protocol::Imported => {
            (OperationKind::Opaque, None)
        }
    };
    let mut operation = Operation::new(kind);
    operation.method = method;
    let http = (request.method.to_string(), request.path_and_query());
    let mut exchange = trial.begin_exchange(edge, refusal.protocol, operation, request.body);
    exchange.http = Some(http);
    let Some(mut state) = trial.state() else { return };
    let seq = state.open(exchange);
    count(&mut state, refusal, seq);
    drop(state);
    trial.finish(seq, |exchange| {
        exchange.status = Some(refusal.status.as_u16());
        exchange.response = bytes.clone();
        exchange.ending_detail = Some(format!("missed: {}", refusal.cause));
    });
}

fn count(state: &mut TrialState, refusal: &Refusal, seq: usize) {
    let counts = if refusal.is_model { &mut state.model_fidelity } else { &mut state.tool_fidelity };
    counts.missed += 1;
    state.add_divergence(seq, refusal.miss());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_model_providers_are_told_from_tools() {
        for path in
            ["/v1/responses", "/v1/messages", "/v1/embeddings", "/openai/deployments/x/chat/completions"]
        {
            assert!(is_model_path(path), "{path}");
        }
        for path in ["/v1beta/models/gemini:generateContent", "/model/claude/converse", "/api/chat"] {
            assert!(is_model_path(path), "{path}");
        }
        for path in ["/tools/refund", "/orders/7", "/", "/v1"] {
            assert!(!is_model_path(path), "{path}");
        }
    }

    #[test]
    fn a_long_path_is_cut_at_a_letter() {
        let name = path_name(&Method::POST, &format!("/{}", "é".repeat(300)));
        assert!(name.starts_with("POST /é") && name.len() <= MAX_PATH_BYTES, "{name}");
    }
}
