//! MCP over streamable HTTP: the protocol versions of 2025, with sessions, and version 2026-07-28, without.
//!
//! Tools only: no resources, prompts, sampling or requests by the server. Every answer is one JSON message.

use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};
use schemas::canonical::canonical_at;
use schemas::exchange::{Edge, Operation, OperationKind, Protocol};
use serde_json::{Value, json};

use super::active_trial::ActiveTrial;
use super::refusals::{self, Refusal};
use super::registry::{Registry, TrialLookup};
use super::request::WorldRequest;
use super::responses::{WorldBody, bytes_response, error_response, status, trial_ended};
use super::tool_calls::{self, Decision, ToolCall, ToolResponse};
use crate::case_recording::Arguments;
use crate::tool_answer::{McpResponse, text_result};

/// Protocol version without sessions.
const STATELESS: &str = "2026-07-28";

/// Protocol versions with sessions, newest first.
const WITH_SESSIONS: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

const SESSION_HEADER: &str = "mcp-session-id";

/// Methods other than `tools/call` that the world answers itself. Their answers depend on no recording.
const ANSWERED: [&str; 4] = ["initialize", "server/discover", "tools/list", "ping"];

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
    if request.method == Method::GET {
        // As the specification requires of a server without a stream of its own; every client asks.
        return error_response(StatusCode::METHOD_NOT_ALLOWED, "the MCP endpoint opens no stream; use POST");
    }
    let refuse = |request: WorldRequest, error: RpcError<'_>| {
        let lookup = registry.find(prefix, &request.headers, error.meta);
        let refusal = error.refusal(&request);
        refusals::refuse(registry, &lookup, request, &refusal)
    };
    if request.method != Method::POST {
        let error = RpcError::new(StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, "use POST");
        return refuse(request, error);
    }
    let message: Value = match serde_json::from_slice(&request.body) {
        Ok(message) => message,
        Err(error) => {
            let text = error.to_string();
            return refuse(request, RpcError::new(StatusCode::BAD_REQUEST, PARSE_ERROR, &text));
        }
    };
    let Some(method) = message["method"].as_str().map(str::to_owned) else {
        if message.get("result").is_some() || message.get("error").is_some() {
            return bytes_response(StatusCode::ACCEPTED, "application/json", Bytes::new());
        }
        let text = "expected a JSON-RPC message with `method`";
        let error = RpcError::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, text);
        return refuse(request, RpcError { id: &message["id"], ..error });
    };
    let Some(id) = message.get("id").filter(|id| !id.is_null()).cloned() else {
        return bytes_response(StatusCode::ACCEPTED, "application/json", Bytes::new());
    };
    let stateless = is_stateless(&request.headers, &message);
    let meta = message["params"].get("_meta");
    let error = |status, code, text| RpcError {
        id: &id,
        method: Some(&method),
        meta,
        ..RpcError::new(status, code, text)
    };
    if stateless && let Err(text) = check_headers(&request.headers, &method, &message) {
        return refuse(request, error(StatusCode::BAD_REQUEST, HEADER_MISMATCH, &text));
    }
    let is_tool_call = method == "tools/call";
    if is_tool_call && message["params"]["name"].as_str().is_none_or(str::is_empty) {
        return refuse(request, error(StatusCode::OK, INVALID_PARAMS, "params.name is missing"));
    }
    if !is_tool_call && !ANSWERED.contains(&method.as_str()) {
        let text = format!("the world does not support method {method}");
        return refuse(request, error(StatusCode::OK, METHOD_NOT_FOUND, &text));
    }
    let lookup = registry.find(prefix, &request.headers, meta);
    let rpc = RpcRequest { id, method, message, stateless };
    if is_tool_call {
        return match registry.require(lookup, &rpc.method, false) {
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

/// An error to a message that the world does not answer.
struct RpcError<'a> {
    status: StatusCode,
    code: i64,
    text: &'a str,
    id: &'a Value,
    /// Absent if the message is malformed.
    method: Option<&'a str>,
    /// `_meta` of the message.
    meta: Option<&'a Value>,
}

impl<'a> RpcError<'a> {
    fn new(status: StatusCode, code: i64, text: &'a str) -> Self {
        Self { status, code, text, id: &Value::Null, method: None, meta: None }
    }

    fn refusal(&self, request: &WorldRequest) -> Refusal {
        let error = json!({"code": self.code, "message": self.text});
        Refusal {
            path: match self.method {
                Some(method) => refusals::cut(method.to_owned()),
                None => refusals::path_name(&request.method, &request.path),
            },
            is_model: false,
            protocol: Protocol::Mcp,
            status: self.status,
            body: json!({"jsonrpc": "2.0", "id": self.id, "error": error}),
            cause: self.text.to_owned(),
        }
    }
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
    let tool = params["name"].as_str().unwrap_or_default();
    // Read from the body: the parsed message has rounded long numbers.
    let arguments = canonical_at(&request.body, "/params/arguments").filter(|text| text != "null");
    let call = ToolCall {
        tool: tool.to_owned(),
        arguments: Arguments::Canonical(arguments.unwrap_or_else(|| "{}".to_owned())),
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

/// Answers the methods of [`ANSWERED`], inside and outside of trials.
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
        "tools/list" => {
            let tools: Vec<Value> = tools();
            let mut result = json!({"tools": tools});
            if rpc.stateless {
                result["ttlMs"] = json!(0);
                result["cacheScope"] = json!("private");
            }
            rpc.result(result)
        }
        // A ping, the last of [`ANSWERED`].
        _ => rpc.result(json!({})),
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
