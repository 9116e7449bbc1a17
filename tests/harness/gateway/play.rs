//! Plays generated traffic over HTTP: a client per session, and an upstream that answers with what was recorded.

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

/// The header by which the upstream knows which answer is wanted; the tap passes it on and does not keep it.
const ASKED: &str = "x-play";

/// The answers that are due, by the number that the request carries.
type Due = Arc<Mutex<HashMap<u64, (Bytes, bool)>>>;

/// The agent, provider and tool server behind the tap.
#[derive(Debug)]
pub struct Upstream {
    /// Where it listens.
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
    /// Starts it on an ephemeral port.
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

/// Where each edge is reached, without a slash at the end.
#[derive(Debug, Clone)]
pub struct RouteUrls {
    /// Callers reach the agent here.
    pub turn: String,
    /// The agent reaches its model here.
    pub model: String,
    /// The agent reaches its tools here.
    pub tool: String,
}

impl RouteUrls {
    /// The upstream itself, without a tap.
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

/// The routes of a recorder in front of the upstream, as configuration; ports are the system's choice.
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

/// What was played.
#[derive(Debug, Default, Clone)]
pub struct Played {
    /// Sessions.
    pub sessions: u64,
    /// Requests that were answered with the right bytes.
    pub requests: u64,
    /// Requests that were not.
    pub failed: u64,
    /// Bytes of request and answer bodies; heads and framing are not counted.
    pub body_bytes: u64,
    /// From the first request to the last answer.
    pub took: Duration,
    /// The time of each request, sorted.
    pub latencies: Vec<Duration>,
}

/// Plays the sessions at these places, `clients` at a time.
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
) -> Played {
    let start = Instant::now();
    let next = Arc::new(AtomicUsize::new(places.start));
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let (traffic, upstream, doors) = (traffic.clone(), upstream.clone(), doors.clone());
        let (next, end) = (next.clone(), places.end);
        running.spawn(async move {
            let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
            let mut played = Played::default();
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
    let mut all = Played::default();
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
    played: &mut Played,
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
