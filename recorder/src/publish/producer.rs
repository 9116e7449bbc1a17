//! One idempotent producer: what it is configured to, which partition a message is for, and what it reports.
//!
//! Of one partition nothing later may arrive where something earlier was refused: the archive tells by position what it
//! has already taken. A gap ends the producer, and brokers refuse what comes after a gap, but only from a producer that
//! they know; so until a first message has arrived in a partition, no second one is sent there.

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

use super::MAX_IN_FLIGHT_BYTES;
use crate::broker_health::{BrokerHealth, forward_log};
use crate::config::KafkaConfig;

/// How long messages are gathered for one request, where the user says nothing.
const LINGER_MS: &str = "25";

/// The longest wait between two attempts to connect, where the user says nothing.
const RECONNECT_MS: &str = "2000";

/// What a producer adds to a message, and its key; counted against the broker's limit.
const FRAME_BYTES: usize = 8 << 10;

/// How long a broker is taken to know a producer that sends it nothing; by default it does for a day.
const KNOWN_FOR: Duration = Duration::from_secs(3600);

/// How long one question for the partitions of the topic may take.
const ASK_WAIT: Duration = Duration::from_millis(500);

/// One message that is on its way.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) position: u64,
    pub(super) partition: i32,
    pub(super) bytes: usize,
}

/// What became of a message.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) sent: Sent,
    /// Why it did not arrive.
    pub(super) refused: Option<RDKafkaErrorCode>,
}

/// What librdkafka calls.
struct Desk {
    health: Arc<BrokerHealth>,
    reports: Mutex<Vec<Report>>,
    fatal: AtomicBool,
}

impl ClientContext for Desk {
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

impl ProducerContext for Desk {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Self::DeliveryOpaque) {
        let refused = result.as_ref().err().map(|(error, _)| code_of(error));
        if refused.is_none() {
            self.health.mark_up();
        }
        let report = Report { sent: *sent, refused };
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
    }
}

fn code_of(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)
}

/// What is known of one partition.
#[derive(Debug, Default)]
struct Partition {
    in_flight: usize,
    /// When a message arrived there last.
    arrived: Option<Instant>,
}

/// A producer.
pub(super) struct Line {
    producer: BaseProducer<Desk>,
    topic: String,
    /// How many there are; 0 until a broker has said it.
    partition_count: u32,
    partitions: HashMap<i32, Partition>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Line")
    }
}

impl Line {
    /// Makes a producer whose messages and requests stay below what a part may have; asks no broker.
    pub(super) fn open(
        kafka: &KafkaConfig,
        health: &Arc<BrokerHealth>,
        part_bytes: Option<usize>,
    ) -> Result<Self, KafkaError> {
        let desk =
            Desk { health: Arc::clone(health), reports: Mutex::default(), fatal: AtomicBool::new(false) };
        let producer = BaseProducer::from_config_and_context(&configuration(kafka, part_bytes), desk)?;
        Ok(Self { producer, topic: kafka.topic.clone(), partition_count: 0, partitions: HashMap::new() })
    }

    /// Asks how many partitions the topic has, until it is known: from then on a session's partition does not change.
    pub(super) fn ask_partitions(&mut self) -> Result<(), RDKafkaErrorCode> {
        if self.partition_count > 0 {
            return Ok(());
        }
        let asked = self.producer.client().fetch_metadata(Some(&self.topic), ASK_WAIT);
        let metadata = asked.map_err(|error| code_of(&error))?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == self.topic) else {
            return Err(RDKafkaErrorCode::UnknownTopicOrPartition);
        };
        if let Some(error) = topic.error() {
            return Err(error.into());
        }
        self.partition_count = u32::try_from(topic.partitions().len()).unwrap_or(0);
        if self.partition_count == 0 { Err(RDKafkaErrorCode::LeaderNotAvailable) } else { Ok(()) }
    }

    /// Whether a broker has said what partitions the topic has.
    pub(super) fn knows_topic(&self) -> bool {
        self.partition_count > 0
    }

    /// The partition of a key, as every Kafka client chooses it by default.
    pub(super) fn partition_of(&self, key: &[u8]) -> i32 {
        let hash = murmur2(key) & 0x7fff_ffff;
        i32::try_from(hash % self.partition_count.max(1)).unwrap_or(0)
    }

    /// Whether another message may be sent to this partition now.
    pub(super) fn takes(&self, partition: i32) -> bool {
        self.partitions.get(&partition).is_none_or(|partition| {
            partition.in_flight == 0 || partition.arrived.is_some_and(|at| at.elapsed() < KNOWN_FOR)
        })
    }

    /// Takes a message; where it is refused at once, says why.
    pub(super) fn send(&mut self, key: &[u8], payload: &[u8], sent: Sent) -> Result<(), RDKafkaErrorCode> {
        let partition = sent.partition;
        let record = BaseRecord::with_opaque_to(&self.topic, Box::new(sent)).partition(partition);
        let record = record.key(key).payload(payload);
        self.producer.send(record).map_err(|(error, _)| code_of(&error))?;
        self.partitions.entry(partition).or_default().in_flight += 1;
        Ok(())
    }

    /// Waits this long for reports and takes them.
    pub(super) fn reports(&mut self, wait: Duration) -> Vec<Report> {
        self.producer.poll(wait);
        let client: &Client<Desk> = self.producer.client();
        let reports =
            std::mem::take(&mut *client.context().reports.lock().unwrap_or_else(PoisonError::into_inner));
        for report in &reports {
            let partition = self.partitions.entry(report.sent.partition).or_default();
            partition.in_flight = partition.in_flight.saturating_sub(1);
            if report.refused.is_none() {
                partition.arrived = Some(Instant::now());
            }
        }
        reports
    }

    /// What was said of the message that ended the producer, where that is reported within this time.
    pub(super) fn cause(&mut self, wait: Duration) -> Option<RDKafkaErrorCode> {
        let follows = |code: &RDKafkaErrorCode| {
            matches!(
                code,
                RDKafkaErrorCode::Fatal
                    | RDKafkaErrorCode::GaplessGuarantee
                    | RDKafkaErrorCode::PurgeQueue
                    | RDKafkaErrorCode::PurgeInflight
            )
        };
        self.reports(wait).into_iter().filter_map(|report| report.refused).find(|code| !follows(code))
    }

    /// Why the producer has ended for good, where it has.
    pub(super) fn fatal(&self) -> Option<String> {
        let client: &Client<Desk> = self.producer.client();
        if !client.context().fatal.load(Ordering::Relaxed) {
            return None;
        }
        Some(client.fatal_error().map_or_else(String::new, |(code, text)| format!("{code}: {text}")))
    }
}

/// The largest content of a message where the broker has not refused one: what the user allows, or what every broker does.
pub(super) fn part_bytes(kafka: &KafkaConfig, default: usize) -> usize {
    let asked = kafka.properties.get("message.max.bytes").and_then(|bytes| bytes.parse::<usize>().ok());
    asked.map_or(default, |bytes| bytes.saturating_sub(bytes / 10).max(super::MIN_PART_BYTES / 16))
}

fn configuration(kafka: &KafkaConfig, part_bytes: Option<usize>) -> ClientConfig {
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

/// The hash by which Kafka's own clients choose a partition (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ u32::try_from(key.len()).unwrap_or(u32::MAX);
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (place, byte) in rest.iter().enumerate().rev() {
        hash ^= u32::from(*byte) << (8 * place);
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

    /// The values of Kafka's own test (`UtilsTest.testMurmur2`).
    #[test]
    fn partitions_are_those_of_other_clients() {
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
