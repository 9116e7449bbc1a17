//! Serves the counts of a process to Prometheus, at `/metrics`.
//!
//! Numbers are read when they are asked for. What they are is said by a collector of whoever counts; names have units.

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
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub(crate) mod counts;
pub(crate) mod journal_gauges;
#[cfg(feature = "kafka")]
pub(crate) mod kafka_archiver;

use crate::Clock;
use crate::capture::sessions::SessionRegistry;
use crate::config::values::Listen;
use crate::metrics::journal_gauges::JournalGauges;

/// What every name begins with.
pub(crate) const PREFIX: &str = "foreshadow";

/// Connections that are open at a time.
const MAX_CONNECTIONS: usize = 16;

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait after an accept failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "metrics.listen {address} cannot be listened on ({source}); choose another address, or stop what uses it"
)]
pub struct MetricsError {
    address: SocketAddr,
    source: std::io::Error,
}

/// An open `/metrics`; closed when it is dropped.
#[derive(Debug)]
pub(crate) struct MetricsServer {
    address: SocketAddr,
    tasks: TaskTracker,
    stop: DropGuard,
}

impl MetricsServer {
    /// Serves what is registered.
    pub(crate) async fn start(listen: &Listen, registry: Registry) -> Result<Self, MetricsError> {
        let address = listen.address();
        let failed = |source| MetricsError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(accept(listener, Arc::new(registry), tasks.clone(), stop.clone()));
        Ok(Self { address, tasks, stop: stop.drop_guard() })
    }

    /// Address and port, as bound.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection.
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
        // Both branches are cancel-safe: a permit that is dropped is given back.
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
                tracing::warn!(%error, "a connection for metrics cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, registry: Arc<Registry>, stop: CancellationToken) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(&request, &registry);
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    // Both branches are cancel-safe: nothing goes on after either.
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "a connection for metrics ended early");
        },
        () = stop.cancelled() => {}
    }
}

fn answer(request: &Request<Incoming>, registry: &Registry) -> Response<Full<Bytes>> {
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
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n");
    }
    let accepts = request.headers().get(ACCEPT).and_then(|accepts| accepts.to_str().ok());
    let open = accepts.is_some_and(|accepts| accepts.contains("application/openmetrics-text"));
    let (kind, body) = if open { (OPEN_METRICS, body) } else { (PLAIN, to_plain(&body)) };
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Rewrites OpenMetrics text as Prometheus' older text format, in which a counter is declared by its whole name.
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

/// Writes metrics of one value each, and counters by one label.
pub(crate) struct Page<'a>(pub(crate) DescriptorEncoder<'a>);

impl Page<'_> {
    /// A number that only grows; `_total` is added to its name.
    pub(crate) fn counter(
        &mut self,
        name: &str,
        help: &str,
        value: &impl EncodeCounterValue,
    ) -> Result<(), std::fmt::Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(value, None)
    }

    /// A number that grows and shrinks.
    pub(crate) fn gauge(
        &mut self,
        name: &str,
        help: &str,
        value: &impl EncodeGaugeValue,
    ) -> Result<(), std::fmt::Error> {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(value)
    }

    /// Numbers that only grow, one for each value of a label.
    pub(crate) fn counters<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'v str, u64)>,
    ) -> Result<(), std::fmt::Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, count) in values {
            let labels = [(label, value)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }
}

/// What a recorder counts.
pub(crate) struct RecorderMetrics {
    pub(crate) sessions: Arc<SessionRegistry>,
    pub(crate) gauges: Arc<JournalGauges>,
    pub(crate) journal_limit: u64,
    pub(crate) publishes: bool,
    pub(crate) clock: Clock,
}

impl std::fmt::Debug for RecorderMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecorderMetrics")
    }
}

impl RecorderMetrics {
    /// The registry of a process that records.
    pub(crate) fn registry(self) -> Registry {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(self));
        registry
    }
}

impl Collector for RecorderMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (counts, gauges) = (self.sessions.counts(), &self.gauges);
        let under_way = counts.started.saturating_sub(counts.journaled).saturating_sub(counts.shed_total());
        let mut page = Page(encoder);
        page.counter("exchanges_started", "Exchanges whose request's head arrived", &counts.started)?;
        page.counter("exchanges_journaled", "Exchanges that are durable in the journal", &counts.journaled)?;
        let shed = counts.shed.iter().map(|(reason, count)| (reason.as_str(), *count));
        page.counters("exchanges_shed", "Exchanges that were not recorded, by reason", "reason", shed)?;
        page.gauge("exchanges_under_way", "Exchanges that are neither journaled nor shed", &under_way)?;
        if self.publishes {
            page.counter("exchanges_published", "Exchanges that Kafka has acknowledged", &counts.published)?;
            page.counter("entries_resent", "Exchanges and close rows sent to Kafka again", &gauges.resent())?;
            let up = u64::from(!gauges.brokers_lost());
            page.gauge("kafka_up", "Whether the brokers take what is published", &up)?;
        } else {
            page.counter("exchanges_archived", "Exchanges in committed Parquet files", &counts.archived)?;
        }
        page.counter("connections_upgraded", "Connections passed through unrecorded", &counts.upgraded)?;
        page.counter("records_skipped", "Journal records that cannot be read", &gauges.skipped())?;
        page.gauge("journal_bytes", "Bytes of the journal on disk", &gauges.journal_bytes())?;
        page.gauge("journal_limit_bytes", "The journal's bound", &self.journal_limit)?;
        page.gauge("lag_records", "Journal records that are not handed on", &gauges.waiting())?;
        let seconds = gauges.waiting_seconds((self.clock)());
        page.gauge("lag_seconds", "How long the oldest of them has waited", &seconds)
    }
}

#[cfg(test)]
mod tests {
    use schemas::id::{AgentId, TenantId};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::capture::sessions::SessionScope;

    fn registry() -> Registry {
        let owner = SessionScope {
            tenant: TenantId::parse("t").expect("id"),
            agent: AgentId::parse("a").expect("id"),
            build: None,
        };
        let hour = Duration::from_secs(3600);
        let sessions = Arc::new(SessionRegistry::new(owner, "i".to_owned(), hour, hour));
        sessions.count_started();
        sessions.count_started();
        sessions.shed_nameless("queue full");
        let gauges = Arc::new(JournalGauges::default());
        gauges.set_journal_bytes(4096);
        gauges.set_synced(9);
        gauges.set_delivered(4, Some(1_500_000));
        let clock: Clock = Arc::new(|| 4_000_000);
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
    async fn both_formats_say_the_same_numbers() {
        let listen = Listen::try_from("127.0.0.1:0".to_owned()).expect("an address");
        let server = MetricsServer::start(&listen, registry()).await.expect("a port");
        let get = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
        let plain = fetch(server.address(), &format!("{get}\r\n")).await;
        let open =
            fetch(server.address(), &format!("{get}Accept: application/openmetrics-text\r\n\r\n")).await;
        for line in [
            "foreshadow_exchanges_started_total 2",
            "foreshadow_exchanges_shed_total{reason=\"queue full\"} 1",
            "foreshadow_exchanges_under_way 1",
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
