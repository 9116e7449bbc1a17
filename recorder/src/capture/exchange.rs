//! Captured exchange: both bodies, heads, times and endings of one request and its response.
//!
//! Bodies and headers are as they passed: not decompressed, not redacted. They stay in memory until the encoder takes
//! them.

use std::sync::Arc;
use std::time::Instant;

use hyper::{HeaderMap, Method, StatusCode};
use schemas::exchange::Ending;

use super::hints::SessionHint;
use super::sessions::SeqAssignment;
use crate::config::Route;

/// The body of one direction.
#[derive(Debug, Default)]
pub(crate) struct BodyBuffer {
    /// The body as it passed, at most `limits.body-bytes`.
    pub(crate) bytes: Vec<u8>,
    /// Whether the body has ended.
    pub(crate) done: bool,
}

/// End of a request body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestEnd {
    /// The upstream got all of it.
    Complete,
    /// The upstream stopped reading before its end.
    NotRead,
    /// The client aborted it; holds the error text.
    Aborted(String),
}

/// Request side of an exchange.
#[derive(Debug)]
pub(crate) struct CapturedRequest {
    pub(crate) method: Method,
    /// Path and query without the session prefix.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: BodyBuffer,
    pub(crate) end: RequestEnd,
}

/// Response side of an exchange.
#[derive(Debug)]
pub(crate) struct CapturedResponse {
    /// Absent until the response head arrives.
    pub(crate) status: Option<StatusCode>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: BodyBuffer,
    pub(crate) ending: Ending,
    pub(crate) ending_detail: Option<String>,
}

/// Times of the parts of an exchange.
#[derive(Debug)]
pub(crate) struct Timing {
    /// Wall clock at the request head, microseconds since 1970.
    pub(crate) started_at: i64,
    pub(super) start: Instant,
    pub(super) last_frame: Instant,
    /// From the request head to the first response byte, in microseconds.
    pub(crate) first_byte_us: Option<u64>,
    /// Between successive frames of an event stream, in microseconds.
    pub(crate) frame_gaps_us: Vec<u32>,
    /// From the request head to the end of the response, in microseconds.
    pub(crate) duration_us: u64,
}

/// One exchange as the tap saw it.
#[derive(Debug)]
pub(crate) struct CapturedExchange {
    pub(crate) route: Arc<Route>,
    /// Absent until the session is known.
    pub(crate) seq: Option<SeqAssignment>,
    pub(crate) hints: Vec<SessionHint>,
    pub(crate) request: CapturedRequest,
    pub(crate) response: CapturedResponse,
    pub(crate) timing: Timing,
    /// Bytes of the heads and of this value itself.
    pub(super) head_bytes: usize,
}

/// Bytes that a captured exchange takes besides its heads and bodies: the value itself, its identifiers and its timing.
const BASE_BYTES: usize = 2048;

/// Bytes that a header takes in a map besides its name and value.
const HEADER_BYTES: usize = 100;

impl CapturedExchange {
    /// Bytes in memory that the accounts have charged: what the buffers have allocated, and the heads.
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.request.body.bytes.capacity()
            + self.response.body.bytes.capacity()
            + self.timing.frame_gaps_us.capacity() * size_of::<u32>()
            + self.head_bytes
    }
}

impl CapturedRequest {
    /// Bytes of the head, and of an exchange before its head.
    pub(super) fn head_bytes(&self) -> usize {
        BASE_BYTES + self.path.len() + header_bytes(&self.headers)
    }
}

/// Bytes of a head in memory.
pub(super) fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| HEADER_BYTES + name.as_str().len() + value.len()).sum()
}

impl CapturedResponse {
    /// Whether the response is a stream of server-sent events.
    pub(crate) fn is_event_stream(&self) -> bool {
        let kind = self.headers.get(hyper::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
    }
}
