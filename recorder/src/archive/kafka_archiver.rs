//! Kafka turned into Parquet, exactly once: a member of a consumer group that goes on where the store's commits end.
//!
//! One thread polls and decodes, two write files and commits. Each partition that the group assigns is claimed in the
//! store first ([`store::Store::claim`]), so that whoever had it before is refused; its position and what is known of
//! each journal come from the last commit, never from the group. A message that cannot be read goes to the dead-letter
//! topic before a commit passes it. What is sent again is told by (journal, position) and dropped.
//!
//! In memory are at most 128 MiB of messages that are read and not committed, the client's fetch queue, and what two
//! batches take while they are encoded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use store::Store;
use tokio::sync::oneshot;

use crate::config::KafkaConfig;
use crate::config::archiver::ArchiverConfig;
use crate::metrics::kafka_archiver::Counts;
use crate::metrics::server::{MetricsError, MetricsServer};

mod consumer_callbacks;
mod dead_letters;
mod partition;
mod partition_buffer;
mod reader;
mod writer;

pub use crate::metrics::kafka_archiver::Summary;

use self::consumer_callbacks::Group;
use self::dead_letters::DeadLetters;
use self::partition::Desk;
use self::reader::{Reader, State};

/// Threads that encode and write.
const WRITERS: usize = 2;

/// News of writers that may wait for the reader.
const MAX_REPORTS: usize = 1024;

/// How long the brokers may take to answer at the start, where the work is to end by itself.
const FIRST_ANSWER: Duration = Duration::from_secs(30);

/// How long the last requests to the store may take at the end.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

/// Why an archiver cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ArchiverError {
    /// The client cannot be made or has broken off for good.
    #[error("Kafka client: {0}; see `[kafka]` and `[kafka.properties]`")]
    Kafka(String),
    /// Nobody answers.
    #[error("no Kafka broker of {brokers} answers ({detail}); check `kafka.brokers` and whether they run")]
    Unreachable {
        /// As configured.
        brokers: String,
        /// What was said.
        detail: String,
    },
    /// There is nothing to read.
    #[error("topic {topic} does not exist; create it, or name another one with `kafka.topic`")]
    NoTopic {
        /// The topic.
        topic: String,
    },
    /// The broker does not let us.
    #[error(
        "topic {topic} cannot be read ({detail}); allow this client to read the topic and to join the group"
    )]
    Refused {
        /// The topic.
        topic: String,
        /// What was said.
        detail: String,
    },
    /// The store is ahead of the topic.
    #[error(
        "partition {partition} of {topic} ends at offset {high}, the store has it up to {position}: the topic was made \
         anew. Use another topic name, or another store"
    )]
    OtherTopic {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where the store goes on.
        position: u64,
        /// Where the partition ends.
        high: u64,
    },
    /// The system gives no thread.
    #[error("the archiver's threads cannot be started: {0}; allow this process more of them")]
    Thread(#[from] std::io::Error),
    /// `/metrics` cannot be opened.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Its thread is gone without a word.
    #[error("the archiver's thread broke off; this is a bug, please report it")]
    BrokenOff,
}

/// A running archiver.
#[derive(Debug)]
pub struct Archiver {
    stop: Arc<AtomicBool>,
    metrics: Option<MetricsServer>,
    thread: std::thread::JoinHandle<()>,
    done: oneshot::Receiver<Result<Summary, ArchiverError>>,
}

/// Starts an archiver. With `until_idle` it ends by itself: when everything that is assigned is read to its end, nothing
/// has come for that long, and all is committed.
///
/// # Errors
/// The configuration of the client is wrong, `/metrics` cannot be opened, or no thread can be started.
pub async fn start(
    config: &ArchiverConfig,
    lake: Store,
    until_idle: Option<Duration>,
) -> Result<Archiver, ArchiverError> {
    let topic = config.kafka.topic.clone();
    let consumer: BaseConsumer<Group> = consumer_config(&config.kafka)
        .create_with_context(Group::new(topic.clone()))
        .map_err(|error| ArchiverError::Kafka(error.to_string()))?;
    let dead_topic = config.kafka.dead_letter_topic();
    let dead = DeadLetters::new(producer_config(&config.kafka), topic.clone(), dead_topic);
    let (stop, counts) = (Arc::new(AtomicBool::new(false)), Counts::default());
    let metrics = match &config.metrics {
        Some(metrics) => Some(MetricsServer::start(&metrics.listen, counts.registry()).await?),
        None => None,
    };
    let (told, done) = oneshot::channel();
    let work = {
        let (stop, archive) = (stop.clone(), config.archive.clone());
        let brokers = config.kafka.brokers.clone();
        move || -> Result<Summary, ArchiverError> {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(WRITERS)
                .thread_name("archiver-writer")
                .enable_all()
                .build()?;
            begin(&consumer, &topic, &brokers, until_idle)?;
            let (sender, reports) = sync_channel(MAX_REPORTS);
            let desk = Desk { lake, topic, runtime: runtime.handle().clone(), reports: sender };
            let state = State::new(Instant::now());
            let reader =
                Reader { consumer, desk, reports, dead, counts, config: archive, until_idle, stop, state };
            let ended = reader.run();
            runtime.shutdown_timeout(LAST_REQUESTS);
            ended
        }
    };
    let thread = std::thread::Builder::new().name("archiver-reader".to_owned()).spawn(move || {
        // Nobody waits for the end any more: then nobody needs to know.
        let _ = told.send(work());
    })?;
    Ok(Archiver { stop, metrics, thread, done })
}

impl Archiver {
    /// Asks it to commit what is gathered and to leave the group; [`Self::ended`] says when it has.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Where `/metrics` is served, where it is.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(MetricsServer::address)
    }

    /// Waits for its end; cancel-safe.
    ///
    /// # Errors
    /// Why it cannot go on.
    pub async fn ended(&mut self) -> Result<Summary, ArchiverError> {
        (&mut self.done).await.unwrap_or(Err(ArchiverError::BrokenOff))
    }

    /// Frees its thread and closes `/metrics`, after [`Self::ended`].
    pub async fn close(self) {
        if let Some(metrics) = self.metrics {
            metrics.close().await;
        }
        if self.thread.join().is_err() {
            tracing::error!("the archiver's thread broke off");
        }
    }
}

/// What decides whether anything is lost or doubled is set here, after the user's properties.
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
    // Where the writers are the slowest, the queue is full most of the time; by the client's default nothing would be
    // fetched for a whole second then.
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

/// Waits for a first answer where the work is to end by itself, and joins the group.
fn begin(
    consumer: &BaseConsumer<Group>,
    topic: &str,
    brokers: &str,
    until_idle: Option<Duration>,
) -> Result<(), ArchiverError> {
    if until_idle.is_some() {
        let unreachable = |error: KafkaError| {
            let detail = error.to_string();
            ArchiverError::Unreachable { brokers: brokers.to_owned(), detail }
        };
        let metadata = consumer.fetch_metadata(Some(topic), FIRST_ANSWER).map_err(unreachable)?;
        let known = metadata.topics().iter().any(|found| found.name() == topic && found.error().is_none());
        if !known {
            return Err(ArchiverError::NoTopic { topic: topic.to_owned() });
        }
    }
    consumer.subscribe(&[topic]).map_err(|error| ArchiverError::Kafka(error.to_string()))
}
