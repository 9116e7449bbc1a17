//! The recording of a case, ready for replay: the user's turns, the tool answers and the model answers.
//!
//! Reads recorded exchanges only. Matching calls to answers is in [`crate::tool_index`].

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::canonical::canonical_text;
use schemas::exchange::{Edge, Effect, Ending, Exchange, OperationKind, Protocol};
use schemas::id::{AgentId, CaseId, IdError, TenantId};
use schemas::tools::ToolCatalog;
use serde_json::{Value, json};
use store::StoredSession;
use wire::openai_chat::content_text;

use crate::model_inputs::ModelRequest;
use crate::openai_chat::{content_hash, request_hash};
use crate::tool_answer::{self, ToolAnswer};

/// Arguments of a tool call, in the form in which the matcher compares them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Arguments {
    /// Canonical JSON.
    Canonical(String),
    /// Text that is not JSON.
    Verbatim(String),
}

impl Arguments {
    /// Reads the arguments as the wire carries them.
    pub(crate) fn parse(text: &str) -> Self {
        canonical_text(text).map_or_else(|| Self::Verbatim(text.to_owned()), Self::Canonical)
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Canonical(text) | Self::Verbatim(text) => text,
        }
    }
}

/// A recorded tool call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RecordedToolCall {
    pub(crate) tool: String,
    pub(crate) arguments: Arguments,
    pub(crate) answer: ToolAnswer,
    /// Time to the end of the answer; absent in an imported transcript without times.
    pub(crate) duration: Option<Duration>,
}

/// A recorded model call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RecordedModelCall {
    /// [`request_hash`] of its request.
    pub(crate) request_hash: Option<blake3::Hash>,
    /// [`content_hash`] of its request.
    pub(crate) content_hash: Option<blake3::Hash>,
    /// The parts of its request that a candidate's request is compared with.
    pub(crate) request: ModelRequest,
    /// HTTP status.
    pub(crate) status: u16,
    /// Body of the answer as recorded, streamed or plain.
    pub(crate) answer: Vec<u8>,
}

/// Effects of a tool outside the agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ToolEffects {
    pub(crate) effect: Effect,
    /// The effect can be undone.
    pub(crate) reversible: Option<bool>,
    /// Repeating the call changes nothing more.
    pub(crate) idempotent: Option<bool>,
}

/// The recording of one case.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CaseRecording {
    /// The recorded session's id.
    pub(crate) case: CaseId,
    pub(crate) tenant: TenantId,
    pub(crate) agent: AgentId,
    /// User messages in order.
    pub(crate) turns: Vec<String>,
    /// Tool calls in order.
    pub(crate) tool_calls: Vec<RecordedToolCall>,
    /// Model calls in order.
    pub(crate) model_calls: Vec<RecordedModelCall>,
    /// Effects by tool: declared in the catalogue, else observed by the recorder.
    pub(crate) effects: BTreeMap<String, ToolEffects>,
    /// MCP `tools/list` entries by tool.
    pub(crate) tool_list: BTreeMap<String, Value>,
    /// Slices of the case: the labels of the recorded session.
    pub(crate) slices: BTreeMap<String, String>,
    /// Exchanges with models and tools that the recorder could not decode, by method and path.
    pub(crate) undecoded: BTreeMap<String, u64>,
}

/// The reason why a complete session cannot be replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnusableError {
    /// The session has no turn, and no model request has a user message.
    #[error("no user turn was recorded, and no model request contains a user message")]
    NoTurns,
    /// The session has no exchange.
    #[error("the session has no exchange")]
    Empty,
    /// A body cannot be reassembled.
    #[error("exchange {seq}: {detail}")]
    Body {
        /// Number of the exchange within the session.
        seq: u32,
        /// Cause.
        detail: String,
    },
    /// The session id is no valid case id.
    #[error("the session id is no valid case id: {0}")]
    Id(#[from] IdError),
}

impl CaseRecording {
    /// Reads a recorded session. Effects that the catalogue declares take precedence over observed ones.
    pub(crate) fn read(session: &StoredSession, catalog: &ToolCatalog) -> Result<Self, UnusableError> {
        let first = session.exchanges.first().ok_or(UnusableError::Empty)?;
        let mut recording = Self {
            case: CaseId::parse(session.session.as_str())?,
            tenant: first.tenant.clone(),
            agent: first.agent.clone(),
            turns: Vec::new(),
            tool_calls: Vec::new(),
            model_calls: Vec::new(),
            effects: BTreeMap::new(),
            tool_list: BTreeMap::new(),
            slices: session.closes.iter().flat_map(|close| close.labels.clone()).collect(),
            undecoded: BTreeMap::new(),
        };
        let mut longest: Option<Value> = None;
        for exchange in &session.exchanges {
            match exchange.edge {
                Edge::Turn => {
                    let input = exchange.operation.input.clone();
                    recording.turns.extend(input.filter(|text| !text.is_empty()));
                }
                Edge::Model => recording.read_model_call(session, exchange, &mut longest)?,
                Edge::Tool => recording.read_tool_exchange(session, exchange)?,
            }
        }
        if recording.turns.is_empty() {
            recording.turns = longest.as_ref().map(user_messages).unwrap_or_default();
        }
        if recording.turns.is_empty() {
            return Err(UnusableError::NoTurns);
        }
        recording.apply(catalog);
        Ok(recording)
    }

    fn read_model_call(
        &mut self,
        session: &StoredSession,
        exchange: &Exchange,
        longest: &mut Option<Value>,
    ) -> Result<(), UnusableError> {
        let is_known = matches!(exchange.protocol, Protocol::OpenaiChat | Protocol::Imported);
        if exchange.operation.kind != OperationKind::Chat || !is_known {
            self.count_undecoded(exchange);
            return Ok(());
        }
        let request: Value =
            serde_json::from_slice(&body(session, exchange, Side::Request)?).unwrap_or(Value::Null);
        let answer = body(session, exchange, Side::Response)?;
        for tool in request["tools"].as_array().into_iter().flatten() {
            self.list_function(tool);
        }
        let previous = self.model_calls.last().map(|call| &call.request);
        let mut compared = ModelRequest::read(&request, previous);
        // Later requests repeat the opening of the first; what follows it depends on answers of the model.
        let first =
            self.model_calls.first().map_or(compared.opening_len(), |call| call.request.opening_len());
        compared.limit_opening(first);
        self.model_calls.push(RecordedModelCall {
            request: compared,
            request_hash: request_hash(&request),
            content_hash: content_hash(&request),
            status: exchange.status.unwrap_or(if exchange.ending == Ending::Complete { 200 } else { 502 }),
            answer,
        });
        let messages = |value: &Value| value["messages"].as_array().map_or(0, Vec::len);
        if longest.as_ref().is_none_or(|known| messages(&request) > messages(known)) {
            *longest = Some(request);
        }
        Ok(())
    }

    fn read_tool_exchange(
        &mut self,
        session: &StoredSession,
        exchange: &Exchange,
    ) -> Result<(), UnusableError> {
        let operation = &exchange.operation;
        if operation.kind == OperationKind::Opaque {
            self.count_undecoded(exchange);
        }
        if operation.kind == OperationKind::ListTools {
            let answer =
                tool_answer::rpc_response(&body(session, exchange, Side::Response)?).unwrap_or(Value::Null);
            for tool in answer["result"]["tools"].as_array().into_iter().flatten() {
                if let Some(name) = tool["name"].as_str() {
                    self.tool_list.insert(name.to_owned(), tool.clone());
                }
            }
        }
        let (OperationKind::CallTool, Some(tool)) = (operation.kind, &operation.tool) else { return Ok(()) };
        let arguments = match (&operation.arguments, &operation.arguments_verbatim) {
            (Some(canonical), _) => Arguments::Canonical(canonical.clone()),
            (None, Some(text)) => Arguments::parse(text),
            (None, None) => Arguments::Canonical("{}".to_owned()),
        };
        self.effects.entry(tool.clone()).or_insert(ToolEffects {
            effect: operation.effect,
            reversible: operation.reversible,
            idempotent: operation.idempotent,
        });
        self.tool_calls.push(RecordedToolCall {
            tool: tool.clone(),
            arguments,
            answer: recorded_answer(session, exchange)?,
            duration: exchange.duration_us.map(Duration::from_micros),
        });
        Ok(())
    }

    fn count_undecoded(&mut self, exchange: &Exchange) {
        let part = |text: &Option<schemas::exchange::SmallStr>| text.as_ref().map(ToString::to_string);
        let path = part(&exchange.path).unwrap_or_else(|| "unknown path".to_owned());
        let path = path.split('?').next().unwrap_or_default();
        let name = format!("{} {path}", part(&exchange.http_method).unwrap_or_default());
        *self.undecoded.entry(name.trim().to_owned()).or_insert(0) += 1;
    }

    /// Whether the world has no answer to any model or tool call.
    pub(crate) fn answers_nothing(&self) -> bool {
        self.model_calls.is_empty() && self.tool_calls.is_empty()
    }

    /// Adds a function of a model request, unless a tool server already listed it.
    fn list_function(&mut self, tool: &Value) {
        let function = tool.get("function").unwrap_or(tool);
        let Some(name) = function["name"].as_str() else { return };
        self.tool_list.entry(name.to_owned()).or_insert_with(|| {
            let mut entry = json!({"name": name});
            if let Some(text) = function.get("description") {
                entry["description"] = text.clone();
            }
            let schema = function.get("parameters").filter(|schema| schema.is_object());
            entry["inputSchema"] = schema.cloned().unwrap_or_else(|| json!({"type": "object"}));
            entry
        });
    }

    fn apply(&mut self, catalog: &ToolCatalog) {
        for (name, tool) in &catalog.0 {
            let effects = self.effects.entry(name.clone()).or_default();
            if tool.effect != Effect::Unknown {
                effects.effect = tool.effect;
            }
            effects.reversible = tool.reversible.or(effects.reversible);
            effects.idempotent = tool.idempotent.or(effects.idempotent);
            if let Some(schema) = &tool.args_schema {
                let entry = self.tool_list.entry(name.clone()).or_insert_with(|| json!({"name": name}));
                entry["inputSchema"] = schema.clone();
            }
        }
        for call in &self.tool_calls {
            let name = &call.tool;
            let entry = || json!({"name": name, "inputSchema": {"type": "object"}});
            self.tool_list.entry(name.clone()).or_insert_with(entry);
        }
    }
}

enum Side {
    Request,
    Response,
}

fn body(session: &StoredSession, exchange: &Exchange, side: Side) -> Result<Vec<u8>, UnusableError> {
    let body = match side {
        Side::Request => &exchange.request,
        Side::Response => &exchange.response,
    };
    session.body(body).map_err(|error| UnusableError::Body { seq: exchange.seq, detail: error.to_string() })
}

fn recorded_answer(session: &StoredSession, exchange: &Exchange) -> Result<ToolAnswer, UnusableError> {
    let operation = &exchange.operation;
    let text = || ToolAnswer::Text {
        text: operation.result.clone().unwrap_or_default(),
        is_error: operation.is_error.unwrap_or(false),
    };
    if exchange.protocol == Protocol::Imported {
        return Ok(text());
    }
    if exchange.ending != Ending::Complete {
        let detail = exchange.ending_detail.clone().unwrap_or_else(|| "the call was cut off".to_owned());
        return Ok(ToolAnswer::Broken {
            status: exchange.status.filter(|s| *s >= 400).unwrap_or(502),
            detail,
        });
    }
    let bytes = body(session, exchange, Side::Response)?;
    let status = exchange.status.unwrap_or(200);
    if exchange.protocol != Protocol::Mcp {
        return Ok(ToolAnswer::Body { status, bytes });
    }
    Ok(tool_answer::from_rpc(&bytes).unwrap_or_else(|| match status {
        ..400 => text(),
        400.. => ToolAnswer::Broken { status, detail: format!("HTTP status {status}") },
    }))
}

/// The user messages in the history of a model request.
fn user_messages(request: &Value) -> Vec<String> {
    let messages = request["messages"].as_array().into_iter().flatten();
    let texts = messages
        .filter(|message| message["role"] == "user")
        .filter_map(|message| content_text(&message["content"]));
    texts.filter(|text| !text.is_empty()).collect()
}
