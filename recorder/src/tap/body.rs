//! Bodies that are copied while they pass, and the four ways in which they end.
//!
//! The end is told from the upstream's bytes, before the client can see it, never from the client's write: a body that
//! is dropped after its last byte is complete.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use schemas::exchange::Ending;

use crate::capture::{Recording, RequestEnd};

/// Which way a body goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

/// A body with a copy taken of it; without a recording it just passes.
#[derive(Debug)]
pub(crate) struct Tee {
    inner: Incoming,
    side: Side,
    recording: Option<Arc<Recording>>,
    /// Bytes that are still to come, where the head says how many.
    remaining: Option<u64>,
}

impl Tee {
    pub(super) fn request(inner: Incoming, recording: Option<Arc<Recording>>) -> Self {
        Self::new(inner, Side::Request, recording)
    }

    pub(super) fn response(inner: Incoming, recording: Option<Arc<Recording>>) -> Self {
        Self::new(inner, Side::Response, recording)
    }

    fn new(inner: Incoming, side: Side, recording: Option<Arc<Recording>>) -> Self {
        let remaining = inner.size_hint().exact();
        let mut tee = Self { inner, side, recording, remaining };
        if tee.inner.is_end_stream() || tee.remaining == Some(0) {
            tee.whole();
        }
        tee
    }

    /// Everything passed.
    fn whole(&mut self) {
        match (self.recording.take(), self.side) {
            (Some(recording), Side::Request) => recording.request_end(RequestEnd::Whole),
            (Some(recording), Side::Response) => recording.end(Ending::Complete, None),
            (None, _) => {}
        }
    }

    /// The sender broke it off.
    fn broken(&mut self, error: &hyper::Error) {
        match (self.recording.take(), self.side) {
            (Some(recording), Side::Request) => {
                recording.request_end(RequestEnd::BrokenOff(with_cause(error)))
            }
            (Some(recording), Side::Response) => {
                recording.end(
                    Ending::Truncated,
                    Some(format!("the upstream broke its answer off: {}", with_cause(error))),
                );
            }
            (None, _) => {}
        }
    }

    fn frame(&mut self, frame: &Frame<Bytes>) {
        let (Some(recording), Some(data)) = (&self.recording, frame.data_ref()) else { return };
        match self.side {
            Side::Request => recording.request_frame(data),
            Side::Response => recording.response_frame(data),
        }
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining.saturating_sub(data.len() as u64);
        }
        if self.remaining == Some(0) || self.inner.is_end_stream() {
            self.whole();
        }
    }
}

impl Body for Tee {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let polled = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => this.frame(frame),
            Some(Err(error)) => this.broken(error),
            None => this.whole(),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        if self.recording.is_some() && self.inner.is_end_stream() {
            return self.whole();
        }
        let Some(recording) = self.recording.take() else { return };
        match self.side {
            Side::Request => recording.request_end(RequestEnd::NotTaken),
            Side::Response => {
                recording.end(
                    Ending::Cancelled,
                    Some("the client went away before the answer was whole".to_owned()),
                );
            }
        }
    }
}

/// What the client gets: the upstream's answer, or our own where there is none.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The upstream's.
    Upstream(Tee),
    /// A short text of ours; taken when it is sent.
    Own(Option<Bytes>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Upstream(tee) => Pin::new(tee).poll_frame(cx),
            Self::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Upstream(tee) => tee.is_end_stream(),
            Self::Own(text) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Upstream(tee) => tee.size_hint(),
            Self::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }
}

/// An error with what caused it, for hyper says the interesting part there.
pub(super) fn with_cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
