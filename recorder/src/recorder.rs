//! A running recorder: what is started, in which order it stops, and what it says of itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize};
use std::sync::mpsc::{SyncSender, sync_channel};
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
use crate::archive::local_archiver::{Archive, ArchiveError, Flush, MAX_FLUSHES};
use crate::capture::sessions::{SessionRegistry, SessionScope};
use crate::capture::{ClockCell, Intake};
use crate::config::{Config, EncryptionConfig, edge_name};
use crate::encode::Scribe;
use crate::encode::redact::Redactor;
use crate::journal::checkpoint::Checkpoint;
use crate::journal::{Journal, Message};
use crate::metrics::counts::ExchangeCounts;
use crate::metrics::journal_gauges::JournalGauges;
use crate::metrics::{MetricsError, MetricsServer, RecorderMetrics};
#[cfg(feature = "kafka")]
use crate::publish::Publisher;
use crate::tap::{self, Tap, TapError};

/// Folder of the journal below the state directory.
const JOURNAL: &str = "journal";

/// How long [`Recorder::close_sessions`] waits for exchanges that are under way.
const SETTLE: Duration = Duration::from_secs(2);

/// The least time that [`Recorder::shutdown`] gives Kafka to acknowledge what is journaled.
const MIN_PUBLISH: Duration = Duration::from_secs(1);

/// How often it looks.
const SETTLE_STEP: Duration = Duration::from_millis(5);

/// A recorder that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener or the way to an upstream.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The journal.
    #[error("the journal cannot be opened: {0}")]
    Journal(#[from] LogError),
    /// The store.
    #[error("the store cannot be opened: {0}")]
    Store(#[from] StoreError),
    /// The keys of the store.
    #[error(transparent)]
    Encryption(#[from] EncryptionError),
    /// The Kafka client.
    #[error("the Kafka client cannot be made ({0}); correct `[kafka]` and start again")]
    Kafka(String),
    /// The configuration has neither store nor Kafka.
    #[error("there is nowhere to hand the journal on to; name a `store`, or brokers under `[kafka]`")]
    Nowhere,
    /// The listener for metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A thread.
    #[error("thread {name} cannot be started: {source}")]
    Thread {
        /// Which one.
        name: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What was recorded could not be made durable or archived.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The journal said no.
    #[error("the journal cannot be written ({0}); what is not in it is counted as shed")]
    Journal(String),
    /// The store said no; the journal still has everything, and the next start goes on from there.
    #[error(
        "the journal cannot be archived ({0}); nothing is lost, start again once the store can be written"
    )]
    Archive(String),
    /// Another process archives in this journal's name, so this one has stopped; what is left is in the journal.
    #[error(
        "the journal is no longer archived ({0}); stop the other process, give each process a state-dir of its own, and start again"
    )]
    Lost(String),
    /// A thread is gone.
    #[error("the {0} thread has ended; please report this")]
    Gone(&'static str),
}

/// Where a route can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundRoute {
    /// Its name.
    pub name: String,
    /// Its edge.
    pub edge: Edge,
    /// Address and port, as bound.
    pub address: SocketAddr,
    /// The path prefix, without a slash at the end; the root is empty.
    pub path: String,
    /// Whether TLS is spoken.
    pub tls: bool,
}

impl BoundRoute {
    /// The base URL for clients, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.address, self.path)
    }

    /// `turn`, `model` or `tool`.
    #[must_use]
    pub fn edge_name(&self) -> &'static str {
        edge_name(self.edge)
    }
}

/// A running recorder. To stop it in order, call [`Self::shutdown`]; when it is dropped, what is journaled is handed on
/// at the next start.
#[derive(Debug)]
pub struct Recorder {
    routes: Vec<BoundRoute>,
    sessions: Arc<SessionRegistry>,
    gauges: Arc<JournalGauges>,
    metrics: Option<MetricsServer>,
    tap: Tap,
    journal: JournalLine,
    journal_thread: JoinHandle<()>,
    flushes: mpsc::Sender<Flush>,
    outlet_thread: JoinHandle<()>,
    publishes: bool,
}

/// Where the journal is handed on to.
#[derive(Debug)]
enum Outlet {
    /// Parquet files, by this process.
    Store(Store),
    /// A topic; Parquet is the business of `foreshadow archive`.
    #[cfg(feature = "kafka")]
    Kafka(crate::config::KafkaConfig),
}

/// The way to the journal thread; ends it when it is dropped, for the thread itself keeps the queue open.
#[derive(Debug)]
struct JournalLine(SyncSender<Message>);

impl Drop for JournalLine {
    fn drop(&mut self) {
        // A full queue or a thread that has ended needs no word.
        let _ = self.0.try_send(Message::Stop);
    }
}

/// Starts recording: opens journal and store, binds the listeners, and goes on where an earlier run stopped. Kafka need
/// not be there.
///
/// # Errors
/// An address is taken, a certificate cannot be read, another process has the journal, disk or store say no, or no Kafka
/// client can be made of the configuration.
pub async fn start(config: Config, root: RootKey, clock: Clock) -> Result<Recorder, StartError> {
    let keys = root.tenant(&config.tenant);
    let folder = config.state_dir.join(JOURNAL);
    let max_bytes = config.limits.journal_bytes.0;
    let segment_bytes = LogOptions::default().segment_bytes.min(max_bytes / 4 + 1);
    let mut writer = LogWriter::open(&folder, LogOptions { segment_bytes, max_bytes })?;
    let checkpoint = Checkpoint::open(&config.state_dir, writer.name());
    let (outlet, position) = open_outlet(&config, writer.name(), checkpoint.position()).await?;
    writer.delete_before(position)?;

    let incarnation = uuid::Uuid::new_v4().simple().to_string();
    let sessions = Arc::new(sessions_of(&config, incarnation.clone()));
    let gauges = Arc::new(JournalGauges::default());
    let (sender, receiver) = sync_channel(config.limits.queue);
    let keep = config.redact.keep_headers.iter().map(|header| header.as_str().to_owned()).collect();
    let intake = Arc::new(Intake {
        sender: sender.clone(),
        sessions: Arc::clone(&sessions),
        redactor: Arc::new(Redactor::new(keys.clone(), keep)),
        session_config: config.session.clone(),
        limits: config.limits.clone(),
        clock: ClockCell(Arc::clone(&clock)),
        held_bytes: AtomicUsize::new(0),
        queued: AtomicUsize::new(0),
        journal_fill: AtomicU8::new(0),
    });
    let (bound, reached) = tap::bind(&config).await?;
    let routes = reached.iter().map(|reached| describe(&config, reached)).collect();
    let publishes = config.kafka.is_some();
    let metrics = open_metrics(&config, &sessions, &gauges, clock).await?;
    let tap = Tap::open(&config, bound, &intake)?;

    let source = writer.name().to_owned();
    let (progress, watched) = watch::channel(writer.next_position());
    let scribe = Scribe::new(Arc::clone(&intake), config.catalog(), keys, &incarnation);
    let journal = Journal::new(writer, max_bytes, scribe, intake, progress, Arc::clone(&gauges));
    let journal_thread = spawn("journal", move || journal.run(&receiver))?;
    let (flushes, flush_queue) = mpsc::channel(MAX_FLUSHES);
    let (counts, of_journal, line) = (Arc::clone(&sessions), Arc::clone(&gauges), sender.clone());
    let outlet_thread = match outlet {
        Outlet::Store(lake) => {
            let (config, sessions, gauges, journal) = (config.archive, counts, of_journal, line);
            let archive =
                Archive { lake, folder, source, config, sessions, gauges, journal, checkpoint, position };
            spawn_archive(archive, watched, flush_queue)?
        }
        #[cfg(feature = "kafka")]
        Outlet::Kafka(kafka) => {
            let (sessions, gauges, journal) = (counts, of_journal, line);
            let publisher = Publisher { kafka, folder, source, sessions, gauges, journal, checkpoint };
            spawn("publish", move || publisher.run(&watched, flush_queue))?
        }
    };
    let journal = JournalLine(sender);
    let recorder = Recorder {
        routes,
        sessions,
        gauges,
        metrics,
        tap,
        journal,
        journal_thread,
        flushes,
        outlet_thread,
        publishes,
    };
    if !publishes {
        recorder.archive_left_over().await;
    }
    Ok(recorder)
}

/// Opens `/metrics`, where it is configured.
async fn open_metrics(
    config: &Config,
    sessions: &Arc<SessionRegistry>,
    gauges: &Arc<JournalGauges>,
    clock: Clock,
) -> Result<Option<MetricsServer>, MetricsError> {
    let Some(metrics) = &config.metrics else { return Ok(None) };
    let counted = RecorderMetrics {
        sessions: Arc::clone(sessions),
        gauges: Arc::clone(gauges),
        journal_limit: config.limits.journal_bytes.0,
        publishes: config.kafka.is_some(),
        clock,
    };
    MetricsServer::start(&metrics.listen, counted.registry()).await.map(Some)
}

/// Opens what the journal is handed on to, and says from where on; `position` is how far the last run says that it was
/// done, whichever way.
async fn open_outlet(config: &Config, source: &str, position: u64) -> Result<(Outlet, u64), StartError> {
    match (&config.kafka, &config.store) {
        #[cfg(feature = "kafka")]
        (Some(kafka), _) => {
            Publisher::check(kafka).map_err(|error| StartError::Kafka(error.to_string()))?;
            Ok((Outlet::Kafka(kafka.clone()), position))
        }
        // `KafkaConfig::resolve` rejects the table when the file is parsed.
        #[cfg(not(feature = "kafka"))]
        (Some(_), _) => Err(StartError::Kafka("this build has no Kafka support".to_owned())),
        (None, Some(store)) => {
            let ring =
                config.encryption.as_ref().map(EncryptionConfig::load).transpose()?.unwrap_or_default();
            let lake = Store::open(store)?.with_keys(ring);
            lake.delete_orphans(source).await?;
            let committed = lake.resume_position(source).await?;
            Ok((Outlet::Store(lake), committed.max(position)))
        }
        (None, None) => Err(StartError::Nowhere),
    }
}

fn sessions_of(config: &Config, incarnation: String) -> SessionRegistry {
    let owner = SessionScope {
        tenant: config.tenant.clone(),
        agent: config.agent.clone(),
        build: config.build.clone(),
    };
    SessionRegistry::new(owner, incarnation, config.session.idle_timeout, config.session.max_age)
}

fn describe(config: &Config, reached: &tap::Reached) -> BoundRoute {
    let route = &config.routes[reached.route];
    BoundRoute {
        name: route.name.clone().unwrap_or_default(),
        edge: route.edge,
        address: reached.address,
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

fn spawn_archive(
    archive: Archive,
    progress: watch::Receiver<u64>,
    flushes: mpsc::Receiver<Flush>,
) -> Result<JoinHandle<()>, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| StartError::Thread { name: "archive", source })?;
    spawn("archive", move || runtime.block_on(archive.run(progress, flushes)))
}

impl Recorder {
    /// The routes, in the order of the configuration.
    #[must_use]
    pub fn routes(&self) -> &[BoundRoute] {
        &self.routes
    }

    /// What became of the exchanges so far.
    #[must_use]
    pub fn counts(&self) -> ExchangeCounts {
        counts(&self.sessions, &self.gauges)
    }

    /// Whether the journal goes to Kafka, not into a store.
    #[must_use]
    pub fn publishes(&self) -> bool {
        self.publishes
    }

    /// Where `/metrics` is served, where it is.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(MetricsServer::address)
    }

    /// Waits until every exchange that is finished by now is in a committed Parquet file, or acknowledged by Kafka,
    /// however long its brokers are away.
    ///
    /// An exchange is finished before its client can see the end of the answer.
    ///
    /// # Errors
    /// Journal or store say no.
    pub async fn flush(&self) -> Result<(), FlushError> {
        let position = self.tell_journal(Message::Flush).await?;
        self.hand_on_to(position).await
    }

    /// Writes the close row of every session, with reason `shutdown`; exchanges that are under way get a moment to end.
    ///
    /// Call [`Self::flush`] after it to have the rows in Parquet.
    ///
    /// # Errors
    /// The journal says no.
    pub async fn close_sessions(&self) -> Result<(), FlushError> {
        let settled = async {
            while self.sessions.in_flight() > 0 {
                tokio::time::sleep(SETTLE_STEP).await;
            }
        };
        // Those that go on are missing from their session's row, and a later row supersedes it.
        let _ = tokio::time::timeout(SETTLE, settled).await;
        self.tell_journal(Message::CloseAll).await.map(|_| ())
    }

    /// Stops in order: no new connections, open exchanges until the deadline, close rows, journal, then archive or Kafka.
    /// What brokers have not acknowledged by the deadline waits in the journal ([`ExchangeCounts::waiting`]).
    ///
    /// # Errors
    /// Journal or store say no; what is in the journal is handed on at the next start.
    pub async fn shutdown(self, deadline: Duration) -> Result<ExchangeCounts, FlushError> {
        let Self { tap, sessions, gauges, metrics, journal, flushes, publishes, .. } = self;
        let began = Instant::now();
        tap.close(deadline).await;
        let until = publishes.then(|| (began + deadline).max(Instant::now() + MIN_PUBLISH));
        let mut flushed = close_and_hand_on(&journal.0, &flushes, until).await;
        if flushed.is_ok() {
            // Rows that found the journal full have room now; where there are none, this does nothing.
            flushed = close_and_hand_on(&journal.0, &flushes, until).await;
        }
        drop(flushes);
        // It may be waiting to tell the journal, so it ends first.
        join(self.outlet_thread, if publishes { "publish" } else { "archive" }).await?;
        send(&journal.0, Message::Stop).await?;
        join(self.journal_thread, "journal").await?;
        if let Some(metrics) = metrics {
            metrics.close().await;
        }
        flushed.map(|()| counts(&sessions, &gauges))
    }

    async fn tell_journal(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<u64, String>>) -> Message,
    ) -> Result<u64, FlushError> {
        tell(&self.journal.0, message).await
    }

    async fn hand_on_to(&self, position: u64) -> Result<(), FlushError> {
        hand_on_to(&self.flushes, position).await
    }

    /// Archives what an earlier run journaled; a store that says no now is tried again later.
    async fn archive_left_over(&self) {
        if let Err(error) = self.flush().await {
            tracing::warn!(%error, "what an earlier run journaled is not archived yet");
        }
    }
}

async fn tell(
    journal: &SyncSender<Message>,
    message: impl FnOnce(oneshot::Sender<Result<u64, String>>) -> Message,
) -> Result<u64, FlushError> {
    let (reply, answer) = oneshot::channel();
    send(journal, message(reply)).await?;
    answer.await.map_err(|_| FlushError::Gone("journal"))?.map_err(FlushError::Journal)
}

/// Closes all sessions and hands everything on; with `until`, what is not handed on by then waits.
async fn close_and_hand_on(
    journal: &SyncSender<Message>,
    flushes: &mpsc::Sender<Flush>,
    until: Option<Instant>,
) -> Result<(), FlushError> {
    let position = tell(journal, Message::CloseAll).await?;
    let Some(until) = until else { return hand_on_to(flushes, position).await };
    tokio::time::timeout_at(until, hand_on_to(flushes, position)).await.unwrap_or(Ok(()))
}

fn counts(sessions: &SessionRegistry, gauges: &JournalGauges) -> ExchangeCounts {
    ExchangeCounts { waiting: gauges.waiting(), ..sessions.counts() }
}

/// Sends without holding up the runtime while the queue is full.
async fn send(journal: &SyncSender<Message>, message: Message) -> Result<(), FlushError> {
    let journal = journal.clone();
    let sent = tokio::task::spawn_blocking(move || journal.send(message).is_ok()).await;
    if matches!(sent, Ok(true)) { Ok(()) } else { Err(FlushError::Gone("journal")) }
}

async fn hand_on_to(flushes: &mpsc::Sender<Flush>, position: u64) -> Result<(), FlushError> {
    let (reply, answer) = oneshot::channel();
    flushes.send(Flush { position, reply }).await.map_err(|_| FlushError::Gone("archive or publish"))?;
    answer.await.map_err(|_| FlushError::Gone("archive or publish"))?.map_err(|error| match error {
        ArchiveError::Failed(problem) => FlushError::Archive(problem),
        ArchiveError::Lost(problem) => FlushError::Lost(problem),
    })
}

async fn join(thread: JoinHandle<()>, name: &'static str) -> Result<(), FlushError> {
    match tokio::task::spawn_blocking(move || thread.join()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(FlushError::Gone(name)),
    }
}
