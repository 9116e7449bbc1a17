//! `OpenAI` chat completions: assembles the deltas of a stream, reads plain completions, and writes streams.
//!
//! Sources: `OpenAI` API reference, "Chat completion object" and "Chat completion chunk object"
//! (<https://platform.openai.com/docs/api-reference/chat>). Deltas combine as in `accumulate_delta` of `openai-python`:
//! strings concatenate. Two rules serve servers that deviate: an id or a tool name that a server repeats with each
//! delta is read once, and a tool call without an `index` is a new call if it has an `id`, else a part of the last one.

use std::collections::BTreeMap;

use schemas::exchange::{RequestedCall, Usage};
use serde_json::{Map, Value, json};

use crate::sse;

/// Choices that are read from one answer; `OpenAI` allows 128.
pub const MAX_CHOICES: usize = 256;

/// Tool calls that are read from one choice; `OpenAI` allows 128 tools.
pub const MAX_TOOL_CALLS: usize = 256;

/// Data of the event that ends a stream.
const DONE: &str = "[DONE]";

/// A completion, plain or assembled from a stream.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatAnswer {
    /// Top-level fields except `choices` and `object`; of each the last value that is not null or empty.
    fields: Map<String, Value>,
    choices: BTreeMap<u64, ChatChoice>,
    is_done: bool,
    malformed_events: usize,
}

/// One choice of a completion.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatChoice {
    /// Text of the message; absent if the server sent none or null.
    pub content: Option<String>,
    /// Refusal of the message.
    pub refusal: Option<String>,
    /// Reason for which the model stopped; absent while the stream runs.
    pub finish_reason: Option<String>,
    tool_calls: BTreeMap<u64, RequestedCall>,
    /// Call of the interface that preceded tools.
    function_call: Option<RequestedCall>,
}

impl ChatAnswer {
    /// Reads a complete body, streamed or plain. Returns `None` if it is neither a completion nor a stream of chunks.
    #[must_use]
    pub fn from_body(body: &[u8]) -> Option<Self> {
        match serde_json::from_slice::<Value>(body) {
            Ok(value) => Self::from_completion(value),
            Err(_) => Some(Self::from_event_stream(body)).filter(|answer| !answer.choices.is_empty()),
        }
    }

    /// Reads a plain completion. Returns `None` if it has no `choices`.
    #[must_use]
    pub fn from_completion(completion: Value) -> Option<Self> {
        let mut answer = Self { is_done: true, ..Self::default() };
        let choices = answer.read_fields(completion)?;
        for (position, choice) in choices.iter().enumerate() {
            let index = choice.get("index").and_then(Value::as_u64).unwrap_or(position as u64);
            if answer.choices.len() >= MAX_CHOICES || answer.choices.contains_key(&index) {
                continue;
            }
            let mut read = ChatChoice::default();
            read.add(choice, choice.get("message").unwrap_or(&Value::Null), CallOrder::Position);
            answer.choices.insert(index, read);
        }
        Some(answer)
    }

    /// Assembles the chunks of a complete event stream.
    #[must_use]
    pub fn from_event_stream(body: &[u8]) -> Self {
        let mut answer = Self::default();
        for event in sse::events(body) {
            answer.push_event(&event.text(body));
        }
        answer
    }

    /// Adds the data of the next event. Data that is not JSON is counted and skipped.
    pub fn push_event(&mut self, data: &str) {
        if data.trim() == DONE {
            self.is_done = true;
            return;
        }
        let Ok(chunk) = serde_json::from_str::<Value>(data) else {
            self.malformed_events += 1;
            return;
        };
        for choice in self.read_fields(chunk).unwrap_or_default() {
            let index = choice.get("index").and_then(Value::as_u64).unwrap_or(0);
            if self.choices.len() >= MAX_CHOICES && !self.choices.contains_key(&index) {
                continue;
            }
            let delta = choice.get("delta").unwrap_or(&Value::Null);
            self.choices.entry(index).or_default().add(&choice, delta, CallOrder::Index);
        }
    }

    /// Keeps the top-level fields and returns the choices.
    fn read_fields(&mut self, value: Value) -> Option<Vec<Value>> {
        let Value::Object(fields) = value else { return None };
        let mut choices = None;
        for (name, value) in fields {
            match (name.as_str(), value) {
                ("choices", Value::Array(read)) => choices = Some(read),
                // `obfuscation` pads each chunk to a random length and belongs to that chunk alone.
                ("choices" | "object" | "obfuscation", _) | (_, Value::Null) => {}
                ("id", _) if self.fields.contains_key("id") => {}
                // Azure opens a stream with a chunk whose id and model are empty.
                (_, Value::String(text)) if text.is_empty() => {}
                (_, value) => {
                    self.fields.insert(name, value);
                }
            }
        }
        choices
    }

    /// Id of the completion.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.fields.get("id").and_then(Value::as_str)
    }

    /// Model that answered, as the provider names it.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.fields.get("model").and_then(Value::as_str)
    }

    /// Tokens and cost as the provider counted them; `cost` is `OpenRouter`'s, in US dollars.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let usage = self.fields.get("usage").unwrap_or(&Value::Null);
        let count = |pointer: &str| usage.pointer(pointer).and_then(Value::as_u64);
        Usage {
            input_tokens: count("/prompt_tokens"),
            output_tokens: count("/completion_tokens"),
            cached_tokens: count("/prompt_tokens_details/cached_tokens"),
            cost_usd: usage.get("cost").and_then(Value::as_f64),
        }
    }

    /// The choice with index 0.
    #[must_use]
    pub fn first_choice(&self) -> Option<&ChatChoice> {
        self.choices.get(&0)
    }

    /// Whether the answer is complete: it is plain, its stream ended with `[DONE]`, or the first choice has a finish
    /// reason (some servers omit `[DONE]`).
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.is_done || self.first_choice().is_some_and(|choice| choice.finish_reason.is_some())
    }

    /// Events of the stream whose data is not JSON.
    #[must_use]
    pub fn malformed_events(&self) -> usize {
        self.malformed_events
    }

    /// The plain completion with the meaning of this answer. Returns `None` without choices.
    #[must_use]
    pub fn to_completion(&self) -> Option<Value> {
        if self.choices.is_empty() {
            return None;
        }
        let choices = self.choices.iter().map(|(index, choice)| {
            json!({"index": index, "message": choice.message(), "finish_reason": choice.finish_reason})
        });
        let mut completion = self.fields.clone();
        completion.insert("object".to_owned(), json!("chat.completion"));
        completion.insert("choices".to_owned(), choices.collect());
        Some(Value::Object(completion))
    }
}

/// How a tool call without an `index` is told from its neighbours.
#[derive(Debug, Clone, Copy)]
enum CallOrder {
    /// A complete message: each element is a call.
    Position,
    /// A delta: an id starts a call, its absence continues the last one.
    Index,
}

impl ChatChoice {
    /// The tool calls by index, then the call of the older function interface.
    pub fn requested_calls(&self) -> impl Iterator<Item = &RequestedCall> {
        self.tool_calls.values().chain(&self.function_call)
    }

    /// The message as it stands in a plain completion and in the history of the next request.
    #[must_use]
    pub fn message(&self) -> Value {
        let mut message = json!({"role": "assistant", "content": self.content});
        if let Some(refusal) = &self.refusal {
            message["refusal"] = json!(refusal);
        }
        let function = |call: &RequestedCall| json!({"name": call.tool, "arguments": call.arguments});
        if !self.tool_calls.is_empty() {
            let calls = self.tool_calls.values().map(|call| {
                json!({"id": call.id.as_deref().unwrap_or_default(), "type": "function", "function": function(call)})
            });
            message["tool_calls"] = calls.collect();
        }
        if let Some(call) = &self.function_call {
            message["function_call"] = function(call);
        }
        message
    }

    /// Adds a complete message or the next delta of one.
    fn add(&mut self, choice: &Value, message: &Value, order: CallOrder) {
        if let Some(text) = message.get("content").and_then(content_text) {
            self.content.get_or_insert_default().push_str(&text);
        }
        if let Some(text) = message.get("refusal").and_then(Value::as_str) {
            self.refusal.get_or_insert_default().push_str(text);
        }
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            self.finish_reason = Some(reason.to_owned());
        }
        let calls = message.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
        for (position, call) in calls.enumerate() {
            let id = call.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
            let last = self.tool_calls.keys().next_back().copied();
            let index = call.get("index").and_then(Value::as_u64).unwrap_or(match (order, id, last) {
                (CallOrder::Position, _, _) => position as u64,
                (CallOrder::Index, Some(_), Some(last)) => last.saturating_add(1),
                (CallOrder::Index, None, Some(last)) => last,
                (CallOrder::Index, _, None) => 0,
            });
            if self.tool_calls.len() >= MAX_TOOL_CALLS && !self.tool_calls.contains_key(&index) {
                continue;
            }
            let known = self.tool_calls.entry(index).or_insert_with(empty_call);
            if let Some(id) = id {
                known.id.get_or_insert_with(|| id.to_owned());
            }
            add_function(known, call.get("function").unwrap_or(&Value::Null));
        }
        if let Some(function) = message.get("function_call").filter(|function| function.is_object()) {
            add_function(self.function_call.get_or_insert_with(empty_call), function);
        }
    }
}

fn empty_call() -> RequestedCall {
    RequestedCall { id: None, tool: String::new(), arguments: String::new() }
}

fn add_function(call: &mut RequestedCall, function: &Value) {
    if let Some(name) = function.get("name").and_then(Value::as_str)
        && name != call.tool
    {
        call.tool.push_str(name);
    }
    match function.get("arguments") {
        Some(Value::String(part)) => call.arguments.push_str(part),
        // Some servers send the arguments as an object.
        Some(object @ Value::Object(_)) => call.arguments.push_str(&object.to_string()),
        Some(_) | None => {}
    }
}

/// The text of a message's content: the string, or its text parts joined by line feeds. Returns `None` for null and
/// for content of any other type.
#[must_use]
pub fn content_text(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str));
            Some(texts.collect::<Vec<_>>().join("\n"))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// Writes a plain completion as an event stream: for each choice one chunk with the message and one with the finish
/// reason, then the usage if the request asked for it (`stream_options.include_usage`), then `[DONE]`.
#[must_use]
pub fn write_stream(completion: &Value, include_usage: bool) -> Vec<u8> {
    let chunk = |choices: Value| {
        json!({
            "id": completion["id"], "object": "chat.completion.chunk",
            "created": completion["created"], "model": completion["model"], "choices": choices,
        })
    };
    let mut out = Vec::new();
    for choice in completion["choices"].as_array().into_iter().flatten() {
        let index = &choice["index"];
        let mut delta = choice.get("message").cloned().unwrap_or_else(|| json!({"role": "assistant"}));
        let calls = delta.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten();
        for (position, call) in calls.enumerate() {
            if let Some(call) = call.as_object_mut() {
                call.insert("index".to_owned(), json!(position));
            }
        }
        let first = chunk(json!([{"index": index, "delta": delta, "finish_reason": null}]));
        let last = chunk(json!([{"index": index, "delta": {}, "finish_reason": choice["finish_reason"]}]));
        sse::write_event(&mut out, None, &first.to_string());
        sse::write_event(&mut out, None, &last.to_string());
    }
    if include_usage {
        let mut last = chunk(json!([]));
        last["usage"] = completion.get("usage").cloned().unwrap_or(Value::Null);
        sse::write_event(&mut out, None, &last.to_string());
    }
    sse::write_event(&mut out, None, DONE);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn completion() -> Value {
        json!({
            "id": "c1", "object": "chat.completion", "created": 7, "model": "m",
            "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
                "role": "assistant", "content": "wait",
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
                    {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}},
                ],
            }}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2},
        })
    }

    fn stream(deltas: &[Value]) -> ChatAnswer {
        let mut answer = ChatAnswer::default();
        for delta in deltas {
            answer.push_event(&json!({"choices": [{"index": 0, "delta": delta}]}).to_string());
        }
        answer
    }

    fn calls(answer: &ChatAnswer) -> Vec<(Option<&str>, &str, &str)> {
        let choice = answer.first_choice().expect("a choice");
        choice
            .requested_calls()
            .map(|call| (call.id.as_deref(), call.tool.as_str(), call.arguments.as_str()))
            .collect()
    }

    #[test]
    fn a_stream_and_its_completion_have_the_same_meaning() {
        let plain = ChatAnswer::from_body(completion().to_string().as_bytes()).expect("a completion");
        let streamed = ChatAnswer::from_body(&write_stream(&completion(), true)).expect("a stream");
        assert_eq!(streamed, plain);
        assert_eq!(streamed.to_completion().expect("choices"), completion());
        assert_eq!((plain.id(), plain.model(), plain.usage().input_tokens), (Some("c1"), Some("m"), Some(5)));
        assert!(streamed.is_finished());
    }

    #[test]
    fn assembles_split_and_interleaved_calls() {
        let answer = stream(&[
            json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{\"x\""}}]}),
            json!({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}]}),
            json!({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}),
        ]);
        assert_eq!(calls(&answer), [(Some("a"), "f", "{\"x\":1}"), (Some("b"), "g", "{}")]);
        assert!(!answer.is_finished());
    }

    #[test]
    fn a_name_may_be_split_or_repeated() {
        let call = |name: &str, arguments: &str| json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": name, "arguments": arguments}}]});
        assert_eq!(
            calls(&stream(&[call("get_", ""), call("order", "{}")])),
            [(Some("a"), "get_order", "{}")]
        );
        assert_eq!(
            calls(&stream(&[call("refund", "{"), call("refund", "}")])),
            [(Some("a"), "refund", "{}")]
        );
    }

    #[test]
    fn without_an_index_an_id_starts_a_call() {
        let part = |id: Option<&str>, arguments: &str| json!({"tool_calls": [{"id": id, "function": {"name": "f", "arguments": arguments}}]});
        let answer = stream(&[part(Some("a"), "{"), part(None, "}"), part(Some("b"), "[]")]);
        assert_eq!(calls(&answer), [(Some("a"), "f", "{}"), (Some("b"), "f", "[]")]);
    }

    #[test]
    fn calls_of_a_plain_message_need_neither_index_nor_id() {
        let call = |name: &str| json!({"function": {"name": name, "arguments": {"x": 1}}});
        let body = json!({"choices": [{"message": {"content": null, "tool_calls": [call("f"), call("g")]}}]});
        let answer = ChatAnswer::from_completion(body).expect("a completion");
        assert_eq!(calls(&answer), [(None, "f", "{\"x\":1}"), (None, "g", "{\"x\":1}")]);
    }

    #[test]
    fn reads_the_function_interface_that_preceded_tools() {
        let answer = stream(&[
            json!({"function_call": {"name": "f", "arguments": "{"}}),
            json!({"function_call": {"arguments": "}"}}),
        ]);
        assert_eq!(calls(&answer), [(None, "f", "{}")]);
        let completion = answer.to_completion().expect("choices");
        assert_eq!(
            completion["choices"][0]["message"]["function_call"],
            json!({"name": "f", "arguments": "{}"})
        );
    }

    #[test]
    fn keeps_choices_apart_and_joins_text_parts() {
        let mut answer = ChatAnswer::default();
        answer.push_event(
            r#"{"choices":[{"index":1,"delta":{"content":"b"}},{"index":0,"delta":{"content":"a"}}]}"#,
        );
        answer.push_event(r#"{"choices":[{"index":0,"delta":{"content":[{"type":"text","text":"c"}]},"finish_reason":"stop"}]}"#);
        assert_eq!(answer.first_choice().expect("a choice").content.as_deref(), Some("ac"));
        let completion = answer.to_completion().expect("choices");
        assert_eq!(completion["choices"][1]["message"]["content"], "b");
        assert!(answer.is_finished());
    }

    #[test]
    fn counts_events_that_are_not_json() {
        let answer =
            ChatAnswer::from_event_stream(b"data: {oops\n\ndata: {\"choices\":[]}\n\ndata: [DONE]\n\n");
        assert_eq!((answer.malformed_events(), answer.is_finished()), (1, true));
        assert_eq!(answer.to_completion(), None);
    }

    #[test]
    fn empty_ids_of_the_first_chunk_do_not_count() {
        let mut answer = ChatAnswer::default();
        answer.push_event(r#"{"id":"","model":"","choices":[],"obfuscation":"x"}"#);
        answer.push_event(
            r#"{"id":"c1","model":"m-1","usage":null,"choices":[{"index":0,"delta":{"content":"a"}}]}"#,
        );
        assert_eq!((answer.id(), answer.model()), (Some("c1"), Some("m-1")));
        let completion = answer.to_completion().expect("choices");
        assert!(completion.get("obfuscation").is_none() && completion.get("usage").is_none());
    }

    #[test]
    fn keeps_a_bounded_number_of_choices_and_calls() {
        let mut answer = ChatAnswer::default();
        for index in 0..2000_u64 {
            answer.push_event(
                &json!({"choices": [
                    {"index": index * 1000, "delta": {"content": "a"}},
                    {"index": 0, "delta": {"tool_calls": [{"index": index, "function": {"name": "f"}}]}},
                ]})
                .to_string(),
            );
        }
        assert_eq!(answer.choices.len(), MAX_CHOICES);
        assert_eq!(answer.first_choice().expect("a choice").requested_calls().count(), MAX_TOOL_CALLS);
    }

    proptest! {
        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,80}") {
            let _ = ChatAnswer::from_body(&body);
            let mut answer = ChatAnswer::default();
            answer.push_event(&text);
            answer.push_event(&json!({"choices": [{"index": text, "delta": {"tool_calls": [text, {"function": text}]}}]}).to_string());
            let _ = answer.to_completion();
        }
    }
}
