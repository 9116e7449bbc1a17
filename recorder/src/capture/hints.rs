//! Session hints: every identifier in an exchange that may name its session, strongest first.
//!
//! The recorder keeps every hint with its location and confidence, chosen or not, so that sessions can be linked again
//! later. Exchanges without a hint are linked by content, in `encode::link`.

use hyper::HeaderMap;
use percent_encoding::percent_decode_str;
use schemas::exchange::{Confidence, Edge, Identifier};
use schemas::id::SessionId;
use serde_json::Value;
use wire::trace_context;

use crate::config::{Route, RouteProtocol, SessionConfig};
use crate::encode::redact::Redactor;

/// Headers in which known clients and gateways name a session.
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

/// Hints that the recorder keeps from one head or body.
const MAX_HINTS: usize = 32;

/// Kind of a hint, strongest first: the smallest value names the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HintSource {
    /// Header of `session.header`.
    Header,
    /// Path segment behind `session.session-path-prefix`.
    Path,
    /// Baggage entry of `session.baggage-key`.
    Baggage,
    /// JSON pointer of `route.session`.
    Body,
    /// One of [`KNOWN_HEADERS`].
    KnownHeader,
    /// Trace id of a `traceparent`.
    Trace,
    /// MCP session.
    McpSession,
    /// Request id: kept, but never names a session.
    RequestId,
}

impl HintSource {
    fn confidence(self) -> Confidence {
        match self {
            Self::Header | Self::Path | Self::Baggage | Self::Body => Confidence::Certain,
            Self::KnownHeader | Self::Trace | Self::McpSession => Confidence::Likely,
            Self::RequestId => Confidence::Weak,
        }
    }
}

/// One identifier found in an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionHint {
    source: HintSource,
    name: String,
    value: String,
    /// Whether secrets in the value are replaced.
    redacted: bool,
    /// Part of the exchange that holds it, such as `request header`.
    location: &'static str,
    /// Whether it names the session.
    chosen: bool,
}

impl SessionHint {
    fn new(source: HintSource, name: &str, value: &str, location: &'static str) -> Self {
        Self {
            source,
            name: name.to_owned(),
            value: value.to_owned(),
            redacted: false,
            location,
            chosen: false,
        }
    }

    /// A request id from a redacted response body.
    pub(crate) fn from_redacted_response(name: &str, value: &str) -> Self {
        let hint = Self::new(HintSource::RequestId, name, value, "response body");
        Self { redacted: true, ..hint }
    }

    fn redact(&mut self, redactor: &Redactor) {
        if !std::mem::replace(&mut self.redacted, true) {
            self.value = redactor.redact_uncounted(&self.value);
        }
    }

    /// The stored form, with secrets replaced.
    pub(crate) fn into_identifier(mut self, redactor: &Redactor) -> Identifier {
        self.redact(redactor);
        Identifier {
            value: self.value.into(),
            name: self.name.into(),
            source: self.location.into(),
            confidence: self.source.confidence(),
            chosen: self.chosen,
        }
    }
}

/// Finds the hints in a request head.
pub(crate) fn from_head(
    config: &SessionConfig,
    headers: &HeaderMap,
    path_session: Option<&str>,
) -> Vec<SessionHint> {
    const LOCATION: &str = "request header";
    let mut hints = Vec::new();
    let text =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty());
    if let Some(value) = text(config.header.as_str()) {
        hints.push(SessionHint::new(HintSource::Header, config.header.as_str(), value, LOCATION));
    }
    if let Some(value) = path_session {
        hints.push(SessionHint::new(
            HintSource::Path,
            "path",
            &percent_decode_str(value).decode_utf8_lossy(),
            "path",
        ));
    }
    for value in headers.get_all("baggage") {
        hints.extend(baggage(config, value.to_str().unwrap_or_default(), LOCATION));
    }
    for name in KNOWN_HEADERS.iter().filter(|name| **name != config.header.as_str()) {
        if let Some(value) = text(name) {
            hints.push(SessionHint::new(HintSource::KnownHeader, name, value, LOCATION));
        }
    }
    hints.extend(text("traceparent").and_then(|value| trace(value, LOCATION)));
    if let Some(value) = text("mcp-session-id") {
        hints.push(SessionHint::new(HintSource::McpSession, "mcp-session-id", value, LOCATION));
    }
    if let Some(value) = text("x-request-id") {
        hints.push(SessionHint::new(HintSource::RequestId, "x-request-id", value, LOCATION));
    }
    hints.truncate(MAX_HINTS);
    hints
}

/// Finds the hints in a response head.
pub(crate) fn from_response_head(headers: &HeaderMap) -> Vec<SessionHint> {
    let sources = [
        ("mcp-session-id", HintSource::McpSession),
        ("x-request-id", HintSource::RequestId),
        ("request-id", HintSource::RequestId),
    ];
    let hint = |(name, source)| {
        let value = headers.get(name)?.to_str().ok().filter(|text| !text.is_empty())?;
        Some(SessionHint::new(source, name, value, "response header"))
    };
    sources.into_iter().filter_map(hint).collect()
}

/// Whether requests of this route may name the session in their body.
pub(crate) fn needs_body(route: &Route) -> bool {
    match route.protocol {
        RouteProtocol::Mcp => true,
        RouteProtocol::Auto => route.edge == Edge::Tool,
        RouteProtocol::GenericJson => route.session.is_some(),
        RouteProtocol::OpenaiChat | RouteProtocol::Opaque => false,
    }
}

/// Whether no later part of the exchange can hold a stronger hint than the head.
pub(crate) fn session_known_from_head(route: &Route, hints: &[SessionHint]) -> bool {
    strongest(hints).is_some_and(|best| hints[best].source <= HintSource::Baggage || !needs_body(route))
}

/// Finds the hints in a request body: the configured pointer, and baggage and trace in the `_meta` of MCP.
pub(crate) fn from_body(config: &SessionConfig, route: &Route, body: &[u8]) -> Vec<SessionHint> {
    const LOCATION: &str = "request body";
    let mut hints = Vec::new();
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return hints };
    if let Some(pointer) = &route.session {
        let found = match value.pointer(pointer.as_str()) {
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            Some(_) | None => None,
        };
        let hint = |text: String| SessionHint::new(HintSource::Body, pointer.as_str(), &text, LOCATION);
        hints.extend(found.map(hint));
    }
    if let Some(meta) =
        value.pointer("/params/_meta").filter(|_| route.protocol != RouteProtocol::GenericJson)
    {
        if let Some(text) = meta.get("baggage").and_then(Value::as_str) {
            hints.extend(baggage(config, text, LOCATION));
        }
        hints.extend(meta.get("traceparent").and_then(Value::as_str).and_then(|text| trace(text, LOCATION)));
    }
    hints.truncate(MAX_HINTS);
    hints
}

/// Index of the hint that names the session: the strongest, and of equal ones the first.
pub(crate) fn strongest(hints: &[SessionHint]) -> Option<usize> {
    let usable = hints
        .iter()
        .enumerate()
        .filter(|(_, hint)| hint.source != HintSource::RequestId && !hint.value.trim().is_empty());
    usable.min_by_key(|(index, hint)| (hint.source, *index)).map(|(index, _)| index)
}

/// Marks the strongest hint as chosen and derives the session id from it.
pub(crate) fn chosen_session(hints: &mut [SessionHint], redactor: &Redactor) -> Option<SessionId> {
    let hint = hints.get_mut(strongest(hints)?)?;
    hint.chosen = true;
    hint.redact(redactor);
    let name = hint.value.trim();
    SessionId::parse(name).or_else(|_| SessionId::parse(&redactor.token("session", name))).ok()
}

/// The entries of a `baggage` value with the configured key.
fn baggage(config: &SessionConfig, text: &str, location: &'static str) -> Vec<SessionHint> {
    let key = config.baggage_key.as_str();
    let entries = trace_context::baggage(text).filter(|(name, value)| *name == key && !value.is_empty());
    let name = format!("baggage:{key}");
    entries.map(|(_, value)| SessionHint::new(HintSource::Baggage, &name, &value, location)).collect()
}

/// The trace id of a `traceparent` value.
fn trace(text: &str, location: &'static str) -> Option<SessionHint> {
    let id = trace_context::trace_id(text)?;
    Some(SessionHint::new(HintSource::Trace, "traceparent", &id, location))
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
        let mut hints = from_head(&SessionConfig::default(), &headers(pairs), None);
        chosen_session(&mut hints, &redactor()).map(|id| id.as_str().to_owned())
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
