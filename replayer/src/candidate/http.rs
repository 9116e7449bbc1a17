//! A candidate that is a running service: one HTTP request per turn.
//!
//! It is sent what names its trial in `traceparent`, `baggage` and, where configured, one more header; passing them on
//! is its part.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Request, Response};
use schemas::exchange::Protocol;
use serde_json::{Value, json};

use super::turn::{Asked, Turn, TurnFailure};
use super::{HttpCandidate, Speech};
use crate::http_client::HttpClient;
use crate::tool_index::shorten;

/// The longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Asks a turn and waits for the answer, at most `timeout`.
pub(crate) async fn ask(
    client: &HttpClient,
    candidate: &HttpCandidate,
    propagate: Option<&HeaderName>,
    turn: &Turn<'_>,
    timeout: Duration,
) -> Asked {
    let body = Bytes::from(body(&candidate.speech, turn).to_string());
    let path = candidate.url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let mut asked = Asked {
        protocol: match candidate.speech {
            Speech::Json { .. } => Protocol::GenericJson,
            Speech::OpenaiChat { .. } => Protocol::OpenaiChat,
        },
        http: Some((candidate.method.to_string(), path)),
        request: body.clone(),
        response: Bytes::new(),
        status: None,
        first_byte: None,
        duration: Duration::ZERO,
        answer: Err(TurnFailure::TimedOut(format!("no answer from {} within {timeout:?}", candidate.url))),
    };
    let started = Instant::now();
    let exchange = async {
        match request(candidate, propagate, turn, body) {
            Ok(request) => exchange(client, request, &mut asked, started).await,
            Err(detail) => Err(TurnFailure::Failed(detail)),
        }
    };
    // On a timeout the request is dropped, which closes its connection.
    match tokio::time::timeout(timeout, exchange).await {
        Ok(Ok(())) => asked.answer = read_answer(candidate, asked.status, &asked.response),
        Ok(Err(failure)) => asked.answer = Err(failure),
        Err(_) => {}
    }
    asked.duration = started.elapsed();
    asked
}

fn body(speech: &Speech, turn: &Turn<'_>) -> Value {
    match speech {
        Speech::Json { body, .. } => body.fill(turn),
        Speech::OpenaiChat { model } => {
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
    let place = turn.place;
    let mut request = Request::builder()
        .method(candidate.method.clone())
        .uri(candidate.url.clone())
        .header(CONTENT_TYPE, "application/json")
        .header("traceparent", place.traceparent(turn.number))
        .header("baggage", place.baggage())
        .header("foreshadow-seed", place.seed)
        .body(Full::new(body))
        .map_err(|error| format!("request cannot be made: {error}"))?;
    for (name, value) in &candidate.headers {
        request.headers_mut().insert(name.clone(), value.clone());
    }
    if let (Some(name), Ok(value)) = (propagate, HeaderValue::try_from(place.token.as_str())) {
        request.headers_mut().insert(name.clone(), value);
    }
    Ok(request)
}

async fn exchange(
    client: &HttpClient,
    request: Request<Full<Bytes>>,
    asked: &mut Asked,
    started: Instant,
) -> Result<(), TurnFailure> {
    let uri = request.uri().clone();
    let response = client
        .request(request)
        .await
        .map_err(|error| TurnFailure::Failed(format!("{uri} cannot be reached: {}", chain(&error))))?;
    asked.status = Some(response.status().as_u16());
    asked.first_byte = Some(started.elapsed());
    read_body(response, &mut asked.response).await.map_err(TurnFailure::Failed)
}

async fn read_body(response: Response<Incoming>, into: &mut Bytes) -> Result<(), String> {
    let mut body = response.into_body();
    let mut held = BytesMut::new();
    let result = loop {
        match body.frame().await {
            None => break Ok(()),
            Some(Err(error)) => break Err(format!("the answer broke off: {}", chain(&error))),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    held.extend_from_slice(data);
                }
            }
        }
        if held.len() > MAX_ANSWER_BYTES {
            break Err(format!("the answer is longer than {MAX_ANSWER_BYTES} bytes"));
        }
    };
    *into = held.freeze();
    result
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
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
    let pointer = match &candidate.speech {
        Speech::Json { answer, .. } => answer.as_str(),
        Speech::OpenaiChat { .. } => "/choices/0/message/content",
    };
    match value.pointer(pointer) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Null) | None => {
            failed(format!("the answer of {} has nothing at {pointer:?}: {}", candidate.url, got()))
        }
        Some(other) => Ok(other.to_string()),
    }
}
