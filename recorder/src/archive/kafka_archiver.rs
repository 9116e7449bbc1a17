//! Kafka archiver: turns a topic into committed Parquet files, exactly once.
//!
//! The archiver is a member of a consumer group. One thread polls and decodes, two threads encode files, two write and commit them. It
//! claims each assigned partition in the store ([`store::Store::claim`]), which fences off the process that had it before.
//! The position of a partition comes from the store's last commit, never from the group. A message that cannot be decoded
//! goes to the dead-letter topic before a commit passes it. A (journal, position) that the store holds is dropped as a
//! duplicate.
//!
//! Memory is bounded by 128 MiB of uncommitted messages, the client's fetch queue, and the encoding of two batches.

mod consumer_callbacks;
mod dead_letters;
mod error;
mod partition;
mod partition_buffer;
mod reader;
mod writer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use store::Store;
use tokio::sync::{mpsc, oneshot};

use crate::config::KafkaConfig;
use crate::config::archiver::ArchiverConfig;
use crate::metrics::kafka_archiver::ArchiverCounters;
use crate::metrics::server::MetricsServer;

pub use self::error::ArchiverError;
pub use crate::metrics::kafka_archiver::ArchiverSummary;

use self::consumer_callbacks::ConsumerCallbacks;
use self::dead_letters::DeadLetters;
use self::reader::{Reader, ReaderState};
use self::writer::WriterContext;

/// Threads that encode files, and threads that write them to the store.
const WRITER_THREADS: usize = 2;

/// Reports of writers that may wait for the reader.
const MAX_REPORTS: usize = 1024;

/// The longest wait for the brokers' first answer with `exit_when_idle`.
const FIRST_ANSWER: Duration = Duration::from_secs(30);

/// The longest wait for running requests to the store at the end.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// A running archiver.
#[derive(Debug)]
pub struct Archiver {
    stop: Arc<AtomicBool>,
    metrics: Option<MetricsServer>,
    thread: std::thread::JoinHandle<()>,
    result: oneshot::Receiver<Result<ArchiverSummary, ArchiverError>>,
}

/// Starts an archiver. With `exit_when_idle` it stops itself once every assigned partition is read to its end and committed,
/// and no message has arrived for that long; it reads, flushes and commits as without it.
///
/// # Errors
/// librdkafka rejects the configuration, the listener for metrics cannot be opened, or no thread can be started.
pub async fn start(
    config: &ArchiverConfig,
    store: Store,
    exit_when_idle: Option<Duration>,
) -> Result<Archiver, ArchiverError> {
    let topic = config.kafka.topic.clone();
    let consumer: BaseConsumer<ConsumerCallbacks> = consumer_config(&config.kafka)
        .create_with_context(ConsumerCallbacks::new(topic.clone()))
        .map_err(|error| ArchiverError::Kafka(error.to_string()))?;
    let dead_letter_topic = config.kafka.dead_letter_topic();
    let dead_letters = DeadLetters::new(producer_config(&config.kafka), topic.clone(), dead_letter_topic);
    let (stop, counters) = (Arc::new(AtomicBool::new(false)), ArchiverCounters::default());
    let metrics = match &config.metrics {
        Some(metrics) => Some(MetricsServer::start(&metrics.listen, counters.registry()).await?),
        None => None,
    };
    let (result_sender, result) = oneshot::channel();
    let run = {
        let (stop, config, brokers) = (stop.clone(), config.archive.clone(), config.kafka.brokers.clone());
        move || -> Result<ArchiverSummary, ArchiverError> {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(WRITER_THREADS)
                // The store encodes on blocking threads; this bounds the batches that are encoded at a time.
                .max_blocking_threads(WRITER_THREADS)
                .thread_name("archiver-writer")
                .enable_all()
                .build()?;
            join_group(&consumer, &topic, &brokers, exit_when_idle)?;
            let (sender, reports) = mpsc::channel(MAX_REPORTS);
            let writers = WriterContext { store, topic, runtime: runtime.handle().clone(), reports: sender };
            let state = ReaderState::new(Instant::now());
            let reader = Reader {
                consumer,
                writers,
                reports,
                dead_letters,
                counters,
                config,
                exit_when_idle,
                stop,
                state,
            };
            let result = reader.run();
            runtime.shutdown_timeout(SHUTDOWN_WAIT);
            result
        }
    };
    let thread = std::thread::Builder::new().name("archiver-reader".to_owned()).spawn(move || {
        // An error means that the `Archiver` was dropped, and no one waits for the result.
        let _ = result_sender.send(run());
    })?;
    Ok(Archiver { stop, metrics, thread, result })
}

impl Archiver {
    /// Requests an orderly stop: the archiver commits the buffered messages and leaves the group. [`Self::ended`] returns
    /// afterwards.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Bound address of `/metrics`; absent without `[metrics]`.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(MetricsServer::address)
    }

    /// Waits for the end; cancel-safe.
    ///
    /// # Errors
    /// The error that ended the archiver.
    pub async fn ended(&mut self) -> Result<ArchiverSummary, ArchiverError> {
        (&mut self.result).await.unwrap_or(Err(ArchiverError::ReaderPanicked))
    }

    /// Joins the thread and closes `/metrics`; call it after [`Self::ended`].
    pub async fn close(self) {
        if let Some(metrics) = self.metrics {
            metrics.close().await;
        }
        if self.thread.join().is_err() {
            tracing::error!("the archiver's reader thread panicked; please report this");
        }
    }
}

/// The user's properties, then the ones that prevent losses and duplicates.
fn consumer_config(kafka: &KafkaConfig) -> ClientConfig {
    let mut config = kafka.client_config();
    let default = |config: &mut ClientConfig, name: &str, value: &str| {
        if config.get(name).is_none() {
            config.set(name, value);
        }
    };
    default(&mut config, "queued.max.messages.kbytes", "32768");
    default(&mut config, "fetch.message.max.bytes", "4194304");
    default(&mut config, "fetch.max.bytes", "16777216");
    default(&mut config, "fetch.wait.max.ms", "100");
    // While the writers are the bottleneck the fetch queue is full; librdkafka's default would then not fetch for a second.
    default(&mut config, "fetch.queue.backoff.ms", "10");
    default(&mut config, "statistics.interval.ms", "5000");
    config
        .set("group.id", &kafka.group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false");
    config
}

fn producer_config(kafka: &KafkaConfig) -> ClientConfig {
    let mut config = kafka.client_config();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "zstd")
        .set("message.max.bytes", "100000000")
        .set("message.timeout.ms", "30000");
    config
}

/// Joins the consumer group. An archiver that exits when idle first checks that a broker answers and the topic exists, where
/// one that runs on would wait for both.
fn join_group(
    consumer: &BaseConsumer<ConsumerCallbacks>,
    topic: &str,
    brokers: &str,
    exit_when_idle: Option<Duration>,
) -> Result<(), ArchiverError> {
    if exit_when_idle.is_some() {
        let unreachable = |error: KafkaError| {
            let detail = error.to_string();
            ArchiverError::Unreachable { brokers: brokers.to_owned(), detail }
        };
        let metadata = consumer.fetch_metadata(Some(topic), FIRST_ANSWER).map_err(unreachable)?;
        let exists = metadata.topics().iter().any(|found| found.name() == topic && found.error().is_none());
        if !exists {
            return Err(ArchiverError::NoTopic { topic: topic.to_owned() });
        }
    }
    consumer.subscribe(&[topic]).map_err(|error| ArchiverError::Kafka(error.to_string()))
}
