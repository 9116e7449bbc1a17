//! OpenAI chat completions as values: streamed and plain answers turned into one another and decoded, histories named.
//!
//! Works on whole bodies. What passes live is forwarded as bytes and decoded afterwards.

use schemas::canonical::{canonical, canonical_text, normalised};
use schemas::exchange::{Operation, OperationKind, RequestedCall, Usage};
use serde_json::{Map, Value, json};

use crate::sse;

/// Reads an answer, streamed or plain, as a plain completion; `None` where it is neither.
pub(crate) fn completion(body: &[u8]) -> Option<Value> {
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        return value.get("choices").is_some_and(Value::is_array).then_some(value);
    }
    assemble(&sse::data(body))
}

/// Puts the chunks of a stream together; tool calls are keyed by (choice, index), as their parts may interleave.
fn assemble(events: &[String]) -> Option<Value> {
    let mut whole = Map::new();
    let mut choices: Vec<Value> = Vec::new();
    let mut any = false;
    for event in events {
        let Ok(Value::Object(chunk)) = serde_json::from_str::<Value>(event) else { continue };
        for (key, value) in &chunk {
            let known = key == "choices" || key == "object" || key == "obfuscation" || value.is_null();
            if !known {
                whole.insert(key.clone(), value.clone());
            }
        }
        for part in chunk.get("choices").and_then(Value::as_array).into_iter().flatten() {
            any = true;
            add_choice(&mut choices, part);
        }
    }
    whole.insert("object".to_owned(), json!("chat.completion"));
    whole.insert("choices".to_owned(), Value::Array(choices));
    any.then_some(Value::Object(whole))
}

/// A stream may not name more choices or calls than this; a broken index would otherwise fill the memory.
const MAX_INDEX: usize = 256;

fn add_choice(choices: &mut Vec<Value>, part: &Value) {
    let index = part.get("index").and_then(Value::as_u64).and_then(|i| usize::try_from(i).ok()).unwrap_or(0);
    if index >= MAX_INDEX {
        return;
    }
    while choices.len() <= index {
        let place = choices.len();
        choices.push(
            json!({"index": place, "message": {"role": "assistant", "content": null}, "finish_reason": null}),
        );
    }
    let choice = &mut choices[index];
    if let Some(reason) = part.get("finish_reason").filter(|reason| !reason.is_null()) {
        choice["finish_reason"] = reason.clone();
    }
    let Some(delta) = part.get("delta") else { return };
    for key in ["content", "refusal"] {
        if let Some(text) = delta.get(key).and_then(Value::as_str) {
            let held = choice["message"][key].as_str().unwrap_or_default();
            choice["message"][key] = Value::String(format!("{held}{text}"));
        }
    }
    for call in delta.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
        add_call(&mut choice["message"], call);
    }
}

fn add_call(message: &mut Value, part: &Value) {
    if !message["tool_calls"].is_array() {
        message["tool_calls"] = json!([]);
    }
    let Some(calls) = message["tool_calls"].as_array_mut() else { return };
    let index = part.get("index").and_then(Value::as_u64).and_then(|i| usize::try_from(i).ok());
    let index = index.unwrap_or(calls.len());
    if index >= MAX_INDEX {
        return;
    }
    while calls.len() <= index {
        calls.push(json!({"id": "", "type": "function", "function": {"name": "", "arguments": ""}}));
    }
    let call = &mut calls[index];
    if let Some(id) = part.get("id").and_then(Value::as_str) {
        call["id"] = json!(id);
    }
    let function = &part["function"];
    if let Some(name) = function.get("name").and_then(Value::as_str) {
        call["function"]["name"] = json!(name);
    }
    if let Some(text) = function.get("arguments").and_then(Value::as_str) {
        let held = call["function"]["arguments"].as_str().unwrap_or_default();
        call["function"]["arguments"] = Value::String(format!("{held}{text}"));
    }
}

/// Fills in what an imported answer lacks and every client library wants.
pub(crate) fn complete_fields(completion: &mut Value, model: &str, id: &str) {
    let Some(map) = completion.as_object_mut() else { return };
    map.entry("id").or_insert_with(|| json!(format!("chatcmpl-{id}")));
    map.entry("object").or_insert_with(|| json!("chat.completion"));
    map.entry("created").or_insert_with(|| json!(0));
    map.entry("model").or_insert_with(|| json!(model));
    for (place, choice) in
        map.get_mut("choices").and_then(Value::as_array_mut).into_iter().flatten().enumerate()
    {
        if let Some(choice) = choice.as_object_mut() {
            choice.entry("index").or_insert_with(|| json!(place));
            let calls = choice.get("message").and_then(|m| m.get("tool_calls")).and_then(Value::as_array);
            let reason = if calls.is_some_and(|calls| !calls.is_empty()) { "tool_calls" } else { "stop" };
            choice.entry("finish_reason").or_insert_with(|| json!(reason));
        }
    }
}

/// Writes a plain completion as a stream: per choice one chunk with the message and one with the reason, then the usage
/// where the request asks for it, then `[DONE]`.
pub(crate) fn stream(completion: &Value, with_usage: bool) -> Vec<u8> {
    let head = |choices: Value| {
        let mut chunk = json!({
            "id": completion["id"], "object": "chat.completion.chunk",
            "created": completion["created"], "model": completion["model"],
        });
        chunk["choices"] = choices;
        chunk
    };
    let mut out = Vec::new();
    for choice in completion["choices"].as_array().into_iter().flatten() {
        let index = &choice["index"];
        let mut delta = choice.get("message").cloned().unwrap_or_else(|| json!({"role": "assistant"}));
        for (place, call) in
            delta.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten().enumerate()
        {
            call["index"] = json!(place);
        }
        let first = head(json!([{"index": index, "delta": delta, "finish_reason": null}]));
        let last = head(json!([{"index": index, "delta": {}, "finish_reason": choice["finish_reason"]}]));
        out.extend(sse::frame(&first.to_string()));
        out.extend(sse::frame(&last.to_string()));
    }
    if with_usage {
        let mut usage = head(json!([]));
        usage["usage"] = completion.get("usage").cloned().unwrap_or(Value::Null);
        out.extend(sse::frame(&usage.to_string()));
    }
    out.extend(sse::frame("[DONE]"));
    out
}

/// Decodes an exchange on the model edge from its request and its answer.
pub(crate) fn decode(request: &Value, answer: &[u8]) -> (Operation, Usage) {
    let mut operation = Operation::new(OperationKind::Chat);
    operation.model = request.get("model").and_then(Value::as_str).map(str::to_owned);
    let Some(completion) = completion(answer) else { return (operation, Usage::default()) };
    if let Some(model) = completion.get("model").and_then(Value::as_str) {
        operation.model = Some(model.to_owned());
    }
    let choice = &completion["choices"][0];
    operation.output = choice["message"]["content"].as_str().map(str::to_owned);
    operation.finish_reason = choice["finish_reason"].as_str().map(str::to_owned);
    for call in choice["message"]["tool_calls"].as_array().into_iter().flatten() {
        operation.requested.push(RequestedCall {
            id: call["id"].as_str().filter(|id| !id.is_empty()).map(str::to_owned),
            tool: call["function"]["name"].as_str().unwrap_or_default().to_owned(),
            arguments: call["function"]["arguments"].as_str().unwrap_or_default().to_owned(),
        });
    }
    let counted = &completion["usage"];
    let usage = Usage {
        input_tokens: counted["prompt_tokens"].as_u64(),
        output_tokens: counted["completion_tokens"].as_u64(),
        cached_tokens: counted["prompt_tokens_details"]["cached_tokens"].as_u64(),
        cost_usd: counted["cost"].as_f64(),
    };
    (operation, usage)
}

/// Names the history of a request by its exact messages.
pub(crate) fn exact_chain(request: &Value) -> Option<String> {
    request.get("messages").filter(|messages| messages.is_array()).map(canonical)
}

/// Names the history of a request by what was said and called in it: without system prompts, which a new build
/// rewords, and without call ids, which are drawn anew each time.
pub(crate) fn said_chain(request: &Value) -> Option<String> {
    let messages = request.get("messages")?.as_array()?;
    let said =
        messages.iter().filter(|message| !matches!(message["role"].as_str(), Some("system" | "developer")));
    let said: Vec<Value> = said.map(|message| {
        let calls = message["tool_calls"].as_array().into_iter().flatten().map(|call| {
            let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
            let arguments = canonical_text(arguments).unwrap_or_else(|| arguments.to_owned());
            json!([call["function"]["name"], arguments])
        });
        let calls: Vec<Value> = calls.collect();
        json!({"role": message["role"], "content": normalised(&Value::String(text_of(&message["content"]))), "calls": calls})
    }).collect();
    Some(canonical(&Value::Array(said)))
}

/// The text of a message's content: the string itself, or the text parts joined.
pub(crate) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part["text"].as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Value {
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

    #[test]
    fn streams_and_assembles_to_the_same_meaning() {
        let bytes = stream(&plain(), true);
        let request = json!({"model": "asked"});
        let (from_stream, usage) = decode(&request, &bytes);
        let (from_plain, plain_usage) = decode(&request, plain().to_string().as_bytes());
        assert_eq!(from_stream, from_plain);
        assert_eq!(usage, plain_usage);
        assert_eq!(usage.input_tokens, Some(5));
        assert_eq!(from_plain.requested.len(), 2);
    }

    #[test]
    fn assembles_split_and_interleaved_calls() {
        let parts = [
            json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{\"x\""}}]}}]}),
            json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}]}}]}),
            json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}}]}),
            json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}),
        ];
        let body: Vec<u8> = parts.iter().flat_map(|part| sse::frame(&part.to_string())).collect();
        let (operation, _) = decode(&json!({}), &body);
        assert_eq!(operation.requested[0].arguments, "{\"x\":1}");
        assert_eq!(operation.requested[1].tool, "g");
    }

    #[test]
    fn a_hostile_index_is_left_out() {
        let part = json!({"choices": [{"index": 9_000_000_000_u64, "delta": {"content": "x"}}]});
        assert_eq!(decode(&json!({}), &sse::frame(&part.to_string())).0.output, None);
    }

    #[test]
    fn said_chain_forgets_prompt_and_ids() {
        let with = |prompt: &str, id: &str| {
            json!({"messages": [
                {"role": "system", "content": prompt},
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": null, "tool_calls": [{"id": id, "function": {"name": "f", "arguments": "{ \"a\": 1 }"}}]},
                {"role": "tool", "tool_call_id": id, "content": "ok"},
            ]})
        };
        assert_eq!(said_chain(&with("a", "1")), said_chain(&with("b", "2")));
        assert_ne!(exact_chain(&with("a", "1")), exact_chain(&with("b", "1")));
    }
}
