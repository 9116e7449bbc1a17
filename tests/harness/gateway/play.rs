//! Sends generated traffic over HTTP: one client per session, and an upstream that returns the recorded responses.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use schemas::exchange::Edge;
use tokio::net::TcpListener;

use super::{Call, Session, Traffic};

/// Header with the number of the wanted response. The tap forwards it and does not keep it.
const ASKED: &str = "x-play";

/// Pending responses by the number in their request.
type Due = Arc<Mutex<HashMap<u64, (Bytes, bool)>>>;

/// The agent, provider and tool server behind the tap.
#[derive(Debug)]
pub struct Upstream {
    /// Address of the upstream.
    pub address: SocketAddr,
    due: Due,
    next: AtomicU64,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Upstream {
    /// Starts the upstream on an ephemeral port.
    ///
    /// # Panics
    /// Loopback has no free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let due = Due::default();
        let kept = due.clone();
        let serving = tokio::spawn(async move {
            let mut running = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // Small answers must not wait for more to come.
                let _ = stream.set_nodelay(true);
                let due = kept.clone();
                running.spawn(async move {
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let service = service_fn(move |request| answer(request, due.clone()));
                    // A client that goes away ends its connection, nothing else.
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
                while running.try_join_next().is_some() {}
            }
        });
        Self { address, due, next: AtomicU64::new(0), serving }
    }
}

async fn answer(request: Request<Incoming>, due: Due) -> Result<Response<Full<Bytes>>, Infallible> {
    let asked = request.headers().get(ASKED).and_then(|value| value.to_str().ok()?.parse().ok());
    // The body is read to its end first, as a server does that needs it.
    let whole = request.into_body().collect().await.is_ok();
    let found = asked.and_then(|asked: u64| due.lock().expect("no holder panics").remove(&asked));
    let mut response = Response::new(Full::default());
    match found.filter(|_| whole) {
        Some((body, streamed)) => {
            let kind = if streamed { "text/event-stream" } else { "application/json" };
            response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(kind));
            *response.body_mut() = Full::new(body);
        }
        None => *response.status_mut() = hyper::StatusCode::BAD_REQUEST,
    }
    Ok(response)
}

/// URL of each edge, without a slash at the end.
#[derive(Debug, Clone)]
pub struct RouteUrls {
    /// URL for callers of the agent.
    pub turn: String,
    /// URL of the model.
    pub model: String,
    /// URL of the tools.
    pub tool: String,
}

impl RouteUrls {
    /// The URLs of the upstream itself, without a tap.
    #[must_use]
    pub fn direct(upstream: &Upstream) -> Self {
        let url = format!("http://{}", upstream.address);
        Self { turn: url.clone(), model: url.clone(), tool: url }
    }

    fn of(&self, edge: Edge) -> &str {
        match edge {
            Edge::Turn => &self.turn,
            Edge::Model => &self.model,
            Edge::Tool => &self.tool,
        }
    }
}

/// Configuration of a recorder's routes in front of the upstream, with ephemeral ports.
#[must_use]
pub fn routes(upstream: &Upstream) -> String {
    let route = |edge: &str, lines: &str| {
        let address = upstream.address;
        format!(
            "[[route]]\nname = \"{edge}\"\nedge = \"{edge}\"\nlisten = \"127.0.0.1:0\"\nupstream = \"http://{address}\"\n{lines}\n"
        )
    };
    let turn = route("turn", "protocol = \"generic-json\"\ninput = \"/message\"\noutput = \"/reply\"");
    turn + &route("model", "protocol = \"openai-chat\"") + &route("tool", "protocol = \"mcp\"")
}

/// Numbers of the sent traffic.
#[derive(Debug, Default, Clone)]
pub struct SentTraffic {
    /// Sessions sent.
    pub sessions: u64,
    /// Requests with the right response.
    pub requests: u64,
    /// Requests with a wrong response or none.
    pub failed: u64,
    /// Bytes of request and response bodies, without headers and framing.
    pub body_bytes: u64,
    /// Time from the first request to the last response.
    pub took: Duration,
    /// Latency of each request, sorted.
    pub latencies: Vec<Duration>,
}

/// Sends the sessions with these numbers, `clients` at the same time.
///
/// # Panics
/// A holder of a lock panicked.
pub async fn play(
    traffic: &Arc<Traffic>,
    places: std::ops::Range<usize>,
    seed: u64,
    clients: usize,
    upstream: &Arc<Upstream>,
    doors: &RouteUrls,
) -> SentTraffic {
    let start = Instant::now();
    let next = Arc::new(AtomicUsize::new(places.start));
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let (traffic, upstream, doors) = (traffic.clone(), upstream.clone(), doors.clone());
        let (next, end) = (next.clone(), places.end);
        running.spawn(async move {
            let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
            let mut played = SentTraffic::default();
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                if place >= end {
                    return played;
                }
                let session = traffic.session(place, seed);
                played.sessions += 1;
                for call in &session.calls {
                    one(&client, &upstream, &doors, &session, call, &mut played).await;
                }
            }
        });
    }
    let mut all = SentTraffic::default();
    while let Some(played) = running.join_next().await {
        let played = played.expect("a client does not panic");
        all.sessions += played.sessions;
        all.requests += played.requests;
        all.failed += played.failed;
        all.body_bytes += played.body_bytes;
        all.latencies.extend(played.latencies);
    }
    all.took = start.elapsed();
    all.latencies.sort();
    all
}

async fn one(
    client: &Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
    upstream: &Upstream,
    doors: &RouteUrls,
    session: &Session,
    call: &Call,
    played: &mut SentTraffic,
) {
    let asked = upstream.next.fetch_add(1, Ordering::Relaxed);
    upstream.due.lock().expect("no holder panics").insert(asked, (call.response.clone(), call.streamed));
    let request = Request::post(format!("{}{}", doors.of(call.edge), call.path))
        .header("content-type", "application/json")
        .header("x-session-id", &session.id)
        .header(ASKED, asked)
        .body(Full::new(call.request.clone()))
        .expect("a request");
    let start = Instant::now();
    let answer = match client.request(request).await {
        Ok(response) => response.into_body().collect().await.map(|body| body.to_bytes()).ok(),
        Err(_) => None,
    };
    if answer.is_some_and(|answer| answer == call.response) {
        played.latencies.push(start.elapsed());
        played.requests += 1;
        played.body_bytes += (call.request.len() + call.response.len()) as u64;
    } else {
        played.failed += 1;
        upstream.due.lock().expect("no holder panics").remove(&asked);
    }
}
