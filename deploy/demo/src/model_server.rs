//! The demo's model server: OpenAI chat completions, plain and streamed, over `scripted_model`.
//!
//! The responses are random and reproducible: prompt, case, trial and number of the call name the random stream. Builds
//! with different prompts draw independently, and neither time nor the order of requests changes a response.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use seeded::Stream;
use serde_json::{Value, json};

use crate::http::{HttpResponse, Listener, Server, json_response, read_json, text_response};
use crate::rng;
use crate::scripted_model::{self, Call, ModelResponse};

/// Model name in the responses.
const MODEL: &str = "shop-model-2026-06";
/// `created` of every response, fixed so that equal calls get equal bytes.
const CREATED: u64 = 1_780_000_000;
/// Words in one event of a streamed text.
const WORDS_PER_FRAME: usize = 4;

/// The running model server.
#[derive(Debug)]
pub(crate) struct ModelServer {
    server: Server,
    calls: Arc<AtomicU64>,
}

impl ModelServer {
    /// Serves the model; `seed` sets all random choices.
    pub(crate) async fn start(seed: u64) -> anyhow::Result<Self> {
        let calls = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&calls);
        let server = Listener::bind().await?.serve(move |request| {
            counter.fetch_add(1, Ordering::Relaxed);
            complete(seed, request)
        });
        Ok(Self { server, calls })
    }

    /// Base URL, with `/v1`.
    pub(crate) fn url(&self) -> String {
        format!("{}/v1", self.server.url())
    }

    /// Number of requests so far.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) async fn stop(self) {
        self.server.stop().await;
    }
}

async fn complete(seed: u64, request: Request<Incoming>) -> HttpResponse {
    if request.uri().path() != "/v1/chat/completions" {
        return refuse(StatusCode::NOT_FOUND, "only POST /v1/chat/completions is served");
    }
    let header =
        |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let case = header("foreshadow-case").or_else(|| header("x-session-id")).unwrap_or_default();
    let trial = header("foreshadow-trial").unwrap_or_else(|| "live".to_owned());
    let body = match read_json(request).await {
        Ok(body) => body,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let Some(messages) = body.get("messages").and_then(Value::as_array) else {
        return refuse(StatusCode::BAD_REQUEST, "messages is missing");
    };
    let mut stream = call_stream(seed, messages, &case, &trial);
    let response = scripted_model::respond(messages, &mut stream);
    let completion = Completion {
        id: format!("chatcmpl-{}", stream.hex(16)),
        response,
        prompt_tokens: prompt_tokens(&body, messages),
    };
    tokio::time::sleep(Duration::from_millis(1 + u64::from(stream.below(3)))).await;
    if body.get("stream").and_then(Value::as_bool) == Some(true) {
        let with_usage = body.pointer("/stream_options/include_usage").and_then(Value::as_bool) == Some(true);
        return text_response(StatusCode::OK, "text/event-stream", completion.streamed(with_usage));
    }
    json_response(StatusCode::OK, &completion.plain())
}

/// The random stream of one call, named by prompt, case, trial and the number of earlier calls in the conversation.
fn call_stream(seed: u64, messages: &[Value], case: &str, trial: &str) -> Stream {
    let prompt = messages
        .first()
        .and_then(|message| message.get("content"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    let call = messages.iter().filter(|message| message.get("role") == Some(&json!("assistant"))).count();
    rng::stream(seed, &["model", prompt, case, trial, &call.to_string()])
}

fn refuse(status: StatusCode, message: &str) -> HttpResponse {
    json_response(status, &json!({"error": {"message": message, "type": "invalid_request_error"}}))
}

/// Estimates the tokens of a request: four bytes per token.
fn prompt_tokens(body: &Value, messages: &[Value]) -> u64 {
    let letters = |value: &Value| value.to_string().len() as u64;
    (messages.iter().map(letters).sum::<u64>() + body.get("tools").map_or(0, letters)) / 4
}

#[derive(Debug)]
struct Completion {
    id: String,
    response: ModelResponse,
    /// Prompt tokens.
    prompt_tokens: u64,
}

impl Completion {
    fn plain(&self) -> Value {
        let (message, finish) = match &self.response {
            ModelResponse::Text(text) => (json!({"role": "assistant", "content": text}), "stop"),
            ModelResponse::Calls(calls) => {
                let calls: Vec<Value> = calls.iter().map(tool_call).collect();
                (json!({"role": "assistant", "content": null, "tool_calls": calls}), "tool_calls")
            }
        };
        json!({"id": self.id, "object": "chat.completion", "created": CREATED, "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": self.usage()})
    }

    /// The response as server-sent events, chunked like a provider's stream.
    fn streamed(&self, with_usage: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let mut deltas = vec![json!({"role": "assistant", "content": null})];
        let finish = match &self.response {
            ModelResponse::Text(text) => {
                let words: Vec<&str> = text.split_inclusive(' ').collect();
                deltas.extend(words.chunks(WORDS_PER_FRAME).map(|words| json!({"content": words.concat()})));
                "stop"
            }
            ModelResponse::Calls(calls) => {
                deltas.extend(calls.iter().enumerate().flat_map(|(index, call)| call_deltas(index, call)));
                "tool_calls"
            }
        };
        for delta in deltas {
            self.frame(&mut out, &json!([{"index": 0, "delta": delta, "finish_reason": null}]), None);
        }
        self.frame(&mut out, &json!([{"index": 0, "delta": {}, "finish_reason": finish}]), None);
        if with_usage {
            self.frame(&mut out, &json!([]), Some(self.usage()));
        }
        wire::sse::write_event(&mut out, None, "[DONE]");
        out
    }

    fn frame(&self, out: &mut Vec<u8>, choices: &Value, usage: Option<Value>) {
        let mut chunk = json!({"id": self.id, "object": "chat.completion.chunk", "created": CREATED, "model": MODEL,
            "choices": choices});
        if let Some(usage) = usage {
            chunk["usage"] = usage;
        }
        wire::sse::write_event(out, None, &chunk.to_string());
    }

    fn usage(&self) -> Value {
        let written = match &self.response {
            ModelResponse::Text(text) => text.len(),
            ModelResponse::Calls(calls) => {
                calls.iter().map(|call| call.tool.len() + call.arguments.to_string().len()).sum()
            }
        } as u64
            / 4;
        json!({"prompt_tokens": self.prompt_tokens, "completion_tokens": written, "total_tokens": self.prompt_tokens + written})
    }
}

fn tool_call(call: &Call) -> Value {
    json!({"id": call.id, "type": "function",
        "function": {"name": call.tool, "arguments": call.arguments.to_string()}})
}

/// A tool call as three deltas: the head, then the arguments in two parts.
fn call_deltas(index: usize, call: &Call) -> [Value; 3] {
    let arguments = call.arguments.to_string();
    let (first, second) = arguments.split_at(arguments.floor_char_boundary(arguments.len() / 2));
    let part = |text: &str| json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]});
    let head = json!({"tool_calls": [{"index": index, "id": call.id, "type": "function",
        "function": {"name": call.tool, "arguments": ""}}]});
    [head, part(first), part(second)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HttpClient;

    #[tokio::test]
    async fn equal_calls_get_equal_bytes_and_other_trials_other_texts() {
        let server = ModelServer::start(1).await.expect("a loopback port");
        let url = format!("{}/chat/completions", server.url());
        let ask = async |trial: &str, stream: bool| {
            let headers = [("foreshadow-case", "chat-0001"), ("foreshadow-trial", trial)];
            let headers =
                headers.map(|(name, value)| (hyper::header::HeaderName::from_static(name), value.to_owned()));
            let messages =
                json!([{"role": "system", "content": "find_order"}, {"role": "user", "content": "Thanks"}]);
            let body = json!({"model": "m", "messages": messages, "stream": stream,
                "stream_options": {"include_usage": true}});
            HttpClient::new().post(&url, &headers, &body).await.expect("an answer")
        };
        assert_eq!(ask("0", false).await.body, ask("0", false).await.body);
        let mut texts = std::collections::BTreeSet::new();
        for trial in 0..20 {
            let body: Value =
                serde_json::from_slice(&ask(&trial.to_string(), false).await.body).expect("JSON");
            texts.insert(body["choices"][0]["message"]["content"].to_string());
        }
        assert_eq!(texts.len(), 2, "both wordings of a follow-up are seen: {texts:?}");
        let streamed = ask("0", true).await;
        assert!(streamed.is_event_stream());
        assert_eq!(streamed.events().last().map(String::as_str), Some("[DONE]"));
        assert_eq!(server.calls(), 23);
        server.stop().await;
    }

    #[tokio::test]
    async fn a_bad_request_gets_an_error_status() {
        let server = ModelServer::start(1).await.expect("a loopback port");
        let client = HttpClient::new();
        let wrong =
            client.post(&format!("{}/models", server.url()), &[], &json!({})).await.expect("an answer");
        assert_eq!(wrong.status, StatusCode::NOT_FOUND);
        let url = format!("{}/chat/completions", server.url());
        let empty = client.post(&url, &[], &json!({})).await.expect("an answer");
        assert_eq!(empty.status, StatusCode::BAD_REQUEST);
        server.stop().await;
    }
}
