//! Idempotent Kafka producer: configuration, partition of a key, and delivery reports.
//!
//! The archiver drops a record whose position it has passed, so within a partition no message may be stored after one that
//! was refused. A gap ends the producer, and a broker refuses messages after a gap, but only from a producer that it knows.
//! Until the first message of a partition is acknowledged, no second one is sent there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use crate::broker_health::{BrokerHealth, forward_log};
use crate::config::KafkaConfig;

/// Bytes of messages in flight; one entry may exceed it.
pub(super) const MAX_IN_FLIGHT_BYTES: usize = 32 << 20;

/// Content of a message without `message.max.bytes`: below the default limit of brokers (1 MiB).
const DEFAULT_PART_BYTES: usize = 900_000;

/// The smallest content of a message. A broker that refuses even this one cannot be used.
pub(super) const MIN_PART_BYTES: usize = 8 << 10;

/// Default of `linger.ms`: time in which messages share a request.
const LINGER_MS: &str = "25";

/// Default of `reconnect.backoff.max.ms`.
const RECONNECT_MS: &str = "2000";

/// Upper bound of the bytes that a producer adds to a message: key, headers and frame.
const FRAME_BYTES: usize = 8 << 10;

/// Time for which a broker surely remembers an idle producer (`producer.id.expiration.ms`, default one day).
const PRODUCER_MEMORY: Duration = Duration::from_secs(3600);

/// The longest wait for the metadata of the topic.
const METADATA_WAIT: Duration = Duration::from_millis(500);

/// One message in flight.
#[derive(Debug)]
pub(super) struct InFlightMessage {
    /// Position of its entry in the journal.
    pub(super) position: u64,
    pub(super) partition: i32,
    pub(super) bytes: usize,
}

/// The final state of a message.
#[derive(Debug)]
pub(super) struct DeliveryReport {
    pub(super) message: InFlightMessage,
    /// Why the broker refused it; absent if the broker acknowledged it.
    pub(super) refusal: Option<RDKafkaErrorCode>,
}

/// Callbacks of the producer.
struct DeliveryContext {
    health: Arc<BrokerHealth>,
    reports: Mutex<Vec<DeliveryReport>>,
    fatal: AtomicBool,
}

impl ClientContext for DeliveryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        forward_log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(error, KafkaError::Global(RDKafkaErrorCode::Fatal)) {
            self.fatal.store(true, Ordering::Relaxed);
            tracing::debug!(target: "librdkafka", %error, reason);
        } else {
            self.health.handle_client_error(&error, reason);
        }
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = Box<InFlightMessage>;

    fn delivery(&self, result: &DeliveryResult<'_>, message: Self::DeliveryOpaque) {
        let refusal = result.as_ref().err().map(|(error, _)| code_of(error));
        if refusal.is_none() {
            self.health.mark_up();
        }
        let report = DeliveryReport { message: *message, refusal };
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
    }
}

fn code_of(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)
}

/// Messages of one partition.
#[derive(Debug, Default)]
struct PartitionUse {
    in_flight: usize,
    last_acknowledged: Option<Instant>,
}

/// An idempotent producer for one topic.
pub(super) struct Producer {
    producer: BaseProducer<DeliveryContext>,
    topic: String,
    /// Partitions of the topic; 0 until the metadata is known.
    partition_count: u32,
    partitions: HashMap<i32, PartitionUse>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Producer {
    /// Creates a producer without contacting a broker. `part_bytes` bounds the size of its requests.
    pub(super) fn create(
        kafka: &KafkaConfig,
        health: &Arc<BrokerHealth>,
        part_bytes: Option<usize>,
    ) -> Result<Self, KafkaError> {
        let context = DeliveryContext {
            health: Arc::clone(health),
            reports: Mutex::default(),
            fatal: AtomicBool::new(false),
        };
        let producer = BaseProducer::from_config_and_context(&producer_config(kafka, part_bytes), context)?;
        Ok(Self { producer, topic: kafka.topic.clone(), partition_count: 0, partitions: HashMap::new() })
    }

    /// Fetches the number of partitions once. From then on the partition of a session stays the same.
    pub(super) fn fetch_metadata(&mut self) -> Result<(), RDKafkaErrorCode> {
        if self.has_metadata() {
            return Ok(());
        }
        let fetched = self.producer.client().fetch_metadata(Some(&self.topic), METADATA_WAIT);
        let metadata = fetched.map_err(|error| code_of(&error))?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == self.topic) else {
            return Err(RDKafkaErrorCode::UnknownTopicOrPartition);
        };
        if let Some(error) = topic.error() {
            return Err(error.into());
        }
        self.partition_count = u32::try_from(topic.partitions().len()).unwrap_or(0);
        if self.has_metadata() { Ok(()) } else { Err(RDKafkaErrorCode::LeaderNotAvailable) }
    }

    /// Whether the number of partitions is known.
    pub(super) fn has_metadata(&self) -> bool {
        self.partition_count > 0
    }

    /// The partition of a key, as Kafka's default partitioner chooses it.
    pub(super) fn partition_of(&self, key: &[u8]) -> i32 {
        let hash = murmur2(key) & 0x7fff_ffff;
        i32::try_from(hash % self.partition_count.max(1)).unwrap_or(0)
    }

    /// Whether another message may be sent to this partition now.
    pub(super) fn can_send(&self, partition: i32) -> bool {
        self.partitions.get(&partition).is_none_or(|partition| {
            let known = partition.last_acknowledged.is_some_and(|at| at.elapsed() < PRODUCER_MEMORY);
            partition.in_flight == 0 || known
        })
    }

    /// Queues a message.
    ///
    /// # Errors
    /// librdkafka refused it; `QueueFull` means that it may be sent later.
    pub(super) fn send(
        &mut self,
        key: &[u8],
        payload: &[u8],
        message: InFlightMessage,
    ) -> Result<(), RDKafkaErrorCode> {
        let partition = message.partition;
        let record = BaseRecord::with_opaque_to(&self.topic, Box::new(message)).partition(partition);
        let record = record.key(key).payload(payload);
        self.producer.send(record).map_err(|(error, _)| code_of(&error))?;
        self.partitions.entry(partition).or_default().in_flight += 1;
        Ok(())
    }

    /// Waits up to `wait` for delivery reports and takes them. The caller must handle each report.
    #[must_use]
    pub(super) fn take_reports(&mut self, wait: Duration) -> Vec<DeliveryReport> {
        self.producer.poll(wait);
        let client: &Client<DeliveryContext> = self.producer.client();
        let reports =
            std::mem::take(&mut *client.context().reports.lock().unwrap_or_else(PoisonError::into_inner));
        for report in &reports {
            let partition = self.partitions.entry(report.message.partition).or_default();
            partition.in_flight = partition.in_flight.saturating_sub(1);
            if report.refusal.is_none() {
                partition.last_acknowledged = Some(Instant::now());
            }
        }
        reports
    }

    /// Text of the error that ended the producer for good; absent while it works.
    pub(super) fn fatal_error(&self) -> Option<String> {
        let client: &Client<DeliveryContext> = self.producer.client();
        if !client.context().fatal.load(Ordering::Relaxed) {
            return None;
        }
        Some(client.fatal_error().map_or_else(String::new, |(code, text)| format!("{code}: {text}")))
    }

    /// Adds a delivery report as the callback of librdkafka does.
    #[cfg(test)]
    pub(super) fn add_report(&self, report: DeliveryReport) {
        let client: &Client<DeliveryContext> = self.producer.client();
        client.context().reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
    }
}

/// Whether a refusal is the first cause of the end of a producer, not a consequence of it.
pub(super) fn is_cause(code: RDKafkaErrorCode) -> bool {
    !matches!(
        code,
        RDKafkaErrorCode::Fatal
            | RDKafkaErrorCode::GaplessGuarantee
            | RDKafkaErrorCode::PurgeQueue
            | RDKafkaErrorCode::PurgeInflight
    )
}

/// The largest content of a message before a broker refuses one: nine tenths of `message.max.bytes`, or the default.
pub(super) fn initial_part_bytes(kafka: &KafkaConfig) -> usize {
    let configured = kafka.properties.get("message.max.bytes").and_then(|bytes| bytes.parse::<usize>().ok());
    configured.map_or(DEFAULT_PART_BYTES, |bytes| bytes.saturating_sub(bytes / 10).max(MIN_PART_BYTES / 16))
}

fn producer_config(kafka: &KafkaConfig, part_bytes: Option<usize>) -> ClientConfig {
    let mut config = kafka.client_config();
    let defaults: [(&[&str], &str); 3] = [
        (&["linger.ms", "queue.buffering.max.ms"], LINGER_MS),
        (&["compression.type", "compression.codec"], "zstd"),
        (&["reconnect.backoff.max.ms"], RECONNECT_MS),
    ];
    for (names, value) in defaults {
        if names.iter().all(|name| config.get(name).is_none()) {
            config.set(names[0], value);
        }
    }
    config
        .set("enable.idempotence", "true")
        .set("enable.gapless.guarantee", "true")
        .set("acks", "all")
        .set("max.in.flight", "1")
        .set("message.timeout.ms", "0")
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", (MAX_IN_FLIGHT_BYTES >> 9).to_string());
    if let Some(bytes) = part_bytes {
        config.set("batch.size", (bytes + FRAME_BYTES).to_string());
    }
    config
}

/// The hash of Kafka's default partitioner (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ u32::try_from(key.len()).unwrap_or(u32::MAX);
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (index, byte) in rest.iter().enumerate().rev() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of Kafka's own test (`UtilsTest.testMurmur2`).
    #[test]
    fn the_hash_is_that_of_other_clients() {
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash.cast_unsigned(), "{key}");
        }
    }
}
