//! Which session an exchange belongs to: the ladder of identifiers, strongest first.
//!
//! Every identifier that is seen is kept with its source and confidence, chosen or not, so that sessions can be
//! stitched again later. Joining by content, where no identifier exists, is in `stitch`.

use hyper::HeaderMap;
use schemas::exchange::{Confidence, Edge, Identifier};
use schemas::id::SessionId;
use serde_json::Value;

use crate::config::{Route, RouteProtocol, SessionConfig};
use crate::encode::redact::Redactor;

/// Headers by which well-known clients and gateways name a session.
const KNOWN_HEADERS: [&str; 12] = [
    "agent-session-id",
    "x-claude-code-session-id",
    "session-id",
    "thread-id",
    "x-client-session-id",
    "x-interaction-id",
    "x-opencode-session",
    "x-kilocode-taskid",
    "x-cagent-session-id",
    "x-mux-workspace-id",
    "helicone-session-id",
    "x-litellm-session-id",
];

/// Identifiers that are kept of one exchange.
const MAX_CLUES: usize = 32;

/// How strong an identifier is; the smallest wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rung {
    /// The configured header.
    Header,
    /// The configured path segment.
    Path,
    /// The configured baggage entry.
    Baggage,
    /// The configured place in the body.
    Body,
    /// A header of a well-known client.
    KnownHeader,
    /// The trace id.
    Trace,
    /// The MCP session.
    McpSession,
    /// Never names a session (a request id).
    Never,
}

impl Rung {
    fn confidence(self) -> Confidence {
        match self {
            Self::Header | Self::Path | Self::Baggage | Self::Body => Confidence::Certain,
            Self::KnownHeader | Self::Trace | Self::McpSession => Confidence::Likely,
            Self::Never => Confidence::Weak,
        }
    }
}

/// An identifier that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clue {
    pub(crate) rung: Rung,
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) source: &'static str,
    pub(crate) chosen: bool,
}

impl Clue {
    fn new(rung: Rung, name: &str, value: &str, source: &'static str) -> Self {
        Self { rung, name: name.to_owned(), value: value.to_owned(), source, chosen: false }
    }

    /// An identifier of the answer's body that never names the session.
    pub(crate) fn of_answer(name: &str, value: &str) -> Self {
        Self::new(Rung::Never, name, value, "response body")
    }

    pub(crate) fn identifier(self, redactor: &Redactor) -> Identifier {
        Identifier {
            value: redactor.quiet(&self.value).into(),
            name: self.name.into(),
            source: self.source.into(),
            confidence: self.rung.confidence(),
            chosen: self.chosen,
        }
    }
}

/// Reads the head of a request.
pub(crate) fn from_head(
    config: &SessionConfig,
    headers: &HeaderMap,
    path_session: Option<&str>,
) -> Vec<Clue> {
    const SOURCE: &str = "request header";
    let mut clues = Vec::new();
    let text =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty());
    if let Some(value) = text(config.header.as_str()) {
        clues.push(Clue::new(Rung::Header, config.header.as_str(), value, SOURCE));
    }
    if let Some(value) = path_session {
        clues.push(Clue::new(Rung::Path, "path", &percent_decode(value), "path"));
    }
    for value in headers.get_all("baggage") {
        baggage(config, value.to_str().unwrap_or_default(), SOURCE, &mut clues);
    }
    for name in KNOWN_HEADERS.iter().filter(|name| **name != config.header.as_str()) {
        if let Some(value) = text(name) {
            clues.push(Clue::new(Rung::KnownHeader, name, value, SOURCE));
        }
    }
    clues.extend(text("traceparent").and_then(|value| trace(value, SOURCE)));
    if let Some(value) = text("mcp-session-id") {
        clues.push(Clue::new(Rung::McpSession, "mcp-session-id", value, SOURCE));
    }
    if let Some(value) = text("x-request-id") {
        clues.push(Clue::new(Rung::Never, "x-request-id", value, SOURCE));
    }
    clues.truncate(MAX_CLUES);
    clues
}

/// Reads the head of an answer.
pub(crate) fn from_response_head(headers: &HeaderMap) -> Vec<Clue> {
    let rungs =
        [("mcp-session-id", Rung::McpSession), ("x-request-id", Rung::Never), ("request-id", Rung::Never)];
    let clue = |(name, rung)| {
        let value = headers.get(name)?.to_str().ok().filter(|text| !text.is_empty())?;
        Some(Clue::new(rung, name, value, "response header"))
    };
    rungs.into_iter().filter_map(clue).collect()
}

/// Whether this route's requests may name the session in their body.
pub(crate) fn needs_body(route: &Route) -> bool {
    match route.protocol {
        RouteProtocol::Mcp => true,
        RouteProtocol::Auto => route.edge == Edge::Tool,
        RouteProtocol::GenericJson => route.session.is_some(),
        RouteProtocol::OpenaiChat | RouteProtocol::Opaque => false,
    }
}

/// Whether nothing that comes later can be stronger than what the head says.
pub(crate) fn settled_by_head(route: &Route, clues: &[Clue]) -> bool {
    choose(clues).is_some_and(|best| clues[best].rung <= Rung::Baggage || !needs_body(route))
}

/// Reads the body of a request: the configured pointer, and what MCP carries in `_meta`.
pub(crate) fn from_body(config: &SessionConfig, route: &Route, body: &[u8]) -> Vec<Clue> {
    const SOURCE: &str = "request body";
    let mut clues = Vec::new();
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return clues };
    if let Some(pointer) = &route.session {
        let found = match value.pointer(pointer.as_str()) {
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            Some(_) | None => None,
        };
        clues.extend(found.map(|text| Clue::new(Rung::Body, pointer.as_str(), &text, SOURCE)));
    }
    if let Some(meta) =
        value.pointer("/params/_meta").filter(|_| route.protocol != RouteProtocol::GenericJson)
    {
        if let Some(text) = meta.get("baggage").and_then(Value::as_str) {
            baggage(config, text, SOURCE, &mut clues);
        }
        clues.extend(meta.get("traceparent").and_then(Value::as_str).and_then(|text| trace(text, SOURCE)));
    }
    clues.truncate(MAX_CLUES);
    clues
}

/// Which clue names the session: the strongest, of equals the first.
pub(crate) fn choose(clues: &[Clue]) -> Option<usize> {
    let usable = clues
        .iter()
        .enumerate()
        .filter(|(_, clue)| clue.rung != Rung::Never && !clue.value.trim().is_empty());
    usable.min_by_key(|(place, clue)| (clue.rung, *place)).map(|(place, _)| place)
}

/// Marks the chosen clue and makes a session id of it.
pub(crate) fn chosen_session(clues: &mut [Clue], redactor: &Redactor) -> Option<SessionId> {
    let clue = clues.get_mut(choose(clues)?)?;
    clue.chosen = true;
    let name = redactor.quiet(clue.value.trim());
    SessionId::parse(&name).or_else(|_| SessionId::parse(&redactor.token("session", &name))).ok()
}

/// W3C Baggage: `key=value;property,key=value`, values percent-encoded.
fn baggage(config: &SessionConfig, text: &str, source: &'static str, clues: &mut Vec<Clue>) {
    for member in text.split(',') {
        let Some((key, value)) = member.split(';').next().unwrap_or_default().split_once('=') else {
            continue;
        };
        let value = percent_decode(value.trim());
        if key.trim() == config.baggage_key && !value.is_empty() {
            clues.push(Clue::new(Rung::Baggage, &format!("baggage:{}", config.baggage_key), &value, source));
        }
    }
}

/// W3C Trace Context: the trace id of `version-traceid-parent-flags`.
fn trace(text: &str, source: &'static str) -> Option<Clue> {
    let id = text.split('-').nth(1)?;
    let good = id.len() == 32
        && id.bytes().all(|byte| byte.is_ascii_hexdigit())
        && id.bytes().any(|byte| byte != b'0');
    good.then(|| Clue::new(Rung::Trace, "traceparent", &id.to_ascii_lowercase(), source))
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while place < bytes.len() {
        let code = bytes.get(place + 1..place + 3).filter(|_| bytes[place] == b'%');
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        out.push(code.unwrap_or(bytes[place]));
        place += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use schemas::id::TenantId;
    use schemas::keys::RootKey;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().expect("name"), value.parse().expect("value")))
            .collect()
    }

    fn redactor() -> Redactor {
        Redactor::new(RootKey::new([1; 32]).tenant(&TenantId::parse("t").expect("id")), vec![])
    }

    fn session(pairs: &[(&'static str, &str)]) -> Option<String> {
        let mut clues = from_head(&SessionConfig::default(), &headers(pairs), None);
        chosen_session(&mut clues, &redactor()).map(|id| id.as_str().to_owned())
    }

    #[test]
    fn the_strongest_identifier_wins_and_all_are_kept() {
        let trace = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let baggage = ("baggage", "a=b, session.id=chat%2042;p=1");
        assert_eq!(session(&[trace]).as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(session(&[trace, baggage]).as_deref(), Some("chat 42"));
        assert_eq!(session(&[trace, baggage, ("x-session-id", "s")]).as_deref(), Some("s"));
        assert_eq!(from_head(&SessionConfig::default(), &headers(&[trace, baggage]), None).len(), 2);
        assert_eq!(session(&[("traceparent", "00-000-0-0"), ("x-request-id", "r")]), None);
    }

    #[test]
    fn a_secret_or_an_endless_name_becomes_a_token() {
        let name = session(&[("x-session-id", "sk-abcdefgh12345678abcd")]).expect("a name");
        assert!(name.starts_with("⟦openai_key:"), "{name}");
        let name = session(&[("x-session-id", &"x".repeat(600))]).expect("a name");
        assert!(name.starts_with("⟦session:"), "{name}");
    }
}
