//! MCP over streamable HTTP: the protocol versions of 2025, with sessions, and version 2026-07-28, without.
//!
//! Tools only: no resources, prompts, sampling or requests by the server. Every answer is one JSON message.

use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};
use schemas::canonical::canonical;
use schemas::exchange::{Edge, Operation, OperationKind, Protocol};
use serde_json::{Value, json};

use super::active_trial::ActiveTrial;
use super::registry::{Registry, TrialLookup};
use super::request::WorldRequest;
use super::responses::{WorldBody, bytes_response, error_response, json_response, status, trial_ended};
use super::tool_calls::{self, Decision, ToolCall, ToolResponse};
use crate::case_recording::Arguments;
use crate::tool_answer::{McpResponse, text_result};

/// Protocol version without sessions.
const STATELESS: &str = "2026-07-28";

/// Protocol versions with sessions, newest first.
const WITH_SESSIONS: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

const SESSION_HEADER: &str = "mcp-session-id";

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const HEADER_MISMATCH: i64 = -32020;
const SERVER_ERROR: i64 = -32000;

/// Answers a request to the MCP endpoint.
pub(crate) async fn answer(
    registry: &Arc<Registry>,
    prefix: Option<&str>,
    request: WorldRequest,
) -> Response<WorldBody> {
    if request.method == Method::DELETE {
        return bytes_response(StatusCode::OK, "application/json", Bytes::new());
    }
    if request.method != Method::POST {
        // As the specification requires of a server without a stream of its own.
        return error_response(StatusCode::METHOD_NOT_ALLOWED, "the MCP endpoint opens no stream; use POST");
    }
    let message: Value = match serde_json::from_slice(&request.body) {
        Ok(message) => message,
        Err(error) => {
            return rpc_error(StatusCode::BAD_REQUEST, &Value::Null, PARSE_ERROR, &error.to_string());
        }
    };
    let Some(method) = message["method"].as_str().map(str::to_owned) else {
        if message.get("result").is_some() || message.get("error").is_some() {
            return bytes_response(StatusCode::ACCEPTED, "application/json", Bytes::new());
        }
        let text = "expected a JSON-RPC message with `method`";
        return rpc_error(StatusCode::BAD_REQUEST, &message["id"], INVALID_REQUEST, text);
    };
    let Some(id) = message.get("id").filter(|id| !id.is_null()).cloned() else {
        return bytes_response(StatusCode::ACCEPTED, "application/json", Bytes::new());
    };
    let stateless = is_stateless(&request.headers, &message);
    if stateless && let Err(text) = check_headers(&request.headers, &method, &message) {
        return rpc_error(StatusCode::BAD_REQUEST, &id, HEADER_MISMATCH, &text);
    }
    let lookup = registry.find(prefix, &request.headers, message["params"].get("_meta"));
    let rpc = RpcRequest { id, method, message, stateless };
    if rpc.method == "tools/call" {
        return match registry.require(lookup) {
            Ok(trial) => call_tool(&trial, &rpc, request).await,
            Err(response) => response,
        };
    }
    let trial = match lookup {
        TrialLookup::Running(trial) => Some(trial),
        TrialLookup::Finished | TrialLookup::Unknown => None,
    };
    answer_other(registry, trial.as_ref(), &rpc, request)
}

/// A JSON-RPC request.
struct RpcRequest {
    id: Value,
    method: String,
    message: Value,
    stateless: bool,
}

impl RpcRequest {
    fn result(&self, mut result: Value) -> Value {
        if let Some(map) = result.as_object_mut() {
            // Version 2026-07-28 requires `resultType`; earlier versions do not know it.
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

fn rpc_error(status: StatusCode, id: &Value, code: i64, message: &str) -> Response<WorldBody> {
    json_response(status, &json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}))
}

fn is_stateless(headers: &HeaderMap, message: &Value) -> bool {
    let header = headers.get("mcp-protocol-version").and_then(|value| value.to_str().ok());
    let meta = message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"].as_str();
    header == Some(STATELESS) || meta == Some(STATELESS)
}

/// Checks that the headers of version 2026-07-28 repeat version, method and tool of the body.
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

/// Decodes `=?base64?…?=`, the form of values that are not safe in a header.
fn decode_header(value: &str) -> String {
    let encoded = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?="));
    let bytes = encoded.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| value.to_owned())
}

/// Answers a tool call of a trial.
async fn call_tool(trial: &Arc<ActiveTrial>, rpc: &RpcRequest, request: WorldRequest) -> Response<WorldBody> {
    let params = &rpc.message["params"];
    let Some(tool) = params["name"].as_str().filter(|name| !name.is_empty()) else {
        return rpc_error(StatusCode::OK, &rpc.id, INVALID_PARAMS, "params.name is missing");
    };
    let arguments = params.get("arguments").filter(|value| !value.is_null());
    let call = ToolCall {
        tool: tool.to_owned(),
        arguments: Arguments::Canonical(arguments.map_or_else(|| "{}".to_owned(), canonical)),
        protocol: Protocol::Mcp,
        method: Some(rpc.method.clone()),
        http: (request.method.to_string(), request.path_and_query()),
        request: request.body,
    };
    let Some(Decision { seq, response, delay }) = tool_calls::decide(trial, call) else {
        return trial_ended();
    };
    tokio::time::sleep(delay).await;
    let (code, body) = render(rpc, &response);
    let bytes = Bytes::from(body.to_string());
    tool_calls::finish(trial, seq, &response, code, &bytes);
    bytes_response(code, "application/json", bytes)
}

fn render(rpc: &RpcRequest, response: &ToolResponse) -> (StatusCode, Value) {
    let server_error = |text: &str| rpc.error(&json!({"code": SERVER_ERROR, "message": text}));
    match response {
        ToolResponse::Answer(answer) => match answer.to_mcp() {
            McpResponse::Result(result) => (StatusCode::OK, rpc.result(result)),
            McpResponse::Error(error) => (StatusCode::OK, rpc.error(&error)),
        },
        ToolResponse::Invalid(text) | ToolResponse::Missed(text) => {
            (StatusCode::OK, rpc.result(text_result(text, true)))
        }
        ToolResponse::Refused(number) => (status(*number), server_error("the tool is not available")),
        ToolResponse::TimedOut => {
            (StatusCode::GATEWAY_TIMEOUT, server_error("the tool did not answer in time"))
        }
    }
}

/// Answers every method but `tools/call`, inside and outside of trials.
fn answer_other(
    registry: &Registry,
    trial: Option<&Arc<ActiveTrial>>,
    rpc: &RpcRequest,
    request: WorldRequest,
) -> Response<WorldBody> {
    let tools = || match trial {
        Some(trial) => trial.case().recording.tool_list.values().cloned().collect(),
        None => registry.tool_list(),
    };
    let body = match rpc.method.as_str() {
        "initialize" => rpc.result(initialize(&rpc.message["params"])),
        "server/discover" => rpc.result(json!({
            "supportedVersions": [STATELESS, WITH_SESSIONS[0], WITH_SESSIONS[1], WITH_SESSIONS[2]],
            "capabilities": {"tools": {}},
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {"io.modelcontextprotocol/serverInfo": server_info()},
        })),
        "ping" => rpc.result(json!({})),
        "tools/list" => {
            let tools: Vec<Value> = tools();
            let mut result = json!({"tools": tools});
            if rpc.stateless {
                result["ttlMs"] = json!(0);
                result["cacheScope"] = json!("private");
            }
            rpc.result(result)
        }
        method => {
            let message = format!("the world does not support method {method}");
            rpc.error(&json!({"code": METHOD_NOT_FOUND, "message": message}))
        }
    };
    let bytes = Bytes::from(body.to_string());
    if let Some(trial) = trial {
        record(trial, rpc, request, &bytes);
    }
    let mut response = bytes_response(StatusCode::OK, "application/json", bytes);
    if rpc.method == "initialize" {
        let session = trial.map_or("outside-of-trials", |trial| trial.endpoint().token.as_str());
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

fn record(trial: &ActiveTrial, rpc: &RpcRequest, request: WorldRequest, bytes: &Bytes) {
    let kind = if rpc.method == "tools/list" { OperationKind::ListTools } else { OperationKind::Other };
    let mut operation = Operation::new(kind);
    operation.method = Some(rpc.method.clone());
    let http = (request.method.to_string(), request.path_and_query());
    let mut exchange = trial.begin_exchange(Edge::Tool, Protocol::Mcp, operation, request.body);
    exchange.http = Some(http);
    let Some(mut state) = trial.state() else { return };
    let seq = state.open(exchange);
    drop(state);
    trial.finish(seq, |exchange| {
        exchange.status = Some(200);
        exchange.response = bytes.clone();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_must_repeat_the_body() {
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
    fn an_unknown_version_gets_the_newest_version_with_sessions() {
        assert_eq!(initialize(&json!({"protocolVersion": "2025-06-18"}))["protocolVersion"], "2025-06-18");
        assert_eq!(
            initialize(&json!({"protocolVersion": "1999-01-01"}))["protocolVersion"],
            WITH_SESSIONS[0]
        );
    }
}
