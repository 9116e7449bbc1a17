//! The recorded answer of a tool call, independent of its protocol, and its rendering over MCP and plain JSON.
//!
//! The choice of the answer for a call is in [`crate::tool_index`].

use serde_json::{Value, json};
use wire::sse;

/// JSON-RPC code of an internal error.
pub(crate) const INTERNAL_ERROR: i64 = -32603;

/// A recorded answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ToolAnswer {
    /// The `result` object of an MCP `tools/call`.
    Result(Value),
    /// The `error` object of an MCP `tools/call`.
    Error(Value),
    /// The body of a plain JSON tool.
    Body { status: u16, bytes: Vec<u8> },
    /// The text of an imported transcript.
    Text { text: String, is_error: bool },
    /// The recorded call failed before its answer was complete.
    Broken { status: u16, detail: String },
}

/// An MCP response: a result or a JSON-RPC error object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum McpResponse {
    Result(Value),
    Error(Value),
}

impl ToolAnswer {
    /// Renders the answer over MCP.
    pub(crate) fn to_mcp(&self) -> McpResponse {
        match self {
            Self::Result(result) => McpResponse::Result(result.clone()),
            Self::Error(error) => McpResponse::Error(error.clone()),
            Self::Body { status, bytes } => {
                let text = String::from_utf8_lossy(bytes).into_owned();
                let mut result = text_result(&text, *status >= 400);
                if let Ok(structured @ Value::Object(_)) = serde_json::from_slice(bytes) {
                    result["structuredContent"] = structured;
                }
                McpResponse::Result(result)
            }
            Self::Text { text, is_error } => McpResponse::Result(text_result(text, *is_error)),
            Self::Broken { detail, .. } => {
                let message = format!("the recorded call got no answer: {detail}");
                McpResponse::Error(json!({"code": INTERNAL_ERROR, "message": message}))
            }
        }
    }

    /// Renders the answer of a plain JSON tool as HTTP status and body. A tool error has status 422.
    pub(crate) fn to_http(&self) -> (u16, Vec<u8>) {
        match self {
            Self::Result(result) => {
                let failed = result["isError"].as_bool().unwrap_or(false);
                let body = match result.get("structuredContent").filter(|value| !value.is_null()) {
                    Some(structured) => structured.to_string(),
                    None => json_or_quoted(&result_text(result)),
                };
                (if failed { 422 } else { 200 }, body.into_bytes())
            }
            Self::Error(error) => (422, json!({"error": error}).to_string().into_bytes()),
            Self::Body { status, bytes } => (*status, bytes.clone()),
            Self::Text { text, is_error } => {
                (if *is_error { 422 } else { 200 }, json_or_quoted(text).into_bytes())
            }
            Self::Broken { status, detail } => {
                let message = format!("the recorded call got no answer: {detail}");
                (*status, json!({"error": {"message": message}}).to_string().into_bytes())
            }
        }
    }

    /// The answer as text, for [`schemas::exchange::Operation::result`].
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Result(result) => result_text(result),
            Self::Error(error) => error["message"].as_str().unwrap_or_default().to_owned(),
            Self::Body { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
            Self::Text { text, .. } => text.clone(),
            Self::Broken { detail, .. } => detail.clone(),
        }
    }

    /// Whether the tool reported a failure.
    pub(crate) fn is_error(&self) -> bool {
        match self {
            Self::Result(result) => result["isError"].as_bool().unwrap_or(false),
            Self::Body { status, .. } => *status >= 400,
            Self::Text { is_error, .. } => *is_error,
            Self::Error(_) | Self::Broken { .. } => true,
        }
    }
}

/// An MCP result with one text block.
pub(crate) fn text_result(text: &str, is_error: bool) -> Value {
    json!({"content": [{"type": "text", "text": text}], "isError": is_error})
}

/// The text blocks of an MCP result joined by line feeds, else its structured content.
pub(crate) fn result_text(result: &Value) -> String {
    let texts: Vec<&str> =
        result["content"].as_array().into_iter().flatten().filter_map(|item| item["text"].as_str()).collect();
    match result.get("structuredContent") {
        Some(structured) if texts.is_empty() && !structured.is_null() => structured.to_string(),
        Some(_) | None => texts.join("\n"),
    }
}

fn json_or_quoted(text: &str) -> String {
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => text.to_owned(),
        Err(_) => Value::String(text.to_owned()).to_string(),
    }
}

/// Finds the JSON-RPC response in an MCP body, plain or streamed: the last message with a `result` or an `error`.
pub(crate) fn rpc_response(body: &[u8]) -> Option<Value> {
    let is_response = |value: &Value| value.get("result").is_some() || value.get("error").is_some();
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        return match value {
            Value::Array(messages) => messages.into_iter().rfind(is_response),
            other => is_response(&other).then_some(other),
        };
    }
    let mut messages =
        sse::data(body).into_iter().filter_map(|data| serde_json::from_str::<Value>(&data).ok());
    messages.rfind(is_response)
}

/// Reads the answer from the body of an MCP `tools/call`. Returns `None` if the body has no response.
pub(crate) fn from_rpc(body: &[u8]) -> Option<ToolAnswer> {
    let mut message = rpc_response(body)?;
    if let Some(result) = message.get_mut("result").map(Value::take) {
        return Some(ToolAnswer::Result(result));
    }
    message.get_mut("error").map(|error| ToolAnswer::Error(error.take()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_response_after_notifications() {
        let mut body = Vec::new();
        let notification = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{}}"#;
        let response = r#"{"jsonrpc":"2.0","id":3,"result":{"content":[{"type":"text","text":"a"}]}}"#;
        sse::write_event(&mut body, None, notification);
        sse::write_event(&mut body, None, response);
        let answer = from_rpc(&body).expect("a response");
        assert_eq!(answer.text(), "a");
        assert!(!answer.is_error());
        assert_eq!(from_rpc(b"garbage"), None);
    }

    #[test]
    fn both_protocols_render_the_same_answer() {
        let text = ToolAnswer::Text { text: "not json".to_owned(), is_error: true };
        assert_eq!(text.to_http(), (422, b"\"not json\"".to_vec()));
        let McpResponse::Result(result) = text.to_mcp() else { panic!("a text is a result") };
        assert_eq!(result["isError"], true);
        let body = ToolAnswer::Body { status: 200, bytes: br#"{"a":1}"#.to_vec() };
        let McpResponse::Result(result) = body.to_mcp() else { panic!("a body is a result") };
        assert_eq!(result["structuredContent"]["a"], 1);
        assert_eq!(ToolAnswer::Result(result).to_http(), (200, br#"{"a":1}"#.to_vec()));
    }
}
