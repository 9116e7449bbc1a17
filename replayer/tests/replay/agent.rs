//! A small candidate: an HTTP service that calls the model, looks an order up and refunds it through the world.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Protocol between agent and tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tools {
    /// MCP with a session.
    McpSession,
    /// MCP without sessions.
    McpStateless,
    /// `POST /tools/<name>`.
    Json,
}

/// Behaviour of the agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behaviour {
    pub(crate) tools: Tools,
    /// Never answers a turn.
    pub(crate) silent: bool,
    /// Refunds of each turn.
    pub(crate) refunds: usize,
    /// Refunds another amount than the recording.
    pub(crate) wrong_amount: bool,
    /// Passes `traceparent` on to model and tools.
    pub(crate) propagates: bool,
    /// Requests streamed model answers.
    pub(crate) streams: bool,
    /// Takes a model answer that breaks off as it is.
    pub(crate) tolerates_cut_answers: bool,
    /// Calls the model.
    pub(crate) calls_model: bool,
    /// Looks the order up by a number, which violates the input schema.
    pub(crate) violates_schema: bool,
    /// Requests that the agent also sends in each turn; it ignores their answers.
    pub(crate) extra: &'static [ExtraRequest],
    /// System prompt of the model request.
    pub(crate) prompt: &'static str,
}

/// Method, path and body.
pub(crate) type ExtraRequest = (&'static str, &'static str, &'static str);

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            tools: Tools::McpStateless,
            silent: false,
            refunds: 1,
            wrong_amount: false,
            propagates: true,
            streams: false,
            tolerates_cut_answers: false,
            calls_model: true,
            violates_schema: false,
            extra: &[],
            prompt: "you refund",
        }
    }
}

type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// A running agent; dropping it stops the server.
pub(crate) struct Agent {
    pub(crate) address: SocketAddr,
    /// Turns received, probes included.
    pub(crate) turns: Arc<AtomicUsize>,
    _server: JoinSet<()>,
}

/// Answers of the model and the tools in one turn.
#[derive(Debug, Default)]
struct Answers {
    model: String,
    order: String,
    refunds: Vec<String>,
}

impl Agent {
    pub(crate) async fn start(world: SocketAddr, behaviour: Behaviour) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let turns = Arc::new(AtomicUsize::new(0));
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut server = JoinSet::new();
        let counted = turns.clone();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (client, counted) = (client.clone(), counted.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let (client, counted) = (client.clone(), counted.clone());
                        async move {
                            Ok::<_, std::convert::Infallible>(
                                turn(request, world, behaviour, &client, &counted).await,
                            )
                        }
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    // The replayer closes the connection of a turn that timed out.
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, turns, _server: server }
    }
}

async fn turn(
    request: Request<Incoming>,
    world: SocketAddr,
    behaviour: Behaviour,
    client: &HttpClient,
    turns: &AtomicUsize,
) -> Response<Full<Bytes>> {
    if request.uri().path() == "/healthz" {
        return Response::new(Full::new(Bytes::from_static(b"ok")));
    }
    turns.fetch_add(1, Ordering::SeqCst);
    if behaviour.silent {
        std::future::pending::<()>().await;
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let message = body["message"].as_str().expect("a message").to_owned();
    let mut headers = HeaderMap::new();
    if behaviour.propagates {
        headers.insert("traceparent", parts.headers["traceparent"].clone());
    }
    let world = WorldClient { base: format!("http://{world}"), headers, client, behaviour };
    let answers = world.run_turn(&message).await;
    let reply =
        json!({"reply": format!("{} | {} | {}", answers.model, answers.order, answers.refunds.join(" + "))});
    Response::new(Full::new(Bytes::from(reply.to_string())))
}

struct WorldClient<'a> {
    base: String,
    headers: HeaderMap,
    client: &'a HttpClient,
    behaviour: Behaviour,
}

impl WorldClient<'_> {
    async fn run_turn(&self, message: &str) -> Answers {
        let order = message.rsplit(' ').next().unwrap_or_default().to_owned();
        let mut answers = Answers::default();
        for (method, path, body) in self.behaviour.extra {
            self.send(method, path, body.to_string(), &[]).await;
        }
        if self.behaviour.calls_model {
            answers.model = self.call_model(message).await;
        }
        let session = self.mcp_session().await;
        let wanted = if self.behaviour.violates_schema { json!(5) } else { json!(order) };
        answers.order = self.call("get_order", &json!({"order_id": wanted}), session.as_deref()).await;
        let amount = if self.behaviour.wrong_amount { 7 } else { 5 };
        for _ in 0..self.behaviour.refunds {
            let arguments = json!({"order_id": order, "amount": amount});
            answers.refunds.push(self.call("refund", &arguments, session.as_deref()).await);
        }
        answers
    }

    async fn call_model(&self, message: &str) -> String {
        let mut request = json!({"model": "m", "messages": [
            {"role": "system", "content": self.behaviour.prompt}, {"role": "user", "content": message},
        ]});
        if self.behaviour.streams {
            request["stream"] = json!(true);
        }
        let (status, _, body) = self.post("/v1/chat/completions", &request, &[]).await;
        let kind = if body.starts_with("data:") { "stream" } else { "plain" };
        let requests_tool = body.contains("get_order");
        format!("{status} {kind} {requests_tool}")
    }

    async fn mcp_session(&self) -> Option<String> {
        if self.behaviour.tools != Tools::McpSession {
            return None;
        }
        let request = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}}});
        let (_, headers, body) = self.post("/mcp", &request, &[]).await;
        assert!(body.contains("2025-06-18"), "{body}");
        let session = headers["mcp-session-id"].to_str().expect("text").to_owned();
        let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
        let (_, _, body) = self.post("/mcp", &list, &[("mcp-session-id", &session)]).await;
        assert!(body.contains("refund"), "{body}");
        Some(session)
    }

    async fn call(&self, tool: &str, arguments: &Value, session: Option<&str>) -> String {
        if self.behaviour.tools == Tools::Json {
            let (status, _, body) = self.post(&format!("/tools/{tool}"), arguments, &[]).await;
            return format!("{status} {body}");
        }
        let request = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool, "arguments": arguments}});
        let named = match session {
            Some(session) => vec![("mcp-session-id", session), ("mcp-protocol-version", "2025-06-18")],
            None => {
                vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", tool)]
            }
        };
        let (status, _, body) = self.post("/mcp", &request, &named).await;
        let body: Value = serde_json::from_str(&body).expect("JSON");
        let result = &body["result"];
        assert_eq!(session.is_none() && status == 200, result["resultType"] == "complete", "{body}");
        let failed = result["isError"].as_bool().unwrap_or(result.is_null());
        format!("{status} {failed} {}", result["content"][0]["text"].as_str().unwrap_or_default())
    }

    async fn post(&self, path: &str, body: &Value, named: &[(&str, &str)]) -> (u16, HeaderMap, String) {
        self.send("POST", path, body.to_string(), named).await
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        body: String,
        named: &[(&str, &str)],
    ) -> (u16, HeaderMap, String) {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("content-type", "application/json");
        for (name, value) in named {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Full::new(Bytes::from(body))).expect("a request");
        request.headers_mut().extend(self.headers.clone());
        let response = self.client.request(request).await.expect("the world answers");
        let (parts, body) = response.into_parts();
        let bytes = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) if self.behaviour.tolerates_cut_answers => Bytes::new(),
            Err(error) => panic!("the answer breaks off: {error}"),
        };
        (parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&bytes).into_owned())
    }
}
