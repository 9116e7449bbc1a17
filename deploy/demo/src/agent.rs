//! The demo's agent: a refund-support service with a real tool-calling loop.
//!
//! `POST /chat` takes `{"session", "message"}` and answers `{"session", "reply"}`. For each turn it asks a model over
//! an OpenAI-compatible endpoint, makes the tool calls that the model wants over MCP, and goes on until the model
//! answers in words. It passes on the tracing headers it was called with, as any instrumented service does, and knows
//! nothing of recording or replaying.

mod build;
mod chat;
mod mcp;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Request, StatusCode};
use serde_json::{Value, json};

pub(crate) use build::Build;
use build::WhenSlow;
use chat::ToolCall;
use mcp::ToolOutcome;

use crate::http::{HttpClient, HttpResponse, Listener, Server, json_answer, read_json};

/// Model calls in one turn before the agent gives up.
const MAX_STEPS: usize = 10;
/// Conversations that are remembered; the oldest is forgotten first.
const MAX_CONVERSATIONS: usize = 4096;
/// What a turn's headers pass on to its model and tool calls.
const PASSED_ON: [&str; 4] = ["x-session-id", "traceparent", "tracestate", "baggage"];

/// Where an agent finds its model and its tools: in production the tap, in a replay the world.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    /// Base URL of the model's endpoint, with `/v1`.
    pub(crate) model_url: String,
    /// URL of the MCP endpoint.
    pub(crate) tool_url: String,
}

/// A running agent.
#[derive(Debug)]
pub(crate) struct AgentServer(Server);

impl AgentServer {
    /// Starts this version of the agent on a port of its own.
    pub(crate) fn start(port: Listener, build: Build, endpoints: Endpoints) -> Self {
        let agent = Arc::new(Agent {
            build,
            endpoints,
            client: HttpClient::new(),
            conversations: Conversations::default(),
        });
        let handler = move |request| {
            let agent = Arc::clone(&agent);
            async move { agent.serve(request).await }
        };
        Self(port.serve(handler))
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
            return json_answer(StatusCode::NOT_FOUND, &json!({"error": "only POST /chat is served"}));
        }
        let headers = passed_on(request.headers());
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
                return json_answer(StatusCode::BAD_REQUEST, &json!({"error": format!("{error:#}")}));
            }
        };
        match self.turn(&session, &message, &headers).await {
            Ok(reply) => json_answer(StatusCode::OK, &json!({"session": session, "reply": reply})),
            Err(error) => json_answer(StatusCode::BAD_GATEWAY, &json!({"error": format!("{error:#}")})),
        }
    }

    /// Works through one turn of a conversation.
    async fn turn(
        &self,
        session: &str,
        message: &str,
        headers: &[(HeaderName, String)],
    ) -> anyhow::Result<String> {
        let mut conversation = match self.conversations.recall(session) {
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
            let said =
                chat::ask(&self.client, model_url, headers, messages, tools, self.build.stream).await?;
            conversation.messages.push(said.message());
            if said.calls.is_empty() {
                self.conversations.keep(session, conversation);
                return Ok(said.text);
            }
            for call in &said.calls {
                let content = self.call(call, headers).await?;
                conversation
                    .messages
                    .push(json!({"role": "tool", "tool_call_id": call.id, "content": content}));
            }
        }
        anyhow::bail!("the model did not come to an end within {MAX_STEPS} steps")
    }

    /// Makes one tool call and says how it went, in words for the model.
    async fn call(&self, call: &ToolCall, headers: &[(HeaderName, String)]) -> anyhow::Result<String> {
        let Ok(arguments) = serde_json::from_str::<Value>(&call.arguments) else {
            return Ok(json!({"error": "the arguments are not JSON"}).to_string());
        };
        let url = &self.endpoints.tool_url;
        let mut outcome = mcp::call(&self.client, url, headers, &call.tool, &arguments).await?;
        if self.build.when_slow == WhenSlow::Retry && is_slow(&outcome) {
            outcome = mcp::call(&self.client, url, headers, &call.tool, &arguments).await?;
        }
        Ok(match outcome {
            ToolOutcome::Answered(text) => text,
            ToolOutcome::Failed(text) => json!({"error": text}).to_string(),
            ToolOutcome::TimedOut => json!({"error": "timeout", "note": "it may have been done"}).to_string(),
        })
    }
}

/// Whether the tool did not get done in time: known from what it says, never from a clock of the agent's own.
fn is_slow(outcome: &ToolOutcome) -> bool {
    match outcome {
        ToolOutcome::TimedOut => true,
        ToolOutcome::Failed(_) => false,
        ToolOutcome::Answered(text) => {
            let body: Option<Value> = serde_json::from_str(text).ok();
            body.is_some_and(|body| body.get("status").and_then(Value::as_str) == Some("processing"))
        }
    }
}

fn passed_on(headers: &HeaderMap) -> Vec<(HeaderName, String)> {
    let one = |name: &'static str| {
        let value = headers.get(name)?.to_str().ok()?;
        Some((HeaderName::from_static(name), value.to_owned()))
    };
    PASSED_ON.into_iter().filter_map(one).collect()
}

#[derive(Debug, Clone)]
struct Conversation {
    messages: Vec<Value>,
    tools: Value,
}

/// The conversations under way.
#[derive(Debug, Default)]
struct Conversations(Mutex<ConversationTable>);

#[derive(Debug, Default)]
struct ConversationTable {
    conversations: BTreeMap<String, Conversation>,
    oldest_first: VecDeque<String>,
}

impl Conversations {
    fn recall(&self, session: &str) -> Option<Conversation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).conversations.get(session).cloned()
    }

    fn keep(&self, session: &str, conversation: Conversation) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.conversations.insert(session.to_owned(), conversation).is_none() {
            held.oldest_first.push_back(session.to_owned());
        }
        if held.oldest_first.len() > MAX_CONVERSATIONS
            && let Some(oldest) = held.oldest_first.pop_front()
        {
            held.conversations.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests;
