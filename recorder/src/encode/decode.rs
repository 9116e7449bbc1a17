//! Decodes the redacted bodies of an exchange into its operation.
//!
//! Decoding never fails: a body that no decoder understands is opaque, and oddities become notes. It reads complete
//! bodies and changes none.

use schemas::exchange::OperationKind;
use schemas::keys::TenantKeys;
use schemas::tools::ToolCatalog;

use self::decoded::{DecodeInput, Decoded};
use crate::config::RouteProtocol;

pub(crate) mod decoded;
mod generic_json;
mod mcp;
mod openai_chat;

/// Decodes an exchange by the protocol of its route.
pub(crate) fn decode(input: &DecodeInput<'_>, catalog: &ToolCatalog, keys: &TenantKeys) -> Decoded {
    let mut decoded = match input.route.protocol {
        RouteProtocol::OpenaiChat => openai_chat::decode(input),
        RouteProtocol::Mcp => mcp::decode(input),
        RouteProtocol::GenericJson => generic_json::decode(input),
        RouteProtocol::Opaque => Decoded::opaque(),
        RouteProtocol::Auto if input.path.ends_with("/chat/completions") => openai_chat::decode(input),
        RouteProtocol::Auto => mcp::decode(input),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::id::TenantId;
    use schemas::keys::RootKey;

    use super::*;
    use crate::config::{Config, Route};

    /// A route of this edge with these lines added.
    pub(super) fn route(edge: &str, lines: &str) -> Route {
        let text = format!(
            "agent = \"a\"\nstore = \"s\"\nstate-dir = \"d\"\n[[route]]\nedge = \"{edge}\"\nlisten = \"127.0.0.1:0\"\nupstream = \"http://x\"\n{lines}"
        );
        Config::parse(&text).expect("a good configuration").routes.remove(0)
    }

    pub(super) fn read(route: &Route, request: &[u8], response: &[u8], stream: bool) -> Decoded {
        let input = DecodeInput {
            route,
            path: "/v1/x",
            request,
            response,
            is_event_stream: stream,
            in_mcp_session: false,
        };
        let keys = RootKey::new([2; 32]).tenant(&TenantId::parse("t").expect("id"));
        decode(&input, &ToolCatalog::default(), &keys)
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
