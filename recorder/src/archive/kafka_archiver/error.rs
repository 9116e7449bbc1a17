//! Errors that end an archiver.

use crate::metrics::server::MetricsError;

/// An error that keeps an archiver from starting, or ends it.
#[derive(Debug, thiserror::Error)]
pub enum ArchiverError {
    /// librdkafka rejects the configuration, or the consumer has failed for good.
    #[error("Kafka client: {0}; check `[kafka]` and `[kafka.properties]`")]
    Kafka(String),
    /// No broker answered the first request.
    #[error(
        "no Kafka broker of {brokers} answers ({detail}); check `kafka.brokers` and whether the brokers run"
    )]
    Unreachable {
        /// `kafka.brokers` of the configuration.
        brokers: String,
        /// Error of the client.
        detail: String,
    },
    /// The topic does not exist.
    #[error("topic {topic} does not exist; create it, or set `kafka.topic` to another topic")]
    NoTopic {
        /// Name of the topic.
        topic: String,
    },
    /// The broker denies access to the topic or the consumer group.
    #[error(
        "topic {topic} cannot be read ({detail}); allow this client to read the topic and to join the group"
    )]
    AccessDenied {
        /// Name of the topic.
        topic: String,
        /// Error of the client.
        detail: String,
    },
    /// The store holds the partition up to an offset past its end.
    #[error(
        "topic {topic}, partition {partition}: the log ends at offset {high}, but the store holds it up to {position}, so \
         the topic was recreated. Use another topic name, or another store"
    )]
    TopicRecreated {
        /// Name of the topic.
        topic: String,
        /// Number of the partition.
        partition: i32,
        /// Offset after the last committed message.
        position: u64,
        /// Offset after the last message of the log.
        high: u64,
    },
    /// The operating system refuses a thread.
    #[error("archiver threads cannot be started: {0}; raise this process's limit of threads")]
    Thread(#[from] std::io::Error),
    /// The listener for metrics cannot be opened.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The reader thread has panicked.
    #[error("the archiver's reader thread panicked; please report this")]
    ReaderPanicked,
}
