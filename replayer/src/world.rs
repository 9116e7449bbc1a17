//! The world: the simulated environment that answers a candidate's model and tool calls, on loopback.
//!
//! One server serves all trials of a process. It finds the trial of a call ([`registry`]) and answers from the trial's
//! state ([`active_trial`]). No tool call leaves this process; live model calls go to the configured provider.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) mod active_trial;
pub(crate) mod live_model;
pub(crate) mod mcp;
pub(crate) mod model_call;
pub(crate) mod model_calls;
pub(crate) mod provider_calls;
pub(crate) mod provider_failure;
pub(crate) mod provider_health;
pub(crate) mod recorded_body;
pub(crate) mod refusals;
pub(crate) mod registry;
pub(crate) mod request;
pub(crate) mod responses;
pub(crate) mod tool_calls;

use refusals::Refusal;
use registry::Registry;
use request::WorldRequest;
use responses::{WorldBody, error_response, json_response};

/// Longest request body, bytes.
const MAX_REQUEST_BYTES: usize = 32 << 20;

/// Open connections; further ones wait in the accept queue.
const MAX_CONNECTIONS: usize = 4096;

/// Time for open connections to finish at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// The world cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The address is in use or not available.
    #[error(
        "the world cannot listen on {address}: {source}; choose another [world] listen in the candidate file"
    )]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The address is not a loopback address.
    #[error(
        "the world would listen on {address}, which other machines can reach, and has no access control; use a loopback address"
    )]
    NotLoopback {
        /// The configured address.
        address: SocketAddr,
    },
}

/// A running server that answers model and tool calls.
#[derive(Debug)]
pub struct World {
    address: SocketAddr,
    registry: Arc<Registry>,
    /// Stops the server when the world is dropped.
    stop: DropGuard,
    server: JoinHandle<()>,
}

impl World {
    /// Listens on a loopback address and starts to serve. Port 0 means any free port.
    ///
    /// # Errors
    /// The address is in use, not available or not a loopback address.
    pub async fn bind(address: SocketAddr) -> Result<Self, WorldError> {
        if !address.ip().is_loopback() {
            return Err(WorldError::NotLoopback { address });
        }
        let bind = |source| WorldError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let registry = Arc::new(Registry::default());
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, registry.clone(), stop.clone()));
        Ok(Self { address, registry, stop: stop.drop_guard(), server })
    }

    /// The address that the world listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Base URL for an `OpenAI` client.
    #[must_use]
    pub fn model_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// URL for an MCP client (streamable HTTP).
    #[must_use]
    pub fn mcp_url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Base URL of plain JSON tools.
    #[must_use]
    pub fn tools_url(&self) -> String {
        format!("http://{}/tools", self.address)
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Stops serving. Open connections get 2 s to finish.
    pub async fn shutdown(self) {
        drop(self.stop);
        // The server task ends after the grace time; the runtime has reported a panic.
        let _ = self.server.await;
    }
}

async fn serve(listener: TcpListener, registry: Arc<Registry>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        // `accept` and `join_next` are cancel-safe.
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    connections.spawn(connection(stream, registry.clone(), stop.clone()));
                }
                // Most likely the process has no file descriptor left; a pause lets a connection end.
                Err(error) => {
                    tracing::warn!(%error, "the world cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    let drained =
        tokio::time::timeout(SHUTDOWN_GRACE, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        connections.shutdown().await;
    }
}

async fn connection(stream: tokio::net::TcpStream, registry: Arc<Registry>, stop: CancellationToken) {
    let service = service_fn(move |request| {
        let registry = registry.clone();
        async move { Ok::<_, std::convert::Infallible>(Box::pin(answer(&registry, request)).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    // Polling a connection by reference is cancel-safe; after the stop it is polled to its end.
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of the candidate was cut off");
    }
}

async fn answer(registry: &Arc<Registry>, request: Request<Incoming>) -> Response<WorldBody> {
    let (parts, body) = request.into_parts();
    let (prefix, path) = registry::split_prefix(parts.uri.path());
    let body = Limited::new(body, MAX_REQUEST_BYTES).collect().await;
    let is_readable = body.is_ok();
    let request = WorldRequest {
        method: parts.method,
        path: path.to_owned(),
        query: parts.uri.query().map(str::to_owned),
        headers: parts.headers,
        body: body.map(http_body_util::Collected::to_bytes).unwrap_or_default(),
    };
    if is_readable && let Some(response) = answer_itself(&request) {
        return response;
    }
    if is_readable && (request.path == "/mcp" || request.path.starts_with("/mcp/")) {
        return mcp::answer(registry, prefix, request).await;
    }
    let lookup = registry.find(prefix, &request.headers, None);
    if !is_readable {
        let text = format!("the request was cut off or exceeds {MAX_REQUEST_BYTES} bytes");
        let refusal = Refusal::of_http(&request, StatusCode::PAYLOAD_TOO_LARGE, text);
        return refusals::refuse(registry, &lookup, request, &refusal);
    }
    let tool = request.path.strip_prefix("/tools/").filter(|name| !name.is_empty()).map(str::to_owned);
    let is_model_call = request.path.ends_with("/chat/completions");
    if request.method != Method::POST || !(is_model_call || tool.is_some()) {
        let known = "POST /v1/chat/completions, /mcp, POST /tools/<name>";
        let text = format!("no endpoint {} {}; the endpoints are {known}", request.method, request.path);
        let refusal = Refusal::of_http(&request, StatusCode::NOT_FOUND, text);
        return refusals::refuse(registry, &lookup, request, &refusal);
    }
    let name = refusals::path_name(&request.method, &request.path);
    let trial = match registry.require(lookup, &name, is_model_call) {
        Ok(trial) => trial,
        Err(response) => return response,
    };
    match tool {
        Some(tool) => tool_calls::answer(&trial, &tool, request).await,
        None => model_calls::answer(&trial, request).await,
    }
}

/// Answers requests that say nothing about a candidate: health checks, the list of models, and the discovery of metadata,
/// whose 404 is the regular answer of a server without it (RFC 9728 section 3.1).
fn answer_itself(request: &WorldRequest) -> Option<Response<WorldBody>> {
    if request.path == "/healthz" {
        return Some(json_response(StatusCode::OK, &serde_json::json!({"status": "ok"})));
    }
    if request.method != Method::GET {
        return None;
    }
    if request.path == "/v1/models" {
        return Some(json_response(StatusCode::OK, &serde_json::json!({"object": "list", "data": []})));
    }
    let is_discovery = request.path.starts_with("/.well-known/") || request.path == "/favicon.ico";
    is_discovery.then(|| error_response(StatusCode::NOT_FOUND, "the world has no metadata"))
}
