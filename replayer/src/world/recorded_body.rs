//! The provider's answer on its way to the candidate, frame by frame, with a bounded copy.
//!
//! A body that breaks off, falls silent or reports an error is a failure of the provider; one that the candidate closes is not.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hyper::StatusCode;
use hyper::body::{Body, Frame};
use schemas::exchange::Ending;
use tokio::time::Sleep;

use super::active_trial::ActiveTrial;
use super::provider_calls::FailureText;
use super::provider_failure::{AnswerClass, error_in_answer};
use super::responses::BoxError;
use crate::http_client::error_chain;
use crate::provider_clock::WaitGuard;

/// Bytes of an answer that are kept. The rest of a longer answer is forwarded, and its exchange ends `truncated`.
const MAX_KEPT_BYTES: usize = 32 << 20;

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
pub(crate) struct RecordedBody<B: Body> {
    body: B,
    /// The first frame, which was read before the candidate got the head.
    first: Option<Frame<Bytes>>,
    trial: Arc<ActiveTrial>,
    seq: usize,
    status: StatusCode,
    kept: BoundedCopy,
    started: Instant,
    /// Bound of the time between two frames.
    max_silence: Duration,
    /// The wait for the next frame, with its end; absent while the candidate has not asked for it.
    silence: Option<(Pin<Box<Sleep>>, WaitGuard)>,
    last_frame: Option<Instant>,
    /// Microseconds before each frame, the first included.
    gaps_us: Vec<u32>,
    is_finished: bool,
}

impl<B: Body> RecordedBody<B> {
    /// Forwards `first` and then the rest of `body`. `started` is the start of the attempt that was answered.
    pub(crate) fn new(
        body: B,
        first: Option<Frame<Bytes>>,
        trial: Arc<ActiveTrial>,
        seq: usize,
        status: StatusCode,
        started: Instant,
        max_silence: Duration,
    ) -> Self {
        Self {
            body,
            first,
            trial,
            seq,
            status,
            kept: BoundedCopy::new(MAX_KEPT_BYTES),
            started,
            max_silence,
            silence: None,
            last_frame: None,
            gaps_us: Vec::new(),
            is_finished: false,
        }
    }

    /// Whether the first frame and the body are forwarded.
    fn is_at_end(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }

    /// The provider failed after the first byte, which is never repeated.
    fn fail(&mut self, cause: &str, detail: String) -> BoxError {
        if !self.is_finished {
            let text = FailureText { cause: cause.to_owned(), detail: detail.clone() };
            self.trial.provider_failed(self.seq, text);
        }
        self.finish(Ending::Truncated, Some(detail.clone()));
        detail.into()
    }

    /// Polls the wait for the next frame; ready once it has lasted too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (trial, seq, max) = (&self.trial, self.seq, self.max_silence);
        let (sleep, _) = self
            .silence
            .get_or_insert_with(|| (Box::pin(tokio::time::sleep(max)), trial.provider_clock().wait(seq)));
        sleep.as_mut().poll(cx)
    }

    fn finish(&mut self, ending: Ending, detail: Option<String>) {
        if std::mem::replace(&mut self.is_finished, true) {
            return;
        }
        if ending == Ending::Complete
            && self.status == StatusCode::OK
            && let Some((class, text)) = error_in_answer(&self.kept.bytes)
            && class != AnswerClass::Answer
        {
            let detail = format!("an error within the answer: {text}");
            self.trial
                .provider_failed(self.seq, FailureText { cause: "error in the answer".to_owned(), detail });
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
        let (status, duration) = (self.status.as_u16(), self.started.elapsed());
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
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = match self.first.take() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.body).poll_frame(cx),
        };
        if polled.is_pending() {
            if self.poll_silence(cx).is_pending() {
                return Poll::Pending;
            }
            let text = format!("the provider sent nothing for {:?} within its answer", self.max_silence);
            return Poll::Ready(Some(Err(self.fail("timeout", text))));
        }
        self.silence = None;
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.finish(Ending::Complete, None);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                let text = format!("the provider cut the answer off: {}", error_chain(&error));
                Poll::Ready(Some(Err(self.fail("connection", text))))
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.keep(data);
                }
                if self.is_at_end() {
                    self.finish(Ending::Complete, None);
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_at_end()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        let read = self.first.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        let rest = self.body.size_hint();
        let mut hint = hyper::body::SizeHint::new();
        hint.set_lower(rest.lower() + read);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + read);
        }
        hint
    }
}

impl<B: Body> Drop for RecordedBody<B> {
    fn drop(&mut self) {
        // Clients close a stream after its last event without waiting for the end of the body.
        if self.is_at_end() || self.kept.bytes.trim_ascii_end().ends_with(b"[DONE]") {
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

    use http_body_util::BodyExt as _;
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
    use crate::world::provider_health::ProviderHealth;

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
            undecoded: Default::default(),
        };
        let case = ReplayCase { recording, tool_index: ToolIndex::default(), validators: HashMap::new() };
        let settings = ReplaySettings {
            run_seed: 1,
            faults: FaultRules::default(),
            model: ModelMode::Live,
            upstream: None,
            provider_health: ProviderHealth::new(1),
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
        let body = Frames(frames.iter().copied().collect());
        let (status, now) = (StatusCode::OK, Instant::now());
        let mut body = RecordedBody::new(body, None, trial.clone(), call.seq, status, now, Duration::MAX);
        body.kept = BoundedCopy::new(limit);
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
