//! The agent's tool calls: MCP over streamable HTTP, stateless, protocol version 2026-07-28.

use anyhow::Context as _;
use hyper::StatusCode;
use hyper::header::{ACCEPT, HeaderName};
use serde_json::{Map, Value, json};

use crate::http::{ClientResponse, HttpClient};

const PROTOCOL: &str = "2026-07-28";

/// The result of a tool call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ToolOutcome {
    /// Text of the result.
    Result(String),
    /// Error text of the tool or of a proxy in front of it.
    Failed(String),
    /// No response in time: the tool may have executed the call or not.
    TimedOut,
}

/// Lists the tools in the form of a chat request.
pub(crate) async fn list(
    client: &HttpClient,
    url: &str,
    headers: &[(HeaderName, String)],
) -> anyhow::Result<Value> {
    let reply = send(client, url, headers, "tools/list", None, Map::new()).await?;
    let message = message(&reply)?;
    let tools = message
        .pointer("/result/tools")
        .and_then(Value::as_array)
        .context("the tool server returned no tool list")?;
    let function = |tool: &Value| {
        json!({"type": "function", "function": {"name": tool.get("name"), "description": tool.get("description"),
            "parameters": tool.get("inputSchema")}})
    };
    Ok(Value::Array(tools.iter().map(function).collect()))
}

/// Calls a tool.
pub(crate) async fn call(
    client: &HttpClient,
    url: &str,
    headers: &[(HeaderName, String)],
    tool: &str,
    arguments: &Value,
) -> anyhow::Result<ToolOutcome> {
    let params =
        Map::from_iter([("name".to_owned(), json!(tool)), ("arguments".to_owned(), arguments.clone())]);
    let reply = send(client, url, headers, "tools/call", Some(tool), params).await?;
    if reply.status == StatusCode::GATEWAY_TIMEOUT {
        return Ok(ToolOutcome::TimedOut);
    }
    let message = message(&reply)?;
    if let Some(error) = message.get("error") {
        let text = error.get("message").and_then(Value::as_str).unwrap_or("no reason given");
        return Ok(ToolOutcome::Failed(text.to_owned()));
    }
    let result = message.get("result").context("the tool server's response has no result")?;
    let blocks = result.get("content").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let texts: Vec<&str> = blocks.iter().filter_map(|block| block.get("text")?.as_str()).collect();
    let failed = result.get("isError").and_then(Value::as_bool) == Some(true);
    Ok(if failed { ToolOutcome::Failed(texts.join("\n")) } else { ToolOutcome::Result(texts.join("\n")) })
}

async fn send(
    client: &HttpClient,
    url: &str,
    headers: &[(HeaderName, String)],
    method: &'static str,
    tool: Option<&str>,
    mut params: Map<String, Value>,
) -> anyhow::Result<ClientResponse> {
    let mut all = headers.to_vec();
    all.push((ACCEPT, "application/json, text/event-stream".to_owned()));
    all.push((HeaderName::from_static("mcp-protocol-version"), PROTOCOL.to_owned()));
    all.push((HeaderName::from_static("mcp-method"), method.to_owned()));
    all.extend(tool.map(|tool| (HeaderName::from_static("mcp-name"), tool.to_owned())));
    let mut meta = Map::new();
    meta.insert("io.modelcontextprotocol/protocolVersion".to_owned(), json!(PROTOCOL));
    meta.insert("io.modelcontextprotocol/clientCapabilities".to_owned(), json!({}));
    meta.insert(
        "io.modelcontextprotocol/clientInfo".to_owned(),
        json!({"name": "refund-support", "version": "1"}),
    );
    for (name, value) in headers {
        if ["traceparent", "baggage"].contains(&name.as_str()) {
            meta.insert(name.as_str().to_owned(), json!(value));
        }
    }
    params.insert("_meta".to_owned(), Value::Object(meta));
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    client.post(url, &all, &body).await
}

/// The JSON-RPC message of the response: the body, or the last event of a stream.
fn message(reply: &ClientResponse) -> anyhow::Result<Value> {
    let text = if reply.is_event_stream() {
        reply.events().pop().unwrap_or_default()
    } else {
        String::from_utf8_lossy(&reply.body).into_owned()
    };
    serde_json::from_str(&text)
        .with_context(|| format!("the tool server responded {} without JSON", reply.status))
}
