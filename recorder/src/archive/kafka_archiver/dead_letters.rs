//! Dead letters: messages that cannot be decoded go to a topic of their own, with the reason in a header.
//!
//! A dead letter stays in memory until its topic acknowledges it. The producer is created with the first dead letter, and
//! each change of its state is logged once.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use super::partition_buffer::DeadLetter;
use crate::broker_health::forward_log;

/// Dead letters in flight; further ones wait in memory.
const MAX_IN_FLIGHT: usize = 256;

/// Delay before a refused dead letter is sent again.
const RETRY: Duration = Duration::from_secs(2);

/// The longest wait for dead letters in flight when the archiver stops.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Partition and offset of the source message.
type Origin = (i32, u64);

#[derive(Debug)]
struct Delivery {
    origin: Origin,
    error: Option<KafkaError>,
}

/// Collects the delivery reports of the producer.
#[derive(Debug, Default)]
struct Deliveries {
    reports: Mutex<Vec<Delivery>>,
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "dead-letter producer");
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        forward_log(level, facility, text);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Origin>;

    fn delivery(&self, result: &DeliveryResult<'_>, origin: Self::DeliveryOpaque) {
        let error = result.as_ref().err().map(|(error, _)| error.clone());
        // Bounded by `MAX_IN_FLIGHT`.
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.push(Delivery { origin: *origin, error });
    }
}

struct Pending {
    letter: DeadLetter,
    /// Earliest time of the next attempt; absent while the letter is in flight.
    retry_at: Option<Instant>,
    /// Whether the broker refused its size. Then only key and headers are sent.
    too_large: bool,
}

impl Pending {
    fn is_due(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| at <= now)
    }
}

/// The dead letters that their topic has not acknowledged.
pub(crate) struct DeadLetters {
    config: ClientConfig,
    source_topic: String,
    topic: String,
    producer: Option<BaseProducer<Deliveries>>,
    pending: BTreeMap<Origin, Pending>,
    bytes: u64,
    failing: bool,
}

impl DeadLetters {
    /// Sends letters from `source_topic` to `topic`.
    pub(crate) fn new(config: ClientConfig, source_topic: String, topic: String) -> Self {
        let (producer, pending) = (None, BTreeMap::new());
        Self { config, source_topic, topic, producer, pending, bytes: 0, failing: false }
    }

    /// Bytes of the letters in memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the topic refuses letters at the moment.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing
    }

    /// Adds letters of a partition; [`Self::poll`] sends them.
    pub(crate) fn add(&mut self, partition: i32, letters: Vec<DeadLetter>, now: Instant) {
        for letter in letters {
            let origin = (partition, letter.offset);
            tracing::error!(
                topic = self.source_topic,
                partition,
                offset = letter.offset,
                reason = letter.reason,
                dead_letter_topic = self.topic,
                "message cannot be archived; sending it to the dead-letter topic"
            );
            self.bytes += letter.payload.len() as u64;
            self.pending.insert(origin, Pending { letter, retry_at: Some(now), too_large: false });
        }
    }

    /// Forgets the letters of a partition that this process no longer has.
    pub(crate) fn forget(&mut self, partition: i32) {
        self.pending.retain(|(of, _), _| *of != partition);
        self.bytes = self.pending.values().map(|pending| pending.letter.payload.len() as u64).sum();
    }

    /// Sends the letters that are due; returns the origins that the topic has acknowledged since the last call.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<Origin> {
        if self.pending.is_empty() {
            return Vec::new();
        }
        if let Err(error) = self.send_due(now) {
            self.log_refusal(&error);
        }
        let Some(producer) = &self.producer else { return Vec::new() };
        producer.poll(Duration::ZERO);
        let reports =
            std::mem::take(&mut *producer.context().reports.lock().unwrap_or_else(PoisonError::into_inner));
        let mut acknowledged = Vec::new();
        for Delivery { origin, error } in reports {
            match error {
                None => {
                    if let Some(pending) = self.pending.remove(&origin) {
                        self.bytes -= pending.letter.payload.len() as u64;
                        acknowledged.push(origin);
                    }
                    if std::mem::take(&mut self.failing) {
                        tracing::warn!(topic = self.topic, "the dead-letter topic accepts messages again");
                    }
                }
                Some(error) => {
                    if let Some(pending) = self.pending.get_mut(&origin) {
                        pending.too_large |= is_too_large(&error);
                        pending.retry_at = Some(now + RETRY);
                    }
                    self.log_refusal(&error);
                }
            }
        }
        if self.producer.as_ref().is_some_and(|producer| producer.client().fatal_error().is_some()) {
            self.recreate_producer(now);
        }
        acknowledged
    }

    /// Replaces the producer after a fatal error and sends every pending letter again.
    fn recreate_producer(&mut self, now: Instant) {
        self.producer = None;
        for pending in self.pending.values_mut() {
            pending.retry_at = Some(now + RETRY);
        }
    }

    fn send_due(&mut self, now: Instant) -> Result<(), KafkaError> {
        if !self.pending.values().any(|pending| pending.is_due(now)) {
            return Ok(());
        }
        let in_flight = self.pending.values().filter(|pending| pending.retry_at.is_none()).count();
        let producer = match &self.producer {
            Some(producer) => producer,
            None => self.producer.insert(self.config.create_with_context(Deliveries::default())?),
        };
        let due = self.pending.iter_mut().filter(|(_, pending)| pending.is_due(now));
        for (origin, pending) in due.take(MAX_IN_FLIGHT.saturating_sub(in_flight)) {
            match send(producer, &self.topic, &self.source_topic, *origin, pending) {
                Ok(()) => pending.retry_at = None,
                Err(error) => {
                    pending.too_large |= is_too_large(&error);
                    pending.retry_at = Some(now + RETRY);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Logs once that the topic refuses letters. A letter that is too large is sent again without its value.
    fn log_refusal(&mut self, error: &KafkaError) {
        if is_too_large(error) {
            return;
        }
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(
                topic = self.topic,
                %error,
                "dead letters cannot be written, so their partitions are paused; create the topic, or allow writing to it"
            );
        }
    }

    /// Waits for the letters in flight, at most [`CLOSE_WAIT`].
    pub(crate) fn close(&mut self) {
        if let Some(producer) = &self.producer
            && let Err(error) = producer.flush(CLOSE_WAIT)
        {
            tracing::warn!(topic = self.topic, %error, "unacknowledged dead letters are sent again at the next start");
        }
    }
}

fn is_too_large(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize)
    )
}

fn send(
    producer: &BaseProducer<Deliveries>,
    topic: &str,
    source_topic: &str,
    (partition, offset): Origin,
    pending: &Pending,
) -> Result<(), KafkaError> {
    let letter = &pending.letter;
    let (partition_text, offset_text) = (partition.to_string(), offset.to_string());
    let pairs = [
        ("foreshadow-reason", letter.reason.as_str()),
        ("foreshadow-topic", source_topic),
        ("foreshadow-partition", partition_text.as_str()),
        ("foreshadow-offset", offset_text.as_str()),
    ];
    let mut headers = OwnedHeaders::new_with_capacity(pairs.len() + 1);
    for (key, value) in pairs {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    let omitted = letter.payload.len().to_string();
    if pending.too_large {
        headers = headers.insert(Header { key: "foreshadow-omitted-bytes", value: Some(omitted.as_str()) });
    }
    let payload: &[u8] = if pending.too_large { &[] } else { &letter.payload };
    let record = BaseRecord::with_opaque_to(topic, Box::new((partition, offset)))
        .key(letter.key.as_slice())
        .payload(payload)
        .headers(headers);
    producer.send(record).map_err(|(error, _)| error)
}
