//! Conversations through a tap, with the bytes that each side sent: the recorder must store exactly these.
//!
//! Each request repeats its whole history, as a chat client does. It carries the number of its call, so no two requests are
//! equal. The response is a function of the request, so its bytes are known too.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Turns of a conversation.
const TURNS: u64 = 6;

/// Pause of a client after each response or failure. It bounds the number of rows that a comparison reads.
const PACE: Duration = Duration::from_millis(4);

/// Vocabulary of the conversations. No detector redacts these words.
const WORDS: [&str; 16] = [
    "the", "order", "was", "moved", "to", "a", "later", "flight", "and", "your", "seat", "is", "kept", "as",
    "you", "asked",
];

/// A model provider whose response is a function of the request.
#[derive(Debug)]
pub struct EchoServer {
    /// Address of the provider.
    pub address: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl EchoServer {
    /// Starts the provider on an ephemeral port.
    ///
    /// # Panics
    /// Loopback has no free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let serving = tokio::spawn(async move {
            let mut running = JoinSet::new();
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

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let seed = body.iter().fold(body.len(), |sum, byte| sum.wrapping_mul(31) ^ usize::from(*byte));
    let content = words(seed, 20 + seed % 200);
    let message = json!({"role": "assistant", "content": content});
    let value = json!({"object": "chat.completion", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]});
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    response
        .headers_mut()
        .insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    Ok(response)
}

fn words(seed: usize, count: usize) -> String {
    let mut text = String::new();
    let mut state = seed;
    for _ in 0..count {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(WORDS[(state >> 40) % WORDS.len()]);
        text.push(' ');
    }
    text
}

/// One call from the client's view.
#[derive(Debug, Clone)]
pub struct Call {
    /// Session id that the client sent.
    pub session: String,
    /// Body of the request.
    pub request: Bytes,
    /// Body of the response, if it arrived completely.
    pub response: Option<Bytes>,
}

/// Clients that send requests until they are stopped.
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    url: Mutex<String>,
    name: String,
    stop: AtomicBool,
    calls: Mutex<Vec<Call>>,
    number: AtomicU64,
    answered: AtomicU64,
    filler: usize,
}

impl Traffic {
    /// Starts this number of clients. Session ids and requests begin with `name`. Each request grows by `filler` words a turn.
    #[must_use]
    pub fn start(url: &str, name: &str, clients: u64, filler: usize) -> Self {
        let shared = Arc::new(Shared {
            url: Mutex::new(url.to_owned()),
            name: name.to_owned(),
            stop: AtomicBool::new(false),
            calls: Mutex::default(),
            number: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            filler,
        });
        let mut running = JoinSet::new();
        for client in 0..clients {
            running.spawn(talk(shared.clone(), client));
        }
        Self { shared, clients: running }
    }

    /// Sends the following requests to another URL.
    ///
    /// # Panics
    /// A holder of the lock panicked.
    pub fn redirect(&self, url: &str) {
        url.clone_into(&mut self.shared.url.lock().expect("no holder panics"));
    }

    /// Number of complete responses.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Waits for this number of further complete responses.
    pub async fn wait_for(&self, more: u64) {
        let wanted = self.answered() + more;
        while self.answered() < wanted {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Stops each client after its current call. Returns all calls.
    ///
    /// # Panics
    /// A client panicked.
    pub async fn stop(mut self) -> Vec<Call> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("no client panics");
        }
        std::mem::take(&mut *self.shared.calls.lock().expect("no holder panics"))
    }
}

async fn talk(shared: Arc<Shared>, client_number: u64) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    for conversation in 0_u64.. {
        let session = format!("{}-{client_number}-{conversation}", shared.name);
        let mut messages = Vec::new();
        for turn in 0..TURNS {
            if shared.stop.load(Ordering::Relaxed) {
                return;
            }
            let number = shared.number.fetch_add(1, Ordering::Relaxed);
            let seed = usize::try_from(number).unwrap_or(0).wrapping_add(shared.name.len());
            messages.push(
                json!({"role": "user", "content": format!("turn {turn}: {}", words(seed, shared.filler))}),
            );
            let call = format!("{} call {number}", shared.name);
            let body = json!({"model": "m", "messages": messages, "user": call});
            let request = Bytes::from(body.to_string());
            let response = post(&client, &shared, &session, request.clone()).await;
            if let Some(bytes) = &response {
                shared.answered.fetch_add(1, Ordering::Relaxed);
                let output: Value = serde_json::from_slice(bytes).unwrap_or_default();
                messages.push(output["choices"][0]["message"].clone());
            }
            shared.calls.lock().expect("no holder panics").push(Call {
                session: session.clone(),
                request,
                response,
            });
            tokio::time::sleep(PACE).await;
        }
    }
}

async fn post(
    client: &Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
    shared: &Shared,
    session: &str,
    body: Bytes,
) -> Option<Bytes> {
    let url = shared.url.lock().expect("no holder panics").clone();
    let request = Request::post(format!("{url}/v1/chat/completions"))
        .header("content-type", "application/json")
        .header("x-session-id", session)
        .body(Full::from(body))
        .expect("a request");
    let response = client.request(request).await.ok().filter(|response| response.status().is_success())?;
    Some(response.into_body().collect().await.ok()?.to_bytes())
}
