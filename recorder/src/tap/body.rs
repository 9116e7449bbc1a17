//! Bodies that the tap copies while it forwards them.
//!
//! A body ends as complete, truncated, cancelled or failed. Its end is taken from the bytes of the sender, before the
//! receiver can see it: a body that is dropped after its last byte is complete.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use schemas::exchange::Ending;

use crate::capture::Recording;
use crate::capture::exchange::RequestEnd;

/// Direction of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

/// A body that is copied into a recording, if it has one.
#[derive(Debug)]
pub(crate) struct TapBody {
    inner: Incoming,
    side: Side,
    recording: Option<Arc<Recording>>,
    /// Bytes to come, if the head gives the length.
    remaining: Option<u64>,
}

impl TapBody {
    pub(super) fn request(inner: Incoming, recording: Option<Arc<Recording>>) -> Self {
        Self::new(inner, Side::Request, recording)
    }

    pub(super) fn response(inner: Incoming, recording: Option<Arc<Recording>>) -> Self {
        Self::new(inner, Side::Response, recording)
    }

    fn new(inner: Incoming, side: Side, recording: Option<Arc<Recording>>) -> Self {
        let remaining = inner.size_hint().exact();
        let mut body = Self { inner, side, recording, remaining };
        if body.inner.is_end_stream() || body.remaining == Some(0) {
            body.finish();
        }
        body
    }

    /// Ends a complete body.
    fn finish(&mut self) {
        match (self.recording.take(), self.side) {
            (Some(recording), Side::Request) => recording.request_end(RequestEnd::Complete),
            (Some(recording), Side::Response) => recording.end(Ending::Complete, None),
            (None, _) => {}
        }
    }

    /// Ends a body that its sender aborted.
    fn fail(&mut self, error: &hyper::Error) {
        match (self.recording.take(), self.side) {
            (Some(recording), Side::Request) => recording.request_end(RequestEnd::Aborted(with_cause(error))),
            (Some(recording), Side::Response) => {
                recording.end(
                    Ending::Truncated,
                    Some(format!("the upstream aborted its response: {}", with_cause(error))),
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
            self.finish();
        }
    }
}

impl Body for TapBody {
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
            Some(Err(error)) => this.fail(error),
            None => this.finish(),
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

impl Drop for TapBody {
    fn drop(&mut self) {
        if self.recording.is_some() && self.inner.is_end_stream() {
            return self.finish();
        }
        let Some(recording) = self.recording.take() else { return };
        match self.side {
            Side::Request => recording.request_end(RequestEnd::NotRead),
            Side::Response => {
                recording.end(
                    Ending::Cancelled,
                    Some("the client disconnected before the response was complete".to_owned()),
                );
            }
        }
    }
}

/// Response body for the client.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// Body of the upstream.
    Upstream(TapBody),
    /// Short text of the tap; absent once it is sent.
    Synthetic(Option<Bytes>),
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Upstream(body) => Pin::new(body).poll_frame(cx),
            Self::Synthetic(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Upstream(body) => body.is_end_stream(),
            Self::Synthetic(text) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Upstream(body) => body.size_hint(),
            Self::Synthetic(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }
}

/// The text of an error with its causes. hyper puts the specific cause in the source chain.
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
