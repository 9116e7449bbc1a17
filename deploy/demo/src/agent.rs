//! The demo's agent: a refund-support service with a real tool-calling loop.
//!
//! `POST /chat` accepts `{"session", "message"}` and returns `{"session", "reply"}`. For each turn the agent calls a model
//! over an OpenAI-compatible endpoint and makes the requested tool calls over MCP, until the model answers with text. It
//! passes on the tracing headers of the request, as an instrumented service does. It has no code for recording or replay.

mod build;
mod chat;
mod mcp;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Request, StatusCode};
use lru::LruCache;
use schemas::exchange::RequestedCall;
use serde_json::{Value, json};

pub(crate) use build::Build;
use build::WhenSlow;
use mcp::ToolOutcome;

use crate::http::{HttpClient, HttpResponse, Listener, Server, json_response, read_json};

/// Model calls in one turn; more end the turn with an error.
const MAX_STEPS: usize = 10;
/// Conversations in memory; a new one evicts the least recently used.
const MAX_CONVERSATIONS: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not zero");
/// Headers of a turn that the agent copies to its model and tool calls.
const PROPAGATED: [&str; 4] = ["x-session-id", "traceparent", "tracestate", "baggage"];

/// Addresses of model and tools: the tap in production, the world in a replay.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    /// Base URL of the model endpoint, with `/v1`.
    pub(crate) model_url: String,
    /// URL of the MCP endpoint.
    pub(crate) tool_url: String,
}

/// A running agent.
#[derive(Debug)]
pub(crate) struct AgentServer(Server);

impl AgentServer {
    /// Serves a build of the agent.
    pub(crate) fn start(listener: Listener, build: Build, endpoints: Endpoints) -> Self {
        let agent = Arc::new(Agent {
            build,
            endpoints,
            client: HttpClient::new(),
            conversations: Conversations::new(),
        });
        let handler = move |request| {
            let agent = Arc::clone(&agent);
            async move { agent.serve(request).await }
        };
        Self(listener.serve(handler))
    }

    #[cfg(test)]
    fn url(&self) -> String {
        format!("{}/chat", self.0.url())
    }

    pub(crate) async fn stop(self) {
        self.0.stop().await;
    }
}

#[derive(Debug)]
struct Agent {
    build: Build,
    endpoints: Endpoints,
    client: HttpClient,
    conversations: Conversations,
}

impl Agent {
    async fn serve(&self, request: Request<Incoming>) -> HttpResponse {
        if request.uri().path() != "/chat" {
            return json_response(StatusCode::NOT_FOUND, &json!({"error": "only POST /chat is served"}));
        }
        let headers = propagated(request.headers());
        let turn = async {
            let body = read_json(request).await?;
            let field = |name: &str| {
                body.get(name).and_then(Value::as_str).with_context(|| format!("{name} is missing"))
            };
            Ok::<_, anyhow::Error>((field("session")?.to_owned(), field("message")?.to_owned()))
        };
        let (session, message) = match turn.await {
            Ok(turn) => turn,
            Err(error) => {
                return json_response(StatusCode::BAD_REQUEST, &json!({"error": format!("{error:#}")}));
            }
        };
        match self.turn(&session, &message, &headers).await {
            Ok(reply) => json_response(StatusCode::OK, &json!({"session": session, "reply": reply})),
            Err(error) => json_response(StatusCode::BAD_GATEWAY, &json!({"error": format!("{error:#}")})),
        }
    }

    /// Answers one turn of a conversation.
    async fn turn(
        &self,
        session: &str,
        message: &str,
        headers: &[(HeaderName, String)],
    ) -> anyhow::Result<String> {
        let mut conversation = match self.conversations.get(session) {
            Some(conversation) => conversation,
            None => Conversation {
                messages: vec![json!({"role": "system", "content": self.build.prompt})],
                tools: mcp::list(&self.client, &self.endpoints.tool_url, headers).await?,
            },
        };
        conversation.messages.push(json!({"role": "user", "content": message}));
        for _ in 0..MAX_STEPS {
            let model_url = &self.endpoints.model_url;
            let (messages, tools) = (&conversation.messages, &conversation.tools);
            let choice =
                chat::complete(&self.client, model_url, headers, messages, tools, self.build.stream).await?;
            conversation.messages.push(choice.message());
            let calls: Vec<&RequestedCall> = choice.requested_calls().collect();
            if calls.is_empty() {
                self.conversations.put(session, conversation);
                return Ok(choice.content.unwrap_or_default());
            }
            for call in calls {
                let content = self.call(call, headers).await?;
                let id = call.id.as_deref().unwrap_or_default();
                conversation.messages.push(json!({"role": "tool", "tool_call_id": id, "content": content}));
            }
        }
        anyhow::bail!("the model requested tool calls in each of {MAX_STEPS} steps")
    }

    /// Makes one tool call and returns its result as text for the model.
    async fn call(&self, call: &RequestedCall, headers: &[(HeaderName, String)]) -> anyhow::Result<String> {
        let Ok(arguments) = serde_json::from_str::<Value>(&call.arguments) else {
            return Ok(json!({"error": "the arguments are not JSON"}).to_string());
        };
        let url = &self.endpoints.tool_url;
        let mut outcome = mcp::call(&self.client, url, headers, &call.tool, &arguments).await?;
        if self.build.when_slow == WhenSlow::Retry && is_slow(&outcome) {
            outcome = mcp::call(&self.client, url, headers, &call.tool, &arguments).await?;
        }
        Ok(match outcome {
            ToolOutcome::Result(text) => text,
            ToolOutcome::Failed(text) => json!({"error": text}).to_string(),
            ToolOutcome::TimedOut => json!({"error": "timeout", "note": "it may have been done"}).to_string(),
        })
    }
}

/// Whether the call timed out or is still processing. The response decides, not a clock of the agent.
fn is_slow(outcome: &ToolOutcome) -> bool {
    match outcome {
        ToolOutcome::TimedOut => true,
        ToolOutcome::Failed(_) => false,
        ToolOutcome::Result(text) => {
            let body: Option<Value> = serde_json::from_str(text).ok();
            body.is_some_and(|body| body.get("status").and_then(Value::as_str) == Some("processing"))
        }
    }
}

fn propagated(headers: &HeaderMap) -> Vec<(HeaderName, String)> {
    let one = |name: &'static str| {
        let value = headers.get(name)?.to_str().ok()?;
        Some((HeaderName::from_static(name), value.to_owned()))
    };
    PROPAGATED.into_iter().filter_map(one).collect()
}

#[derive(Debug, Clone)]
struct Conversation {
    messages: Vec<Value>,
    tools: Value,
}

/// The open conversations, by session id.
#[derive(Debug)]
struct Conversations(Mutex<LruCache<String, Conversation>>);

impl Conversations {
    fn new() -> Self {
        Self(Mutex::new(LruCache::new(MAX_CONVERSATIONS)))
    }

    fn get(&self, session: &str) -> Option<Conversation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(session).cloned()
    }

    fn put(&self, session: &str, conversation: Conversation) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(session.to_owned(), conversation);
    }
}

#[cfg(test)]
mod tests;
