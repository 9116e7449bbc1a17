//! Sends turns to a candidate that is a running service: one HTTP request for each turn.
//!
//! Each request identifies its trial in `traceparent`, `baggage` and, if configured, one more header. The candidate must
//! pass one of them on to its model and tools.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Request, Response};
use schemas::exchange::Protocol;
use serde_json::{Value, json};

use super::settings::{HttpCandidate, RequestFormat};
use super::turn::{Turn, TurnFailure, TurnResult};
use crate::http_client::{HttpClient, error_chain};
use crate::provider_clock::TurnLimit;
use crate::shorten::shorten;

/// Longest answer that is read, bytes.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Sends a turn and waits for the answer, at most `limit`.
pub(crate) async fn send_turn(
    client: &HttpClient,
    candidate: &HttpCandidate,
    propagate: Option<&HeaderName>,
    turn: &Turn<'_>,
    limit: TurnLimit<'_>,
) -> TurnResult {
    let timeout = limit.timeout;
    let body = Bytes::from(body(&candidate.format, turn).to_string());
    let path = candidate.url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let mut result = TurnResult {
        protocol: match candidate.format {
            RequestFormat::Json { .. } => Protocol::GenericJson,
            RequestFormat::OpenaiChat { .. } => Protocol::OpenaiChat,
        },
        http: Some((candidate.method.to_string(), path)),
        request: body.clone(),
        response: Bytes::new(),
        status: None,
        first_byte: None,
        stderr: String::new(),
        duration: Duration::ZERO,
        answer: Err(TurnFailure::TimedOut(format!("no answer from {} within {timeout:?}", candidate.url))),
    };
    let started = Instant::now();
    let exchange = async {
        match request(candidate, propagate, turn, body) {
            Ok(request) => exchange_bodies(client, request, &mut result, started).await,
            Err(detail) => Err(TurnFailure::Failed(detail)),
        }
    };
    // On a timeout the request is dropped, which closes its connection.
    match limit.run(exchange).await {
        Some(Ok(())) => result.answer = read_answer(candidate, result.status, &result.response),
        Some(Err(failure)) => result.answer = Err(failure),
        None => {}
    }
    result.duration = started.elapsed();
    result
}

fn body(format: &RequestFormat, turn: &Turn<'_>) -> Value {
    match format {
        RequestFormat::Json { body, .. } => body.fill(turn),
        RequestFormat::OpenaiChat { model } => {
            let mut messages = turn.history_json();
            if let Some(messages) = messages.as_array_mut() {
                messages.push(json!({"role": "user", "content": turn.input}));
            }
            json!({"model": model, "messages": messages})
        }
    }
}

fn request(
    candidate: &HttpCandidate,
    propagate: Option<&HeaderName>,
    turn: &Turn<'_>,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, String> {
    let endpoint = turn.endpoint;
    let mut request = Request::builder()
        .method(candidate.method.clone())
        .uri(candidate.url.clone())
        .header(CONTENT_TYPE, "application/json")
        .header("traceparent", endpoint.traceparent(turn.number))
        .header("baggage", endpoint.baggage())
        .header("foreshadow-seed", endpoint.seed)
        .body(Full::new(body))
        .map_err(|error| format!("cannot build the request: {error}"))?;
    for (name, value) in &candidate.headers {
        request.headers_mut().insert(name.clone(), value.clone());
    }
    if let (Some(name), Ok(value)) = (propagate, HeaderValue::try_from(endpoint.token.as_str())) {
        request.headers_mut().insert(name.clone(), value);
    }
    Ok(request)
}

async fn exchange_bodies(
    client: &HttpClient,
    request: Request<Full<Bytes>>,
    result: &mut TurnResult,
    started: Instant,
) -> Result<(), TurnFailure> {
    let uri = request.uri().clone();
    let response = client
        .request(request)
        .await
        .map_err(|error| TurnFailure::Failed(format!("cannot reach {uri}: {}", error_chain(&error))))?;
    result.status = Some(response.status().as_u16());
    result.first_byte = Some(started.elapsed());
    read_body(response, &mut result.response).await.map_err(TurnFailure::Failed)
}

async fn read_body(response: Response<Incoming>, into: &mut Bytes) -> Result<(), String> {
    let mut body = response.into_body();
    let mut read = BytesMut::new();
    let result = loop {
        match body.frame().await {
            None => break Ok(()),
            Some(Err(error)) => break Err(format!("the answer was cut off: {}", error_chain(&error))),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    read.extend_from_slice(data);
                }
            }
        }
        if read.len() > MAX_ANSWER_BYTES {
            break Err(format!("the answer exceeds {MAX_ANSWER_BYTES} bytes"));
        }
    };
    *into = read.freeze();
    result
}

fn read_answer(candidate: &HttpCandidate, status: Option<u16>, body: &[u8]) -> Result<String, TurnFailure> {
    let got = || shorten(&String::from_utf8_lossy(body));
    let failed = |detail: String| Err(TurnFailure::Failed(detail));
    match status {
        Some(200..=299) => {}
        Some(status) => return failed(format!("HTTP status {status} from {}: {}", candidate.url, got())),
        None => return failed(format!("no status from {}", candidate.url)),
    }
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return failed(format!("the answer of {} is not JSON: {}", candidate.url, got()));
    };
    let pointer = match &candidate.format {
        RequestFormat::Json { answer, .. } => answer.as_str(),
        RequestFormat::OpenaiChat { .. } => "/choices/0/message/content",
    };
    match value.pointer(pointer) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Null) | None => {
            failed(format!("the answer of {} has nothing at {pointer:?}: {}", candidate.url, got()))
        }
        Some(other) => Ok(other.to_string()),
    }
}
