//! `OpenAI` chat completions, plain and streamed.
//!
//! Decodes the first choice; further choices and the fields of other vendors stay in the body alone.

use schemas::exchange::{Operation, OperationKind, Protocol, RequestedCall};
use serde_json::{Value, json};
use wire::openai_chat::{ChatAnswer, ChatChoice, content_text};

use super::decoded::{DecodeInput, Decoded, call_key, chat_kind};
use crate::capture::hints::SessionHint;

pub(super) fn decode(input: &DecodeInput<'_>) -> Decoded {
    let request = serde_json::from_slice::<Value>(input.request).unwrap_or(Value::Null);
    let Some(messages) = request.get("messages").and_then(Value::as_array) else { return Decoded::opaque() };
    let mut decoded = Decoded::new(Protocol::OpenaiChat, chat_kind(input.route.edge));
    let answer = if input.is_event_stream {
        from_events(input.response, &mut decoded)
    } else {
        from_body(input.response, &mut decoded)
    };
    decoded.history = messages.iter().map(message_key).collect();
    let choice = answer.first_choice();
    if let Some(choice) = choice {
        let calls: Vec<Value> = choice.requested_calls().map(call_key).collect();
        decoded.answer = Some(key("assistant", choice.content.as_deref().unwrap_or_default(), calls, None));
    }
    decoded.usage = answer.usage();
    let hint = |id| SessionHint::from_redacted_response("gen_ai.response.id", id);
    decoded.hints.extend(answer.id().map(hint));
    let operation = &mut decoded.operation;
    let requested_model = request.get("model").and_then(Value::as_str);
    operation.model = answer.model().or(requested_model).map(str::to_owned);
    if let Some(choice) = choice {
        read_choice(choice, operation);
    }
    if operation.kind == OperationKind::Turn {
        let user = messages.iter().rev().find(|message| role(message) == "user");
        operation.input = user.and_then(|message| content_text(message.get("content")?));
    }
    decoded
}

fn read_choice(choice: &ChatChoice, operation: &mut Operation) {
    operation.output = choice.content.clone().or_else(|| choice.refusal.clone());
    operation.finish_reason.clone_from(&choice.finish_reason);
    operation.requested = choice.requested_calls().cloned().collect();
}

fn from_body(body: &[u8], decoded: &mut Decoded) -> ChatAnswer {
    if body.is_empty() {
        return ChatAnswer::default();
    }
    match serde_json::from_slice::<Value>(body) {
        Ok(value) => {
            decoded.finished = Some(true);
            ChatAnswer::from_completion(value).unwrap_or_default()
        }
        Err(error) => {
            decoded.notes.push(format!("the response is not JSON ({error})"));
            ChatAnswer::default()
        }
    }
}

fn from_events(body: &[u8], decoded: &mut Decoded) -> ChatAnswer {
    let answer = ChatAnswer::from_event_stream(body);
    decoded.joins_events = true;
    decoded.finished = Some(answer.is_finished());
    if answer.malformed_events() > 0 {
        decoded.notes.push(format!("{} events of the stream are not JSON", answer.malformed_events()));
    }
    answer
}

fn role(message: &Value) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or_default()
}

/// A message of a history reduced to its identifying parts: clients rewrite the rest (nulls, annotations, names).
fn message_key(message: &Value) -> Value {
    let text = message.get("content").and_then(content_text).unwrap_or_default();
    let calls = message.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
    let mut calls: Vec<RequestedCall> =
        calls.filter_map(|call| requested(None, call.get("function")?)).collect();
    calls.extend(message.get("function_call").and_then(|function| requested(None, function)));
    let answered_call = message.get("tool_call_id").and_then(Value::as_str);
    key(role(message), &text, calls.iter().map(call_key).collect(), answered_call)
}

fn requested(id: Option<String>, function: &Value) -> Option<RequestedCall> {
    let arguments = match function.get("arguments") {
        Some(Value::String(text)) => text.clone(),
        Some(object) => object.to_string(),
        None => String::new(),
    };
    Some(RequestedCall { id, tool: function.get("name")?.as_str()?.to_owned(), arguments })
}

fn key(role: &str, content: &str, calls: Vec<Value>, answered_call: Option<&str>) -> Value {
    json!([role, content, calls, answered_call])
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
    fn an_answer_and_its_message_in_the_next_history_have_one_key() {
        let body = br#"{"choices":[{"message":{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"b\":1, \"a\":2}"}}]}}]}"#;
        let decoded = read(&route("model", ""), REQUEST, body, false);
        assert!(decoded.answer.is_none(), "auto detection needs the path of chat completions");
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
