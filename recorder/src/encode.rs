//! Encoder: turns a captured exchange into journal records in one pass.
//!
//! The steps, in this order: decompress both bodies, redact everything that will be stored, decode the redacted bodies,
//! link the exchange to earlier ones, split the bodies into chunks. Chunk records name the session, and an exchange
//! without a session hint gets its session by linking; so splitting comes last. After the redaction no step sees an
//! unredacted byte, except for two texts that arise later and are redacted there: session hints and the ending detail.
//!
//! Encoding is plain computation on the journal thread and performs no I/O.

use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::Record;
use schemas::exchange::{Ending, Exchange, Header, Operation};
use schemas::id::{ExchangeId, SessionId};
use schemas::keys::TenantKeys;
use schemas::tools::ToolCatalog;

use self::chunk::Chunker;
use self::decode::decoded::{DecodeInput, Decoded};
use self::decompress::decompress;
use self::link::SessionLinker;
use self::memory::{EncodeMemory, Extent};
use self::redact::Redactor;
use self::redact::counts::RedactionCounts;
use crate::capture::accounts::CaptureAccounts;
use crate::capture::exchange::{CapturedExchange, RequestEnd};
use crate::capture::sessions::SeqAssignment;

mod chunk;
mod decode;
mod decompress;
mod link;
mod memory;
pub(crate) mod redact;

/// Names of the bodies in notes and redaction counts.
const REQUEST_BODY: &str = "request body";
const RESPONSE_BODY: &str = "response body";

/// Longest time to redact the bodies of one exchange. Past it the exchange is stored without the bodies that are not redacted
/// yet, so that one exchange cannot hold up the others.
const MAX_REDACT_TIME: Duration = Duration::from_secs(2);

/// Turns captured exchanges into records. Keeps the linkable parts and the stored chunks of the open sessions.
#[derive(Debug)]
pub(crate) struct ExchangeEncoder {
    accounts: Arc<CaptureAccounts>,
    redactor: Arc<Redactor>,
    keys: TenantKeys,
    catalog: ToolCatalog,
    linker: SessionLinker,
    chunker: Chunker,
    incarnation: String,
    /// Anonymous sessions so far.
    anonymous: u64,
    /// Bodies without a place since the last [`Self::take_losses`].
    losses: BodyLosses,
}

/// Numbers of bodies that are missing in stored exchanges, or that no decoder has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BodyLosses {
    /// Bodies that are not stored.
    pub(crate) not_stored: u64,
    /// Exchanges whose bodies are stored and not decoded, because their values need too much memory.
    pub(crate) not_decoded: u64,
}

/// Redacted parts of an exchange.
struct Redacted {
    path: String,
    request: Vec<u8>,
    response: Vec<u8>,
    request_headers: Vec<Header>,
    response_headers: Vec<Header>,
    counts: RedactionCounts,
    extent: Extent,
    losses: BodyLosses,
    /// Bodies that cannot be stored or decoded, for the ending detail.
    notes: Vec<String>,
}

impl ExchangeEncoder {
    /// `incarnation` names this run of the recorder; the ids of anonymous sessions contain it.
    pub(crate) fn new(
        accounts: Arc<CaptureAccounts>,
        redactor: Arc<Redactor>,
        keys: TenantKeys,
        catalog: ToolCatalog,
        incarnation: &str,
    ) -> Self {
        Self {
            accounts,
            redactor,
            chunker: Chunker::new(keys.clone()),
            keys,
            catalog,
            linker: SessionLinker::default(),
            incarnation: incarnation.to_owned(),
            anonymous: 0,
            losses: BodyLosses::default(),
        }
    }

    /// Returns the losses since the last call.
    pub(crate) fn take_losses(&mut self) -> BodyLosses {
        std::mem::take(&mut self.losses)
    }

    /// The records of one exchange: the chunks that its session does not have yet, then the exchange. Takes the bodies
    /// out of the capture.
    ///
    /// Returns `None` for an exchange of a shed session; the registry has counted it.
    pub(crate) fn encode(&mut self, captured: &mut CapturedExchange) -> Option<(SeqAssignment, Vec<Record>)> {
        let accounts = Arc::clone(&self.accounts);
        let mut memory = EncodeMemory::new(&accounts);
        let mut redacted = decompress_and_redact(captured, &self.redactor, &mut memory);
        self.losses.not_stored += redacted.losses.not_stored;
        self.losses.not_decoded += redacted.losses.not_decoded;
        let mut decoded = match redacted.extent {
            Extent::Decoded => decode::decode(&decode_input(captured, &redacted), &self.catalog, &self.keys),
            Extent::Stored | Extent::Dropped => Decoded::opaque(),
        };
        if decoded.joins_events {
            redact_joined(&self.redactor, &mut decoded.operation);
        }
        let named = captured.seq.is_some();
        if !named {
            captured.seq = self.assign_anonymous(&decoded, captured.timing.started_at);
        }
        let assigned = captured.seq.clone()?;
        let exchange =
            ExchangeId::parse(&format!("{}-{}", assigned.incarnation, assigned.incarnation_seq)).ok()?;
        let links = self.linker.link(&assigned.session, &exchange, &decoded, named);
        let mut records = Vec::new();
        let request = self.chunker.split(&assigned.session, &redacted.request, &mut records);
        let response = self.chunker.split(&assigned.session, &redacted.response, &mut records);
        let (ending, detail) = ending(captured, &mut decoded, redacted.notes);
        let detail = detail.map(|text| self.redactor.text(&text, "ending detail", &mut redacted.counts));
        let hints = captured.hints.drain(..).chain(decoded.hints);
        let identifiers = hints.map(|hint| hint.into_identifier(&self.redactor)).collect();
        let scope = self.accounts.sessions.scope();
        let row = Exchange {
            exchange,
            tenant: scope.tenant.clone(),
            agent: scope.agent.clone(),
            build: scope.build.clone(),
            session: assigned.session.clone(),
            incarnation: assigned.incarnation.clone(),
            seq: assigned.seq,
            incarnation_seq: assigned.incarnation_seq,
            edge: captured.route.edge,
            protocol: decoded.protocol,
            started_at: captured.timing.started_at,
            session_started_at: assigned.session_started_at,
            first_byte_us: captured.timing.first_byte_us,
            duration_us: Some(captured.timing.duration_us),
            frame_gaps_us: std::mem::take(&mut captured.timing.frame_gaps_us),
            ending,
            ending_detail: detail,
            http_method: Some(captured.request.method.as_str().into()),
            path: Some(redacted.path.into()),
            status: captured.response.status.map(|status| status.as_u16()),
            request_headers: redacted.request_headers,
            response_headers: redacted.response_headers,
            request,
            response,
            operation: decoded.operation,
            usage: decoded.usage,
            identifiers,
            links,
            redactions: redacted.counts.into_rows(),
        };
        records.push(Record::Exchange(Box::new(row)));
        Some((assigned, records))
    }

    /// Forgets a closed session.
    pub(crate) fn forget(&mut self, session: &SessionId) {
        self.chunker.forget(session);
        self.linker.forget(session);
    }

    /// Assigns an exchange without a session hint to the session that its content continues, else to a new one.
    /// Returns `None` where that session is shed.
    fn assign_anonymous(&mut self, decoded: &Decoded, started_at: i64) -> Option<SeqAssignment> {
        let found = self.linker.find_session(decoded);
        // Without a response and without requested calls, no later exchange can link to this one.
        let standalone =
            found.is_none() && decoded.answer.is_none() && decoded.operation.requested.is_empty();
        let session = match found {
            Some(session) => session,
            None => {
                self.anonymous += 1;
                SessionId::parse(&format!("anonymous-{}-{}", self.incarnation, self.anonymous)).ok()?
            }
        };
        let assigned = self.accounts.sessions.assign_seq(&session, started_at);
        if standalone {
            self.accounts.sessions.mark_standalone(&session);
        }
        assigned
    }
}

/// Decompresses both bodies and redacts everything of the exchange that will be stored.
fn decompress_and_redact(
    captured: &mut CapturedExchange,
    redactor: &Redactor,
    memory: &mut EncodeMemory<'_>,
) -> Redacted {
    let is_event_stream = captured.response.is_event_stream();
    let (request, response) = (&mut captured.request, &mut captured.response);
    let (mut notes, mut losses) = (Vec::new(), BodyLosses::default());
    let mut drop_body = |which: &str, problem: &str| {
        losses.not_stored += 1;
        notes.push(format!("the {which} is not stored: {problem}"));
        Vec::new()
    };
    let mut plain = |headers: &hyper::HeaderMap, body: &mut Vec<u8>, which: &str| {
        decompress(headers, std::mem::take(body), memory).unwrap_or_else(|problem| drop_body(which, &problem))
    };
    let mut bodies = [
        plain(&request.headers, &mut request.body.bytes, REQUEST_BODY),
        plain(&response.headers, &mut response.body.bytes, RESPONSE_BODY),
    ];
    let extent = memory.charge_work([&bodies[0], &bodies[1]], is_event_stream);
    if extent == Extent::Dropped {
        for (body, which) in
            bodies.iter_mut().zip([REQUEST_BODY, RESPONSE_BODY]).filter(|(body, _)| !body.is_empty())
        {
            *body = drop_body(which, "limits.memory-bytes has no room to redact it");
        }
    }
    let mut counts = RedactionCounts::default();
    let started = Instant::now();
    let [request_body, response_body] = bodies;
    let request_body = redactor.body(request_body, false, REQUEST_BODY, &mut counts);
    let response_body = if started.elapsed() > MAX_REDACT_TIME && !response_body.is_empty() {
        drop_body(RESPONSE_BODY, "redacting the request body took too long")
    } else {
        redactor.body(response_body, is_event_stream, RESPONSE_BODY, &mut counts)
    };
    if extent == Extent::Stored {
        losses.not_decoded += 1;
        notes.push("the bodies are not decoded: limits.memory-bytes has no room for their values".to_owned());
    }
    Redacted {
        path: redactor.path(&request.path, &mut counts),
        request: request_body,
        response: response_body,
        request_headers: redactor.headers(&request.headers, "request header", &mut counts),
        response_headers: redactor.headers(&response.headers, "response header", &mut counts),
        counts,
        extent,
        losses,
        notes,
    }
}

fn decode_input<'a>(captured: &'a CapturedExchange, redacted: &'a Redacted) -> DecodeInput<'a> {
    DecodeInput {
        route: &captured.route,
        path: redacted.path.split('?').next().unwrap_or_default(),
        request: &redacted.request,
        response: &redacted.response,
        is_event_stream: captured.response.is_event_stream(),
        in_mcp_session: captured.request.headers.contains_key("mcp-session-id"),
    }
}

/// Redacts the texts that decoding joined from several events. A secret can be complete in such a text although each
/// event has only a part of it.
fn redact_joined(redactor: &Redactor, operation: &mut Operation) {
    for text in [&mut operation.output, &mut operation.result].into_iter().flatten() {
        *text = redactor.redact_uncounted(text);
    }
    for call in &mut operation.requested {
        call.arguments = redactor.redact_uncounted(&call.arguments);
        call.tool = redactor.redact_uncounted(&call.tool);
    }
}

/// The ending of the exchange, corrected by the protocol's own end of the response.
fn ending(
    captured: &mut CapturedExchange,
    decoded: &mut Decoded,
    notes: Vec<String>,
) -> (Ending, Option<String>) {
    let response = &mut captured.response;
    let mut details: Vec<String> = response.ending_detail.take().into_iter().collect();
    let succeeded = response.status.is_some_and(|status| status.is_success());
    let ending = match (response.ending, decoded.finished) {
        (Ending::Cancelled, Some(true)) if succeeded => {
            details = vec!["the client disconnected after the complete response".to_owned()];
            Ending::Complete
        }
        (Ending::Complete, Some(false)) if succeeded && response.is_event_stream() => {
            details.push("the stream ended without its final event".to_owned());
            Ending::Truncated
        }
        (ending, _) => ending,
    };
    match &captured.request.end {
        RequestEnd::Complete => {}
        RequestEnd::NotRead => details.push("the upstream did not read the complete request".to_owned()),
        RequestEnd::Aborted(cause) => details.push(format!("the client aborted its request: {cause}")),
    }
    details.extend(notes);
    details.append(&mut decoded.notes);
    (ending, (!details.is_empty()).then(|| details.join("; ")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::id::TenantId;
    use schemas::keys::RootKey;
    use serde_json::json;

    use super::*;
    use crate::config::Config;

    const API_KEY: &str = "sk-proj-Abcdefgh12345678ijkl";
    const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMIIEabcdefgh";

    /// Request and response bodies that hold `text` in one place, with the protocol that decodes them.
    fn bodies(shape: usize, text: &str, split: usize) -> (&'static str, String, String) {
        let split = text.char_indices().nth(split).map_or(text.len(), |(at, _)| at);
        let (one, two) = text.split_at(split);
        let parts = json!([{"type": "text", "text": one}, {"type": "text", "text": two}]);
        let chat = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "f", "arguments": {"z": text, "a": [text]}}});
        let (protocol, request, response) = match shape {
            0 => ("openai-chat", chat, json!({"choices": [{"message": {"content": text}}]})),
            1 => ("openai-chat", chat, json!({"choices": [{"message": {"content": parts}}]})),
            2 => {
                let function = json!({"name": text, "arguments": json!({"k": text}).to_string()});
                (
                    "openai-chat",
                    chat,
                    json!({"choices": [{"message": {"tool_calls": [{"function": function}]}}]}),
                )
            }
            3 => ("mcp", call, json!({"jsonrpc": "2.0", "id": 1, "result": {"content": parts}})),
            4 => ("mcp", call, json!({"jsonrpc": "2.0", "id": 1, "error": {"message": text, "code": 7}})),
            _ => {
                let response = json!({"a": {"z": text, "b": parts}});
                return ("generic-json\"\noutput = \"/a", format!("not JSON: {text}"), response.to_string());
            }
        };
        (protocol, request.to_string(), response.to_string())
    }

    fn texts(operation: &Operation) -> Vec<&str> {
        let single = [
            &operation.input,
            &operation.output,
            &operation.result,
            &operation.arguments,
            &operation.arguments_verbatim,
            &operation.tool,
            &operation.model,
            &operation.method,
        ];
        let calls = operation.requested.iter().flat_map(|call| [&call.arguments, &call.tool]);
        single.into_iter().flatten().chain(calls).map(String::as_str).collect()
    }

    proptest! {
        /// A text from one place of a redacted body needs no second search.
        #[test]
        fn a_redacted_body_decodes_to_texts_without_secrets(
            shape in 0..6_usize,
            private in any::<bool>(),
            before in "[a-z\\\\\"/\n\t é]{0,6}",
            after in "[ a-z\"\\\\]{0,6}",
            split in 0..40_usize,
            escape in any::<bool>(),
        ) {
            let secret = if private { PRIVATE_KEY } else { API_KEY };
            let (protocol, mut request, mut response) = bodies(shape, &format!("{before}{secret}{after}"), split);
            if escape {
                request = request.replace("sk-", "\\u0073k-");
                response = response.replace("sk-", "\\u0073k-");
            }
            let text = format!(
                "agent = \"a\"\nstore = \"s\"\nstate-dir = \"d\"\n[[route]]\nedge = \"tool\"\nlisten = \"127.0.0.1:0\"\nupstream = \"http://x\"\nprotocol = \"{protocol}\"\n"
            );
            let route = Config::parse(&text).expect("a valid configuration").routes.remove(0);
            let keys = RootKey::new([2; 32]).tenant(&TenantId::parse("t").expect("id"));
            let redactor = Redactor::new(keys.clone(), vec![]);
            let mut counts = RedactionCounts::default();
            let request = redactor.body(request.into_bytes(), false, "request body", &mut counts);
            let response = redactor.body(response.into_bytes(), false, "response body", &mut counts);
            let input = DecodeInput {
                route: &route,
                path: "/v1/f",
                request: &request,
                response: &response,
                is_event_stream: false,
                in_mcp_session: false,
            };
            let decoded = decode::decode(&input, &ToolCatalog::default(), &keys);
            prop_assert!(!decoded.joins_events);
            for text in texts(&decoded.operation) {
                prop_assert_eq!(&redactor.redact_uncounted(text), text);
            }
        }
    }

    #[test]
    fn a_secret_that_only_the_joined_stream_has_is_redacted() {
        let keys = RootKey::new([2; 32]).tenant(&TenantId::parse("t").expect("id"));
        let redactor = Redactor::new(keys.clone(), vec![]);
        let mut operation = Operation::new(schemas::exchange::OperationKind::Chat);
        operation.output = Some(format!("see {API_KEY}"));
        redact_joined(&redactor, &mut operation);
        let token = keys.token("openai_key", API_KEY.as_bytes());
        assert_eq!(operation.output, Some(format!("see {token}")));
    }
}
