//! Forwards model calls to the provider, frame by frame, and keeps a bounded copy of each answer.
//!
//! Nothing is retried, and nothing but headers is changed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use schemas::exchange::Ending;

use super::active_trial::ActiveTrial;
use super::model_call::ModelCall;
use super::request::WorldRequest;
use super::responses::{WorldBody, error_response};
use crate::candidate::settings::Upstream;
use crate::http_client::error_chain;

/// Bytes of an answer that are kept. The rest of a longer answer is forwarded, and its exchange ends `truncated`.
const MAX_KEPT_BYTES: usize = 32 << 20;

/// Headers that are not forwarded: hop-by-hop (RFC 9110 section 7.6.1), about the encoding of the body, or the replayer's.
const DROPPED_HEADERS: [&str; 16] = [
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

/// Forwards a model call to the provider.
pub(crate) async fn forward(
    trial: &Arc<ActiveTrial>,
    call: ModelCall,
    request: WorldRequest,
) -> Response<WorldBody> {
    let settings = trial.settings();
    let Some(upstream) = &settings.upstream else {
        let text = "the candidate file has no [model] upstream";
        return upstream_failed(trial, call.seq, StatusCode::BAD_GATEWAY, text);
    };
    let request = match upstream_request(trial, upstream, call, request) {
        Ok(request) => request,
        Err(error) => return upstream_failed(trial, call.seq, StatusCode::BAD_GATEWAY, &error.to_string()),
    };
    let started = Instant::now();
    let response = match tokio::time::timeout(upstream.timeout, settings.client.request(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            let text = format!("cannot reach {}: {}", upstream.base, error_chain(&error));
            return upstream_failed(trial, call.seq, StatusCode::BAD_GATEWAY, &text);
        }
        Err(_) => {
            let text = format!("{} did not answer within {:?}", upstream.base, upstream.timeout);
            return upstream_failed(trial, call.seq, StatusCode::GATEWAY_TIMEOUT, &text);
        }
    };
    let (parts, body) = response.into_parts();
    let body = RecordedBody {
        body,
        trial: trial.clone(),
        seq: call.seq,
        status: parts.status.as_u16(),
        kept: BoundedCopy::new(MAX_KEPT_BYTES),
        started,
        last_frame: None,
        gaps_us: Vec::new(),
        is_finished: false,
    };
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = parts.status;
    let headers = parts.headers.iter().filter(|(name, _)| !DROPPED_HEADERS.contains(&name.as_str()));
    response.headers_mut().extend(headers.map(|(name, value)| (name.clone(), value.clone())));
    response
}

fn upstream_request(
    trial: &ActiveTrial,
    upstream: &Upstream,
    call: ModelCall,
    received: WorldRequest,
) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let path = received.path.strip_prefix("/v1").unwrap_or(&received.path);
    let query = received.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let mut request = Request::builder()
        .method(received.method)
        .uri(format!("{}{path}{query}", upstream.base))
        .body(Full::new(received.body))?;
    let propagate = trial.settings().propagate.as_ref();
    let forwarded = received
        .headers
        .iter()
        .filter(|(name, _)| !DROPPED_HEADERS.contains(&name.as_str()) && Some(*name) != propagate);
    let headers: &mut HeaderMap = request.headers_mut();
    headers.extend(forwarded.map(|(name, value)| (name.clone(), value.clone())));
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    for (name, value) in &upstream.headers {
        headers.insert(name.clone(), value.clone());
    }
    if upstream.identify {
        let identifiers = [
            ("foreshadow-case", trial.case().recording.case.to_string()),
            ("foreshadow-trial", trial.number().to_string()),
            ("foreshadow-call", call.number.to_string()),
            ("foreshadow-seed", trial.endpoint().seed.to_string()),
        ];
        for (name, text) in identifiers {
            // A case id that is no valid header value is left out.
            if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
    Ok(request)
}

/// Records that the provider gave no answer. A trial that fails after it ends as `infrastructure`.
fn upstream_failed(trial: &ActiveTrial, seq: usize, status: StatusCode, cause: &str) -> Response<WorldBody> {
    if let Some(mut state) = trial.state() {
        state.upstream_failure = Some(cause.to_owned());
    }
    trial.finish(seq, |exchange| {
        exchange.status = Some(status.as_u16());
        exchange.ending = Some(Ending::Failed);
        exchange.ending_detail = Some(cause.to_owned());
    });
    error_response(status, &format!("model provider: {cause}"))
}

/// The first bytes of a body, without gaps.
#[derive(Debug)]
struct BoundedCopy {
    bytes: BytesMut,
    limit: usize,
    is_truncated: bool,
}

impl BoundedCopy {
    fn new(limit: usize) -> Self {
        Self { bytes: BytesMut::new(), limit, is_truncated: false }
    }

    fn append(&mut self, data: &[u8]) {
        let room = self.limit - self.bytes.len();
        self.is_truncated |= data.len() > room;
        self.bytes.extend_from_slice(&data[..data.len().min(room)]);
    }
}

/// The provider's body on its way to the candidate.
struct RecordedBody<B: Body> {
    body: B,
    trial: Arc<ActiveTrial>,
    seq: usize,
    status: u16,
    kept: BoundedCopy,
    started: Instant,
    last_frame: Option<Instant>,
    /// Microseconds before each frame, the first included.
    gaps_us: Vec<u32>,
    is_finished: bool,
}

impl<B: Body> RecordedBody<B> {
    fn finish(&mut self, ending: Ending, detail: Option<String>) {
        if std::mem::replace(&mut self.is_finished, true) {
            return;
        }
        let (ending, detail) = match ending {
            Ending::Complete if self.kept.is_truncated => {
                let limit = self.kept.limit;
                (
                    Ending::Truncated,
                    Some(format!("the answer exceeds {limit} bytes; the rest was forwarded but not kept")),
                )
            }
            ending => (ending, detail),
        };
        let first_byte = self.gaps_us.first().map(|gap| Duration::from_micros(u64::from(*gap)));
        let gaps: Vec<u32> = self.gaps_us.iter().skip(1).copied().collect();
        let (status, duration) = (self.status, self.started.elapsed());
        let kept = std::mem::take(&mut self.kept.bytes).freeze();
        self.trial.finish(self.seq, |exchange| {
            exchange.first_byte = first_byte;
            exchange.duration = Some(duration);
            exchange.frame_gaps_us = gaps;
            exchange.ending = Some(ending);
            exchange.ending_detail = detail;
            exchange.status = Some(status);
            exchange.response = kept;
        });
    }

    fn keep(&mut self, data: &[u8]) {
        let now = Instant::now();
        let gap = now.duration_since(self.last_frame.unwrap_or(self.started));
        self.gaps_us.push(u32::try_from(gap.as_micros()).unwrap_or(u32::MAX));
        self.last_frame = Some(now);
        self.kept.append(data);
    }
}

impl<B> Body for RecordedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => self.finish(Ending::Complete, None),
            Poll::Ready(Some(Err(error))) => {
                let text = format!("the provider cut the answer off: {}", error_chain(error));
                self.finish(Ending::Truncated, Some(text));
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.keep(data);
                }
                if self.body.is_end_stream() {
                    self.finish(Ending::Complete, None);
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

impl<B: Body> Drop for RecordedBody<B> {
    fn drop(&mut self) {
        // Clients close a stream after its last event without waiting for the end of the body.
        if self.body.is_end_stream() || self.kept.bytes.trim_ascii_end().ends_with(b"[DONE]") {
            self.finish(Ending::Complete, None);
        } else {
            self.finish(Ending::Cancelled, Some("the candidate closed the connection".to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, VecDeque};
    use std::convert::Infallible;

    use schemas::exchange::{Edge, Operation, OperationKind, Protocol};
    use schemas::id::{AgentId, CaseId, TenantId};

    use super::*;
    use crate::candidate::endpoint::TrialEndpoint;
    use crate::case_recording::CaseRecording;
    use crate::clock::Clock;
    use crate::faults::FaultRules;
    use crate::http_client::http_client;
    use crate::plan::ModelMode;
    use crate::tool_index::ToolIndex;
    use crate::world::active_trial::{CapturedExchange, ReplayCase, ReplaySettings};
    use crate::world::model_call::admit;

    /// A body that yields these frames, and announces its end with the last one.
    struct Frames(VecDeque<&'static [u8]>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(Bytes::from_static(data)))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    fn trial() -> Arc<ActiveTrial> {
        let recording = CaseRecording {
            case: CaseId::parse("case").expect("id"),
            tenant: TenantId::parse("default").expect("id"),
            agent: AgentId::parse("agent").expect("id"),
            turns: Vec::new(),
            tool_calls: Vec::new(),
            model_calls: Vec::new(),
            effects: Default::default(),
            tool_list: Default::default(),
            slices: Default::default(),
        };
        let case = ReplayCase { recording, tool_index: ToolIndex::default(), validators: HashMap::new() };
        let settings = ReplaySettings {
            run_seed: 1,
            faults: FaultRules::default(),
            model: ModelMode::Live,
            upstream: None,
            propagate: None,
            client: http_client(false),
            clock: Clock::new(|| 0),
            delay_scale: 1.0,
            delay_cap: Duration::ZERO,
        };
        let endpoint = TrialEndpoint { token: "t".to_owned(), seed: 1, base: String::new() };
        Arc::new(ActiveTrial::new(endpoint, Arc::new(case), 0, false, Arc::new(settings)))
    }

    /// Forwards `frames`, of which `limit` bytes are kept, reads at most `reads` of them, and returns the exchange.
    async fn forwarded(frames: &[&'static [u8]], limit: usize, reads: usize) -> (Vec<u8>, CapturedExchange) {
        let trial = trial();
        let operation = Operation::new(OperationKind::Chat);
        let exchange = trial.begin_exchange(Edge::Model, Protocol::OpenaiChat, operation, Bytes::new());
        let call = admit(&trial, exchange).expect("an open trial");
        let mut body = RecordedBody {
            body: Frames(frames.iter().copied().collect()),
            trial: trial.clone(),
            seq: call.seq,
            status: 200,
            kept: BoundedCopy::new(limit),
            started: Instant::now(),
            last_frame: None,
            gaps_us: Vec::new(),
            is_finished: false,
        };
        let mut received = Vec::new();
        for _ in 0..reads {
            let Some(frame) = body.frame().await else { break };
            received.extend_from_slice(&frame.expect("a frame").into_data().expect("data"));
        }
        drop(body);
        (received, trial.close().exchanges.remove(0))
    }

    #[tokio::test]
    async fn an_answer_past_the_limit_is_forwarded_whole_and_ends_truncated() {
        let frames: [&[u8]; 3] = [b"aaaa", b"bbbbbb", b"cc"];
        let (received, exchange) = forwarded(&frames, 8, 9).await;
        assert_eq!(received, b"aaaabbbbbbcc");
        // The copy is a prefix: the frame that does not fit is not left out between two others.
        assert_eq!(&exchange.response[..], b"aaaabbbb");
        assert_eq!(exchange.ending, Some(Ending::Truncated));
        assert!(exchange.ending_detail.expect("a reason").contains("exceeds 8 bytes"));
        assert_eq!(exchange.frame_gaps_us.len(), 2);
    }

    #[tokio::test]
    async fn an_answer_of_exactly_the_limit_is_complete() {
        let (_, exchange) = forwarded(&[b"aaaa", b"bbbb"], 8, 9).await;
        assert_eq!((exchange.ending, exchange.ending_detail), (Some(Ending::Complete), None));
        assert_eq!(&exchange.response[..], b"aaaabbbb");
    }

    #[tokio::test]
    async fn a_client_may_close_a_stream_after_its_last_event() {
        let frames: [&[u8]; 3] = [b"data: 1\n\n", b"data: [DONE]\n\n", b": trailing"];
        assert_eq!(forwarded(&frames, 100, 2).await.1.ending, Some(Ending::Complete));
        assert_eq!(forwarded(&frames, 100, 1).await.1.ending, Some(Ending::Cancelled));
    }
}
