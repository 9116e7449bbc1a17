//! One request and its response on one edge: recorded by the tap, converted by an import, or written by a replay.
//!
//! Raw bodies are authoritative. The decoded operation is derived from them and can be derived again.

use serde::{Deserialize, Serialize};

use crate::body::Body;
use crate::columns;
use crate::columns::text_values;
use crate::id::{AgentId, BuildId, ExchangeId, IncarnationId, SessionId, TenantId};
use crate::keys::Digest;

/// A short string: up to 24 bytes are stored in place, without an allocation.
pub type SmallStr = compact_str::CompactString;

text_values! {
    SmallStr: SmallStr::as_str;
    Edge: |value| (*value).into();
    Protocol: |value| (*value).into();
    Ending: |value| (*value).into();
    OperationKind: |value| (*value).into();
    Effect: |value| (*value).into();
    Confidence: |value| (*value).into();
}

/// The boundary that an exchange crossed.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::IntoStaticStr,
    strum::EnumString,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Edge {
    /// Caller to agent.
    Turn,
    /// Agent to model provider.
    Model,
    /// Agent to tool server.
    Tool,
}

/// The protocol by which the bytes of an exchange were decoded.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::IntoStaticStr, strum::EnumString,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Protocol {
    /// OpenAI chat completions, plain or streamed.
    OpenaiChat,
    /// MCP over streamable HTTP, with sessions or stateless.
    Mcp,
    /// A JSON request and a JSON response, read by configured JSON pointers.
    GenericJson,
    /// Not decoded; only the bytes are known.
    Opaque,
    /// Converted by `foreshadow import` from a transcript without wire bytes.
    Imported,
}

/// How an exchange ended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::IntoStaticStr, strum::EnumString,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Ending {
    /// The complete response arrived.
    Complete,
    /// No response: the upstream refused, failed or timed out before its response head was complete.
    Failed,
    /// The upstream broke the response off.
    Truncated,
    /// The client disconnected before the response was complete.
    Cancelled,
}

/// The kind of a decoded operation.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::IntoStaticStr, strum::EnumString,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum OperationKind {
    /// A caller's turn and the agent's answer.
    Turn,
    /// A model call.
    Chat,
    /// A tool call.
    CallTool,
    /// A request for the list of tools.
    ListTools,
    /// Another message of a known protocol, such as an MCP `initialize` or a ping.
    Other,
    /// Bytes that were not decoded.
    Opaque,
}

/// The effect of a tool call on the outside world.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::IntoStaticStr,
    strum::EnumString,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Effect {
    /// Declared to change nothing.
    Read,
    /// Declared or observed to change something.
    Write,
    /// Not declared. A replay treats it as a write; effect metrics leave it out and count it separately.
    #[default]
    Unknown,
}

columns! {
    /// A tool call that a model requested.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct RequestedCall {
        /// The provider's id of the call, if it gave one.
        pub id: Option<String>,
        /// Name of the tool.
        pub tool: String,
        /// Arguments as the model wrote them.
        #[column(payload)]
        pub arguments: String,
    }
}

columns! {
    /// The decoded operation. It is flat, so that every field is a column; fields of other kinds are null.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Operation {
        /// Kind of the operation: `turn`, `chat`, `call_tool`, `list_tools`, `other` or `opaque`.
        pub kind: OperationKind,
        /// Method of the protocol, such as `tools/call` or `initialize`.
        pub method: Option<String>,
        /// Model call: the model that the provider named, else the requested one.
        pub model: Option<String>,
        /// Turn: the caller's text.
        #[column(payload)]
        pub input: Option<String>,
        /// Turn: the agent's answer. Model call: the text that the model wrote.
        #[column(payload)]
        pub output: Option<String>,
        /// Model call: the provider's finish reason.
        pub finish_reason: Option<String>,
        /// Model call: the requested tool calls, in order.
        pub requested: Vec<RequestedCall>,
        /// Tool call: name of the tool on the wire.
        pub tool: Option<String>,
        /// Tool call: the arguments in canonical JSON; null if they could not be parsed.
        #[column(payload)]
        pub arguments: Option<String>,
        /// Tool call: the arguments verbatim, if they could not be parsed.
        #[column(payload)]
        pub arguments_verbatim: Option<String>,
        /// Tool call: keyed digest of the canonical arguments, for lookups without the payload.
        pub arguments_digest: Option<Digest>,
        /// Tool call: the result as text. For MCP the text contents joined by line feeds, else the structured content.
        #[column(payload)]
        pub result: Option<String>,
        /// Tool call: whether the tool itself reported an error.
        pub is_error: Option<bool>,
        /// Tool call: effect on the outside world: `read`, `write` or `unknown`.
        pub effect: Effect,
        /// Tool call: whether the effect can be undone; null if undeclared.
        pub reversible: Option<bool>,
        /// Tool call: whether a repeated call changes nothing more; null if undeclared.
        pub idempotent: Option<bool>,
    }
}

impl Operation {
    /// An operation of this kind with no decoded field.
    #[must_use]
    pub fn new(kind: OperationKind) -> Self {
        Self {
            kind,
            method: None,
            model: None,
            input: None,
            output: None,
            finish_reason: None,
            requested: Vec::new(),
            tool: None,
            arguments: None,
            arguments_verbatim: None,
            arguments_digest: None,
            result: None,
            is_error: None,
            effect: Effect::Unknown,
            reversible: None,
            idempotent: None,
        }
    }
}

columns! {
    /// Tokens and cost as the provider reported them.
    #[derive(Debug, Clone, Copy, Default, PartialEq)]
    pub struct Usage {
        /// Input tokens, cached ones included.
        pub input_tokens: Option<u64>,
        /// Output tokens.
        pub output_tokens: Option<u64>,
        /// Input tokens that the provider read from its cache.
        pub cached_tokens: Option<u64>,
        /// Cost in US dollars.
        pub cost_usd: Option<f64>,
    }
}

/// How sure a link or an identifier is.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::IntoStaticStr,
    strum::EnumString,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Confidence {
    /// A guess that can be wrong: no identifier, joined by content.
    Weak,
    /// A general identifier that usually means the session, such as a trace id or an MCP session.
    Likely,
    /// An identifier configured or made for the purpose.
    Certain,
}

columns! {
    /// An identifier seen on the wire. All of them are kept, so that sessions can be linked again later.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Identifier {
        /// Name: `x-session-id`, `traceparent`, `mcp-session-id`, `gen_ai.response.id`.
        pub name: SmallStr,
        /// Value, redacted.
        #[column(payload)]
        pub value: SmallStr,
        /// Location: `request header`, `response header`, `request body`, `response body`, `import`.
        pub source: SmallStr,
        /// How surely it names the session: `weak`, `likely` or `certain`.
        pub confidence: Confidence,
        /// Whether the session id of this exchange comes from it.
        pub chosen: bool,
    }
}

columns! {
    /// A relation to another exchange of the same session.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Link {
        /// Id of the other exchange.
        pub to: ExchangeId,
        /// Relation: `requested_by` (a tool call to the model call that requested it), `continues` (a model call to the one
        /// whose history it extends).
        pub kind: SmallStr,
        /// Evidence for the relation.
        pub source: SmallStr,
        /// How sure the relation is: `weak`, `likely` or `certain`.
        pub confidence: Confidence,
    }
}

columns! {
    /// One kind of redacted value at one location.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Redaction {
        /// Detector or header: `openai_key`, `bearer`, `header:authorization`.
        pub kind: SmallStr,
        /// Location: `request body`, `response header`.
        pub location: SmallStr,
        /// Number of redacted values.
        pub count: u32,
    }
}

columns! {
    /// A header that the configuration keeps.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Header {
        /// Name in lower case.
        pub name: SmallStr,
        /// Value, redacted.
        pub value: SmallStr,
    }
}

columns! {
    /// One request and its response. `R` names the chunks of bodies ([`Body`]).
    #[derive(Debug, Clone, PartialEq)]
    pub struct Exchange<R = Digest> {
        /// Id of the exchange.
        pub exchange: ExchangeId,
        /// Tenant of the traffic.
        pub tenant: TenantId,
        /// Agent of the traffic.
        pub agent: AgentId,
        /// Build of the agent, if known.
        pub build: Option<BuildId>,
        /// Session of the exchange; in a run, the session of the trial.
        #[column(lookup)]
        pub session: SessionId,
        /// Recorder process that recorded it.
        pub incarnation: IncarnationId,
        /// Number within (incarnation, session), from 0, without gaps, in the order of starts.
        pub seq: u32,
        /// Number within the incarnation, from 0.
        pub incarnation_seq: u64,
        /// Boundary that it crossed: `turn`, `model` or `tool`.
        pub edge: Edge,
        /// Protocol that decoded it: `openai_chat`, `mcp`, `generic_json`, `opaque` or `imported`.
        pub protocol: Protocol,
        /// Arrival of the request head, UTC.
        pub started_at: i64,
        /// Start of the session, UTC; the `date=` folder is its day.
        pub session_started_at: i64,
        /// Microseconds from the start to the first byte of the response body.
        pub first_byte_us: Option<u64>,
        /// Microseconds from the start to the end; null if an imported transcript has no times.
        pub duration_us: Option<u64>,
        /// Streamed response: microseconds between its frames, the first from `first_byte_us`.
        pub frame_gaps_us: Vec<u32>,
        /// How it ended: `complete`, `failed`, `truncated` or `cancelled`.
        pub ending: Ending,
        /// Reason of an ending other than `complete`, or a warning.
        #[column(payload)]
        pub ending_detail: Option<String>,
        /// HTTP method.
        pub http_method: Option<SmallStr>,
        /// Path and query, redacted.
        #[column(payload)]
        pub path: Option<SmallStr>,
        /// HTTP status of the response.
        pub status: Option<u16>,
        /// Kept request headers.
        #[column(payload)]
        pub request_headers: Vec<Header>,
        /// Kept response headers.
        #[column(payload)]
        pub response_headers: Vec<Header>,
        /// Body of the request.
        #[column(chunks)]
        pub request: Body<R>,
        /// Body of the response.
        #[column(chunks)]
        pub response: Body<R>,
        /// The decoded operation.
        pub operation: Operation,
        /// Tokens and cost.
        pub usage: Usage,
        /// Every identifier seen on the wire.
        pub identifiers: Vec<Identifier>,
        /// Relations to other exchanges of the session.
        pub links: Vec<Link>,
        /// Values that were redacted before anything was written.
        pub redactions: Vec<Redaction>,
    }
}
