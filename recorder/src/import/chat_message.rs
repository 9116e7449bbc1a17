//! Chat messages of the benchmark formats, which resemble OpenAI's.
//!
//! One tolerant type reads all formats. Fields that only some have (requestor, error, timestamp) are optional.

use schemas::canonical::{canonical, canonical_text};
use schemas::exchange::Usage;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::file::ImportFile;
use super::skipped::SkippedItem;
use super::stats::ImportWarning;
use super::time;
use super::transcript::{TranscriptMessage, TranscriptRole, TranscriptToolCall};

/// A chat message of any format.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ChatMessage {
    role: String,
    content: Value,
    tool_calls: Option<Vec<ChatToolCall>>,
    tool_call_id: Option<String>,
    name: Option<String>,
    /// tau2: id of the call that a tool message answers.
    id: Option<String>,
    /// tau2: `user` or `assistant`, whose call a tool message answers.
    requestor: Option<String>,
    /// tau2: boolean; AgentDojo: text or null.
    error: Value,
    timestamp: Value,
    usage: Value,
    cost: Value,
    raw_data: Value,
    /// AgentDojo: the call that a tool message answers.
    tool_call: Value,
}

/// A tool call, with name and arguments at its top or in `function`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ChatToolCall {
    id: Option<String>,
    function: Option<ChatFunction>,
    name: Option<String>,
    /// The text as written: a [`Value`] would round long numbers.
    arguments: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
struct ChatFunction {
    name: String,
    #[serde(default)]
    arguments: Option<Box<RawValue>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ChatUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<TokenDetails>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenDetails {
    cached_tokens: Option<u64>,
}

/// An unreadable field of a message, without file and line.
#[derive(Debug)]
struct FieldError {
    field: String,
    detail: String,
}

impl FieldError {
    /// Adds file and line.
    fn at(self, file: &ImportFile, line: u64) -> SkippedItem {
        file.skipped_item(line, &self.field, self.detail)
    }
}

/// Converts the messages of a session; `list` is the name of their field.
///
/// # Errors
/// A role is unknown, or a tool call has no name.
fn messages(
    list: &str,
    messages: Vec<ChatMessage>,
    warnings: &mut Vec<ImportWarning>,
) -> Result<Vec<TranscriptMessage>, FieldError> {
    let each = messages.into_iter().enumerate();
    each.map(|(index, message)| {
        message.into_message(warnings).map_err(|error| FieldError {
            field: format!("{list}[{index}].{}", error.field),
            detail: error.detail,
        })
    })
    .collect()
}

impl ChatMessage {
    fn into_message(self, warnings: &mut Vec<ImportWarning>) -> Result<TranscriptMessage, FieldError> {
        let role = match self.role.as_str() {
            "system" | "developer" => TranscriptRole::System,
            "user" => TranscriptRole::User,
            "assistant" => TranscriptRole::Assistant,
            "tool" | "function" => TranscriptRole::Tool,
            found => {
                let detail = format!("expected system, user, assistant or tool, found {found:?}");
                return Err(FieldError { field: "role".to_owned(), detail });
            }
        };
        let at = self.timestamp.as_str().and_then(time::parse);
        if at.is_none() && !self.timestamp.is_null() {
            warnings.push(ImportWarning::TimeUnreadable);
        }
        let calls = self.tool_calls.unwrap_or_default().into_iter().enumerate();
        let calls: Result<Vec<TranscriptToolCall>, FieldError> =
            calls.map(|(index, call)| call.into_call(index)).collect();
        let error_text = self.error.as_str().map(str::to_owned);
        let text = text(&self.content).filter(|text| !text.is_empty());
        // Counts that cannot be read are absent; the message stays.
        let usage: ChatUsage =
            serde_json::from_value::<Option<ChatUsage>>(self.usage).ok().flatten().unwrap_or_default();
        let answered = self.tool_call.get("function").and_then(Value::as_str).map(str::to_owned);
        Ok(TranscriptMessage {
            role,
            text: if role == TranscriptRole::Tool { text.or(error_text) } else { text },
            redactions: Vec::new(),
            calls: calls?,
            call_id: self.tool_call_id.or(self.id).filter(|id| !id.is_empty()),
            tool: self.name.or(answered).filter(|name| !name.is_empty()),
            is_error: self.error.as_bool().or_else(|| self.error.is_string().then_some(true)),
            by_user: self.requestor.as_deref() == Some("user"),
            at,
            usage: Usage {
                input_tokens: usage.prompt_tokens,
                output_tokens: usage.completion_tokens,
                cached_tokens: usage.prompt_tokens_details.and_then(|details| details.cached_tokens),
                cost_usd: self.cost.as_f64().filter(|cost| *cost >= 0.0),
            },
            finish_reason: self.raw_data.get("finish_reason").and_then(Value::as_str).map(str::to_owned),
        })
    }
}

impl ChatToolCall {
    fn into_call(self, index: usize) -> Result<TranscriptToolCall, FieldError> {
        let (name, arguments) = match self.function {
            Some(function) => (Some(function.name), function.arguments),
            None => (self.name, self.arguments),
        };
        let Some(tool) = name.filter(|name| !name.is_empty()) else {
            let field = format!("tool_calls[{index}].function.name");
            return Err(FieldError {
                field,
                detail: "expected the name of the tool, found nothing".to_owned(),
            });
        };
        let arguments = arguments.as_deref().map(RawValue::get).map(arguments_text).unwrap_or_default();
        Ok(TranscriptToolCall {
            id: self.id.filter(|id| !id.is_empty()),
            tool,
            arguments,
            redactions: Vec::new(),
        })
    }
}

/// Arguments as a client sends them: those in a string as they are, others without white space.
fn arguments_text(written: &str) -> String {
    match serde_json::from_str::<Value>(written) {
        Ok(Value::String(text)) => text,
        // A value that has lost a digit is not what was written.
        Ok(value) if canonical_text(written).is_none_or(|text| text == canonical(&value)) => {
            value.to_string()
        }
        Ok(_) | Err(_) => written.to_owned(),
    }
}

/// The text of `content`: a string, or the text parts joined by line feeds.
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

/// The name of a task: a string or a number.
pub(super) fn task(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The number of a trial: 0 if the file has none; absent for a value that is no whole number.
pub(super) fn trial(value: &Value) -> Option<u32> {
    match value {
        Value::Null => Some(0),
        Value::Number(number) => {
            let number = number.as_f64().filter(|number| number.fract() == 0.0)?;
            format!("{number:.0}").parse().ok()
        }
        Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The success label of a reward: absent where the file has none.
///
/// # Errors
/// The value is neither a reward from 0 to 1 nor a boolean.
pub(super) fn label(
    file: &ImportFile,
    line: u64,
    field: &str,
    reward: &Value,
) -> Result<Option<bool>, SkippedItem> {
    let known = match reward {
        Value::Null => return Ok(None),
        Value::Bool(flag) => Some(*flag),
        Value::Number(number) => {
            number.as_f64().filter(|number| (0.0..=1.0 + ROUNDING).contains(number)).map(is_success)
        }
        Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let unreadable = || {
        let detail =
            format!("expected a reward from 0 to 1, a boolean, or null where unknown, found {reward}");
        file.skipped_item(line, field, detail)
    };
    known.map(Some).ok_or_else(unreadable)
}

/// The messages of a session, or why they are lost.
pub(super) fn messages_or_error(
    file: &ImportFile,
    line: u64,
    list: &str,
    found: Option<Vec<ChatMessage>>,
    error: Option<SkippedItem>,
    warnings: &mut Vec<ImportWarning>,
) -> (Vec<TranscriptMessage>, Option<SkippedItem>) {
    let read = match (error, found) {
        (Some(error), _) => Err(error),
        (None, None) => {
            Err(file.skipped_item(line, list, "expected a list of messages, found nothing".to_owned()))
        }
        (None, Some(found)) => messages(list, found, warnings).map_err(|misread| misread.at(file, line)),
    };
    match read {
        Ok(messages) => (messages, None),
        Err(error) => (Vec::new(), Some(error)),
    }
}

/// Largest rounding error of a reward.
const ROUNDING: f64 = 1e-6;

/// Whether a reward is a success: tau-bench and tau2-bench require 1, up to rounding.
pub(super) fn is_success(reward: f64) -> bool {
    reward >= 1.0 - ROUNDING
}

#[cfg(test)]
mod tests {
    use super::arguments_text;

    #[test]
    fn arguments_keep_every_digit() {
        assert_eq!(arguments_text(r#""{\"a\": 1}""#), r#"{"a": 1}"#);
        assert_eq!(arguments_text(r#"{ "b": 1, "a": null }"#), r#"{"b":1,"a":null}"#);
        let long = r#"{"order": 18446744073709551617}"#;
        assert_eq!(arguments_text(long), long);
    }
}
