//! The agent's model calls: OpenAI chat completions, plain or streamed.

use anyhow::Context as _;
use hyper::header::HeaderName;
use serde_json::{Value, json};

use crate::http::{HttpClient, Reply};

/// A tool call that the model asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ToolCall {
    pub(crate) id: String,
    pub(crate) tool: String,
    pub(crate) arguments: String,
}

/// What the model said.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) calls: Vec<ToolCall>,
}

impl Said {
    /// The message as it goes into the next request.
    pub(crate) fn message(&self) -> Value {
        if self.calls.is_empty() {
            return json!({"role": "assistant", "content": self.text});
        }
        let call = |call: &ToolCall| {
            json!({"id": call.id, "type": "function",
                "function": {"name": call.tool, "arguments": call.arguments}})
        };
        let calls: Vec<Value> = self.calls.iter().map(call).collect();
        json!({"role": "assistant", "content": null, "tool_calls": calls})
    }
}

/// Asks the model.
pub(crate) async fn ask(
    client: &HttpClient,
    base_url: &str,
    headers: &[(HeaderName, String)],
    messages: &[Value],
    tools: &Value,
    stream: bool,
) -> anyhow::Result<Said> {
    let mut body = json!({"model": "shop-model", "messages": messages, "tools": tools});
    if stream {
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
    }
    let reply = client.post(&format!("{base_url}/chat/completions"), headers, &body).await?;
    if !reply.status.is_success() {
        let said: String = String::from_utf8_lossy(&reply.body).chars().take(200).collect();
        anyhow::bail!("the model answered {}: {said}", reply.status);
    }
    if reply.is_event_stream() { assemble(&reply) } else { read(&reply) }
}

fn read(reply: &Reply) -> anyhow::Result<Said> {
    let body: Value = serde_json::from_slice(&reply.body).context("the model's answer is not JSON")?;
    let message = body.pointer("/choices/0/message").context("the model's answer has no message")?;
    let mut said = Said::default();
    add(&mut said, message);
    Ok(said)
}

fn assemble(reply: &Reply) -> anyhow::Result<Said> {
    let mut said = Said::default();
    let mut finished = false;
    for event in reply.events() {
        if event == "[DONE]" {
            break;
        }
        let chunk: Value =
            serde_json::from_str(&event).context("a frame of the model's answer is not JSON")?;
        let Some(choice) = chunk.pointer("/choices/0") else { continue };
        finished |= choice.get("finish_reason").is_some_and(Value::is_string);
        if let Some(delta) = choice.get("delta") {
            add(&mut said, delta);
        }
    }
    anyhow::ensure!(finished, "the model's answer broke off");
    Ok(said)
}

/// Adds a whole message or a piece of one.
fn add(said: &mut Said, piece: &Value) {
    said.text.push_str(piece.get("content").and_then(Value::as_str).unwrap_or_default());
    let calls = piece.get("tool_calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (place, call) in calls.iter().enumerate() {
        let index = call.get("index").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
        let index = index.unwrap_or(place);
        // A model asks for a handful; an index far beyond is a broken frame, not a reason to allocate.
        if index > said.calls.len() {
            continue;
        }
        if index == said.calls.len() {
            said.calls.push(ToolCall { id: String::new(), tool: String::new(), arguments: String::new() });
        }
        let part = |pointer: &str| call.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        said.calls[index].id.push_str(part("/id"));
        said.calls[index].tool.push_str(part("/function/name"));
        said.calls[index].arguments.push_str(part("/function/arguments"));
    }
}
