//! MCP over streamable HTTP: the 2025 revision with sessions and the stateless 2026 revision.
//!
//! Decodes `tools/call` and `tools/list`. Of every other message it keeps the method.

use schemas::canonical::{canonical, canonical_at};
use schemas::exchange::{OperationKind, Protocol};
use serde_json::Value;
use wire::openai_chat::content_text;
use wire::sse;

use super::decoded::{DecodeInput, Decoded};

pub(super) fn decode(input: &DecodeInput<'_>) -> Decoded {
    let request = match serde_json::from_slice::<Value>(input.request) {
        Ok(Value::Array(batch)) if batch.iter().all(is_message) && !batch.is_empty() => {
            return other(Some("batch"));
        }
        Ok(value) if is_message(&value) => value,
        Ok(_) | Err(_) => {
            return if input.in_mcp_session && input.request.is_empty() {
                other(None)
            } else {
                Decoded::opaque()
            };
        }
    };
    let Some(method) = request.get("method").and_then(Value::as_str) else { return other(Some("response")) };
    let kind = match method {
        "tools/call" => OperationKind::CallTool,
        "tools/list" => OperationKind::ListTools,
        _ => OperationKind::Other,
    };
    let mut decoded = Decoded::new(Protocol::Mcp, kind);
    decoded.operation.method = Some(method.to_owned());
    let answer = request.get("id").and_then(|id| find_answer(input, id, &mut decoded));
    // A notification has no response.
    decoded.finished = request.get("id").map(|_| answer.is_some());
    if kind == OperationKind::CallTool {
        read_call(input.request, &request, &mut decoded);
        if let Some(answer) = answer {
            read_result(&answer, &mut decoded);
        }
    } else if let Some(error) = answer.as_ref().and_then(|answer| answer.get("error")) {
        decoded.notes.push(format!("the server responded with an error: {}", error_text(error)));
    }
    decoded
}

fn other(method: Option<&str>) -> Decoded {
    let mut decoded = Decoded::new(Protocol::Mcp, OperationKind::Other);
    decoded.operation.method = method.map(str::to_owned);
    decoded
}

fn is_message(value: &Value) -> bool {
    value.get("jsonrpc").is_some()
}

/// Finds the JSON-RPC response with this id: the body itself, or one event among notifications.
fn find_answer(input: &DecodeInput<'_>, id: &Value, decoded: &mut Decoded) -> Option<Value> {
    let answers = |value: &Value| value.get("id") == Some(id) && value.get("method").is_none();
    if !input.is_event_stream {
        if input.response.is_empty() {
            return None;
        }
        return match serde_json::from_slice::<Value>(input.response) {
            // An error that concerns the request as a whole may have a null id.
            Ok(value) if answers(&value) || value.get("error").is_some() => Some(value),
            Ok(_) => None,
            Err(error) => {
                decoded.notes.push(format!("the response is not JSON ({error})"));
                None
            }
        };
    }
    let mut malformed = 0;
    let mut found = None;
    for event in sse::events(input.response) {
        let data = event.text(input.response);
        match serde_json::from_str::<Value>(&data) {
            Ok(value) if answers(&value) => found = Some(value),
            Ok(_) => {}
            // A server may open its stream with an event that has no data, only an id to resume from.
            Err(_) if data.is_empty() => {}
            Err(_) => malformed += 1,
        }
    }
    if malformed > 0 {
        decoded.notes.push(format!("{malformed} events of the stream are not JSON"));
    }
    found
}

fn read_call(body: &[u8], request: &Value, decoded: &mut Decoded) {
    let operation = &mut decoded.operation;
    operation.tool = request.pointer("/params/name").and_then(Value::as_str).map(str::to_owned);
    operation.arguments = match request.pointer("/params/arguments") {
        None | Some(Value::Null) => Some("{}".to_owned()),
        // Read from the body: the parsed value has rounded long numbers.
        Some(arguments) => {
            Some(canonical_at(body, "/params/arguments").unwrap_or_else(|| canonical(arguments)))
        }
    };
}

fn read_result(answer: &Value, decoded: &mut Decoded) {
    if let Some(error) = answer.get("error") {
        decoded.operation.is_error = Some(true);
        decoded.operation.result = Some(error_text(error));
        return;
    }
    let result = answer.get("result").unwrap_or(&Value::Null);
    match result.get("resultType").and_then(Value::as_str) {
        None | Some("complete") => {}
        Some(kind) => decoded.notes.push(format!(
            "the tool responded with resultType {kind:?}; the call continues in another exchange"
        )),
    }
    decoded.operation.is_error = Some(result.get("isError").and_then(Value::as_bool).unwrap_or(false));
    let text = result.get("content").and_then(content_text).filter(|text| !text.is_empty());
    let structured = || result.get("structuredContent").filter(|value| !value.is_null()).map(canonical);
    decoded.operation.result = text.or_else(structured);
}

fn error_text(error: &Value) -> String {
    let message = error.get("message").and_then(Value::as_str).unwrap_or("no message");
    match error.get("code").and_then(Value::as_i64) {
        Some(code) => format!("{message} ({code})"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{read, route};
    use super::*;

    const CALL: &[u8] = br#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"w","arguments":{"b":1.0,"a":"x"}}}"#;

    #[test]
    fn reads_a_call_answered_as_json_or_among_events() {
        let json = r#"{"jsonrpc":"2.0","id":2,"result":{"content":[{"type":"text","text":"a"},{"type":"image"},{"type":"text","text":"b"}],"isError":true}}"#;
        let events = format!(
            "id: 0\ndata:\n\nevent: message\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}}\n\nevent: message\ndata: {json}\n\n"
        );
        for (body, stream) in [(json, false), (events.as_str(), true)] {
            let decoded = read(&route("tool", "protocol = \"mcp\""), CALL, body.as_bytes(), stream);
            let operation = decoded.operation;
            assert_eq!(operation.kind, OperationKind::CallTool);
            assert_eq!(
                (operation.tool.as_deref(), operation.arguments.as_deref()),
                (Some("w"), Some(r#"{"a":"x","b":1}"#))
            );
            assert_eq!((operation.result.as_deref(), operation.is_error), (Some("a\nb"), Some(true)));
            assert!(
                operation.arguments_digest.is_some()
                    && decoded.finished == Some(true)
                    && decoded.notes.is_empty()
            );
        }
    }

    #[test]
    fn a_protocol_error_is_the_result() {
        let body = br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32020,"message":"header mismatch"}}"#;
        let operation = read(&route("tool", ""), CALL, body, false).operation;
        assert_eq!(
            (operation.is_error, operation.result.as_deref()),
            (Some(true), Some("header mismatch (-32020)"))
        );
    }

    #[test]
    fn other_messages_keep_their_method() {
        let decoded = read(
            &route("tool", ""),
            br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            b"",
            false,
        );
        assert_eq!(
            (decoded.operation.kind, decoded.operation.method.as_deref()),
            (OperationKind::Other, Some("notifications/initialized"))
        );
        assert_eq!(decoded.finished, None);
        assert_eq!(read(&route("tool", ""), b"plain", b"", false).operation.kind, OperationKind::Opaque);
    }
}
