//! Writes the calls of one session in wire format.

use bytes::Bytes;
use schemas::exchange::Edge;
use seeded::Stream;
use serde_json::{Value, json};

use super::session::{Call, Message, Scene, Session, ToolCall};
use super::variation::{permute_digits, provider_id};

/// Path of model calls.
const MODEL_PATH: &str = "/v1/chat/completions";

/// Path of tool calls.
const TOOL_PATH: &str = "/mcp";

/// Path of turns.
const TURN_PATH: &str = "/chat";

/// Letters of a streamed token at most. Tokens are a little shorter than words.
const TOKEN_LETTERS: usize = 6;

/// Writes one session.
pub(super) struct MessageWriter<'a> {
    scene: &'a Scene,
    id: String,
    streamed: bool,
    digits: Option<[u8; 10]>,
    rng: Stream,
    calls: Vec<Call>,
    /// The messages so far, as JSON.
    history: Vec<String>,
    /// The tool list, as JSON.
    tools: String,
    /// New names of the tool calls' ids.
    renamed: std::collections::HashMap<String, String>,
    rpc: u64,
}

impl<'a> MessageWriter<'a> {
    pub(super) fn new(
        scene: &'a Scene,
        id: String,
        streamed: bool,
        digits: Option<[u8; 10]>,
        rng: Stream,
    ) -> Self {
        let tools = Value::Array(scene.setting.tools.clone()).to_string();
        let history = vec![json!({"role": "system", "content": scene.setting.policy}).to_string()];
        let (calls, renamed) = (Vec::new(), std::collections::HashMap::new());
        Self { scene, id, streamed, digits, rng, calls, history, tools, renamed, rpc: 0 }
    }

    pub(super) fn write(mut self) -> Session {
        let scene = self.scene;
        self.greet_tools();
        if let Some(ticket) = &scene.ticket
            && !scene.messages.iter().any(|message| message.role == "user")
        {
            self.turn(ticket, &scene.messages);
        }
        for (place, message) in scene.messages.iter().enumerate() {
            match message.role.as_str() {
                "user" => {
                    if let Some(text) = &message.content {
                        self.turn(text, &scene.messages[place + 1..]);
                    }
                }
                "assistant" => self.model(message, place == 0),
                "tool" if message.requestor.as_deref() != Some("user") => self.result(message),
                _ => {}
            }
        }
        Session { id: self.id, calls: self.calls }
    }

    fn permuted(&self, text: &str) -> String {
        permute_digits(text, self.digits.as_ref())
    }

    fn remember(&mut self, message: &Value) {
        self.history.push(message.to_string());
    }

    fn push(&mut self, edge: Edge, path: &'static str, request: String, response: String, streamed: bool) {
        let (request, response) = (Bytes::from(request), Bytes::from(response));
        self.calls.push(Call { edge, path, request, response, streamed });
    }

    /// Writes the calls of an MCP client before its first tool call.
    fn greet_tools(&mut self) {
        let client = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "agent", "version": "1.0"}});
        let server = json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {"listChanged": false}}, "serverInfo": {"name": "tools", "version": "1.0"}});
        self.rpc("initialize", &client, &server);
        let listed = |tool: &Value| {
            let function = &tool["function"];
            json!({"name": function["name"], "description": function["description"], "inputSchema": function["parameters"]})
        };
        let tools: Vec<Value> = self.scene.setting.tools.iter().map(listed).collect();
        self.rpc("tools/list", &json!({}), &json!({"tools": tools}));
    }

    fn rpc(&mut self, method: &str, params: &Value, result: &Value) {
        let request = json!({"jsonrpc": "2.0", "id": self.rpc, "method": method, "params": params});
        let response = json!({"jsonrpc": "2.0", "id": self.rpc, "result": result});
        self.rpc += 1;
        self.push(Edge::Tool, TOOL_PATH, request.to_string(), response.to_string(), false);
    }

    /// Writes a turn: the caller's message, and the agent's last text before the next one.
    fn turn(&mut self, text: &str, after: &[Message]) {
        let text = self.permuted(text);
        let own = after.iter().take_while(|message| message.role != "user");
        let spoken = own.filter(|message| message.role == "assistant").filter_map(|m| m.content.as_deref());
        let reply = self.permuted(spoken.last().unwrap_or_default());
        let request = json!({"session": self.id, "message": text});
        let response = json!({"session": self.id, "reply": reply});
        self.push(Edge::Turn, TURN_PATH, request.to_string(), response.to_string(), false);
        self.remember(&json!({"role": "user", "content": text}));
    }

    fn model(&mut self, message: &Message, is_greeting: bool) {
        let calls: Vec<Value> =
            message.tool_calls.iter().flatten().map(|call| self.tool_call(call)).collect();
        let text = message.content.as_deref().map(|text| self.permuted(text));
        let mut said = json!({"role": "assistant", "content": text});
        if !calls.is_empty() {
            said["tool_calls"] = Value::Array(calls.clone());
        }
        // The greeting stands in the transcript without the model having been asked.
        if !is_greeting || !calls.is_empty() {
            let request = self.chat_request();
            let response = if self.streamed {
                self.stream(message, text.as_deref(), &calls)
            } else {
                self.answer(message, text.as_deref(), &calls)
            };
            self.push(Edge::Model, MODEL_PATH, request, response, self.streamed);
        }
        self.remember(&said);
    }

    fn tool_call(&mut self, call: &ToolCall) -> Value {
        let arguments = self.permuted(&Value::Object(call.arguments.clone()).to_string());
        let id = provider_id(&mut self.rng, "call_", 24);
        self.renamed.insert(call.id.clone(), id.clone());
        json!({"id": id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
    }

    fn chat_request(&self) -> String {
        let (model, tools) = (json!(self.scene.setting.model), &self.tools);
        let stream =
            if self.streamed { r#","stream":true,"stream_options":{"include_usage":true}"# } else { "" };
        let messages = self.history.join(",");
        format!(r#"{{"messages":[{messages}],"model":{model},"temperature":0.0,"tools":{tools}{stream}}}"#)
    }

    fn created(&self) -> u64 {
        self.scene.started + self.calls.len() as u64
    }

    fn answer(&mut self, message: &Message, text: Option<&str>, calls: &[Value]) -> String {
        let mut said = json!({"role": "assistant", "content": text, "refusal": null, "annotations": []});
        if !calls.is_empty() {
            said["tool_calls"] = json!(calls);
        }
        let choice =
            json!({"index": 0, "message": said, "logprobs": null, "finish_reason": finish_reason(calls)});
        json!({"id": provider_id(&mut self.rng, "chatcmpl-", 29), "object": "chat.completion", "created": self.created(),
            "model": self.scene.setting.model, "choices": [choice], "usage": usage(message),
            "service_tier": "default", "system_fingerprint": "fp_51db84afab"})
        .to_string()
    }

    fn stream(&mut self, message: &Message, text: Option<&str>, calls: &[Value]) -> String {
        let (id, created) = (provider_id(&mut self.rng, "chatcmpl-", 29), self.created());
        let model = &self.scene.setting.model;
        let mut out = String::new();
        let mut frame = |choices: Value, usage: Value| {
            let event = json!({"id": id, "object": "chat.completion.chunk", "created": created, "model": model,
                "service_tier": "default", "system_fingerprint": "fp_51db84afab", "choices": choices, "usage": usage});
            out.push_str("data: ");
            out.push_str(&event.to_string());
            out.push_str("\n\n");
        };
        let mut delta = |delta: Value, reason: Option<&str>| {
            frame(
                json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason}]),
                Value::Null,
            );
        };
        delta(json!({"role": "assistant", "content": text.map(|_| ""), "refusal": null}), None);
        for token in text.into_iter().flat_map(tokens) {
            delta(json!({"content": token}), None);
        }
        for (index, call) in calls.iter().enumerate() {
            let mut head = call.clone();
            let arguments = head["function"]["arguments"].as_str().unwrap_or_default().to_owned();
            head["index"] = json!(index);
            head["function"]["arguments"] = json!("");
            delta(json!({"tool_calls": [head]}), None);
            for token in tokens(&arguments) {
                delta(json!({"tool_calls": [{"index": index, "function": {"arguments": token}}]}), None);
            }
        }
        delta(json!({}), Some(finish_reason(calls)));
        frame(json!([]), usage(message));
        out.push_str("data: [DONE]\n\n");
        out
    }

    fn result(&mut self, message: &Message) {
        let id = message.id.as_ref().and_then(|id| self.renamed.get(id)).cloned().unwrap_or_default();
        let text = self.permuted(message.content.as_deref().unwrap_or_default());
        if let Some((name, arguments)) = self.asked(&id) {
            let is_error = message.error.unwrap_or(false);
            let result = json!({"content": [{"type": "text", "text": text}], "isError": is_error});
            self.rpc("tools/call", &json!({"name": name, "arguments": arguments}), &result);
        }
        self.remember(&json!({"role": "tool", "tool_call_id": id, "content": text}));
    }

    /// Name and arguments of the tool call with this id, from the latest message that has it.
    fn asked(&self, id: &str) -> Option<(String, Value)> {
        self.history.iter().rev().filter(|message| message.contains(id)).find_map(|message| {
            let message: Value = serde_json::from_str(message).ok()?;
            let call = message.get("tool_calls")?.as_array()?.iter().find(|call| call["id"] == id)?.clone();
            let arguments = serde_json::from_str(call["function"]["arguments"].as_str()?).ok()?;
            Some((call["function"]["name"].as_str()?.to_owned(), arguments))
        })
    }
}

fn finish_reason(calls: &[Value]) -> &'static str {
    if calls.is_empty() { "stop" } else { "tool_calls" }
}

fn usage(message: &Message) -> Value {
    let (prompt, completion) =
        message.usage.map_or((0, 0), |usage| (usage.prompt_tokens, usage.completion_tokens));
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}})
}

/// Splits a text into tokens like those of a provider: at spaces, and within long words.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let (mut start, mut letters) = (0, 0);
    for (at, letter) in text.char_indices() {
        if at > start && (letter == ' ' || letters == TOKEN_LETTERS) {
            tokens.push(&text[start..at]);
            (start, letters) = (at, 0);
        }
        letters += 1;
    }
    if start < text.len() {
        tokens.push(&text[start..]);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_the_text() {
        for text in ["", "a", "one two  three", "unbelievably lång wörd", "   "] {
            assert_eq!(tokens(text).concat(), text);
        }
    }
}
