//! Captures an exchange while it passes: bodies, times, and ending.
//!
//! Copying is bounded and never waits. The tap enqueues a finished copy before the client can see the end of the
//! response, so a response that a client has read completely is in the queue. Nothing here is decoded or redacted,
//! except the session name.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::{HeaderMap, Method, StatusCode};
use schemas::exchange::Ending;

use self::accounts::CaptureAccounts;
use self::exchange::{
    BodyBuffer, CapturedExchange, CapturedRequest, CapturedResponse, RequestEnd, Timing, header_bytes,
};
use self::queue::JournalQueue;
use crate::config::{Route, SessionConfig};
use crate::encode::redact::Redactor;

pub(crate) mod accounts;
pub(crate) mod exchange;
pub(crate) mod hints;
pub(crate) mod queue;
pub(crate) mod sessions;

/// Frame gaps that one stream keeps.
const MAX_FRAME_GAPS: usize = 16_384;

/// Frame gaps by which their buffer grows.
const GAPS_STEP: usize = 1024;

/// Request bodies above this size, in bytes, are not searched for a session name.
const MAX_SEARCHED_BYTES: usize = 256 * 1024;

/// Values that the captures of one recorder share.
#[derive(Debug)]
pub(crate) struct CaptureContext {
    pub(crate) accounts: Arc<CaptureAccounts>,
    pub(crate) queue: JournalQueue,
    pub(crate) redactor: Arc<Redactor>,
    pub(crate) session_config: SessionConfig,
}

/// The head of a request, as the tap read it.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) route: Arc<Route>,
    pub(crate) method: Method,
    /// Path and query without the session prefix.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// The session name behind the session prefix.
    pub(crate) path_session: Option<String>,
}

/// Handle of a running capture. Dropping the last clone enqueues the exchange as it is.
#[derive(Debug)]
pub(crate) struct Recording {
    context: Arc<CaptureContext>,
    /// Absent once the exchange is enqueued or shed.
    state: Mutex<Option<Box<CapturedExchange>>>,
}

/// Reason to end a capture early.
enum Refused {
    /// The session is shed, and the registry has counted this exchange.
    Counted,
    /// A bound is reached. The registry has not counted the exchange yet.
    Shed(&'static str),
}

impl Recording {
    /// Starts a capture and counts the exchange as started.
    pub(crate) fn start(context: &Arc<CaptureContext>, head: RequestHead) -> Arc<Self> {
        context.accounts.sessions.count_started();
        context.accounts.update_shed_rate();
        let hints = hints::from_head(&context.session_config, &head.headers, head.path_session.as_deref());
        let start = Instant::now();
        let mut exchange = Box::new(CapturedExchange {
            route: head.route,
            seq: None,
            hints,
            request: CapturedRequest {
                method: head.method,
                path: head.path,
                headers: head.headers,
                body: BodyBuffer::default(),
                end: RequestEnd::NotRead,
            },
            response: CapturedResponse {
                status: None,
                headers: HeaderMap::new(),
                body: BodyBuffer::default(),
                ending: Ending::Cancelled,
                ending_detail: Some("the client disconnected before the response began".to_owned()),
            },
            timing: Timing {
                started_at: context.accounts.now(),
                start,
                last_frame: start,
                first_byte_us: None,
                frame_gaps_us: Vec::new(),
                duration_us: 0,
            },
            head_bytes: 0,
        });
        let known = hints::session_known_from_head(&exchange.route, &exchange.hints);
        let keep = !known || context.assign_seq(&mut exchange);
        let recording = Self { context: Arc::clone(context), state: Mutex::new(keep.then_some(exchange)) };
        recording.update(|context, exchange| context.charge_head(exchange, exchange.request.head_bytes()));
        Arc::new(recording)
    }

    /// Copies a frame of the request body.
    pub(crate) fn request_frame(&self, data: &[u8]) {
        self.update(|context, exchange| {
            let body = &mut exchange.request.body.bytes;
            context.accounts.append_bounded(body, data).map_err(Refused::Shed)
        });
    }

    /// Ends the request body.
    pub(crate) fn request_end(&self, end: RequestEnd) {
        self.update(|context, exchange| {
            if exchange.request.body.done {
                return Ok(());
            }
            exchange.request.body.done = true;
            exchange.request.end = end;
            if exchange.seq.is_some() {
                return Ok(());
            }
            let body = &exchange.request.body.bytes;
            if hints::needs_body(&exchange.route) && body.len() <= MAX_SEARCHED_BYTES {
                let found = hints::from_body(&context.session_config, &exchange.route, body);
                exchange.hints.extend(found);
            }
            if context.assign_seq(exchange) { Ok(()) } else { Err(Refused::Counted) }
        });
        self.enqueue_if_done();
    }

    /// Whether the client aborted its own request.
    pub(crate) fn request_aborted(&self) -> bool {
        let state = self.lock();
        state.as_ref().is_some_and(|exchange| matches!(exchange.request.end, RequestEnd::Aborted(_)))
    }

    /// Copies the response head.
    pub(crate) fn response_head(&self, status: StatusCode, headers: &HeaderMap) {
        self.update(|context, exchange| {
            let response = &mut exchange.response;
            response.status = Some(status);
            response.headers = headers.clone();
            response.ending_detail =
                Some("the client disconnected before the response was complete".to_owned());
            exchange.hints.extend(hints::from_response_head(headers));
            context.charge_head(exchange, header_bytes(headers))?;
            if exchange.seq.is_none() && exchange.request.body.done && !context.assign_seq(exchange) {
                return Err(Refused::Counted);
            }
            Ok(())
        });
    }

    /// Copies a frame of the response body.
    pub(crate) fn response_frame(&self, data: &[u8]) {
        self.update(|context, exchange| {
            let now = Instant::now();
            let (timing, response) = (&mut exchange.timing, &mut exchange.response);
            if timing.first_byte_us.is_none() {
                timing.first_byte_us = Some(micros(now - timing.start));
            } else if timing.frame_gaps_us.len() < MAX_FRAME_GAPS && response.is_event_stream() {
                let gap = (now - timing.last_frame).as_micros();
                if timing.frame_gaps_us.len() == timing.frame_gaps_us.capacity() {
                    context.accounts.charge(GAPS_STEP * size_of::<u32>()).map_err(Refused::Shed)?;
                    timing.frame_gaps_us.reserve_exact(GAPS_STEP);
                }
                timing.frame_gaps_us.push(u32::try_from(gap).unwrap_or(u32::MAX));
            }
            timing.last_frame = now;
            context.accounts.append_bounded(&mut response.body.bytes, data).map_err(Refused::Shed)
        });
    }

    /// Ends the response, and with it the exchange.
    pub(crate) fn end(&self, ending: Ending, detail: Option<String>) {
        self.update(|_, exchange| {
            let response = &mut exchange.response;
            if !response.body.done {
                response.body.done = true;
                response.ending = ending;
                response.ending_detail = detail;
                exchange.timing.duration_us = micros(exchange.timing.start.elapsed());
            }
            Ok(())
        });
        self.enqueue_if_done();
    }

    /// Updates the exchange; a refusal ends the capture.
    fn update(&self, change: impl FnOnce(&CaptureContext, &mut CapturedExchange) -> Result<(), Refused>) {
        let mut state = self.lock();
        let Some(exchange) = state.as_mut() else { return };
        let Err(refused) = change(&self.context, exchange) else { return };
        let Some(mut exchange) = state.take() else { return };
        match refused {
            Refused::Counted => self.context.accounts.release(exchange.buffered_bytes()),
            // A loss counts in its session, so the session is looked up first. A shed session counts it by itself.
            Refused::Shed(_) if exchange.seq.is_none() && !self.context.assign_seq(&mut exchange) => {
                self.context.accounts.release(exchange.buffered_bytes());
            }
            Refused::Shed(reason) => self.context.accounts.shed(&exchange, reason),
        }
    }

    fn enqueue_if_done(&self) {
        let mut state = self.lock();
        if state.as_ref().is_some_and(|exchange| exchange.request.body.done && exchange.response.body.done)
            && let Some(exchange) = state.take()
        {
            self.context.enqueue(exchange);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<CapturedExchange>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let exchange = self.lock().take();
        let Some(mut exchange) = exchange else { return };
        if !exchange.response.body.done {
            exchange.timing.duration_us = micros(exchange.timing.start.elapsed());
        }
        let named = hints::strongest(&exchange.hints).is_some();
        if exchange.seq.is_none() && named && !self.context.assign_seq(&mut exchange) {
            return self.context.accounts.release(exchange.buffered_bytes());
        }
        self.context.enqueue(exchange);
    }
}

impl CaptureContext {
    /// Charges a head to the memory of all exchanges.
    fn charge_head(&self, exchange: &mut CapturedExchange, bytes: usize) -> Result<(), Refused> {
        self.accounts.charge(bytes).map_err(Refused::Shed)?;
        exchange.head_bytes += bytes;
        Ok(())
    }

    /// Assigns a sequence number where a hint names the session; `false` where that session is shed. The registry has
    /// counted a shed exchange.
    fn assign_seq(&self, exchange: &mut CapturedExchange) -> bool {
        let Some(session) = hints::chosen_session(&mut exchange.hints, &self.redactor) else { return true };
        exchange.seq = self.accounts.sessions.assign_seq(&session, exchange.timing.started_at);
        exchange.seq.is_some()
    }

    /// Enqueues an exchange for the journal, or sheds it where the queue refuses.
    fn enqueue(&self, mut exchange: Box<CapturedExchange>) {
        exchange.request.body.done = true;
        self.accounts.enqueued();
        if let Err((exchange, reason)) = self.queue.try_send(exchange) {
            self.accounts.dequeued();
            self.accounts.shed(&exchange, reason);
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
