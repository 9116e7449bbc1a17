//! One idempotent producer: what it is configured to, and what it reports.
//!
//! At most one request to a broker is under way and a gap ends the producer, so that of one partition nothing later
//! arrives before something earlier was refused: the archive tells by position what it has already taken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use super::MAX_IN_FLIGHT_BYTES;
use crate::config::KafkaConfig;
use crate::kafka::{self, Contact};

/// How long messages are gathered for one request, where the user says nothing.
const LINGER_MS: &str = "25";

/// The longest wait between two attempts to connect, where the user says nothing.
const RECONNECT_MS: &str = "2000";

/// What a producer adds to a message, and its key; counted against the broker's limit.
const FRAME_BYTES: usize = 8 << 10;

/// One message that is on its way.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) position: u64,
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
    contact: Arc<Contact>,
    reports: Mutex<Vec<Report>>,
    fatal: AtomicBool,
}

impl ClientContext for Desk {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        Contact::log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(error, KafkaError::Global(RDKafkaErrorCode::Fatal)) {
            self.fatal.store(true, Ordering::Relaxed);
            tracing::debug!(target: "librdkafka", %error, reason);
        } else {
            self.contact.error(&error, reason);
        }
    }
}

impl ProducerContext for Desk {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Self::DeliveryOpaque) {
        let refused = result.as_ref().err().map(|(error, _)| code_of(error));
        if refused.is_none() {
            self.contact.heard();
        }
        let report = Report { sent: *sent, refused };
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
    }
}

fn code_of(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)
}

/// A producer.
pub(super) struct Line {
    producer: BaseProducer<Desk>,
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
        contact: &Arc<Contact>,
        part_bytes: Option<usize>,
    ) -> Result<Self, KafkaError> {
        let desk =
            Desk { contact: Arc::clone(contact), reports: Mutex::default(), fatal: AtomicBool::new(false) };
        let producer = BaseProducer::from_config_and_context(&configuration(kafka, part_bytes), desk)?;
        Ok(Self { producer })
    }

    /// Takes a message; where it is refused at once, says why.
    pub(super) fn send(
        &self,
        topic: &str,
        key: &[u8],
        payload: &[u8],
        sent: Sent,
    ) -> Result<(), RDKafkaErrorCode> {
        let record = BaseRecord::with_opaque_to(topic, Box::new(sent)).key(key).payload(payload);
        self.producer.send(record).map_err(|(error, _)| code_of(&error))
    }

    /// Waits this long for reports and takes them.
    pub(super) fn reports(&self, wait: Duration) -> Vec<Report> {
        self.producer.poll(wait);
        let client: &Client<Desk> = self.producer.client();
        std::mem::take(&mut *client.context().reports.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was said of the message that ended the producer, where that is reported within this time.
    pub(super) fn cause(&self, wait: Duration) -> Option<RDKafkaErrorCode> {
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
    let mut config = kafka::client_config(kafka);
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
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", (MAX_IN_FLIGHT_BYTES >> 9).to_string());
    if let Some(bytes) = part_bytes {
        config.set("batch.size", (bytes + FRAME_BYTES).to_string());
    }
    config
}
