//! A model provider on loopback that answers with recorded streams, frame by frame.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// The stream that ends in a tool call.
pub const TOOL_CALL: &str = include_str!("../fixtures/wire/deepseek-tool-call.chunks.txt");

/// The stream of plain text.
pub const TEXT: &str = include_str!("../fixtures/wire/openai-text.chunks.txt");

/// A provider that answers the first request of a conversation with [`TOOL_CALL`] and one with tool results with [`TEXT`].
#[derive(Debug)]
pub struct Provider {
    /// Address of the provider.
    pub address: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Provider {
    /// Starts the provider on an ephemeral port.
    ///
    /// # Panics
    /// Loopback has no free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let serving = tokio::spawn(async move {
            let mut running = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                running.spawn(async move {
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // A client that goes away ends its connection, nothing else.
                    let _ = builder.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
                });
            }
        });
        Self { address, serving }
    }
}

/// The frames of a recorded stream in wire format.
pub fn frames(recorded: &str) -> impl Iterator<Item = Bytes> {
    let payloads = recorded.lines().map(|line| Bytes::from(format!("data: {line}\n\n")));
    payloads.chain([Bytes::from_static(b"data: [DONE]\n\n")])
}

type Frames =
    StreamBody<std::pin::Pin<Box<dyn futures::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>>;

async fn answer(request: Request<Incoming>) -> Result<Response<Frames>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let has_results =
        body.windows(14).any(|window| window == b"\"role\":\"tool\"," || window == b"\"role\": \"tool\"");
    let recorded = if has_results { TEXT } else { TOOL_CALL };
    let stream = futures::stream::unfold(frames(recorded), |mut frames| async move {
        // Lets each frame leave on its own.
        tokio::task::yield_now().await;
        let frame = frames.next()?;
        Some((Ok(Frame::data(frame)), frames))
    });
    let mut response = Response::new(StreamBody::new(Box::pin(stream) as _));
    response
        .headers_mut()
        .insert("content-type", hyper::header::HeaderValue::from_static("text/event-stream; charset=utf-8"));
    response.headers_mut().insert("x-request-id", hyper::header::HeaderValue::from_static("req_1"));
    Ok(response)
}
