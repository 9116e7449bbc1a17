//! Running recorder: starts tap, journal thread and sink thread, flushes them, and stops them in order.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use schemas::exchange::Edge;
use schemas::keys::RootKey;
use store::log::{LogError, LogOptions, LogWriter};
use store::{Store, StoreError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::Clock;
use crate::archive::encryption::EncryptionError;
use crate::archive::local_archiver::LocalArchiver;
use crate::capture::CaptureContext;
use crate::capture::accounts::CaptureAccounts;
use crate::capture::queue::{JournalMessage, JournalQueue, PositionReply, journal_queue};
use crate::capture::sessions::{SessionRegistry, SessionScope};
use crate::config::{Config, EncryptionConfig};
use crate::encode::ExchangeEncoder;
use crate::encode::redact::Redactor;
use crate::journal::Journal;
use crate::journal::checkpoint::Checkpoint;
use crate::metrics::counts::ExchangeCounts;
use crate::metrics::journal_gauges::JournalGauges;
use crate::metrics::recorder::RecorderMetrics;
use crate::metrics::server::{MetricsError, MetricsServer};
#[cfg(feature = "kafka")]
use crate::publish::Publisher;
use crate::sink::{FlushRequest, MAX_FLUSH_REQUESTS, SinkContext, SinkError};
use crate::tap::{self, Tap, TapError};

/// Folder of the journal in the state directory.
const JOURNAL: &str = "journal";

/// Longest wait of [`Recorder::close_sessions`] for exchanges in flight.
const SETTLE: Duration = Duration::from_secs(2);

/// Time between two looks at the exchanges in flight.
const SETTLE_STEP: Duration = Duration::from_millis(5);

/// Shortest time that [`Recorder::shutdown`] gives Kafka to acknowledge the journaled exchanges.
const MIN_PUBLISH: Duration = Duration::from_secs(1);

/// An error that keeps a recorder from starting.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener, its certificate, or the client of an upstream.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The journal in `state-dir`.
    #[error("journal cannot be opened: {0}")]
    Journal(#[from] LogError),
    /// The store.
    #[error("store cannot be opened: {0}")]
    Store(#[from] StoreError),
    /// The keys of the store.
    #[error(transparent)]
    Encryption(#[from] EncryptionError),
    /// librdkafka refuses the configuration.
    #[error("Kafka client cannot be created ({0}); correct `[kafka]` and start again")]
    Kafka(String),
    /// The configuration has neither store nor Kafka.
    #[error("no output configured: set `store`, or `brokers` in `[kafka]`")]
    NoSink,
    /// The listener for metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The operating system refuses a thread.
    #[error("thread {name} cannot be started: {source}")]
    Thread {
        /// Name of the thread.
        name: &'static str,
        /// Error of the operating system.
        source: std::io::Error,
    },
}

/// An error that keeps recorded exchanges from becoming durable or archived.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The journal refused a write.
    #[error("journal cannot be written ({0}); exchanges that are not in it are counted as shed")]
    Journal(String),
    /// The store refused. The journal still has every record, and the next start archives them.
    #[error("journal cannot be archived ({0}); nothing is lost, start again once the store can be written")]
    Archive(String),
    /// Another process archives under the name of this journal, so this one has stopped. The remaining records stay in
    /// the journal.
    #[error(
        "journal is no longer archived ({0}); stop the other process, give each process a state-dir of its own, and start again"
    )]
    TakenOver(String),
    /// A thread has panicked.
    #[error("the {0} thread panicked; please report this")]
    ThreadEnded(&'static str),
}

/// Address of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundRoute {
    /// `route.name`, or `EDGE-INDEX` by default.
    pub name: String,
    /// Boundary of the agent that the route records.
    pub edge: Edge,
    /// Bound address; its port is the one that the system chose for port 0.
    pub address: SocketAddr,
    /// Path prefix without a slash at the end; empty for the root.
    pub path: String,
    /// Whether the listener speaks TLS.
    pub tls: bool,
}

impl BoundRoute {
    /// Base URL for clients, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.address, self.path)
    }

    /// `turn`, `model` or `tool`.
    #[must_use]
    pub fn edge_name(&self) -> &'static str {
        self.edge.into()
    }
}

/// Running recorder. [`Self::shutdown`] stops it in order. A recorder that is dropped leaves its journaled exchanges to
/// the next start.
#[derive(Debug)]
pub struct Recorder {
    routes: Vec<BoundRoute>,
    sessions: Arc<SessionRegistry>,
    gauges: Arc<JournalGauges>,
    metrics: Option<MetricsServer>,
    tap: Tap,
    journal: JournalHandle,
    journal_thread: JoinHandle<()>,
    sink: mpsc::Sender<FlushRequest>,
    sink_thread: JoinHandle<()>,
    publishes: bool,
}

/// Destination of the journal.
#[derive(Debug)]
enum Sink {
    /// Parquet files, written by this process.
    Store(Store),
    /// A Kafka topic; `foreshadow archive` writes the Parquet files.
    #[cfg(feature = "kafka")]
    Kafka(crate::config::KafkaConfig),
}

/// Handle of the journal thread. Dropping it ends the thread, which holds a sender of its own queue.
#[derive(Debug)]
struct JournalHandle(JournalQueue);

impl Drop for JournalHandle {
    fn drop(&mut self) {
        self.0.request_stop();
    }
}

/// Starts a recorder: opens journal and store, binds the listeners, and resumes where an earlier run stopped. The Kafka
/// brokers need not be reachable.
///
/// # Errors
/// An address is in use, a certificate cannot be read, another process has the journal, disk or store refuse, or
/// librdkafka refuses the configuration.
pub async fn start(config: Config, root: RootKey, clock: Clock) -> Result<Recorder, StartError> {
    let keys = root.tenant(&config.tenant);
    let folder = config.state_dir.join(JOURNAL);
    let (mut writer, checkpoint) = open_journal(&config, &folder).await?;
    let (sink, position) = open_sink(&config, writer.name(), checkpoint.position()).await?;
    writer.delete_before(position)?;

    let incarnation = uuid::Uuid::new_v4().simple().to_string();
    let sessions = Arc::new(open_sessions(&config, incarnation.clone()));
    let gauges = Arc::new(JournalGauges::default());
    let (queue, inbox) = journal_queue(config.limits.queue);
    let keep = config.redact.keep_headers.iter().map(|header| header.as_str().to_owned()).collect();
    let redactor = Arc::new(Redactor::new(keys.clone(), keep));
    let limits = config.limits.clone();
    let accounts = Arc::new(CaptureAccounts::new(Arc::clone(&sessions), limits, Arc::clone(&clock)));
    let capture = Arc::new(CaptureContext {
        accounts: Arc::clone(&accounts),
        queue: queue.clone(),
        redactor: Arc::clone(&redactor),
        session_config: config.session.clone(),
    });
    let (bound, addresses) = tap::bind(&config).await?;
    let routes = addresses.iter().map(|address| describe(&config, address)).collect();
    let publishes = config.kafka.is_some();
    let metrics = open_metrics(&config, &sessions, &gauges, clock).await?;
    let tap = Tap::open(&config, bound, &capture)?;

    let context = SinkContext {
        folder,
        journal: writer.name().to_owned(),
        sessions: Arc::clone(&sessions),
        gauges: Arc::clone(&gauges),
        queue: queue.clone(),
        checkpoint,
    };
    let (durable, durable_position) = watch::channel(writer.next_position());
    let encoder = ExchangeEncoder::new(Arc::clone(&accounts), redactor, keys, config.catalog(), &incarnation);
    let max_bytes = config.limits.journal_bytes.0;
    let journal = Journal::new(writer, max_bytes, encoder, accounts, durable, Arc::clone(&gauges));
    let journal_thread = spawn("journal", move || journal.run(&inbox))?;
    let (requests, inbound) = mpsc::channel(MAX_FLUSH_REQUESTS);
    let sink_thread = match sink {
        Sink::Store(store) => {
            let archiver = LocalArchiver { store, config: config.archive, sink: context, position };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|source| StartError::Thread { name: "archive", source })?;
            spawn("archive", move || archiver.run(&runtime, durable_position, inbound))?
        }
        #[cfg(feature = "kafka")]
        Sink::Kafka(kafka) => {
            let publisher = Publisher { kafka, sink: context };
            spawn("publish", move || publisher.run(&durable_position, inbound))?
        }
    };
    let recorder = Recorder {
        routes,
        sessions,
        gauges,
        metrics,
        tap,
        journal: JournalHandle(queue),
        journal_thread,
        sink: requests,
        sink_thread,
        publishes,
    };
    if !publishes {
        recorder.archive_left_over().await;
    }
    Ok(recorder)
}

/// Opens the journal, which may scan a segment of many megabytes, on a thread for blocking work.
async fn open_journal(config: &Config, folder: &Path) -> Result<(LogWriter, Checkpoint), StartError> {
    let max_bytes = config.limits.journal_bytes.0;
    let segment_bytes = LogOptions::default().segment_bytes.min(max_bytes / 4 + 1);
    let (folder, state_dir) = (folder.to_owned(), config.state_dir.clone());
    let opened = tokio::task::spawn_blocking(move || {
        let writer = LogWriter::open(&folder, LogOptions { segment_bytes, max_bytes })?;
        let checkpoint = Checkpoint::open(&state_dir, writer.name());
        Ok::<_, LogError>((writer, checkpoint))
    });
    match opened.await {
        Ok(opened) => Ok(opened?),
        Err(source) => Err(StartError::Thread { name: "journal", source: std::io::Error::other(source) }),
    }
}

/// Serves `/metrics`, if configured.
async fn open_metrics(
    config: &Config,
    sessions: &Arc<SessionRegistry>,
    gauges: &Arc<JournalGauges>,
    clock: Clock,
) -> Result<Option<MetricsServer>, MetricsError> {
    let Some(metrics) = &config.metrics else { return Ok(None) };
    let collector = RecorderMetrics {
        sessions: Arc::clone(sessions),
        gauges: Arc::clone(gauges),
        journal_limit: config.limits.journal_bytes.0,
        publishes: config.kafka.is_some(),
        clock,
    };
    MetricsServer::start(&metrics.listen, collector.registry()).await.map(Some)
}

/// Opens the sink. Returns the position of the first record that is not delivered: the checkpoint, or the last commit
/// where that is later.
async fn open_sink(config: &Config, journal: &str, checkpoint: u64) -> Result<(Sink, u64), StartError> {
    match (&config.kafka, &config.store) {
        #[cfg(feature = "kafka")]
        (Some(kafka), _) => {
            Publisher::check(kafka).map_err(|error| StartError::Kafka(error.to_string()))?;
            Ok((Sink::Kafka(kafka.clone()), checkpoint))
        }
        // `KafkaConfig::resolve` rejects the table when the file is parsed.
        #[cfg(not(feature = "kafka"))]
        (Some(_), _) => Err(StartError::Kafka("this build has no Kafka support".to_owned())),
        (None, Some(location)) => {
            let ring =
                config.encryption.as_ref().map(EncryptionConfig::load).transpose()?.unwrap_or_default();
            let store = Store::open(location)?.with_keys(ring);
            store.delete_orphans(journal).await?;
            let committed = store.resume_position(journal).await?;
            Ok((Sink::Store(store), committed.max(checkpoint)))
        }
        (None, None) => Err(StartError::NoSink),
    }
}

fn open_sessions(config: &Config, incarnation: String) -> SessionRegistry {
    let scope = SessionScope {
        tenant: config.tenant.clone(),
        agent: config.agent.clone(),
        build: config.build.clone(),
    };
    SessionRegistry::new(scope, incarnation, config.session.idle_timeout, config.session.max_age)
}

fn describe(config: &Config, bound: &tap::RouteAddress) -> BoundRoute {
    let route = &config.routes[bound.route];
    BoundRoute {
        name: route.name.clone().unwrap_or_default(),
        edge: route.edge,
        address: bound.address,
        path: route.path.as_str().to_owned(),
        tls: config.listen.tls.is_some(),
    }
}

fn spawn(name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|source| StartError::Thread { name, source })
}

impl Recorder {
    /// The routes in the order of the configuration.
    #[must_use]
    pub fn routes(&self) -> &[BoundRoute] {
        &self.routes
    }

    /// Exchange counts so far.
    #[must_use]
    pub fn counts(&self) -> ExchangeCounts {
        counts(&self.sessions, &self.gauges)
    }

    /// Whether the sink is Kafka; else it is a store.
    #[must_use]
    pub fn publishes(&self) -> bool {
        self.publishes
    }

    /// Address of `/metrics`, if configured.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(MetricsServer::address)
    }

    /// Waits until every exchange that has ended by now is in a committed Parquet file or acknowledged by Kafka. Without
    /// brokers it waits until they return.
    ///
    /// An exchange ends before its client can see the end of the response.
    ///
    /// # Errors
    /// Journal or store refuse.
    pub async fn flush(&self) -> Result<(), FlushError> {
        let position = request_position(&self.journal.0, JournalMessage::Flush).await?;
        flush_sink(&self.sink, position).await
    }

    /// Journals the close row of every session, with reason `shutdown`. Exchanges in flight get two seconds to end; the
    /// row of a session with a longer one lacks it, and a later row supersedes that row.
    ///
    /// Call [`Self::flush`] afterwards to have the rows in Parquet.
    ///
    /// # Errors
    /// The journal refuses.
    pub async fn close_sessions(&self) -> Result<(), FlushError> {
        let settled = async {
            while self.sessions.in_flight() > 0 {
                tokio::time::sleep(SETTLE_STEP).await;
            }
        };
        let _ = tokio::time::timeout(SETTLE, settled).await;
        request_position(&self.journal.0, JournalMessage::CloseAll).await.map(|_| ())
    }

    /// Stops in order: no new connections, open exchanges until the deadline, close rows, sink, journal. Records that
    /// Kafka has not acknowledged by the deadline wait in the journal ([`ExchangeCounts::waiting`]).
    ///
    /// # Errors
    /// Journal or store refuse. The next start delivers the records in the journal.
    pub async fn shutdown(self, deadline: Duration) -> Result<ExchangeCounts, FlushError> {
        let Self { tap, sessions, gauges, metrics, journal, sink, publishes, .. } = self;
        let started = Instant::now();
        tap.close(deadline).await;
        let until = publishes.then(|| (started + deadline).max(Instant::now() + MIN_PUBLISH));
        let mut flushed = close_and_flush(&journal.0, &sink, until).await;
        if flushed.is_ok() {
            // The first flush may have freed a full journal: close rows that found no room have some now.
            flushed = close_and_flush(&journal.0, &sink, until).await;
        }
        drop(sink);
        // The sink thread sends to the journal thread, so it ends first.
        join(self.sink_thread, if publishes { "publish" } else { "archive" }).await?;
        journal.0.request_stop();
        join(self.journal_thread, "journal").await?;
        if let Some(metrics) = metrics {
            metrics.close().await;
        }
        flushed.map(|()| counts(&sessions, &gauges))
    }

    /// Archives the journal of an earlier run. A store that refuses now does not keep the recorder from starting.
    async fn archive_left_over(&self) {
        if let Err(error) = self.flush().await {
            tracing::warn!(%error, "the journal of an earlier run is not archived yet");
        }
    }
}

/// Sends a message to the journal thread and waits for the position in its reply.
async fn request_position(
    journal: &JournalQueue,
    message: impl FnOnce(PositionReply) -> JournalMessage,
) -> Result<u64, FlushError> {
    let (reply, position) = oneshot::channel();
    let (queue, message) = (journal.clone(), message(reply));
    // A full queue blocks.
    let sent = tokio::task::spawn_blocking(move || queue.send(message)).await;
    if !matches!(sent, Ok(Ok(()))) {
        return Err(FlushError::ThreadEnded("journal"));
    }
    position.await.map_err(|_| FlushError::ThreadEnded("journal"))?.map_err(FlushError::Journal)
}

/// Closes all sessions and flushes the sink; with `until`, the flush stops waiting then.
async fn close_and_flush(
    journal: &JournalQueue,
    sink: &mpsc::Sender<FlushRequest>,
    until: Option<Instant>,
) -> Result<(), FlushError> {
    let position = request_position(journal, JournalMessage::CloseAll).await?;
    let Some(until) = until else { return flush_sink(sink, position).await };
    tokio::time::timeout_at(until, flush_sink(sink, position)).await.unwrap_or(Ok(()))
}

async fn flush_sink(sink: &mpsc::Sender<FlushRequest>, position: u64) -> Result<(), FlushError> {
    let ended = || FlushError::ThreadEnded("archive or publish");
    let (reply, result) = oneshot::channel();
    sink.send(FlushRequest { position, reply }).await.map_err(|_| ended())?;
    result.await.map_err(|_| ended())?.map_err(|error| match error {
        SinkError::Failed(problem) => FlushError::Archive(problem),
        SinkError::TakenOver(problem) => FlushError::TakenOver(problem),
    })
}

fn counts(sessions: &SessionRegistry, gauges: &JournalGauges) -> ExchangeCounts {
    ExchangeCounts { waiting: gauges.lag_records(), ..sessions.counts() }
}

async fn join(thread: JoinHandle<()>, name: &'static str) -> Result<(), FlushError> {
    match tokio::task::spawn_blocking(move || thread.join()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(FlushError::ThreadEnded(name)),
    }
}
