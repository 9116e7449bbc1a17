//! What was done, read from the redacted bytes of an exchange.
//!
//! Decoding never fails: what is not understood is opaque, and what is odd is noted. It works on whole bodies and
//! changes none of them.

use schemas::exchange::{Edge, Operation, OperationKind, Protocol, RequestedCall, Usage};
use schemas::keys::TenantKeys;
use schemas::tools::ToolCatalog;
use serde_json::Value;

use crate::capture::hints::Clue;
use crate::config::{Route, RouteProtocol};

mod generic_json;
mod mcp;
mod openai_chat;

/// The redacted bytes of an exchange and where they passed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire<'a> {
    pub(crate) route: &'a Route,
    /// Path without the query.
    pub(crate) path: &'a str,
    pub(crate) request: &'a [u8],
    pub(crate) response: &'a [u8],
    /// The answer is a stream of events.
    pub(crate) stream: bool,
    /// The request belongs to an MCP session.
    pub(crate) mcp_session: bool,
}

/// What was understood.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) protocol: Protocol,
    pub(crate) operation: Operation,
    pub(crate) usage: Usage,
    /// Identifiers in the answer's body.
    pub(crate) clues: Vec<Clue>,
    /// What was odd.
    pub(crate) notes: Vec<String>,
    /// Whether the protocol's own end of the answer was there; absent where it has none.
    pub(crate) finished: Option<bool>,
    /// Model calls: the history that was sent, each message reduced to what identifies it.
    pub(crate) history: Vec<Value>,
    /// Model calls: the answer as a message of a history.
    pub(crate) answer: Option<Value>,
}

impl Decoded {
    fn new(protocol: Protocol, kind: OperationKind) -> Self {
        Self {
            protocol,
            operation: Operation::new(kind),
            usage: Usage::default(),
            clues: Vec::new(),
            notes: Vec::new(),
            finished: None,
            history: Vec::new(),
            answer: None,
        }
    }

    fn opaque() -> Self {
        Self::new(Protocol::Opaque, OperationKind::Opaque)
    }
}

/// Decodes an exchange.
pub(crate) fn decode(wire: &Wire<'_>, catalog: &ToolCatalog, keys: &TenantKeys) -> Decoded {
    let mut decoded = match wire.route.protocol {
        RouteProtocol::OpenaiChat => openai_chat::decode(wire),
        RouteProtocol::Mcp => mcp::decode(wire),
        RouteProtocol::GenericJson => generic_json::decode(wire),
        RouteProtocol::Opaque => Decoded::opaque(),
        RouteProtocol::Auto if wire.path.ends_with("/chat/completions") => openai_chat::decode(wire),
        RouteProtocol::Auto => mcp::decode(wire),
    };
    let operation = &mut decoded.operation;
    if operation.kind == OperationKind::CallTool {
        operation.arguments_digest = operation.arguments.as_ref().map(|text| keys.digest(text.as_bytes()));
        if let Some(tool) = operation.tool.as_ref().and_then(|name| catalog.find(name)) {
            operation.effect = tool.effect;
            operation.reversible = tool.reversible;
            operation.idempotent = tool.idempotent;
        }
    }
    decoded
}

/// The text of a message's content: a string, or the text parts of a list joined.
fn content_text(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str));
            Some(texts.collect::<Vec<_>>().join("\n"))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// A requested call reduced to what identifies it.
fn call_key(call: &RequestedCall) -> Value {
    let arguments =
        schemas::canonical::canonical_text(&call.arguments).unwrap_or_else(|| call.arguments.clone());
    Value::from(vec![Value::from(call.tool.as_str()), Value::from(arguments)])
}

/// The operation kind of a model protocol on this edge: an agent may offer it to its own callers.
fn chat_kind(edge: Edge) -> OperationKind {
    match edge {
        Edge::Turn => OperationKind::Turn,
        Edge::Model | Edge::Tool => OperationKind::Chat,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::id::TenantId;
    use schemas::keys::RootKey;

    use super::*;
    use crate::config::Config;

    /// A route of this edge, with the lines added.
    pub(super) fn route(edge: &str, lines: &str) -> Route {
        let text = format!(
            "agent = \"a\"\nstore = \"s\"\nstate-dir = \"d\"\n[[route]]\nedge = \"{edge}\"\nlisten = \"127.0.0.1:0\"\nupstream = \"http://x\"\n{lines}"
        );
        Config::parse(&text).expect("a good configuration").routes.remove(0)
    }

    pub(super) fn read(route: &Route, request: &[u8], response: &[u8], stream: bool) -> Decoded {
        let wire = Wire { route, path: "/v1/x", request, response, stream, mcp_session: false };
        let keys = RootKey::new([2; 32]).tenant(&TenantId::parse("t").expect("id"));
        decode(&wire, &ToolCatalog::default(), &keys)
    }

    proptest! {
        #[test]
        fn never_panics(request in ".{0,120}", response in proptest::collection::vec(any::<u8>(), 0..200), stream in any::<bool>()) {
            for lines in ["protocol = \"openai-chat\"", "protocol = \"mcp\"", "", "protocol = \"generic-json\"\noutput = \"/a\""] {
                let _ = read(&route("model", lines), request.as_bytes(), &response, stream);
            }
        }

        #[test]
        fn odd_json_never_panics(place in 0..4_usize, odd in prop_oneof![Just("null"), Just("[]"), Just("{}"), Just("\"x\""), Just("-1e9"), Just("[[1]]")]) {
            let shapes = [
                format!(r#"{{"choices":[{{"index":{odd},"delta":{{"tool_calls":[{{"index":{odd},"function":{odd}}}]}}}}]}}"#),
                format!(r#"{{"choices":{odd},"usage":{odd},"model":{odd}}}"#),
                format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"content":{odd},"isError":{odd}}}}}"#),
                format!(r#"{{"choices":[{{"message":{{"content":{odd},"tool_calls":{odd}}}}}]}}"#),
            ];
            let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{odd},"messages":[{odd}]}}"#);
            for stream in [false, true] {
                let body = if stream { format!("data: {}\n\n", shapes[place]) } else { shapes[place].clone() };
                for lines in ["protocol = \"openai-chat\"", "protocol = \"mcp\""] {
                    let _ = read(&route("tool", lines), request.as_bytes(), body.as_bytes(), stream);
                }
            }
        }
    }
}
