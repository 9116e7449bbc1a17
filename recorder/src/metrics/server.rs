//! HTTP endpoint `/metrics` for Prometheus, in OpenMetrics or in the older text format.
//!
//! The endpoint reads the values when a scrape asks for them.
//!
//! It builds on `prometheus-client`. An exporter crate (`metrics-exporter-prometheus`) would replace only the listener: its
//! values live in a process-wide registry that call sites update, while these are read from the state of a recorder, of which
//! a process may run several, and counts of one scrape agree.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::config::values::Listen;

/// Open connections at a time.
const MAX_CONNECTIONS: usize = 16;

/// Time limit for a request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed accept, which usually lacks file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics address is not available.
#[derive(Debug, thiserror::Error)]
#[error(
    "metrics.listen {address} is not available ({source}); choose another address, or stop the process that uses it"
)]
pub struct MetricsError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Running `/metrics` endpoint. Dropping it closes the endpoint.
#[derive(Debug)]
pub(crate) struct MetricsServer {
    address: SocketAddr,
    tasks: TaskTracker,
    stop: DropGuard,
}

impl MetricsServer {
    /// Serves the metrics of a registry.
    pub(crate) async fn start(listen: &Listen, registry: Registry) -> Result<Self, MetricsError> {
        let address = listen.address();
        let failed = |source| MetricsError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(accept(listener, Arc::new(registry), tasks.clone(), stop.clone()));
        Ok(Self { address, tasks, stop: stop.drop_guard() })
    }

    /// Bound address and port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the endpoint and every connection.
    pub(crate) async fn close(self) {
        drop(self.stop);
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn accept(listener: TcpListener, registry: Arc<Registry>, tasks: TaskTracker, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let connection = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        // Both branches are cancel-safe: dropping a permit returns it.
        let (permit, accepted) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = connection => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (registry, stop) = (Arc::clone(&registry), stop.clone());
                tasks.spawn(async move {
                    serve(stream, registry, stop).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a metrics connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, registry: Arc<Registry>, stop: CancellationToken) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(&request, &registry);
        async move { Ok::<_, std::convert::Infallible>(response) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    // Both branches are cancel-safe: neither continues after the other.
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "a metrics connection ended early");
        },
        () = stop.cancelled() => {}
    }
}

fn respond(request: &Request<Incoming>, registry: &Registry) -> Response<Full<Bytes>> {
    let plain = |status: StatusCode, text: &'static str| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "metrics are fetched with GET\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let mut body = String::new();
    if text::encode(&mut body, registry).is_err() {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be encoded\n");
    }
    let accepts = request.headers().get(ACCEPT).and_then(|accepts| accepts.to_str().ok());
    let open = accepts.is_some_and(|accepts| accepts.contains("application/openmetrics-text"));
    let (kind, body) = if open { (OPEN_METRICS, body) } else { (PLAIN, to_plain(&body)) };
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Rewrites OpenMetrics text in the older text format of Prometheus, which declares a counter by its complete name.
fn to_plain(open: &str) -> String {
    let counters: Vec<&str> =
        open.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut plain = String::with_capacity(open.len() + 256);
    for line in open.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let declared = ["# HELP ", "# TYPE "].iter().find_map(|head| {
            let (name, rest) = line.strip_prefix(head)?.split_once(' ')?;
            counters.contains(&name).then(|| format!("{head}{name}_total {rest}"))
        });
        plain.push_str(declared.as_deref().unwrap_or(line));
        plain.push('\n');
    }
    plain
}

#[cfg(test)]
mod tests {
    use schemas::id::{AgentId, TenantId};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::capture::sessions::{SessionRegistry, SessionScope};
    use crate::metrics::journal_gauges::JournalGauges;
    use crate::metrics::recorder::RecorderMetrics;

    fn registry() -> Registry {
        let scope = SessionScope {
            tenant: TenantId::parse("t").expect("id"),
            agent: AgentId::parse("a").expect("id"),
            build: None,
        };
        let hour = Duration::from_secs(3600);
        let sessions = Arc::new(SessionRegistry::new(scope, "i".to_owned(), hour, hour));
        sessions.count_started();
        sessions.count_started();
        sessions.shed_anonymous("queue full");
        let gauges = Arc::new(JournalGauges::default());
        gauges.set_journal_bytes(4096);
        gauges.set_durable(9);
        gauges.set_delivered(4, Some(1_500_000));
        let clock: crate::Clock = Arc::new(|| 4_000_000);
        RecorderMetrics { sessions, gauges, journal_limit: 1 << 20, publishes: true, clock }.registry()
    }

    async fn fetch(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("it answers");
        text
    }

    #[tokio::test]
    async fn both_formats_have_the_same_values() {
        let listen = Listen::try_from("127.0.0.1:0".to_owned()).expect("an address");
        let server = MetricsServer::start(&listen, registry()).await.expect("a port");
        let get = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
        let plain = fetch(server.address(), &format!("{get}\r\n")).await;
        let open =
            fetch(server.address(), &format!("{get}Accept: application/openmetrics-text\r\n\r\n")).await;
        for line in [
            "foreshadow_exchanges_started_total 2",
            "foreshadow_exchanges_shed_total{reason=\"queue full\"} 1",
            "foreshadow_exchanges_in_flight 1",
            "foreshadow_journal_bytes 4096",
            "foreshadow_lag_records 5",
            "foreshadow_lag_seconds 2.5",
            "foreshadow_kafka_up 1",
        ] {
            assert!(plain.lines().any(|found| found == line), "{line} in {plain}");
            assert!(open.lines().any(|found| found == line), "{line} in {open}");
        }
        assert!(
            plain.contains("version=0.0.4")
                && plain.contains("# TYPE foreshadow_exchanges_shed_total counter\n")
        );
        assert!(open.contains("version=1.0.0") && open.ends_with("# EOF\n") && !plain.contains("# EOF"));
        let missing = fetch(server.address(), "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(missing.starts_with("HTTP/1.1 404") && missing.contains("/metrics"), "{missing}");
        let post =
            fetch(server.address(), "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(post.starts_with("HTTP/1.1 405"), "{post}");
        let taken = Listen::try_from(server.address().to_string()).expect("an address");
        let refused =
            MetricsServer::start(&taken, Registry::default()).await.expect_err("the port is in use");
        assert!(refused.to_string().contains("choose another address"), "{refused}");
        server.close().await;
    }
}
