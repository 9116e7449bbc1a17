//! What a tool answered in the recording, in whatever protocol it was recorded, and how it is said in the one that a
//! candidate speaks.
//!
//! Pure values; which answer a call gets is the ladder's business.

use serde_json::{Value, json};

use crate::sse;

/// JSON-RPC code of an internal error.
pub(crate) const INTERNAL_ERROR: i64 = -32603;

/// A recorded answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ToolAnswer {
    /// The `result` object of an MCP `tools/call`.
    Result(Value),
    /// The `error` object of an MCP `tools/call`.
    Error(Value),
    /// The body of a tool spoken to in plain JSON.
    Body { status: u16, bytes: Vec<u8> },
    /// The text of an imported transcript.
    Text { text: String, is_error: bool },
    /// The call got no whole answer in the recording either.
    Broken { status: u16, detail: String },
}

/// How an MCP request is answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum McpReply {
    /// With a result.
    Result(Value),
    /// With a protocol error.
    Error(Value),
}

impl ToolAnswer {
    /// The answer over MCP.
    pub(crate) fn to_mcp(&self) -> McpReply {
        match self {
            Self::Result(result) => McpReply::Result(result.clone()),
            Self::Error(error) => McpReply::Error(error.clone()),
            Self::Body { status, bytes } => {
                let text = String::from_utf8_lossy(bytes).into_owned();
                let mut result = text_result(&text, *status >= 400);
                if let Ok(structured @ Value::Object(_)) = serde_json::from_slice(bytes) {
                    result["structuredContent"] = structured;
                }
                McpReply::Result(result)
            }
            Self::Text { text, is_error } => McpReply::Result(text_result(text, *is_error)),
            Self::Broken { detail, .. } => {
                let message = format!("the recorded call got no answer: {detail}");
                McpReply::Error(json!({"code": INTERNAL_ERROR, "message": message}))
            }
        }
    }

    /// The answer as a plain JSON tool gives it: status and body.
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

    /// The answer as text, as [`schemas::exchange::Operation::result`] holds it.
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

/// An MCP result with one text.
pub(crate) fn text_result(text: &str, is_error: bool) -> Value {
    json!({"content": [{"type": "text", "text": text}], "isError": is_error})
}

/// The text contents of an MCP result joined by line feeds, else its structured content.
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
    let answers = |value: &Value| value.get("result").is_some() || value.get("error").is_some();
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        return match value {
            Value::Array(messages) => messages.into_iter().rfind(answers),
            other => answers(&other).then_some(other),
        };
    }
    let mut messages =
        sse::data(body).into_iter().filter_map(|data| serde_json::from_str::<Value>(&data).ok());
    messages.rfind(answers)
}

/// Reads what an MCP `tools/call` was answered with; `None` where the body holds no response.
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
        let body = [
            sse::frame(r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{}}"#),
            sse::frame(r#"{"jsonrpc":"2.0","id":3,"result":{"content":[{"type":"text","text":"a"}]}}"#),
        ]
        .concat();
        let answer = from_rpc(&body).expect("a response");
        assert_eq!(answer.text(), "a");
        assert!(!answer.is_error());
        assert_eq!(from_rpc(b"garbage"), None);
    }

    #[test]
    fn says_the_same_in_both_protocols() {
        let text = ToolAnswer::Text { text: "not json".to_owned(), is_error: true };
        assert_eq!(text.to_http(), (422, b"\"not json\"".to_vec()));
        let McpReply::Result(result) = text.to_mcp() else { panic!("a text is a result") };
        assert_eq!(result["isError"], true);
        let body = ToolAnswer::Body { status: 200, bytes: br#"{"a":1}"#.to_vec() };
        let McpReply::Result(result) = body.to_mcp() else { panic!("a body is a result") };
        assert_eq!(result["structuredContent"]["a"], 1);
        assert_eq!(ToolAnswer::Result(result).to_http(), (200, br#"{"a":1}"#.to_vec()));
    }
}
