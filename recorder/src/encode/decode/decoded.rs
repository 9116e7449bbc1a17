//! Input and output of the protocol decoders, and the helpers that two decoders share.

use schemas::canonical::canonical_text;
use schemas::exchange::{Edge, Operation, OperationKind, Protocol, RequestedCall, Usage};
use serde_json::Value;

use crate::capture::hints::SessionHint;
use crate::config::Route;

/// The redacted bodies of an exchange, and the parts of its heads that decoding needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DecodeInput<'a> {
    pub(crate) route: &'a Route,
    /// Path without the query.
    pub(crate) path: &'a str,
    pub(crate) request: &'a [u8],
    pub(crate) response: &'a [u8],
    /// Whether the response is a stream of server-sent events.
    pub(crate) is_event_stream: bool,
    /// Whether the request belongs to an MCP session.
    pub(crate) in_mcp_session: bool,
}

/// Decoded meaning of an exchange.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) protocol: Protocol,
    pub(crate) operation: Operation,
    pub(crate) usage: Usage,
    /// Identifiers in the response body.
    pub(crate) hints: Vec<SessionHint>,
    /// Oddities, for the ending detail.
    pub(crate) notes: Vec<String>,
    /// Whether the response has the protocol's own end; absent where the protocol has none.
    pub(crate) finished: Option<bool>,
    /// Model calls: the history of the request, each message reduced to its identifying parts.
    pub(crate) history: Vec<Value>,
    /// Model calls: the response as a message of a history.
    pub(crate) answer: Option<Value>,
    /// Whether texts of the operation are joined from several events. Only such a text can hold a secret that the
    /// redacted body does not: its parts were apart there.
    pub(crate) joins_events: bool,
}

impl Decoded {
    pub(super) fn new(protocol: Protocol, kind: OperationKind) -> Self {
        Self {
            protocol,
            operation: Operation::new(kind),
            usage: Usage::default(),
            hints: Vec::new(),
            notes: Vec::new(),
            finished: None,
            history: Vec::new(),
            answer: None,
            joins_events: false,
        }
    }

    pub(crate) fn opaque() -> Self {
        Self::new(Protocol::Opaque, OperationKind::Opaque)
    }
}

/// A requested call reduced to its identifying parts.
pub(super) fn call_key(call: &RequestedCall) -> Value {
    let arguments = canonical_text(&call.arguments).unwrap_or_else(|| call.arguments.clone());
    Value::from(vec![Value::from(call.tool.as_str()), Value::from(arguments)])
}

/// The operation kind of a model protocol on this edge. An agent may offer the protocol to its own callers.
pub(super) fn chat_kind(edge: Edge) -> OperationKind {
    match edge {
        Edge::Turn => OperationKind::Turn,
        Edge::Model | Edge::Tool => OperationKind::Chat,
    }
}
