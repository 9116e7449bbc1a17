//! MCP over streamable HTTP: the session form of 2025 and the stateless one of 2026-07-28.
//!
//! Tools only: no resources, prompts, sampling or server-sent requests, and every answer is one JSON message.

use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};
use schemas::canonical::canonical;
use schemas::exchange::{Edge, Operation, OperationKind, Protocol};
use serde_json::{Value, json};

use super::active_trial::TrialWorld;
use super::registry::{Belongs, Registry};
use super::responses::{Reply, bytes_reply, error_reply, json_reply, status};
use super::tool_calls::{self, Decision, ToolCall, Verdict};
use super::{Asked, belonging};
use crate::case_recording::Arguments;
use crate::tool_answer::{McpReply, text_result};

/// The stateless form.
const STATELESS: &str = "2026-07-28";

/// The session forms, newest first.
const WITH_SESSIONS: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

const SESSION_HEADER: &str = "mcp-session-id";

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const HEADER_MISMATCH: i64 = -32020;
const SERVER_ERROR: i64 = -32000;

/// Answers a request to the MCP endpoint.
pub(crate) async fn answer(registry: &Arc<Registry>, prefix: Option<&str>, asked: Asked) -> Response<Reply> {
    if asked.method == Method::DELETE {
        return bytes_reply(StatusCode::OK, "application/json", Bytes::new());
    }
    if asked.method != Method::POST {
        // The specification's answer of a server that sends nothing on its own.
        return error_reply(StatusCode::METHOD_NOT_ALLOWED, "the world opens no stream of its own; use POST");
    }
    let message: Value = match serde_json::from_slice(&asked.body) {
        Ok(message) => message,
        Err(error) => {
            return rpc_error(StatusCode::BAD_REQUEST, &Value::Null, PARSE_ERROR, &error.to_string());
        }
    };
    let Some(method) = message["method"].as_str().map(str::to_owned) else {
        if message.get("result").is_some() || message.get("error").is_some() {
            return bytes_reply(StatusCode::ACCEPTED, "application/json", Bytes::new());
        }
        let text = "expected one JSON-RPC message with a `method`";
        return rpc_error(StatusCode::BAD_REQUEST, &message["id"], INVALID_REQUEST, text);
    };
    let Some(id) = message.get("id").filter(|id| !id.is_null()).cloned() else {
        return bytes_reply(StatusCode::ACCEPTED, "application/json", Bytes::new());
    };
    let stateless = is_stateless(&asked.headers, &message);
    if stateless && let Err(text) = check_headers(&asked.headers, &method, &message) {
        return rpc_error(StatusCode::BAD_REQUEST, &id, HEADER_MISMATCH, &text);
    }
    let belongs = registry.find(prefix, &asked.headers, message["params"].get("_meta"));
    let request = Request { id, method, message, stateless };
    if request.method == "tools/call" {
        return match belonging(registry, belongs) {
            Ok(trial) => call(&trial, &request, asked).await,
            Err(reply) => reply,
        };
    }
    let trial = match belongs {
        Belongs::Trial(trial) => Some(trial),
        Belongs::Over | Belongs::Unknown => None,
    };
    other(registry, trial.as_ref(), &request, asked)
}

struct Request {
    id: Value,
    method: String,
    message: Value,
    stateless: bool,
}

impl Request {
    fn result(&self, mut result: Value) -> Value {
        if let Some(map) = result.as_object_mut() {
            // Each form has its own discriminator: required in the one, unknown to the other.
            if self.stateless {
                map.entry("resultType").or_insert_with(|| json!("complete"));
            } else {
                map.shift_remove("resultType");
            }
        }
        json!({"jsonrpc": "2.0", "id": self.id, "result": result})
    }

    fn error(&self, error: &Value) -> Value {
        json!({"jsonrpc": "2.0", "id": self.id, "error": error})
    }
}

fn rpc_error(status: StatusCode, id: &Value, code: i64, message: &str) -> Response<Reply> {
    json_reply(status, &json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}))
}

fn is_stateless(headers: &HeaderMap, message: &Value) -> bool {
    let header = headers.get("mcp-protocol-version").and_then(|value| value.to_str().ok());
    let meta = message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"].as_str();
    header == Some(STATELESS) || meta == Some(STATELESS)
}

/// In the stateless form the headers must say what the body says.
fn check_headers(headers: &HeaderMap, method: &str, message: &Value) -> Result<(), String> {
    let version = headers.get("mcp-protocol-version").and_then(|value| value.to_str().ok());
    if version != Some(STATELESS) {
        return Err(format!("header MCP-Protocol-Version is {version:?}, the body says {STATELESS}"));
    }
    let named = headers.get("mcp-method").and_then(|value| value.to_str().ok());
    if named != Some(method) {
        return Err(format!("header Mcp-Method is {named:?}, the body says {method:?}"));
    }
    if method != "tools/call" {
        return Ok(());
    }
    let name = message["params"]["name"].as_str();
    let header = headers.get("mcp-name").and_then(|value| value.to_str().ok()).map(decode_header);
    if header.as_deref() != name {
        return Err(format!("header Mcp-Name is {header:?}, the body says {name:?}"));
    }
    Ok(())
}

/// Values unsafe in a header are written `=?base64?…?=`.
fn decode_header(value: &str) -> String {
    let encoded = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?="));
    let bytes = encoded.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| value.to_owned())
}

/// A tool call of a trial.
async fn call(trial: &Arc<TrialWorld>, request: &Request, asked: Asked) -> Response<Reply> {
    let params = &request.message["params"];
    let Some(tool) = params["name"].as_str().filter(|name| !name.is_empty()) else {
        return rpc_error(StatusCode::OK, &request.id, INVALID_PARAMS, "params.name is missing");
    };
    let arguments = params.get("arguments").filter(|value| !value.is_null());
    let call = ToolCall {
        tool: tool.to_owned(),
        arguments: Arguments::Canonical(arguments.map_or_else(|| "{}".to_owned(), canonical)),
        protocol: Protocol::Mcp,
        method: Some(request.method.clone()),
        http: (asked.method.to_string(), asked.path_and_query()),
        request: asked.body,
    };
    let Some(Decision { seq, verdict, hold }) = tool_calls::decide(trial, call) else {
        return error_reply(StatusCode::GONE, "this trial is over");
    };
    tokio::time::sleep(hold).await;
    let (code, body) = render(request, &verdict);
    let bytes = Bytes::from(body.to_string());
    tool_calls::note(trial, seq, &verdict, code, &bytes);
    bytes_reply(code, "application/json", bytes)
}

fn render(request: &Request, verdict: &Verdict) -> (StatusCode, Value) {
    let server_error = |text: &str| request.error(&json!({"code": SERVER_ERROR, "message": text}));
    match verdict {
        Verdict::Answer(answer) => match answer.to_mcp() {
            McpReply::Result(result) => (StatusCode::OK, request.result(result)),
            McpReply::Error(error) => (StatusCode::OK, request.error(&error)),
        },
        Verdict::Invalid(text) | Verdict::Missed(text) => {
            (StatusCode::OK, request.result(text_result(text, true)))
        }
        Verdict::Refused(number) => (status(*number), server_error("the tool is not available")),
        Verdict::Lost => (StatusCode::GATEWAY_TIMEOUT, server_error("the tool did not answer in time")),
    }
}

/// Everything but tool calls: answered inside and outside of trials.
fn other(
    registry: &Registry,
    trial: Option<&Arc<TrialWorld>>,
    request: &Request,
    asked: Asked,
) -> Response<Reply> {
    let tools = || match trial {
        Some(trial) => trial.case().script.listed.values().cloned().collect(),
        None => registry.listed(),
    };
    let body = match request.method.as_str() {
        "initialize" => request.result(initialize(&request.message["params"])),
        "server/discover" => request.result(json!({
            "supportedVersions": [STATELESS, WITH_SESSIONS[0], WITH_SESSIONS[1], WITH_SESSIONS[2]],
            "capabilities": {"tools": {}},
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {"io.modelcontextprotocol/serverInfo": server_info()},
        })),
        "ping" => request.result(json!({})),
        "tools/list" => {
            let tools: Vec<Value> = tools();
            let mut result = json!({"tools": tools});
            if request.stateless {
                result["ttlMs"] = json!(0);
                result["cacheScope"] = json!("private");
            }
            request.result(result)
        }
        method => {
            let message = format!("method {method} is not known to the world");
            request.error(&json!({"code": METHOD_NOT_FOUND, "message": message}))
        }
    };
    let bytes = Bytes::from(body.to_string());
    if let Some(trial) = trial {
        record(trial, request, asked, &bytes);
    }
    let mut response = bytes_reply(StatusCode::OK, "application/json", bytes);
    if request.method == "initialize" {
        let session = trial.map_or("outside-of-trials", |trial| trial.place().token.as_str());
        if let Ok(value) = HeaderValue::try_from(session) {
            response.headers_mut().insert(SESSION_HEADER, value);
        }
    }
    response
}

fn server_info() -> Value {
    json!({"name": "foreshadow-world", "version": env!("CARGO_PKG_VERSION")})
}

fn initialize(params: &Value) -> Value {
    let wanted = params["protocolVersion"].as_str().unwrap_or_default();
    let version = WITH_SESSIONS.iter().find(|known| **known == wanted).unwrap_or(&WITH_SESSIONS[0]);
    json!({"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": server_info()})
}

fn record(trial: &TrialWorld, request: &Request, asked: Asked, bytes: &Bytes) {
    let kind = if request.method == "tools/list" { OperationKind::ListTools } else { OperationKind::Other };
    let mut operation = Operation::new(kind);
    operation.method = Some(request.method.clone());
    let http = (asked.method.to_string(), asked.path_and_query());
    let mut raw = trial.raw(Edge::Tool, Protocol::Mcp, operation, asked.body);
    raw.http = Some(http);
    let Some(mut state) = trial.state() else { return };
    let seq = state.open(raw);
    drop(state);
    trial.finish(seq, |raw| {
        raw.status = Some(200);
        raw.response = bytes.clone();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_must_say_what_the_body_says() {
        let message = json!({"method": "tools/call", "params": {"name": "é"}});
        let mut headers = HeaderMap::new();
        headers.insert("mcp-protocol-version", HeaderValue::from_static(STATELESS));
        headers.insert("mcp-method", HeaderValue::from_static("tools/call"));
        assert!(check_headers(&headers, "tools/call", &message).is_err());
        headers.insert("mcp-name", HeaderValue::from_static("=?base64?w6k=?="));
        assert_eq!(check_headers(&headers, "tools/call", &message), Ok(()));
        headers.insert("mcp-method", HeaderValue::from_static("tools/list"));
        assert!(check_headers(&headers, "tools/call", &message).is_err());
    }

    #[test]
    fn an_unknown_version_gets_the_newest_with_sessions() {
        assert_eq!(initialize(&json!({"protocolVersion": "2025-06-18"}))["protocolVersion"], "2025-06-18");
        assert_eq!(
            initialize(&json!({"protocolVersion": "1999-01-01"}))["protocolVersion"],
            WITH_SESSIONS[0]
        );
    }
}
