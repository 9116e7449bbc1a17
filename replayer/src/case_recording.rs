//! What the recording of a case holds for a replay: the user's turns, what the tools answered, what the model answered.
//!
//! Reads recorded exchanges only; it plays nothing and decides nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::canonical::canonical_text;
use schemas::exchange::{Edge, Effect, Ending, Exchange, OperationKind, Protocol};
use schemas::id::{AgentId, CaseId, IdError, TenantId};
use schemas::tools::ToolCatalog;
use serde_json::Value;
use store::StoredSession;

use crate::openai_chat;
use crate::tool_answer::{self, ToolAnswer};

/// What a tool call said, as the ladder compares it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Arguments {
    /// Canonical JSON.
    Canonical(String),
    /// Text that is not JSON.
    Verbatim(String),
}

impl Arguments {
    /// Reads the arguments as they stand on the wire.
    pub(crate) fn parse(text: &str) -> Self {
        canonical_text(text).map_or_else(|| Self::Verbatim(text.to_owned()), Self::Canonical)
    }

    /// The text, canonical or not.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Canonical(text) | Self::Verbatim(text) => text,
        }
    }
}

/// A recorded tool call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ToolRecording {
    /// The tool's name.
    pub(crate) tool: String,
    /// What it was called with.
    pub(crate) arguments: Arguments,
    /// What it answered.
    pub(crate) answer: ToolAnswer,
    /// How long it took; absent where an imported transcript does not say.
    pub(crate) duration: Option<Duration>,
}

/// A recorded model call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ModelRecording {
    /// [`openai_chat::exact_chain`] of its request.
    pub(crate) exact: Option<String>,
    /// [`openai_chat::said_chain`] of its request.
    pub(crate) said: Option<String>,
    /// HTTP status.
    pub(crate) status: u16,
    /// The answer's body as recorded, streamed or plain.
    pub(crate) answer: Vec<u8>,
}

/// What the recording observed of a tool beside its calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// What a call does outside.
    pub(crate) effect: Effect,
    /// The effect can be undone.
    pub(crate) reversible: Option<bool>,
    /// Repeating it changes nothing more.
    pub(crate) idempotent: Option<bool>,
}

/// The recording of a case, ready to be played.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Script {
    /// The case: the recorded session's id.
    pub(crate) case: CaseId,
    /// Whose traffic.
    pub(crate) tenant: TenantId,
    /// Which agent.
    pub(crate) agent: AgentId,
    /// What the user said, in order.
    pub(crate) turns: Vec<String>,
    /// The tool calls in order.
    pub(crate) tools: Vec<ToolRecording>,
    /// The model calls in order.
    pub(crate) models: Vec<ModelRecording>,
    /// What was observed of each tool.
    pub(crate) observed: BTreeMap<String, Observed>,
    /// The tools as the recording lists them (MCP entries), by name.
    pub(crate) listed: BTreeMap<String, Value>,
    /// Slices it belongs to.
    pub(crate) slices: BTreeMap<String, String>,
}

/// Why a whole session cannot be replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnusableError {
    /// Nothing that a user said was recorded or can be derived.
    #[error("no user turn was recorded, and no model request holds a user message")]
    NoTurns,
    /// It holds no exchange.
    #[error("it holds no exchange")]
    Empty,
    /// A body cannot be put together.
    #[error("exchange {seq}: {detail}")]
    Body {
        /// The exchange's number.
        seq: u32,
        /// What is wrong.
        detail: String,
    },
    /// Its id cannot name a case.
    #[error("its id cannot name a case: {0}")]
    Id(#[from] IdError),
}

impl Script {
    /// Reads a recorded session; effects declared in the catalogue go before what was observed.
    pub(crate) fn read(session: &StoredSession, catalog: &ToolCatalog) -> Result<Self, UnusableError> {
        let first = session.exchanges.first().ok_or(UnusableError::Empty)?;
        let mut script = Self {
            case: CaseId::parse(session.session.as_str())?,
            tenant: first.tenant.clone(),
            agent: first.agent.clone(),
            turns: Vec::new(),
            tools: Vec::new(),
            models: Vec::new(),
            observed: BTreeMap::new(),
            listed: BTreeMap::new(),
            slices: session.closes.iter().flat_map(|close| close.labels.clone()).collect(),
        };
        let mut longest: Option<Value> = None;
        for exchange in &session.exchanges {
            match exchange.edge {
                Edge::Turn => {
                    script.turns.extend(exchange.operation.input.clone().filter(|text| !text.is_empty()))
                }
                Edge::Model => script.read_model(session, exchange, &mut longest)?,
                Edge::Tool => script.read_tool(session, exchange)?,
            }
        }
        if script.turns.is_empty() {
            script.turns = longest.as_ref().map(user_messages).unwrap_or_default();
        }
        if script.turns.is_empty() {
            return Err(UnusableError::NoTurns);
        }
        script.apply(catalog);
        Ok(script)
    }

    fn read_model(
        &mut self,
        session: &StoredSession,
        exchange: &Exchange,
        longest: &mut Option<Value>,
    ) -> Result<(), UnusableError> {
        let spoken = matches!(exchange.protocol, Protocol::OpenaiChat | Protocol::Imported);
        if exchange.operation.kind != OperationKind::Chat || !spoken {
            return Ok(());
        }
        let request: Value =
            serde_json::from_slice(&body(session, exchange, Half::Request)?).unwrap_or(Value::Null);
        let answer = body(session, exchange, Half::Response)?;
        for tool in request["tools"].as_array().into_iter().flatten() {
            self.list_function(tool);
        }
        self.models.push(ModelRecording {
            exact: openai_chat::exact_chain(&request),
            said: openai_chat::said_chain(&request),
            status: exchange.status.unwrap_or(if exchange.ending == Ending::Complete { 200 } else { 502 }),
            answer,
        });
        let messages = |value: &Value| value["messages"].as_array().map_or(0, Vec::len);
        if longest.as_ref().is_none_or(|held| messages(&request) > messages(held)) {
            *longest = Some(request);
        }
        Ok(())
    }

    fn read_tool(&mut self, session: &StoredSession, exchange: &Exchange) -> Result<(), UnusableError> {
        let operation = &exchange.operation;
        if operation.kind == OperationKind::ListTools {
            let answer =
                tool_answer::rpc_response(&body(session, exchange, Half::Response)?).unwrap_or(Value::Null);
            for tool in answer["result"]["tools"].as_array().into_iter().flatten() {
                if let Some(name) = tool["name"].as_str() {
                    self.listed.insert(name.to_owned(), tool.clone());
                }
            }
        }
        let (OperationKind::CallTool, Some(tool)) = (operation.kind, &operation.tool) else { return Ok(()) };
        let arguments = match (&operation.arguments, &operation.arguments_verbatim) {
            (Some(canonical), _) => Arguments::Canonical(canonical.clone()),
            (None, Some(text)) => Arguments::parse(text),
            (None, None) => Arguments::Canonical("{}".to_owned()),
        };
        self.observed.entry(tool.clone()).or_insert(Observed {
            effect: operation.effect,
            reversible: operation.reversible,
            idempotent: operation.idempotent,
        });
        self.tools.push(ToolRecording {
            tool: tool.clone(),
            arguments,
            answer: tool_answer(session, exchange)?,
            duration: exchange.duration_us.map(Duration::from_micros),
        });
        Ok(())
    }

    /// A function as a model request lists it; what a tool server listed itself goes before it.
    fn list_function(&mut self, tool: &Value) {
        let function = tool.get("function").unwrap_or(tool);
        let Some(name) = function["name"].as_str() else { return };
        self.listed.entry(name.to_owned()).or_insert_with(|| {
            let mut entry = serde_json::json!({"name": name});
            if let Some(text) = function.get("description") {
                entry["description"] = text.clone();
            }
            let schema = function.get("parameters").filter(|schema| schema.is_object());
            entry["inputSchema"] = schema.cloned().unwrap_or_else(|| serde_json::json!({"type": "object"}));
            entry
        });
    }

    fn apply(&mut self, catalog: &ToolCatalog) {
        for (name, tool) in &catalog.0 {
            let observed = self.observed.entry(name.clone()).or_default();
            if tool.effect != Effect::Unknown {
                observed.effect = tool.effect;
            }
            observed.reversible = tool.reversible.or(observed.reversible);
            observed.idempotent = tool.idempotent.or(observed.idempotent);
            if let Some(schema) = &tool.args_schema {
                let entry =
                    self.listed.entry(name.clone()).or_insert_with(|| serde_json::json!({"name": name}));
                entry["inputSchema"] = schema.clone();
            }
        }
        for recording in &self.tools {
            let name = &recording.tool;
            self.listed
                .entry(name.clone())
                .or_insert_with(|| serde_json::json!({"name": name, "inputSchema": {"type": "object"}}));
        }
    }
}

enum Half {
    Request,
    Response,
}

fn body(session: &StoredSession, exchange: &Exchange, half: Half) -> Result<Vec<u8>, UnusableError> {
    let body = match half {
        Half::Request => &exchange.request,
        Half::Response => &exchange.response,
    };
    session.body(body).map_err(|error| UnusableError::Body { seq: exchange.seq, detail: error.to_string() })
}

fn tool_answer(session: &StoredSession, exchange: &Exchange) -> Result<ToolAnswer, UnusableError> {
    let operation = &exchange.operation;
    let text = || ToolAnswer::Text {
        text: operation.result.clone().unwrap_or_default(),
        is_error: operation.is_error.unwrap_or(false),
    };
    if exchange.protocol == Protocol::Imported {
        return Ok(text());
    }
    if exchange.ending != Ending::Complete {
        let detail = exchange.ending_detail.clone().unwrap_or_else(|| "it was broken off".to_owned());
        return Ok(ToolAnswer::Broken {
            status: exchange.status.filter(|s| *s >= 400).unwrap_or(502),
            detail,
        });
    }
    let bytes = body(session, exchange, Half::Response)?;
    let status = exchange.status.unwrap_or(200);
    if exchange.protocol != Protocol::Mcp {
        return Ok(ToolAnswer::Body { status, bytes });
    }
    Ok(tool_answer::from_rpc(&bytes).unwrap_or_else(|| match status {
        ..400 => text(),
        400.. => ToolAnswer::Broken { status, detail: format!("HTTP status {status}") },
    }))
}

/// What the user said, from the history of a model request.
fn user_messages(request: &Value) -> Vec<String> {
    let messages = request["messages"].as_array().into_iter().flatten();
    let texts = messages
        .filter(|message| message["role"] == "user")
        .map(|message| openai_chat::text_of(&message["content"]));
    texts.filter(|text| !text.is_empty()).collect()
}
