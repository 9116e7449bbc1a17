//! The world: what answers a candidate's model and tool calls during replay, on loopback.
//!
//! One server for all trials of a process. It finds out which trial a call belongs to and hands it on; what is answered
//! is decided by the trial's own state (`world::active_trial`). No call of a tool leaves this process, whatever is asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
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
pub(crate) mod model_calls;
pub(crate) mod registry;
pub(crate) mod responses;
pub(crate) mod tool_calls;

use active_trial::TrialWorld;
use registry::{Belongs, Registry};
use responses::{Reply, error_reply, json_reply};

/// The longest request that is read, in bytes.
const MAX_REQUEST_BYTES: usize = 32 << 20;

/// Connections at a time; a candidate that opens more waits.
const MAX_CONNECTIONS: usize = 4096;

/// How long open connections get to finish when the world is shut down.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// The world cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The address cannot be listened on.
    #[error(
        "the world cannot listen on {address}: {source}; choose another [world] listen in the candidate file"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another machine could reach it.
    #[error(
        "the world would listen on {address}, which others can reach, and it has no access control; use a loopback address"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
}

/// What answers a candidate's model and tool calls; serves from the moment it is bound.
#[derive(Debug)]
pub struct World {
    address: SocketAddr,
    registry: Arc<Registry>,
    /// A world that is dropped stops, even where nobody waits for its end.
    stop: DropGuard,
    server: JoinHandle<()>,
}

impl World {
    /// Listens on a loopback address and serves; port 0 is any free one.
    ///
    /// # Errors
    /// The address is taken, or is not a loopback address.
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

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Base URL of an OpenAI client.
    #[must_use]
    pub fn model_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// URL of an MCP client (streamable HTTP).
    #[must_use]
    pub fn mcp_url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Base URL of tools spoken to in plain JSON.
    #[must_use]
    pub fn tools_url(&self) -> String {
        format!("http://{}/tools", self.address)
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Stops serving: open connections get a short time to finish.
    pub async fn shutdown(self) {
        drop(self.stop);
        // The server task ends by itself after the grace time; a panic in it has been reported by the runtime.
        let _ = self.server.await;
    }
}

async fn serve(listener: TcpListener, registry: Arc<Registry>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        // Both `accept` and `join_next` are cancel-safe: no connection and no result is lost.
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    connections.spawn(connection(stream, registry.clone(), stop.clone()));
                }
                // Out of file descriptors, most likely: wait for a connection to end instead of spinning.
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
    // Polling a connection by reference is cancel-safe; after the stop it is polled on to its end.
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of the candidate ended early");
    }
}

/// A request as the parts of the world see it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Path without the trial's prefix, and the query.
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    /// Path and query as they are stored.
    pub(crate) fn path_and_query(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }
}

async fn answer(registry: &Arc<Registry>, request: Request<Incoming>) -> Response<Reply> {
    let (parts, body) = request.into_parts();
    let (prefix, path) = registry::split_prefix(parts.uri.path());
    let Ok(body) = Limited::new(body, MAX_REQUEST_BYTES).collect().await else {
        return error_reply(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request broke off or is too long for the world",
        );
    };
    let asked = Asked {
        method: parts.method,
        path: path.to_owned(),
        query: parts.uri.query().map(str::to_owned),
        headers: parts.headers,
        body: body.to_bytes(),
    };
    if asked.path == "/healthz" {
        return json_reply(StatusCode::OK, &serde_json::json!({"status": "ok"}));
    }
    if asked.path == "/mcp" || asked.path.starts_with("/mcp/") {
        return mcp::answer(registry, prefix, asked).await;
    }
    let belongs = registry.find(prefix, &asked.headers, None);
    if asked.method == Method::GET && asked.path == "/v1/models" {
        return json_reply(StatusCode::OK, &serde_json::json!({"object": "list", "data": []}));
    }
    let tool = asked.path.strip_prefix("/tools/").filter(|name| !name.is_empty()).map(str::to_owned);
    let model = asked.path.ends_with("/chat/completions");
    if asked.method != Method::POST || !(model || tool.is_some()) {
        let spoken = "POST /v1/chat/completions, /mcp, POST /tools/<name>";
        return error_reply(
            StatusCode::NOT_FOUND,
            &format!("the world does not know {} {}; it knows {spoken}", asked.method, asked.path),
        );
    }
    let trial = match belonging(registry, belongs) {
        Ok(trial) => trial,
        Err(reply) => return reply,
    };
    match tool {
        Some(tool) => tool_calls::answer(&trial, &tool, asked).await,
        None => model_calls::answer(&trial, asked).await,
    }
}

/// The trial a call belongs to, or what is answered where that cannot be said.
#[expect(clippy::result_large_err, reason = "the error is the answer that goes out at once")]
fn belonging(registry: &Registry, belongs: Belongs) -> Result<Arc<TrialWorld>, Response<Reply>> {
    match belongs {
        Belongs::Trial(trial) => Ok(trial),
        Belongs::Over => Err(error_reply(StatusCode::GONE, "this trial is over")),
        Belongs::Unknown => {
            registry.count_uncorrelated();
            let text = "it cannot be told which trial this call belongs to: pass on the `traceparent` or `baggage` \
                        header of the turn, or a header of your own that [propagate] header = \"…\" in \
                        candidate.toml names; or use the trial's own address, or replay with --concurrency 1";
            Err(error_reply(StatusCode::BAD_REQUEST, text))
        }
    }
}
