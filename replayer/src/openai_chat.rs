//! Chat completions as a replay uses them: decoded exchanges, hashes of histories, and recorded answers in the form
//! (streamed or plain) that the candidate asked for.
//!
//! Parsing and assembly of the wire format are in [`wire::openai_chat`].

use schemas::canonical::{canonical, canonical_text, normalised};
use schemas::exchange::{Operation, OperationKind, Usage};
use serde_json::{Value, json};
use wire::openai_chat::{ChatAnswer, content_text};

/// Reads an answer, streamed or plain, as a plain completion. Returns `None` if it is neither.
pub(crate) fn completion(body: &[u8]) -> Option<Value> {
    match serde_json::from_slice::<Value>(body) {
        Ok(value) => value.get("choices").is_some_and(Value::is_array).then_some(value),
        Err(_) => ChatAnswer::from_event_stream(body).to_completion(),
    }
}

/// Adds the fields that client libraries require and an imported answer lacks.
pub(crate) fn complete_fields(completion: &mut Value, model: &str, id: &str) {
    let Some(map) = completion.as_object_mut() else { return };
    map.entry("id").or_insert_with(|| json!(format!("chatcmpl-{id}")));
    map.entry("object").or_insert_with(|| json!("chat.completion"));
    map.entry("created").or_insert_with(|| json!(0));
    map.entry("model").or_insert_with(|| json!(model));
    let choices = map.get_mut("choices").and_then(Value::as_array_mut).into_iter().flatten();
    for (position, choice) in choices.enumerate() {
        let Some(choice) = choice.as_object_mut() else { continue };
        choice.entry("index").or_insert_with(|| json!(position));
        let calls = choice.get("message").and_then(|m| m.get("tool_calls")).and_then(Value::as_array);
        let reason = if calls.is_some_and(|calls| !calls.is_empty()) { "tool_calls" } else { "stop" };
        choice.entry("finish_reason").or_insert_with(|| json!(reason));
    }
}

/// Decodes a model call from the bodies of its request and its answer.
pub(crate) fn decode(request: &[u8], answer: &[u8]) -> (Operation, Usage) {
    let mut operation = Operation::new(OperationKind::Chat);
    let request: Value = serde_json::from_slice(request).unwrap_or_default();
    operation.model = request["model"].as_str().map(str::to_owned);
    let Some(answer) = ChatAnswer::from_body(answer) else { return (operation, Usage::default()) };
    if let Some(model) = answer.model() {
        operation.model = Some(model.to_owned());
    }
    if let Some(choice) = answer.first_choice() {
        operation.output.clone_from(&choice.content);
        operation.finish_reason.clone_from(&choice.finish_reason);
        operation.requested = choice.requested_calls().cloned().collect();
    }
    (operation, answer.usage())
}

/// Hash of the exact messages of a request. Requests with the same hash continue the same history.
pub(crate) fn request_hash(request: &Value) -> Option<blake3::Hash> {
    let messages = request.get("messages").filter(|messages| messages.is_array())?;
    Some(blake3::hash(canonical(messages).as_bytes()))
}

/// Hash of the normalised content and tool calls of a request's messages.
///
/// System prompts are left out, because a new build rewords them. Call ids are left out, because a model draws new ones
/// for each answer.
pub(crate) fn content_hash(request: &Value) -> Option<blake3::Hash> {
    let messages = request.get("messages")?.as_array()?;
    let is_prompt = |message: &Value| matches!(message["role"].as_str(), Some("system" | "developer"));
    let content = messages.iter().filter(|message| !is_prompt(message)).map(|message| {
        let calls = message["tool_calls"].as_array().into_iter().flatten().map(|call| {
            let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
            let arguments = canonical_text(arguments).unwrap_or_else(|| arguments.to_owned());
            json!([call["function"]["name"], arguments])
        });
        let calls: Vec<Value> = calls.collect();
        let text = content_text(&message["content"]).unwrap_or_default();
        json!({"role": message["role"], "content": normalised(&Value::String(text)).to_string(), "calls": calls})
    });
    Some(blake3::hash(canonical(&content.collect()).as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decoded_operation_of_a_stream_equals_that_of_its_completion() {
        let plain = json!({
            "id": "c1", "object": "chat.completion", "created": 7, "model": "m",
            "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
                "role": "assistant", "content": "wait",
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
                    {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}},
                ],
            }}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2},
        });
        let request = br#"{"model": "asked"}"#;
        let stream = wire::openai_chat::write_stream(&plain, true);
        let (from_stream, usage) = decode(request, &stream);
        let (from_plain, plain_usage) = decode(request, plain.to_string().as_bytes());
        assert_eq!(from_stream, from_plain);
        assert_eq!(usage, plain_usage);
        assert_eq!(usage.input_tokens, Some(5));
        assert_eq!(from_plain.requested.len(), 2);
        assert_eq!(completion(&stream), Some(plain));
    }

    #[test]
    fn an_answer_that_is_no_completion_keeps_the_requested_model() {
        let (operation, usage) = decode(br#"{"model": "asked"}"#, b"<html>");
        assert_eq!((operation.model.as_deref(), operation.output), (Some("asked"), None));
        assert_eq!(usage, Usage::default());
    }

    #[test]
    fn the_content_hash_ignores_the_prompt_and_call_ids() {
        let with = |prompt: &str, id: &str| {
            json!({"messages": [
                {"role": "system", "content": prompt},
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": null, "tool_calls": [{"id": id, "function": {"name": "f", "arguments": "{ \"a\": 1 }"}}]},
                {"role": "tool", "tool_call_id": id, "content": "ok"},
            ]})
        };
        assert_eq!(content_hash(&with("a", "1")), content_hash(&with("b", "2")));
        assert_ne!(request_hash(&with("a", "1")), request_hash(&with("b", "1")));
        assert_eq!((content_hash(&json!({})), request_hash(&json!({}))), (None, None));
    }
}
