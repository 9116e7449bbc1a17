//! Turns a finished capture into records: unpack, redact, decode, stitch, cut into pieces.
//!
//! Plain computation on one thread; it writes nothing itself. From here on only redacted bytes exist.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use codec::Record;
use schemas::body::Body;
use schemas::exchange::{Ending, Exchange};
use schemas::id::{ExchangeId, SessionId};
use schemas::keys::{Digest, TenantKeys};
use schemas::tools::ToolCatalog;

use crate::capture::sessions::SeqAssignment;
use crate::capture::{self, Capture, Intake, RequestEnd};

use self::decode::{Decoded, Wire};
use self::link::Stitcher;
use self::redact::{Redactor, Tally};

mod decode;
mod decompress;
mod link;
pub(crate) mod redact;
mod sse;

/// Pieces that are remembered of one session; past it all are forgotten and sent again.
const MAX_PIECES_OF_SESSION: usize = 8192;

/// Sessions of which pieces are remembered.
const MAX_SESSIONS: usize = 65_536;

/// Makes records of captures.
#[derive(Debug)]
pub(crate) struct Scribe {
    intake: Arc<Intake>,
    catalog: ToolCatalog,
    keys: TenantKeys,
    stitcher: Stitcher,
    sent: HashMap<SessionId, HashSet<Digest>>,
    incarnation: String,
    nameless: u64,
}

/// The bodies of an exchange, redacted, and how it ended.
struct Bodies {
    request: Vec<u8>,
    response: Vec<u8>,
    notes: Vec<String>,
}

impl Scribe {
    pub(crate) fn new(
        intake: Arc<Intake>,
        catalog: ToolCatalog,
        keys: TenantKeys,
        incarnation: &str,
    ) -> Self {
        let incarnation = incarnation.to_owned();
        Self {
            intake,
            catalog,
            keys,
            stitcher: Stitcher::default(),
            sent: HashMap::new(),
            incarnation,
            nameless: 0,
        }
    }

    /// The records of one exchange: the pieces that its session does not have yet, then itself. `None` where its session
    /// is shed, which is counted already.
    pub(crate) fn write(&mut self, capture: &mut Capture) -> Option<(SeqAssignment, Vec<Record>)> {
        let redactor = Arc::clone(&self.intake.redactor);
        let mut tally = Tally::default();
        let bodies = unpack_and_redact(capture, &redactor, &mut tally);
        let path = redactor.path(&capture.path, &mut tally);
        let mut decoded = decode::decode(&wire(capture, &bodies, &path), &self.catalog, &self.keys);
        let named = capture.ticket.is_some();
        if !named {
            let found = self.stitcher.find_session(&decoded);
            let alone = found.is_none() && decoded.answer.is_none() && decoded.operation.requested.is_empty();
            let session = found.or_else(|| self.session_of_its_own())?;
            let numbered = capture::number_in(&self.intake, capture, &session);
            if alone {
                self.intake.sessions.leave_alone(&session);
            }
            if !numbered {
                return None;
            }
        }
        let ticket = capture.ticket.clone()?;
        let exchange =
            ExchangeId::parse(&format!("{}-{}", ticket.incarnation, ticket.incarnation_seq)).ok()?;
        let links = self.stitcher.link(&ticket.session, &exchange, &decoded, named);
        let (ending, detail) = ending(capture, &mut decoded, bodies.notes);
        redact_operation(&redactor, &mut decoded);
        let mut records = Vec::new();
        let request = self.cut(&ticket.session, &bodies.request, &mut records);
        let response = self.cut(&ticket.session, &bodies.response, &mut records);
        let owner = self.intake.sessions.owner();
        let clues = capture.clues.drain(..).chain(decoded.clues);
        let identifiers = clues.map(|clue| clue.identifier(&redactor)).collect();
        let row = Exchange {
            exchange,
            tenant: owner.tenant.clone(),
            agent: owner.agent.clone(),
            build: owner.build.clone(),
            session: ticket.session.clone(),
            incarnation: ticket.incarnation.clone(),
            seq: ticket.seq,
            incarnation_seq: ticket.incarnation_seq,
            edge: capture.route.edge,
            protocol: decoded.protocol,
            started_at: capture.started_at,
            session_started_at: ticket.session_started_at,
            first_byte_us: capture.first_byte_us,
            duration_us: Some(capture.duration_us),
            frame_gaps_us: std::mem::take(&mut capture.frame_gaps_us),
            ending,
            ending_detail: detail.map(|text| redactor.text(&text, "ending detail", &mut tally)),
            http_method: Some(capture.method.as_str().into()),
            path: Some(path.into()),
            status: capture.status.map(|status| status.as_u16()),
            request_headers: redactor.headers(&capture.request_headers, "request header", &mut tally),
            response_headers: redactor.headers(&capture.response_headers, "response header", &mut tally),
            request,
            response,
            operation: decoded.operation,
            usage: decoded.usage,
            identifiers,
            links,
            redactions: tally.into_rows(),
            envelope: None,
        };
        records.push(Record::Exchange(Box::new(row)));
        Some((ticket, records))
    }

    /// Forgets a closed session; one that comes back sends its pieces again.
    pub(crate) fn forget(&mut self, session: &SessionId) {
        self.sent.remove(session);
        self.stitcher.forget(session);
    }

    /// A session for an exchange that nothing joins to another.
    fn session_of_its_own(&mut self) -> Option<SessionId> {
        self.nameless += 1;
        SessionId::parse(&format!("nameless-{}-{}", self.incarnation, self.nameless)).ok()
    }

    fn cut(&mut self, session: &SessionId, bytes: &[u8], records: &mut Vec<Record>) -> Body {
        if self.sent.len() >= MAX_SESSIONS && !self.sent.contains_key(session) {
            self.sent.clear();
        }
        let sent = self.sent.entry(session.clone()).or_default();
        if sent.len() >= MAX_PIECES_OF_SESSION {
            sent.clear();
        }
        Body::cut(bytes, &self.keys, |(digest, piece)| {
            if sent.insert(digest) {
                records.push(Record::Piece {
                    session: session.clone(),
                    digest,
                    bytes: Bytes::copy_from_slice(piece),
                });
            }
        })
    }
}

fn unpack_and_redact(capture: &mut Capture, redactor: &Redactor, tally: &mut Tally) -> Bodies {
    let mut notes = Vec::new();
    let bound = 8 * (capture.held() + (1 << 20));
    let held = (std::mem::take(&mut capture.request.bytes), std::mem::take(&mut capture.response.bytes));
    let mut unpack = |headers: &hyper::HeaderMap, body: Vec<u8>, which: &str| match decompress::unpack(
        headers, body, bound,
    ) {
        Ok(body) => body,
        Err(problem) => {
            notes.push(format!("the {which} body is not stored: {problem}"));
            Vec::new()
        }
    };
    let request = unpack(&capture.request_headers, held.0, "request");
    let response = unpack(&capture.response_headers, held.1, "response");
    let stream = capture::is_stream(&capture.response_headers);
    Bodies {
        request: redactor.body(request, false, "request body", tally),
        response: redactor.body(response, stream, "response body", tally),
        notes,
    }
}

fn wire<'a>(capture: &'a Capture, bodies: &'a Bodies, path: &'a str) -> Wire<'a> {
    Wire {
        route: &capture.route,
        path: path.split('?').next().unwrap_or_default(),
        request: &bodies.request,
        response: &bodies.response,
        stream: capture::is_stream(&capture.response_headers),
        mcp_session: capture.request_headers.contains_key("mcp-session-id"),
    }
}

/// How the exchange ended, once the protocol's own end is known.
fn ending(capture: &mut Capture, decoded: &mut Decoded, notes: Vec<String>) -> (Ending, Option<String>) {
    let mut details: Vec<String> = capture.ending_detail.take().into_iter().collect();
    let answered = capture.status.is_some_and(|status| status.is_success());
    let ending = match (capture.ending, decoded.finished) {
        (Ending::Cancelled, Some(true)) if answered => {
            details = vec!["the client closed the connection after the whole answer".to_owned()];
            Ending::Complete
        }
        (Ending::Complete, Some(false)) if answered && capture::is_stream(&capture.response_headers) => {
            details.push("the stream ended without its last event".to_owned());
            Ending::Truncated
        }
        (ending, _) => ending,
    };
    match &capture.request_end {
        RequestEnd::Whole => {}
        RequestEnd::NotTaken => details.push("the upstream did not take the whole request".to_owned()),
        RequestEnd::BrokenOff(cause) => details.push(format!("the client broke its request off: {cause}")),
    }
    details.extend(notes);
    details.append(&mut decoded.notes);
    (ending, (!details.is_empty()).then(|| details.join("; ")))
}

/// The decoded texts come from redacted bytes; what was whole only after decoding is caught here.
fn redact_operation(redactor: &Redactor, decoded: &mut Decoded) {
    let operation = &mut decoded.operation;
    let texts = [
        &mut operation.input,
        &mut operation.output,
        &mut operation.result,
        &mut operation.arguments,
        &mut operation.arguments_verbatim,
        &mut operation.tool,
        &mut operation.model,
        &mut operation.method,
    ];
    for text in texts.into_iter().flatten() {
        *text = redactor.quiet(text);
    }
    for call in &mut operation.requested {
        call.arguments = redactor.quiet(&call.arguments);
        call.tool = redactor.quiet(&call.tool);
    }
}
