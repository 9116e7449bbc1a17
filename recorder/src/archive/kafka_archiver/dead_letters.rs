//! Dead letters: messages that cannot be read, put into a topic of their own with the reason, kept here until they lie
//! there.
//!
//! The producer is made with the first of them. It says each change of its state once.

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

/// Dead letters that may be on their way at a time; more wait here.
const MAX_UNDER_WAY: usize = 256;

/// How long a dead letter waits after it was refused.
const RETRY: Duration = Duration::from_secs(2);

/// The longest that closing waits for what is on its way.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Where a message came from: partition and offset.
type Origin = (i32, u64);

#[derive(Debug)]
struct Outcome {
    origin: Origin,
    error: Option<KafkaError>,
}

/// Collects what became of the dead letters on their way.
#[derive(Debug, Default)]
struct Deliveries {
    outcomes: Mutex<Vec<Outcome>>,
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
        // No more than are under way.
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.push(Outcome { origin: *origin, error });
    }
}

struct Waiting {
    letter: DeadLetter,
    /// Not before; absent while it is on its way.
    retry_at: Option<Instant>,
    /// The broker takes no message of its size: only its key and the headers are sent.
    too_large: bool,
}

/// The dead letters that are not known to lie in their topic.
pub(crate) struct DeadLetters {
    config: ClientConfig,
    source: String,
    topic: String,
    producer: Option<BaseProducer<Deliveries>>,
    waiting: BTreeMap<Origin, Waiting>,
    bytes: u64,
    failing: bool,
}

impl DeadLetters {
    /// Letters from `source` will be sent to `topic`.
    pub(crate) fn new(config: ClientConfig, source: String, topic: String) -> Self {
        let (producer, waiting) = (None, BTreeMap::new());
        Self { config, source, topic, producer, waiting, bytes: 0, failing: false }
    }

    /// Bytes of the letters that wait.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether letters cannot be written at the moment.
    pub(crate) fn failing(&self) -> bool {
        self.failing
    }

    /// Takes letters of a partition; they are sent by [`Self::poll`].
    pub(crate) fn add(&mut self, partition: i32, letters: Vec<DeadLetter>, now: Instant) {
        for letter in letters {
            let origin = (partition, letter.offset);
            tracing::error!(
                partition,
                offset = letter.offset,
                reason = letter.reason,
                dead_letter_topic = self.topic,
                "a message cannot be read; it goes to the dead letters"
            );
            self.bytes += letter.payload.len() as u64;
            self.waiting.insert(origin, Waiting { letter, retry_at: Some(now), too_large: false });
        }
    }

    /// Forgets the letters of a partition that is another process's now.
    pub(crate) fn forget(&mut self, partition: i32) {
        self.waiting.retain(|(of, _), _| *of != partition);
        self.bytes = self.waiting.values().map(|waiting| waiting.letter.payload.len() as u64).sum();
    }

    /// Sends what waits and returns where the letters came from that lie in their topic now.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<Origin> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        if let Err(error) = self.send_waiting(now) {
            self.refused(&error);
        }
        let Some(producer) = &self.producer else { return Vec::new() };
        producer.poll(Duration::ZERO);
        let outcomes =
            std::mem::take(&mut *producer.context().outcomes.lock().unwrap_or_else(PoisonError::into_inner));
        let mut done = Vec::new();
        for Outcome { origin, error } in outcomes {
            match error {
                None => {
                    if let Some(waiting) = self.waiting.remove(&origin) {
                        self.bytes -= waiting.letter.payload.len() as u64;
                        done.push(origin);
                    }
                    if std::mem::take(&mut self.failing) {
                        tracing::warn!(topic = self.topic, "dead letters can be written again");
                    }
                }
                Some(error) => {
                    if let Some(waiting) = self.waiting.get_mut(&origin) {
                        waiting.too_large |= is_too_large(&error);
                        waiting.retry_at = Some(now + RETRY);
                    }
                    self.refused(&error);
                }
            }
        }
        if self.producer.as_ref().is_some_and(|producer| producer.client().fatal_error().is_some()) {
            self.begin_anew(now);
        }
        done
    }

    /// After a fatal error a producer is of no use; everything is sent again by a new one.
    fn begin_anew(&mut self, now: Instant) {
        self.producer = None;
        for waiting in self.waiting.values_mut() {
            waiting.retry_at = Some(now + RETRY);
        }
    }

    fn send_waiting(&mut self, now: Instant) -> Result<(), KafkaError> {
        let under_way = self.waiting.values().filter(|waiting| waiting.retry_at.is_none()).count();
        let due = |waiting: &&mut Waiting| waiting.retry_at.is_some_and(|at| at <= now);
        let (origins, mut letters): (Vec<_>, Vec<_>) =
            self.waiting.iter_mut().map(|(origin, waiting)| (*origin, waiting)).unzip();
        if !letters.iter().any(|waiting| waiting.retry_at.is_some_and(|at| at <= now)) {
            return Ok(());
        }
        let producer = match &self.producer {
            Some(producer) => producer,
            None => {
                let made = self.config.create_with_context(Deliveries::default())?;
                self.producer.insert(made)
            }
        };
        let mut room = MAX_UNDER_WAY.saturating_sub(under_way);
        for (origin, waiting) in origins.into_iter().zip(letters.iter_mut()) {
            if room == 0 {
                break;
            }
            if !due(waiting) {
                continue;
            }
            match send(producer, &self.topic, &self.source, origin, waiting) {
                Ok(()) => waiting.retry_at = None,
                Err(error) => {
                    waiting.too_large |= is_too_large(&error);
                    waiting.retry_at = Some(now + RETRY);
                    return Err(error);
                }
            }
            room -= 1;
        }
        Ok(())
    }

    /// Says once that letters cannot be written.
    fn refused(&mut self, error: &KafkaError) {
        if is_too_large(error) {
            return;
        }
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(
                topic = self.topic,
                %error,
                "dead letters cannot be written; their partitions wait. Create the topic, or allow writing to it"
            );
        }
    }

    /// Waits for what is on its way, for a bounded time.
    pub(crate) fn close(&mut self) {
        if let Some(producer) = &self.producer
            && let Err(error) = producer.flush(CLOSE_WAIT)
        {
            tracing::warn!(%error, "dead letters on their way when the archiver stopped are sent again later");
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
    source: &str,
    (partition, offset): Origin,
    waiting: &Waiting,
) -> Result<(), KafkaError> {
    let letter = &waiting.letter;
    let (partition_text, offset_text) = (partition.to_string(), offset.to_string());
    let pairs = [
        ("foreshadow-reason", letter.reason.as_str()),
        ("foreshadow-topic", source),
        ("foreshadow-partition", partition_text.as_str()),
        ("foreshadow-offset", offset_text.as_str()),
    ];
    let mut headers = OwnedHeaders::new_with_capacity(pairs.len() + 1);
    for (key, value) in pairs {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    let omitted = letter.payload.len().to_string();
    if waiting.too_large {
        headers = headers.insert(Header { key: "foreshadow-omitted-bytes", value: Some(omitted.as_str()) });
    }
    let payload: &[u8] = if waiting.too_large { &[] } else { &letter.payload };
    let record = BaseRecord::with_opaque_to(topic, Box::new((partition, offset)))
        .key(letter.key.as_slice())
        .payload(payload)
        .headers(headers);
    producer.send(record).map_err(|(error, _)| error)
}
