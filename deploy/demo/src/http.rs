//! HTTP servers and a client on loopback: ephemeral ports, bounded bodies, graceful shutdown.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Largest body, bytes.
const BODY_BYTES: usize = 4 << 20;
/// Time limit of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) type HttpResponse = Response<BoxBody<Bytes, Infallible>>;

/// A bound loopback port without a handler: configuration files can name the address before the server starts.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds a free port.
    pub(crate) async fn bind() -> anyhow::Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no loopback port is free")?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves requests until [`Server::stop`].
    pub(crate) fn serve<F, A>(self, handler: F) -> Server
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
        A: Future<Output = HttpResponse> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = tokio::spawn(accept(self.listener, stop.clone(), handler));
        Server { address: self.address, stop, task }
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops accepting and drops the open connections.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        // The token ends the task; the panic hook has printed a panic.
        let _ = self.task.await;
    }
}

async fn accept<F, A>(listener: TcpListener, stop: CancellationToken, handler: F)
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = HttpResponse> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        // Every branch is cancel-safe.
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        // Without TCP_NODELAY, small responses wait for the client's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let handler = handler.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "demo connection ended early");
            }
        });
    }
    connections.shutdown().await;
}

/// Reads the body of a request as JSON.
pub(crate) async fn read_json(request: Request<Incoming>) -> anyhow::Result<Value> {
    let body = Limited::new(request.into_body(), BODY_BYTES)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!(error))?;
    serde_json::from_slice(&body.to_bytes()).context("the body is not JSON")
}

/// Builds a response with a JSON body.
pub(crate) fn json_response(status: StatusCode, body: &Value) -> HttpResponse {
    text_response(status, "application/json", body.to_string())
}

/// Builds a response with a complete body.
pub(crate) fn text_response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> HttpResponse {
    let mut answer = Response::new(Full::new(body.into()).boxed());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// The response to a request.
#[derive(Debug)]
pub(crate) struct ClientResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl ClientResponse {
    /// Whether the body is a stream of server-sent events.
    pub(crate) fn is_event_stream(&self) -> bool {
        let kind = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        kind.starts_with("text/event-stream")
    }

    /// The data of each server-sent event.
    pub(crate) fn events(&self) -> Vec<String> {
        wire::sse::data(&self.body)
    }
}

/// An HTTP client with a connection pool.
#[derive(Debug, Clone)]
pub(crate) struct HttpClient(Client<HttpConnector, Full<Bytes>>);

impl HttpClient {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    /// Posts a JSON body and reads the response.
    pub(crate) async fn post(
        &self,
        url: &str,
        headers: &[(HeaderName, String)],
        body: &Value,
    ) -> anyhow::Result<ClientResponse> {
        let mut request = Request::post(url).header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request =
            request.body(Full::new(Bytes::from(body.to_string()))).context("the request cannot be built")?;
        let answered = async {
            let response = self.0.request(request).await?;
            let (head, body) = response.into_parts();
            let body =
                Limited::new(body, BODY_BYTES).collect().await.map_err(|error| anyhow::anyhow!(error))?;
            Ok::<_, anyhow::Error>(ClientResponse {
                status: head.status,
                headers: head.headers,
                body: body.to_bytes(),
            })
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, answered).await {
            Ok(response) => response.with_context(|| format!("no response from {url}")),
            Err(_) => anyhow::bail!("no response from {url} within {} seconds", REQUEST_TIMEOUT.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_reaches_a_server_on_loopback() {
        let echo = |request| async move {
            match read_json(request).await {
                Ok(body) => json_response(StatusCode::OK, &body),
                Err(error) => text_response(StatusCode::BAD_REQUEST, "text/plain", error.to_string()),
            }
        };
        let server = Listener::bind().await.expect("a loopback port").serve(echo);
        let body = serde_json::json!({"hello": [1, 2]});
        let response = HttpClient::new().post(&server.url(), &[], &body).await.expect("an answer");
        assert_eq!(
            (response.status, serde_json::from_slice(&response.body).ok()),
            (StatusCode::OK, Some(body))
        );
        server.stop().await;
    }
}
