//! One request and its answer on one edge: what the tap records, what an import makes, what a replay leaves behind.
//!
//! Raw bodies are the truth; the decoded operation is derived from them and can be derived again.

use serde::{Deserialize, Serialize};

use crate::body::Body;
use crate::id::{AgentId, BuildId, ExchangeId, IncarnationId, SessionId, TenantId};
use crate::keys::Digest;

/// A text of a few bytes, as most of the many in an exchange are: up to 24 lie in place.
pub type SmallStr = compact_str::CompactString;

/// Which boundary an exchange crossed.
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

/// What the bytes of an exchange were understood as.
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
    /// A JSON request and a JSON answer, read by configured pointers.
    GenericJson,
    /// Not understood; bytes only.
    Opaque,
    /// Made by `foreshadow import` from a transcript that carried no wire bytes.
    Imported,
}

/// How an exchange ended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::IntoStaticStr, strum::EnumString,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Ending {
    /// The answer arrived whole.
    Complete,
    /// No answer: the upstream refused, broke or timed out before its head was complete.
    Failed,
    /// The answer began and the upstream broke it off.
    Truncated,
    /// The client went away before the answer was whole.
    Cancelled,
}

/// What was done, decoded.
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
    /// The list of tools was asked for.
    ListTools,
    /// Another message of a known protocol (an MCP `initialize`, a ping).
    Other,
    /// Bytes that were not understood.
    Opaque,
}

/// What a tool call does outside.
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
    /// Not declared: a replay treats it as a write, the effect metrics leave it out and count it apart.
    #[default]
    Unknown,
}

/// A tool call that a model asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestedCall {
    /// The provider's id of the call, where it gave one.
    pub id: Option<String>,
    /// The tool's name.
    pub tool: String,
    /// The arguments as the model wrote them.
    pub arguments: String,
}

/// The decoded operation: flat, so that every field is a column; what does not apply is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// What was done.
    pub kind: OperationKind,
    /// Protocol method where there is one (`tools/call`, `initialize`).
    pub method: Option<String>,
    /// Model: the model as the provider returned it, else as requested.
    pub model: Option<String>,
    /// Turn: what the caller said. Model: the text of the last user or tool message is not repeated here.
    pub input: Option<String>,
    /// Turn: what the agent answered. Model: the text the model wrote.
    pub output: Option<String>,
    /// Model: why it stopped, in the provider's words.
    pub finish_reason: Option<String>,
    /// Model: the tool calls it asked for, in order.
    pub requested: Vec<RequestedCall>,
    /// Tool: its name as on the wire.
    pub tool: Option<String>,
    /// Tool: the arguments in canonical JSON ([`crate::canonical`]); absent where they could not be parsed.
    pub arguments: Option<String>,
    /// Tool: the arguments kept verbatim because they could not be parsed.
    pub arguments_verbatim: Option<String>,
    /// Tool: keyed digest of the canonical arguments, for look-ups without the payload.
    pub arguments_digest: Option<Digest>,
    /// Tool: the result as text (for MCP the text contents joined by line feeds, else the structured content).
    pub result: Option<String>,
    /// Tool: whether the tool itself reported a failure.
    pub is_error: Option<bool>,
    /// Tool: what the call does outside.
    pub effect: Effect,
    /// Tool: the effect can be undone; absent where undeclared.
    pub reversible: Option<bool>,
    /// Tool: repeating the call changes nothing more; absent where undeclared.
    pub idempotent: Option<bool>,
}

impl Operation {
    /// An operation of this kind with nothing decoded.
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

/// Tokens and money, as the provider reported them; absent where it did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read, cached ones included.
    pub input_tokens: Option<u64>,
    /// Tokens written.
    pub output_tokens: Option<u64>,
    /// Of the tokens read, those that came from the provider's cache.
    pub cached_tokens: Option<u64>,
    /// In US dollars.
    pub cost_usd: Option<f64>,
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
    /// A guess that can be wrong (no identifier at all, joined by content).
    Weak,
    /// A general identifier that usually means the session (trace id, MCP session).
    Likely,
    /// An identifier configured or made for the purpose.
    Certain,
}

/// An identifier seen on the wire; all of them are kept, so that sessions can be stitched again later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identifier {
    /// What it is called: `x-session-id`, `traceparent`, `mcp-session-id`, `gen_ai.response.id`.
    pub name: SmallStr,
    /// Its value, redacted like every other text.
    pub value: SmallStr,
    /// Where it stood: `request header`, `response header`, `request body`, `response body`, `import`.
    pub source: SmallStr,
    /// How surely it names the session.
    pub confidence: Confidence,
    /// Whether the session id of this exchange was taken from it.
    pub chosen: bool,
}

/// What another exchange of the same session has to do with this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The other exchange.
    pub to: ExchangeId,
    /// `requested_by` (a tool call and the model call that asked for it), `continues` (a model call and the one whose
    /// history it carries on).
    pub kind: SmallStr,
    /// How it was found.
    pub source: SmallStr,
    /// How sure it is.
    pub confidence: Confidence,
}

/// One kind of value that was replaced, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redaction {
    /// What was replaced: `openai_key`, `bearer`, `header:authorization`.
    pub kind: SmallStr,
    /// Where: `request body`, `response header`.
    pub location: SmallStr,
    /// How many values.
    pub count: u32,
}

/// A header that was allowed to be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Lower-case name.
    pub name: SmallStr,
    /// Its value, redacted.
    pub value: SmallStr,
}

/// One request and its answer; `R` is what pieces of bodies are named by ([`Body`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exchange<R = Digest> {
    /// This exchange.
    pub exchange: ExchangeId,
    /// Whose traffic.
    pub tenant: TenantId,
    /// Which agent.
    pub agent: AgentId,
    /// Which version of it, where known.
    pub build: Option<BuildId>,
    /// The session it belongs to. In a run: the trial's session, see [`crate::trial::Trial::session`].
    pub session: SessionId,
    /// The recorder process that saw it.
    pub incarnation: IncarnationId,
    /// Its number within (incarnation, session), from 0, without gaps, in the order in which exchanges started.
    pub seq: u32,
    /// Its number within the incarnation, from 0.
    pub incarnation_seq: u64,
    /// Which boundary it crossed.
    pub edge: Edge,
    /// What its bytes were understood as.
    pub protocol: Protocol,
    /// When the request's head arrived, UTC, microseconds since 1970.
    pub started_at: i64,
    /// When the session it belongs to started, UTC, microseconds since 1970: decides the `date=` it is stored under.
    pub session_started_at: i64,
    /// From the start to the first byte of the answer's body, microseconds.
    pub first_byte_us: Option<u64>,
    /// From the start to the end, microseconds; absent where an imported transcript does not say.
    pub duration_us: Option<u64>,
    /// For a streamed answer: the times between its frames, microseconds, the first from `first_byte_us`.
    pub frame_gaps_us: Vec<u32>,
    /// How it ended.
    pub ending: Ending,
    /// Why it did not end complete, or what was odd about it, in words.
    pub ending_detail: Option<String>,
    /// HTTP method.
    pub http_method: Option<SmallStr>,
    /// Path and query, redacted.
    pub path: Option<SmallStr>,
    /// HTTP status of the answer.
    pub status: Option<u16>,
    /// Allowed request headers.
    pub request_headers: Vec<Header>,
    /// Allowed response headers.
    pub response_headers: Vec<Header>,
    /// The request's body.
    pub request: Body<R>,
    /// The answer's body.
    pub response: Body<R>,
    /// The decoded operation.
    pub operation: Operation,
    /// Tokens and money.
    pub usage: Usage,
    /// Every identifier seen.
    pub identifiers: Vec<Identifier>,
    /// What it has to do with other exchanges of the session.
    pub links: Vec<Link>,
    /// What was replaced before anything was written.
    pub redactions: Vec<Redaction>,
    /// What the capability envelope said of it, once governance asserts one.
    pub envelope: Option<String>,
}

impl<R> Exchange<R> {
    /// Renames the references of both bodies.
    ///
    /// # Errors
    /// Whatever `rename` says.
    pub fn try_map<S, E>(self, mut rename: impl FnMut(R) -> Result<S, E>) -> Result<Exchange<S>, E> {
        Ok(Exchange {
            request: self.request.try_map(&mut rename)?,
            response: self.response.try_map(&mut rename)?,
            exchange: self.exchange,
            tenant: self.tenant,
            agent: self.agent,
            build: self.build,
            session: self.session,
            incarnation: self.incarnation,
            seq: self.seq,
            incarnation_seq: self.incarnation_seq,
            edge: self.edge,
            protocol: self.protocol,
            started_at: self.started_at,
            session_started_at: self.session_started_at,
            first_byte_us: self.first_byte_us,
            duration_us: self.duration_us,
            frame_gaps_us: self.frame_gaps_us,
            ending: self.ending,
            ending_detail: self.ending_detail,
            http_method: self.http_method,
            path: self.path,
            status: self.status,
            request_headers: self.request_headers,
            response_headers: self.response_headers,
            operation: self.operation,
            usage: self.usage,
            identifiers: self.identifiers,
            links: self.links,
            redactions: self.redactions,
            envelope: self.envelope,
        })
    }
}
