//! The data of a session: as recorded, and as traffic.

use bytes::Bytes;
use schemas::exchange::Edge;
use serde::Deserialize;
use serde_json::{Map, Value};

/// One request and its response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Edge of the exchange.
    pub edge: Edge,
    /// Path of the request.
    pub path: &'static str,
    /// Body of the request.
    pub request: Bytes,
    /// Body of the response.
    pub response: Bytes,
    /// Whether the response is a stream of server-sent events.
    pub streamed: bool,
}

/// One session with its calls in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Value of the session header.
    pub id: String,
    /// Calls in order.
    pub calls: Vec<Call>,
}

/// One recorded session.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) setting: std::sync::Arc<Setting>,
    pub(super) ticket: Option<String>,
    pub(super) messages: Vec<Message>,
    /// Value of `created`: seconds since 1970.
    pub(super) started: u64,
}

/// Policy, model and tools that the sessions of one file share.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) model: String,
    pub(super) policy: String,
    pub(super) tools: Vec<Value>,
}

/// A message of a tau2-bench file.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Message {
    pub(super) role: String,
    pub(super) content: Option<String>,
    #[serde(default)]
    pub(super) tool_calls: Option<Vec<ToolCall>>,
    pub(super) id: Option<String>,
    pub(super) requestor: Option<String>,
    #[serde(default)]
    pub(super) error: Option<bool>,
    pub(super) usage: Option<Usage>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct ToolCall {
    #[serde(default)]
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: Map<String, Value>,
    pub(super) requestor: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Usage {
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
}
