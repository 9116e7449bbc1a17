//! The copy of one exchange while it passes: what arrived, when, and how it ended.
//!
//! Copying is bounded and never waits. The copy is handed on before the client can see the end of the answer, so
//! that what a client has finished is always in the queue. Nothing here is decoded or redacted.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hyper::{HeaderMap, Method, StatusCode};
use schemas::exchange::Ending;
use schemas::id::SessionId;

use crate::Clock;
use crate::config::{Limits, Route, SessionConfig};
use crate::encode::redact::Redactor;
use crate::journal::Message;

use self::hints::Clue;
use self::sessions::{SeqAssignment, SessionRegistry};

pub(crate) mod hints;
pub(crate) mod sessions;

/// Times between frames that are kept of one stream.
const MAX_FRAME_GAPS: usize = 16_384;

/// A request body above this is not searched for a session's name while it passes.
const MAX_SEARCHED_BYTES: usize = 256 * 1024;

/// From here on, of 255, a growing share of new sessions is shed.
pub(crate) const HALF_FULL: u8 = 128;

/// What every capture shares: where finished ones go, and the bounds.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) sender: SyncSender<Message>,
    pub(crate) sessions: Arc<SessionRegistry>,
    pub(crate) redactor: Arc<Redactor>,
    pub(crate) session_config: SessionConfig,
    pub(crate) limits: Limits,
    pub(crate) clock: ClockCell,
    /// Bytes of bodies in memory.
    pub(crate) held_bytes: AtomicUsize,
    /// Finished exchanges that wait.
    pub(crate) queued: AtomicUsize,
    /// How full the journal is, 0 to 255.
    pub(crate) journal_fill: AtomicU8,
}

/// The clock, with a `Debug` of its own.
pub(crate) struct ClockCell(pub(crate) Clock);

impl std::fmt::Debug for ClockCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl Intake {
    pub(crate) fn now(&self) -> i64 {
        (self.clock.0)()
    }

    /// Bytes are no longer held.
    pub(crate) fn release(&self, bytes: usize) {
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Sheds a growing share of new sessions once anything is more than half full.
    fn weigh_pressure(&self) {
        let fill = |used: usize, bound: usize| used.saturating_mul(255) / bound.max(1);
        let memory = fill(self.held_bytes.load(Ordering::Relaxed), self.limits.memory_bytes.as_len());
        let queue = fill(self.queued.load(Ordering::Relaxed), self.limits.queue);
        let journal = usize::from(self.journal_fill.load(Ordering::Relaxed));
        let above_half = memory.max(queue).max(journal).saturating_sub(usize::from(HALF_FULL)) * 2;
        self.sessions.set_pressure(u8::try_from(above_half).unwrap_or(u8::MAX));
    }
}

/// One direction of an exchange.
#[derive(Debug, Default)]
pub(crate) struct Half {
    /// Its body, as it passed.
    pub(crate) bytes: Vec<u8>,
    /// Nothing more comes.
    pub(crate) done: bool,
}

/// How a request's body ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestEnd {
    /// All of it passed.
    Whole,
    /// The upstream did not take all of it.
    NotTaken,
    /// The client broke it off, with what was said of it.
    BrokenOff(String),
}

/// One exchange.
#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) route: Arc<Route>,
    pub(crate) ticket: Option<SeqAssignment>,
    pub(crate) clues: Vec<Clue>,
    pub(crate) started_at: i64,
    start: Instant,
    pub(crate) method: Method,
    /// Path and query without the session's part.
    pub(crate) path: String,
    pub(crate) request_headers: HeaderMap,
    pub(crate) request: Half,
    pub(crate) request_end: RequestEnd,
    pub(crate) status: Option<StatusCode>,
    pub(crate) response_headers: HeaderMap,
    pub(crate) response: Half,
    pub(crate) first_byte_us: Option<u64>,
    last_frame: Instant,
    pub(crate) frame_gaps_us: Vec<u32>,
    pub(crate) duration_us: u64,
    pub(crate) ending: Ending,
    pub(crate) ending_detail: Option<String>,
}

/// The head of a request, as the tap read it.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) route: Arc<Route>,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// The session's name from the path, where it stood there.
    pub(crate) path_session: Option<String>,
}

/// The shared handle of a running capture; the last one to be dropped hands it on as it is.
#[derive(Debug)]
pub(crate) struct Recording {
    intake: Arc<Intake>,
    state: Mutex<Option<Box<Capture>>>,
}

impl Recording {
    /// Begins; the exchange is counted from here on.
    pub(crate) fn start(intake: &Arc<Intake>, head: RequestHead) -> Arc<Self> {
        intake.sessions.count_started();
        intake.weigh_pressure();
        let now = intake.now();
        let start = Instant::now();
        let clues = hints::from_head(&intake.session_config, &head.headers, head.path_session.as_deref());
        let mut capture = Box::new(Capture {
            route: head.route,
            ticket: None,
            clues,
            started_at: now,
            start,
            method: head.method,
            path: head.path,
            request_headers: head.headers,
            request: Half::default(),
            request_end: RequestEnd::NotTaken,
            status: None,
            response_headers: HeaderMap::new(),
            response: Half::default(),
            first_byte_us: None,
            last_frame: start,
            frame_gaps_us: Vec::new(),
            duration_us: 0,
            ending: Ending::Cancelled,
            ending_detail: Some("the client went away before the answer began".to_owned()),
        });
        let settled = hints::settled_by_head(&capture.route, &capture.clues);
        let keep = !settled || number(intake, &mut capture);
        Arc::new(Self { intake: Arc::clone(intake), state: Mutex::new(keep.then_some(capture)) })
    }

    /// A frame of the request passed.
    pub(crate) fn request_frame(&self, data: &[u8]) {
        self.with(|intake, capture| take(intake, &mut capture.request, data));
    }

    /// The request is over.
    pub(crate) fn request_end(&self, end: RequestEnd) {
        self.with(|intake, capture| {
            if capture.request.done {
                return Ok(());
            }
            capture.request.done = true;
            capture.request_end = end;
            if capture.ticket.is_some() {
                return Ok(());
            }
            if hints::needs_body(&capture.route) && capture.request.bytes.len() <= MAX_SEARCHED_BYTES {
                let found = hints::from_body(&intake.session_config, &capture.route, &capture.request.bytes);
                capture.clues.extend(found);
            }
            if number(intake, capture) { Ok(()) } else { Err(None) }
        });
        self.hand_on_if_done();
    }

    /// Whether the client broke off its own request.
    pub(crate) fn request_broke(&self) -> bool {
        let state = self.lock();
        state.as_ref().is_some_and(|capture| matches!(capture.request_end, RequestEnd::BrokenOff(_)))
    }

    /// The head of the answer arrived.
    pub(crate) fn response_head(&self, status: StatusCode, headers: &HeaderMap) {
        self.with(|intake, capture| {
            capture.status = Some(status);
            capture.response_headers = headers.clone();
            capture.ending_detail = Some("the client went away before the answer was whole".to_owned());
            capture.clues.extend(hints::from_response_head(headers));
            if capture.ticket.is_none() && capture.request.done && !number(intake, capture) {
                return Err(None);
            }
            Ok(())
        });
    }

    /// A frame of the answer passed.
    pub(crate) fn response_frame(&self, data: &[u8]) {
        self.with(|intake, capture| {
            let now = Instant::now();
            if capture.first_byte_us.is_none() {
                capture.first_byte_us = Some(micros(now - capture.start));
            } else if capture.frame_gaps_us.len() < MAX_FRAME_GAPS && is_stream(&capture.response_headers) {
                let gap = u32::try_from((now - capture.last_frame).as_micros()).unwrap_or(u32::MAX);
                capture.frame_gaps_us.push(gap);
            }
            capture.last_frame = now;
            take(intake, &mut capture.response, data)
        });
    }

    /// The exchange is over.
    pub(crate) fn end(&self, ending: Ending, detail: Option<String>) {
        self.with(|_, capture| {
            if !capture.response.done {
                capture.response.done = true;
                capture.ending = ending;
                capture.ending_detail = detail;
                capture.duration_us = micros(capture.start.elapsed());
            }
            Ok(())
        });
        self.hand_on_if_done();
    }

    /// Works on the capture; an error sheds it, with the reason where it is not counted yet.
    fn with(&self, work: impl FnOnce(&Intake, &mut Capture) -> Result<(), Option<&'static str>>) {
        let mut state = self.lock();
        let Some(capture) = state.as_mut() else { return };
        let Err(reason) = work(&self.intake, capture) else { return };
        let Some(mut capture) = state.take() else { return };
        // A loss is told of its session where that can be known by now.
        if capture.ticket.is_none() && reason.is_some() && !number(&self.intake, &mut capture) {
            return self.intake.release(capture.held());
        }
        shed(&self.intake, &capture, reason);
    }

    fn hand_on_if_done(&self) {
        let mut state = self.lock();
        if state.as_ref().is_some_and(|capture| capture.request.done && capture.response.done)
            && let Some(capture) = state.take()
        {
            hand_on(&self.intake, capture);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Capture>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let capture = self.lock().take();
        let Some(mut capture) = capture else { return };
        if !capture.response.done {
            capture.duration_us = micros(capture.start.elapsed());
        }
        if capture.ticket.is_none()
            && hints::choose(&capture.clues).is_some()
            && !number(&self.intake, &mut capture)
        {
            return self.intake.release(capture.held());
        }
        hand_on(&self.intake, capture);
    }
}

impl Capture {
    /// Bytes of bodies that it holds.
    pub(crate) fn held(&self) -> usize {
        self.request.bytes.len() + self.response.bytes.len()
    }
}

/// Whether the answer is a stream of events.
pub(crate) fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(hyper::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

/// Gives the exchange its number where its session is known; `false` where the session is shed.
fn number(intake: &Intake, capture: &mut Capture) -> bool {
    let Some(session) = hints::chosen_session(&mut capture.clues, &intake.redactor) else { return true };
    number_in(intake, capture, &session)
}

/// Gives the exchange its number in this session; `false` where the session is shed.
pub(crate) fn number_in(intake: &Intake, capture: &mut Capture, session: &SessionId) -> bool {
    capture.ticket = intake.sessions.begin(session, capture.started_at);
    capture.ticket.is_some()
}

fn take(intake: &Intake, half: &mut Half, data: &[u8]) -> Result<(), Option<&'static str>> {
    if half.bytes.len() + data.len() > intake.limits.body_bytes.as_len() {
        return Err(Some("body too large"));
    }
    let held = intake.held_bytes.fetch_add(data.len(), Ordering::Relaxed) + data.len();
    half.bytes.extend_from_slice(data);
    if held > intake.limits.memory_bytes.as_len() { Err(Some("memory full")) } else { Ok(()) }
}

fn hand_on(intake: &Intake, mut capture: Box<Capture>) {
    capture.request.done = true;
    intake.queued.fetch_add(1, Ordering::Relaxed);
    let refused = match intake.sender.try_send(Message::Exchange(capture)) {
        Ok(()) => return,
        Err(TrySendError::Full(message)) => (message, "queue full"),
        Err(TrySendError::Disconnected(message)) => (message, "journal failed"),
    };
    intake.queued.fetch_sub(1, Ordering::Relaxed);
    if let (Message::Exchange(capture), reason) = refused {
        shed(intake, &capture, Some(reason));
    }
}

/// Lets go of a capture; with a reason its loss is counted, without one it already is.
pub(crate) fn shed(intake: &Intake, capture: &Capture, reason: Option<&'static str>) {
    intake.release(capture.held());
    match (&capture.ticket, reason) {
        (Some(ticket), Some(reason)) => intake.sessions.shed(&ticket.session, reason, intake.now()),
        (None, Some(reason)) => intake.sessions.shed_nameless(reason),
        (_, None) => {}
    }
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
