//! Model calls let through to the provider: frames go on as they arrive, and what passed is noted at the end.
//!
//! Nothing is retried and nothing is changed but headers; what the provider says is what the candidate hears.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use schemas::exchange::Ending;
use serde_json::Value;

use super::Asked;
use super::active_trial::TrialWorld;
use super::model_calls::ModelCall;
use super::responses::{Reply, error_reply};
use crate::candidate::Upstream;
use crate::candidate::http::chain;
use crate::openai_chat;

/// The longest answer of which a copy is kept, in bytes; what is longer goes on and is noted as cut.
const MAX_KEPT_BYTES: usize = 32 << 20;

/// Headers that end at the world: hop by hop (RFC 9110 section 7.6.1), about bytes that change, or ours.
const OWN_HEADERS: [&str; 16] = [
    "host",
    "content-length",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "accept-encoding",
    "traceparent",
    "tracestate",
    "baggage",
    "foreshadow-seed",
    "foreshadow-session",
];

/// Lets a model call through.
pub(crate) async fn answer(trial: &Arc<TrialWorld>, call: ModelCall, asked: Asked) -> Response<Reply> {
    let settings = trial.settings();
    let Some(upstream) = &settings.upstream else {
        return lost(trial, call.seq, StatusCode::BAD_GATEWAY, "the candidate file has no [model] upstream");
    };
    let request = match request(trial, upstream, &call, asked) {
        Ok(request) => request,
        Err(error) => return lost(trial, call.seq, StatusCode::BAD_GATEWAY, &error.to_string()),
    };
    let started = Instant::now();
    let response = match tokio::time::timeout(upstream.timeout, settings.client.request(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            let text = format!("{} cannot be reached: {}", upstream.base, chain(&error));
            return lost(trial, call.seq, StatusCode::BAD_GATEWAY, &text);
        }
        Err(_) => {
            let text = format!("{} did not answer within {:?}", upstream.base, upstream.timeout);
            return lost(trial, call.seq, StatusCode::GATEWAY_TIMEOUT, &text);
        }
    };
    let (parts, body) = response.into_parts();
    let tee = Tee {
        body,
        trial: trial.clone(),
        seq: call.seq,
        request: call.request,
        status: parts.status.as_u16(),
        kept: BytesMut::new(),
        started,
        last_frame: None,
        gaps_us: Vec::new(),
        noted: false,
    };
    let mut response = Response::new(tee.boxed_unsync());
    *response.status_mut() = parts.status;
    let headers = parts.headers.iter().filter(|(name, _)| !OWN_HEADERS.contains(&name.as_str()));
    response.headers_mut().extend(headers.map(|(name, value)| (name.clone(), value.clone())));
    response
}

fn request(
    trial: &TrialWorld,
    upstream: &Upstream,
    call: &ModelCall,
    asked: Asked,
) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let rest = asked.path.strip_prefix("/v1").unwrap_or(&asked.path);
    let query = asked.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let mut request = Request::builder()
        .method(asked.method)
        .uri(format!("{}{rest}{query}", upstream.base))
        .body(Full::new(asked.body))?;
    let extra = trial.settings().propagate.as_ref();
    let kept = asked
        .headers
        .iter()
        .filter(|(name, _)| !OWN_HEADERS.contains(&name.as_str()) && Some(*name) != extra);
    let headers: &mut HeaderMap = request.headers_mut();
    headers.extend(kept.map(|(name, value)| (name.clone(), value.clone())));
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    for (name, value) in &upstream.headers {
        headers.insert(name.clone(), value.clone());
    }
    if upstream.identify {
        let named = [
            ("foreshadow-case", trial.case().script.case.to_string()),
            ("foreshadow-trial", trial.number().to_string()),
            ("foreshadow-call", call.number.to_string()),
            ("foreshadow-seed", trial.place().seed.to_string()),
        ];
        for (name, text) in named {
            // A case whose name no header can carry stays unnamed.
            if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
    Ok(request)
}

/// The provider gave no answer: the harness's surroundings failed, not the candidate.
fn lost(trial: &TrialWorld, seq: usize, status: StatusCode, text: &str) -> Response<Reply> {
    if let Some(mut state) = trial.state() {
        state.provider_lost = Some(text.to_owned());
    }
    trial.finish(seq, |raw| {
        raw.status = Some(status.as_u16());
        raw.ending = Some(Ending::Failed);
        raw.ending_detail = Some(text.to_owned());
    });
    error_reply(status, &format!("the model provider at {text}"))
}

/// The provider's body on its way to the candidate, with a copy kept.
struct Tee {
    body: Incoming,
    trial: Arc<TrialWorld>,
    seq: usize,
    request: Value,
    status: u16,
    kept: BytesMut,
    started: Instant,
    last_frame: Option<Instant>,
    gaps_us: Vec<u32>,
    noted: bool,
}

impl Tee {
    fn note(&mut self, ending: Ending, detail: Option<String>) {
        if std::mem::replace(&mut self.noted, true) {
            return;
        }
        let kept = std::mem::take(&mut self.kept).freeze();
        let (operation, usage) = openai_chat::decode(&self.request, &kept);
        let first_byte = self.gaps_us.first().map(|gap| std::time::Duration::from_micros(u64::from(*gap)));
        let gaps: Vec<u32> = self.gaps_us.iter().skip(1).copied().collect();
        let (status, took) = (self.status, self.started.elapsed());
        self.trial.finish(self.seq, |raw| {
            raw.first_byte = first_byte;
            raw.duration = Some(took);
            raw.frame_gaps_us = gaps;
            raw.ending = Some(ending);
            raw.ending_detail = detail;
            raw.status = Some(status);
            raw.response = kept;
            raw.operation = operation;
            raw.usage = usage;
        });
    }

    fn keep(&mut self, data: &Bytes) {
        let now = Instant::now();
        let since = now.duration_since(self.last_frame.unwrap_or(self.started));
        self.gaps_us.push(u32::try_from(since.as_micros()).unwrap_or(u32::MAX));
        self.last_frame = Some(now);
        if self.kept.len() + data.len() <= MAX_KEPT_BYTES {
            self.kept.extend_from_slice(data);
        }
    }
}

impl Body for Tee {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => self.note(Ending::Complete, None),
            Poll::Ready(Some(Err(error))) => {
                let text = format!("the provider broke the answer off: {}", chain(error));
                self.note(Ending::Truncated, Some(text));
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.keep(data);
                }
                if self.body.is_end_stream() {
                    self.note(Ending::Complete, None);
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        // Clients close a stream after its last event without waiting for the end of the body.
        if self.body.is_end_stream() || self.kept.trim_ascii_end().ends_with(b"[DONE]") {
            self.note(Ending::Complete, None);
        } else {
            self.note(Ending::Cancelled, Some("the candidate went away".to_owned()));
        }
    }
}
