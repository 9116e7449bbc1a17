//! Chat messages as the supported formats write them: close relatives of OpenAI's, each lax in its own way.
//!
//! One tolerant shape reads them all; what a format adds (requestor, error, timestamp) is optional here.

use schemas::exchange::Usage;
use serde::Deserialize;
use serde_json::Value;

use super::stats::{Oddity, SetAside};
use super::time;
use super::transcript::{Call, Message, Role};

/// A message.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireMessage {
    role: String,
    content: Value,
    tool_calls: Option<Vec<WireCall>>,
    tool_call_id: Option<String>,
    name: Option<String>,
    /// tau2: the id of the call that a tool's message answers.
    id: Option<String>,
    /// tau2: whose call a tool's message answers.
    requestor: Option<String>,
    /// tau2: a flag; AgentDojo: a text or null.
    error: Value,
    timestamp: Option<String>,
    usage: Option<WireUsage>,
    cost: Option<f64>,
    raw_data: Value,
    /// AgentDojo: the call that a tool's message answers.
    tool_call: Value,
}

/// A tool call, with its function beside it or inside it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireCall {
    id: Option<String>,
    function: Option<WireFunction>,
    name: Option<String>,
    arguments: Value,
}

#[derive(Debug, Deserialize)]
struct WireFunction {
    name: String,
    #[serde(default)]
    arguments: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<WireDetails>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireDetails {
    cached_tokens: Option<u64>,
}

/// Which field of a message cannot be understood, and why: turned into a [`SetAside`] by who knows file and line.
#[derive(Debug)]
pub(super) struct Misread {
    field: String,
    detail: String,
}

impl Misread {
    pub(super) fn at(self, source: &super::Source, line: u64) -> SetAside {
        source.set_aside(line, &self.field, self.detail)
    }
}

/// Turns a session's messages into ours; `list` is the field they stand in.
///
/// # Errors
/// Names the message whose role or tool call cannot be understood.
pub(super) fn messages(
    list: &str,
    wire: Vec<WireMessage>,
    oddities: &mut Vec<Oddity>,
) -> Result<Vec<Message>, Misread> {
    let each = wire.into_iter().enumerate();
    each.map(|(place, message)| {
        message.into_message(oddities).map_err(|misread| Misread {
            field: format!("{list}[{place}].{}", misread.field),
            detail: misread.detail,
        })
    })
    .collect()
}

impl WireMessage {
    fn into_message(self, oddities: &mut Vec<Oddity>) -> Result<Message, Misread> {
        let role = match self.role.as_str() {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" | "function" => Role::Tool,
            found => {
                let detail = format!("expected system, user, assistant or tool, found {found:?}");
                return Err(Misread { field: "role".to_owned(), detail });
            }
        };
        let at = self.timestamp.as_deref().and_then(time::parse);
        if at.is_none() && self.timestamp.is_some() {
            oddities.push(Oddity::TimeUnreadable);
        }
        let calls = self.tool_calls.unwrap_or_default().into_iter().enumerate();
        let calls: Result<Vec<Call>, Misread> = calls.map(|(place, call)| call.into_call(place)).collect();
        let error_text = self.error.as_str().map(str::to_owned);
        let text = text(&self.content).filter(|text| !text.is_empty());
        let usage = self.usage.unwrap_or_default();
        let answered = self.tool_call.get("function").and_then(Value::as_str).map(str::to_owned);
        Ok(Message {
            role,
            text: if role == Role::Tool { text.or(error_text) } else { text },
            redactions: Vec::new(),
            calls: calls?,
            call_id: self.tool_call_id.or(self.id).filter(|id| !id.is_empty()),
            tool: self.name.or(answered).filter(|name| !name.is_empty()),
            is_error: self.error.as_bool().or_else(|| self.error.is_string().then_some(true)),
            callers: self.requestor.as_deref() == Some("user"),
            at,
            usage: Usage {
                input_tokens: usage.prompt_tokens,
                output_tokens: usage.completion_tokens,
                cached_tokens: usage.prompt_tokens_details.and_then(|details| details.cached_tokens),
                cost_usd: self.cost,
            },
            finish_reason: self.raw_data.get("finish_reason").and_then(Value::as_str).map(str::to_owned),
        })
    }
}

impl WireCall {
    fn into_call(self, place: usize) -> Result<Call, Misread> {
        let (name, arguments) = match self.function {
            Some(function) => (Some(function.name), function.arguments),
            None => (self.name, self.arguments),
        };
        let Some(tool) = name.filter(|name| !name.is_empty()) else {
            let field = format!("tool_calls[{place}].function.name");
            return Err(Misread { field, detail: "expected the tool's name, found nothing".to_owned() });
        };
        let arguments = match arguments {
            Value::Null => String::new(),
            Value::String(text) => text,
            other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                other.to_string()
            }
        };
        Ok(Call { id: self.id.filter(|id| !id.is_empty()), tool, arguments, redactions: Vec::new() })
    }
}

/// The text of a content: itself, or its text parts joined by line feeds.
fn text(content: &Value) -> Option<String> {
    match content {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let part = |part: &Value| match part {
                Value::String(text) => Some(text.clone()),
                _ => part
                    .get("text")
                    .or_else(|| part.get("content"))
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            };
            Some(parts.iter().filter_map(part).collect::<Vec<_>>().join("\n"))
        }
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => Some(content.to_string()),
    }
}

/// The name of a task, which is a text in some formats and a number in others.
pub(super) fn task(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether a reward means success: tau-bench and tau2-bench count 1 up to rounding.
pub(super) fn is_success(reward: f64) -> bool {
    reward >= 1.0 - 1e-6
}
