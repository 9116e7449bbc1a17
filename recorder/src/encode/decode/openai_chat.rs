//! OpenAI chat completions, plain and streamed.
//!
//! Reads the first choice; further ones stay in the raw bytes. Fields of other vendors are passed over.

use std::collections::BTreeMap;

use schemas::exchange::{OperationKind, Protocol, RequestedCall, Usage};
use serde_json::{Value, json};

use super::{Decoded, Wire, call_key, chat_kind, content_text};
use crate::capture::hints::Clue;
use crate::encode::sse;

/// What the provider wrote, from one body or from many chunks.
#[derive(Debug, Default)]
struct Answer {
    id: Option<String>,
    model: Option<String>,
    content: Option<String>,
    refusal: Option<String>,
    finish_reason: Option<String>,
    calls: BTreeMap<u64, RequestedCall>,
    usage: Usage,
    understood: bool,
}

pub(super) fn decode(wire: &Wire<'_>) -> Decoded {
    let request = serde_json::from_slice::<Value>(wire.request).unwrap_or(Value::Null);
    let Some(messages) = request.get("messages").and_then(Value::as_array) else { return Decoded::opaque() };
    let mut decoded = Decoded::new(Protocol::OpenaiChat, chat_kind(wire.route.edge));
    let answer = if wire.stream {
        from_events(wire.response, &mut decoded)
    } else {
        from_body(wire.response, &mut decoded)
    };
    decoded.history = messages.iter().map(message_key).collect();
    if answer.understood {
        let calls: Vec<Value> = answer.calls.values().map(call_key).collect();
        decoded.answer = Some(key("assistant", answer.content.as_deref().unwrap_or_default(), calls, None));
    }
    decoded.usage = answer.usage;
    decoded.clues.extend(answer.id.map(|id| Clue::of_answer("gen_ai.response.id", &id)));
    let operation = &mut decoded.operation;
    operation.model =
        answer.model.or_else(|| request.get("model").and_then(Value::as_str).map(str::to_owned));
    operation.output = answer.content.or(answer.refusal);
    operation.finish_reason = answer.finish_reason;
    operation.requested = answer.calls.into_values().collect();
    if operation.kind == OperationKind::Turn {
        let user = messages.iter().rev().find(|message| role(message) == "user");
        operation.input = user.and_then(|message| content_text(message.get("content")?));
    }
    decoded
}

fn from_body(body: &[u8], decoded: &mut Decoded) -> Answer {
    let mut answer = Answer::default();
    if body.is_empty() {
        return answer;
    }
    match serde_json::from_slice::<Value>(body) {
        Ok(value) => {
            answer.read_common(&value);
            decoded.finished = Some(true);
            if let Some(choice) = first_choice(&value) {
                answer.understood = true;
                answer.read_message(choice.get("message").unwrap_or(&Value::Null), choice);
            }
        }
        Err(error) => decoded.notes.push(format!("the answer is not JSON ({error})")),
    }
    answer
}

fn from_events(body: &[u8], decoded: &mut Decoded) -> Answer {
    let mut answer = Answer::default();
    let mut broken = 0;
    for event in sse::events(body) {
        let data = event.text(body);
        if data.trim() == "[DONE]" {
            decoded.finished = Some(true);
            continue;
        }
        let Ok(value) = serde_json::from_str::<Value>(&data) else {
            broken += 1;
            continue;
        };
        answer.read_common(&value);
        if let Some(choice) = first_choice(&value) {
            answer.understood = true;
            answer.read_message(choice.get("delta").unwrap_or(&Value::Null), choice);
        }
    }
    // Some servers leave the last event out; a reason to stop says that the answer is whole.
    decoded.finished = Some(decoded.finished.is_some() || answer.finish_reason.is_some());
    if broken > 0 {
        decoded.notes.push(format!("{broken} events of the stream are not JSON"));
    }
    answer
}

/// The choice with index 0; a choice without an index counts as that.
fn first_choice(value: &Value) -> Option<&Value> {
    let choices = value.get("choices")?.as_array()?;
    choices.iter().find(|choice| choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0)
}

impl Answer {
    fn read_common(&mut self, value: &Value) {
        let text = |key: &str| {
            value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        self.id = self.id.take().or_else(|| text("id"));
        self.model = text("model").or_else(|| self.model.take());
        if let Some(usage) = value.get("usage").filter(|usage| usage.is_object()) {
            let number = |pointer: &str| usage.pointer(pointer).and_then(Value::as_u64);
            self.usage = Usage {
                input_tokens: number("/prompt_tokens"),
                output_tokens: number("/completion_tokens"),
                cached_tokens: number("/prompt_tokens_details/cached_tokens"),
                cost_usd: usage.get("cost").and_then(Value::as_f64),
            };
        }
    }

    /// Adds a whole message, or the next delta of one.
    fn read_message(&mut self, message: &Value, choice: &Value) {
        if let Some(text) = message.get("content").and_then(content_text) {
            self.content.get_or_insert_default().push_str(&text);
        }
        if let Some(text) = message.get("refusal").and_then(Value::as_str) {
            self.refusal.get_or_insert_default().push_str(text);
        }
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            self.finish_reason = Some(reason.to_owned());
        }
        let calls = message.get("tool_calls").and_then(Value::as_array);
        for call in calls.into_iter().flatten() {
            self.read_call(call.get("index").and_then(Value::as_u64), call.get("id"), call.get("function"));
        }
        if let Some(function) = message.get("function_call").filter(|function| function.is_object()) {
            self.read_call(Some(0), None, Some(function));
        }
    }

    fn read_call(&mut self, index: Option<u64>, id: Option<&Value>, function: Option<&Value>) {
        let id = id.and_then(Value::as_str).filter(|id| !id.is_empty());
        let last = self.calls.keys().next_back().copied();
        // Without an index, an id begins a call and its absence continues the last one.
        let index = index.unwrap_or_else(|| match (id, last) {
            (Some(_), Some(last)) => last.saturating_add(1),
            (None, Some(last)) => last,
            (_, None) => 0,
        });
        let empty = || RequestedCall { id: None, tool: String::new(), arguments: String::new() };
        let call = self.calls.entry(index).or_insert_with(empty);
        if let Some(id) = id {
            call.id.get_or_insert_with(|| id.to_owned());
        }
        let text = |key: &str| function.and_then(|function| function.get(key));
        if let Some(name) = text("name").and_then(Value::as_str) {
            call.tool.push_str(name);
        }
        match text("arguments") {
            Some(Value::String(part)) => call.arguments.push_str(part),
            // Some servers send the arguments as an object.
            Some(object @ Value::Object(_)) => call.arguments.push_str(&object.to_string()),
            Some(_) | None => {}
        }
    }
}

fn role(message: &Value) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or_default()
}

/// A message of a history reduced to what identifies it: clients rewrite the rest (nulls, annotations, names).
fn message_key(message: &Value) -> Value {
    let text = message.get("content").and_then(content_text).unwrap_or_default();
    let calls = message.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
    let mut calls: Vec<RequestedCall> =
        calls.filter_map(|call| requested(None, call.get("function")?)).collect();
    calls.extend(message.get("function_call").and_then(|function| requested(None, function)));
    let answered = message.get("tool_call_id").and_then(Value::as_str);
    key(role(message), &text, calls.iter().map(call_key).collect(), answered)
}

fn requested(id: Option<String>, function: &Value) -> Option<RequestedCall> {
    let arguments = match function.get("arguments") {
        Some(Value::String(text)) => text.clone(),
        Some(object) => object.to_string(),
        None => String::new(),
    };
    Some(RequestedCall { id, tool: function.get("name")?.as_str()?.to_owned(), arguments })
}

fn key(role: &str, content: &str, calls: Vec<Value>, answered: Option<&str>) -> Value {
    json!([role, content, calls, answered])
}

#[cfg(test)]
mod tests {
    use schemas::exchange::OperationKind;

    use super::super::tests::{read, route};
    use super::*;

    const REQUEST: &[u8] = br#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

    #[test]
    fn assembles_interleaved_tool_calls_of_a_stream() {
        let body = concat!(
            "data: {\"id\":\"c1\",\"model\":\"m-1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}\n\n",
            "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"b\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}},{\"index\":0,\"function\":{\"arguments\":\"{\\\"x\\\":\"}}]}}]}\n\n",
            "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"1}\"}}]},\"finish_reason\":\"tool_calls\"}]}\n\n",
            "data: {\"id\":\"c1\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,\"prompt_tokens_details\":{\"cached_tokens\":2}}}\n\n",
            "data: [DONE]\n\n",
        );
        let decoded = read(&route("model", "protocol = \"openai-chat\""), REQUEST, body.as_bytes(), true);
        let operation = &decoded.operation;
        let calls: Vec<_> = operation
            .requested
            .iter()
            .map(|call| (call.id.as_deref(), call.tool.as_str(), call.arguments.as_str()))
            .collect();
        assert_eq!(calls, [(Some("a"), "f", "{\"x\":1}"), (Some("b"), "g", "{}")]);
        assert_eq!((operation.kind, operation.model.as_deref()), (OperationKind::Chat, Some("m-1")));
        assert_eq!((decoded.usage.input_tokens, decoded.usage.cached_tokens), (Some(7), Some(2)));
        assert!(decoded.finished == Some(true) && decoded.notes.is_empty());
    }

    #[test]
    fn an_answer_and_its_place_in_the_next_history_have_one_key() {
        let body = br#"{"choices":[{"message":{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"b\":1, \"a\":2}"}}]}}]}"#;
        let decoded = read(&route("model", ""), REQUEST, body, false);
        assert!(decoded.answer.is_none(), "auto goes by the path");
        let decoded = read(&route("model", "protocol = \"openai-chat\""), REQUEST, body, false);
        let next = json!({"role":"assistant","content":"","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{\"a\":2,\"b\":1}"}}]});
        assert_eq!(decoded.answer, Some(message_key(&next)));
    }

    #[test]
    fn notes_what_is_malformed() {
        let body = b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {oops\n\n";
        let decoded = read(&route("model", "protocol = \"openai-chat\""), REQUEST, body, true);
        assert_eq!(decoded.operation.output.as_deref(), Some("a"));
        assert!(decoded.finished == Some(false) && decoded.notes[0].starts_with("1 events"));
    }

    #[test]
    fn on_the_turn_edge_it_is_a_turn() {
        let body = br#"{"choices":[{"message":{"content":"hello"},"finish_reason":"stop"}]}"#;
        let operation = read(&route("turn", "protocol = \"openai-chat\""), REQUEST, body, false).operation;
        assert_eq!(
            (operation.kind, operation.input.as_deref(), operation.output.as_deref()),
            (OperationKind::Turn, Some("hi"), Some("hello"))
        );
    }
}
