//! Kafka publisher: sends journal entries as messages, in order per session, and releases acknowledged ones.
//!
//! The publisher is a thread that never gives up: while brokers are away the journal grows to its bound, and the tap sheds.
//! After a restart or a refusal it may send an entry again; the archiver drops the duplicate by its position.

mod delivery_window;
mod producer;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::{MessageValue, RecordError};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use store::log::LogError;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, watch};

use crate::backoff::Backoff;
use crate::broker_health::BrokerHealth;
use crate::config::KafkaConfig;
use crate::journal::reader::{JournalEntry, JournalReader};
use crate::sink::{FlushRequest, SinkContext};

use self::delivery_window::DeliveryWindow;
use self::producer::{DeliveryReport, InFlightMessage, MAX_IN_FLIGHT_BYTES, MIN_PART_BYTES, Producer};

/// Entries in flight.
const MAX_IN_FLIGHT: usize = 100_000;

/// Entries read between two looks at the delivery reports.
const ROUND_ENTRIES: usize = 256;

/// The longest wait for delivery reports while messages are in flight.
const BUSY_TICK: Duration = Duration::from_millis(10);

/// The same while none are.
const IDLE_TICK: Duration = Duration::from_millis(50);

/// Time between two releases of acknowledged entries to the journal.
const RELEASE_EVERY: Duration = Duration::from_millis(200);

/// Time without an acknowledgement after which the brokers count as down.
const STALL: Duration = Duration::from_secs(10);

/// The first delay after a refusal; each further one is twice as long.
const FIRST_RETRY: Duration = Duration::from_millis(200);

/// The longest delay after a refusal.
const MAX_RETRY: Duration = Duration::from_secs(15);

/// Settings and shared state of the publisher.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) kafka: KafkaConfig,
    pub(crate) sink: SinkContext,
}

/// One message that is not sent yet.
#[derive(Debug)]
struct OutgoingMessage {
    key: Arc<[u8]>,
    payload: Vec<u8>,
    /// Position of its entry in the journal.
    position: u64,
}

/// How far a round has filled the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FillState {
    /// Every durable entry is in the window or acknowledged.
    AtEnd,
    /// The journal has more entries.
    More,
    /// A bound of the window is reached, or the producer cannot send.
    Full,
}

/// Why publishing pauses.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("{0}")]
    Journal(#[from] LogError),
    #[error("{0}")]
    Record(#[from] RecordError),
    #[error("{0}")]
    Client(#[from] KafkaError),
    #[error("the producer has ended: {0}")]
    Fatal(String),
    #[error("topic {topic}: {code}; {}", remedy(*code))]
    Refused { topic: String, code: RDKafkaErrorCode },
}

/// Pause after an error.
#[derive(Debug)]
struct RetryState {
    backoff: Backoff,
    not_before: Instant,
    /// Text of the last error, so that a repeated one is logged once.
    logged: Option<String>,
}

/// The state of the publisher thread.
#[derive(Debug)]
struct PublishLoop {
    publisher: Publisher,
    health: Arc<BrokerHealth>,
    /// Absent from an error until the end of the pause.
    producer: Option<Producer>,
    reader: JournalReader,
    outbox: VecDeque<OutgoingMessage>,
    window: DeliveryWindow,
    in_flight_bytes: usize,
    /// Largest content of one message.
    part_bytes: usize,
    /// Whether a broker has refused a message for its size.
    size_limited: bool,
    retry: RetryState,
    last_release: Instant,
    /// Time of the last acknowledgement, or since when messages are in flight.
    last_acknowledgement: Instant,
    /// Position that the journal was last released to.
    released: u64,
}

impl Publisher {
    /// Checks that librdkafka accepts the configuration, without contacting a broker.
    pub(crate) fn check(kafka: &KafkaConfig) -> Result<(), KafkaError> {
        Producer::create(kafka, &Arc::new(BrokerHealth::default()), None).map(drop)
    }

    /// Runs until the channel of flush requests closes. Unacknowledged entries stay in the journal for the next start.
    pub(crate) fn run(self, durable: &watch::Receiver<u64>, mut flushes: mpsc::Receiver<FlushRequest>) {
        match PublishLoop::new(self) {
            Ok(mut publish_loop) => publish_loop.run(durable, &mut flushes),
            Err(error) => tracing::error!(%error, "journal cannot be read; nothing is published"),
        }
    }
}

impl PublishLoop {
    fn new(publisher: Publisher) -> Result<Self, LogError> {
        let position = publisher.sink.checkpoint.position();
        let reader = JournalReader::open(&publisher.sink.folder, position)?;
        let now = Instant::now();
        let part_bytes = producer::initial_part_bytes(&publisher.kafka);
        Ok(Self {
            publisher,
            health: Arc::default(),
            producer: None,
            reader,
            outbox: VecDeque::new(),
            window: DeliveryWindow::new(position),
            in_flight_bytes: 0,
            part_bytes,
            size_limited: false,
            retry: RetryState {
                backoff: Backoff::new(FIRST_RETRY, MAX_RETRY),
                not_before: now,
                logged: None,
            },
            last_release: now,
            last_acknowledgement: now,
            released: 0,
        })
    }

    fn run(&mut self, durable: &watch::Receiver<u64>, flushes: &mut mpsc::Receiver<FlushRequest>) {
        let mut waiting: Vec<FlushRequest> = Vec::new();
        loop {
            match flushes.try_recv() {
                Ok(flush) => waiting.push(flush),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => break,
            }
            let durable = *durable.borrow();
            let at_end = match self.round(durable) {
                Ok(fill) => fill == FillState::AtEnd,
                Err(error) => {
                    self.reset_producer(error);
                    false
                }
            };
            self.update_gauges(durable, at_end);
            let is_done = |flush: &mut FlushRequest| at_end && self.window.is_clear_before(flush.position);
            let done: Vec<FlushRequest> = waiting.extract_if(.., is_done).collect();
            if !done.is_empty() {
                self.release();
            }
            for flush in done {
                // An error means that the requester has stopped waiting.
                let _ = flush.reply.send(Ok(()));
            }
        }
        self.producer = None;
        self.release();
    }

    /// Sends new entries and handles delivery reports.
    fn round(&mut self, durable: u64) -> Result<FillState, PublishError> {
        if self.producer.is_none() {
            if Instant::now() < self.retry.not_before {
                std::thread::sleep(BUSY_TICK);
                return Ok(FillState::Full);
            }
            self.recreate_producer()?;
        }
        if !self.fetch_metadata()? {
            return Ok(FillState::Full);
        }
        let fill = self.fill(durable)?;
        let Some(producer) = &mut self.producer else { return Ok(FillState::Full) };
        let wait = match fill {
            FillState::More => Duration::ZERO,
            FillState::Full => BUSY_TICK,
            FillState::AtEnd if self.window.len() > 0 => BUSY_TICK,
            FillState::AtEnd => IDLE_TICK,
        };
        let reports = producer.take_reports(wait);
        let fatal = producer.fatal_error();
        self.handle_reports(reports)?;
        fatal.map_or(Ok(fill), |text| Err(PublishError::Fatal(text)))
    }

    /// Whether the partitions of the topic are known; sending waits until a broker has named them.
    fn fetch_metadata(&mut self) -> Result<bool, PublishError> {
        let Some(producer) = &mut self.producer else { return Ok(false) };
        match producer.fetch_metadata() {
            Ok(()) => Ok(true),
            Err(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve,
            ) => {
                // The poll delivers the client's errors; it may deliver reports as well.
                let reports = producer.take_reports(BUSY_TICK);
                self.handle_reports(reports)?;
                Ok(false)
            }
            Err(code) => Err(self.refused(code)),
        }
    }

    /// Creates a producer and goes back to the first unacknowledged entry. The old producer is gone by now.
    fn recreate_producer(&mut self) -> Result<(), PublishError> {
        let part_bytes = self.size_limited.then_some(self.part_bytes);
        self.producer = Some(Producer::create(&self.publisher.kafka, &self.health, part_bytes)?);
        let acknowledged = self.window.acknowledged();
        self.reader = JournalReader::open(&self.publisher.sink.folder, acknowledged)?;
        self.publisher.sink.gauges.add_resent(self.window.len() as u64);
        self.window = DeliveryWindow::new(acknowledged);
        self.outbox.clear();
        self.in_flight_bytes = 0;
        self.last_acknowledgement = Instant::now();
        Ok(())
    }

    fn fill(&mut self, durable: u64) -> Result<FillState, PublishError> {
        for _ in 0..ROUND_ENTRIES {
            let full = self.in_flight_bytes >= MAX_IN_FLIGHT_BYTES || self.window.len() >= MAX_IN_FLIGHT;
            if !self.send_outbox()? || full {
                return Ok(FillState::Full);
            }
            let entry = self.reader.next(durable)?;
            self.publisher.sink.gauges.add_skipped(self.reader.take_skipped());
            let Some(entry) = entry else { return Ok(FillState::AtEnd) };
            self.enqueue_entry(&entry)?;
        }
        Ok(FillState::More)
    }

    fn enqueue_entry(&mut self, entry: &JournalEntry) -> Result<(), PublishError> {
        let payloads = message_values(entry, &self.publisher.sink.journal, self.part_bytes)?;
        if self.window.len() == 0 {
            self.last_acknowledgement = Instant::now();
        }
        let parts = u32::try_from(payloads.len()).unwrap_or(u32::MAX);
        self.window.push(entry.position, parts, entry.exchanges(), entry.ended_at());
        let key: Arc<[u8]> = entry.key().into();
        for payload in payloads {
            self.in_flight_bytes += payload.len();
            self.outbox.push_back(OutgoingMessage {
                key: Arc::clone(&key),
                payload,
                position: entry.position,
            });
        }
        Ok(())
    }

    /// Sends the outbox; `false` if a message has to wait.
    fn send_outbox(&mut self) -> Result<bool, PublishError> {
        let Some(producer) = &mut self.producer else { return Ok(false) };
        while let Some(next) = self.outbox.front() {
            let partition = producer.partition_of(&next.key);
            if !producer.can_send(partition) {
                return Ok(false);
            }
            let message = InFlightMessage { position: next.position, partition, bytes: next.payload.len() };
            match producer.send(&next.key, &next.payload, message) {
                Ok(()) => {
                    self.outbox.pop_front();
                }
                Err(RDKafkaErrorCode::QueueFull) => return Ok(false),
                Err(code) => return Err(self.refused(code)),
            }
        }
        Ok(true)
    }

    /// Records acknowledgements.
    ///
    /// # Errors
    /// A broker refused a message.
    fn handle_reports(&mut self, reports: Vec<DeliveryReport>) -> Result<(), PublishError> {
        // The first refusal is the cause; the later ones follow from it.
        let refusals = self.record_acknowledgements(reports);
        refusals.first().map_or(Ok(()), |code| Err(self.refused(*code)))
    }

    /// Records acknowledgements and returns the refusals.
    fn record_acknowledgements(&mut self, reports: Vec<DeliveryReport>) -> Vec<RDKafkaErrorCode> {
        let mut refusals = Vec::new();
        for DeliveryReport { message, refusal } in reports {
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(message.bytes);
            if let Some(code) = refusal {
                refusals.push(code);
                continue;
            }
            self.last_acknowledgement = Instant::now();
            self.retry.backoff.reset();
            if self.retry.logged.take().is_some() {
                tracing::info!(topic = self.publisher.kafka.topic, "publishing works again");
            }
            let exchanges = self.window.acknowledge(message.position);
            self.publisher.sink.sessions.count_published(exchanges);
        }
        refusals
    }

    fn refused(&self, code: RDKafkaErrorCode) -> PublishError {
        PublishError::Refused { topic: self.publisher.kafka.topic.clone(), code }
    }

    /// Ends the producer. After a pause everything unacknowledged is sent again.
    fn reset_producer(&mut self, error: PublishError) {
        // A producer with a fatal error refuses every message; only the report of the first refusal has the cause.
        let ended = matches!(
            error,
            PublishError::Fatal(_) | PublishError::Refused { code: RDKafkaErrorCode::Fatal, .. }
        );
        let reports = self.producer.as_mut().map(|producer| producer.take_reports(BUSY_TICK));
        let refusals = self.record_acknowledgements(reports.unwrap_or_default());
        let cause = refusals.into_iter().find(|code| producer::is_cause(*code)).filter(|_| ended);
        let error = cause.map_or(error, |code| self.refused(code));
        self.producer = None;
        let too_large =
            matches!(error, PublishError::Refused { code: RDKafkaErrorCode::MessageSizeTooLarge, .. });
        if too_large && self.part_bytes > MIN_PART_BYTES {
            self.part_bytes = (self.part_bytes / 2).max(MIN_PART_BYTES);
            self.size_limited = true;
            tracing::warn!(
                topic = self.publisher.kafka.topic,
                bytes = self.part_bytes,
                "the broker refuses messages of this size; sending smaller parts"
            );
            self.retry.not_before = Instant::now();
            return;
        }
        let text = error.to_string();
        if self.retry.logged.as_ref() != Some(&text) {
            tracing::error!(error = text, "publishing failed; the journal keeps the records, retrying");
            self.retry.logged = Some(text);
        }
        self.retry.not_before = Instant::now() + self.retry.backoff.next_delay();
    }

    fn update_gauges(&mut self, durable: u64, at_end: bool) {
        let no_metadata = self.producer.as_ref().is_some_and(|producer| !producer.has_metadata());
        if (self.window.len() > 0 || no_metadata) && self.last_acknowledgement.elapsed() >= STALL {
            self.health.mark_down("no acknowledgement for 10 s");
        }
        let all_acknowledged = at_end && self.window.len() == 0;
        let delivered = if all_acknowledged { durable } else { self.window.acknowledged() };
        let gauges = &self.publisher.sink.gauges;
        gauges.set_delivered(delivered, self.window.oldest());
        gauges.set_brokers_lost(self.health.down_reason().is_some() || self.retry.logged.is_some());
        if self.last_release.elapsed() >= RELEASE_EVERY {
            self.release();
        }
    }

    /// Saves the checkpoint and releases acknowledged entries to the journal.
    fn release(&mut self) {
        self.last_release = Instant::now();
        let acknowledged = self.window.acknowledged();
        if acknowledged > self.released {
            self.released = acknowledged;
            self.publisher.sink.advance(acknowledged);
        }
    }
}

/// The values of an entry's messages: one, or several parts of at most `part_bytes` of content.
fn message_values(
    entry: &JournalEntry,
    journal: &str,
    part_bytes: usize,
) -> Result<Vec<Vec<u8>>, RecordError> {
    let mut content = Vec::with_capacity(entry.bytes() + 64);
    for record in entry.records() {
        codec::write_framed(&mut content, &record.encoded)?;
    }
    let parts = u32::try_from(content.len().div_ceil(part_bytes)).unwrap_or(u32::MAX);
    let value = |(part, span): (u32, &[u8])| {
        let (journal, content) = (journal.to_owned(), span.to_vec());
        MessageValue { journal, position: entry.position, part, parts, content }.encode()
    };
    (0..parts).zip(content.chunks(part_bytes)).map(value).collect()
}

/// Instruction for a refusal.
fn remedy(code: RDKafkaErrorCode) -> &'static str {
    match code {
        RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::UnknownTopicOrPartition
        | RDKafkaErrorCode::UnknownPartition
        | RDKafkaErrorCode::InvalidTopic => "create the topic, or correct `kafka.topic`",
        RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            "allow this user to write to the topic"
        }
        RDKafkaErrorCode::MessageSizeTooLarge => "raise `max.message.bytes` of the topic to 64 KiB or more",
        _ => "check the broker's log",
    }
}

#[cfg(test)]
mod tests {
    use schemas::id::{AgentId, TenantId};
    use store::log::{LogOptions, LogWriter};

    use super::*;
    use crate::capture::queue::journal_queue;
    use crate::capture::sessions::{SessionRegistry, SessionScope};
    use crate::journal::checkpoint::Checkpoint;
    use crate::journal::reader::tests::{chunk, close};

    #[test]
    fn an_entry_becomes_one_message_or_parts_with_one_position() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = LogWriter::open(folder.path(), LogOptions::default()).expect("opens");
        let written = [chunk("s", 1, 2000), chunk("s", 2, 3000), close("s")];
        for record in &written {
            writer.append(record).expect("has room");
        }
        writer.sync().expect("syncs");
        let entry = JournalReader::open(folder.path(), 0).and_then(|mut reader| reader.next(3));
        let entry = entry.expect("reads").expect("an entry");
        assert_eq!(entry.key(), b"t\0s");
        for (part_bytes, count) in [(1 << 20, 1), (1000, 6)] {
            let values = message_values(&entry, "j", part_bytes).expect("encodes");
            assert_eq!(values.len(), count);
            let mut content = Vec::new();
            for (part, value) in (0u32..).zip(&values) {
                let value = MessageValue::decode(value).expect("decodes");
                assert_eq!((value.journal.as_str(), value.position, value.part), ("j", 2, part));
                assert_eq!(value.parts as usize, count);
                content.extend(value.content);
            }
            let records: Result<Vec<&[u8]>, _> = codec::read_framed(&content).collect();
            assert_eq!(records.expect("complete"), written);
        }
    }

    /// A publish loop over an empty journal, whose broker does not exist, with one entry of one exchange in flight.
    fn unreachable(folder: &std::path::Path) -> PublishLoop {
        drop(LogWriter::open(folder, LogOptions::default()).expect("opens"));
        let kafka = toml::from_str("brokers = \"127.0.0.1:1\"").expect("the table parses");
        let scope = SessionScope {
            tenant: TenantId::parse("t").expect("id"),
            agent: AgentId::parse("a").expect("id"),
            build: None,
        };
        let hour = Duration::from_secs(3600);
        let sink = SinkContext {
            folder: folder.to_owned(),
            journal: "j".to_owned(),
            sessions: Arc::new(SessionRegistry::new(scope, "i".to_owned(), hour, hour)),
            gauges: Arc::default(),
            queue: journal_queue(4).0,
            checkpoint: Checkpoint::open(folder, "j"),
        };
        let mut publish_loop = PublishLoop::new(Publisher { kafka, sink }).expect("the journal opens");
        publish_loop.recreate_producer().expect("a producer");
        publish_loop.window.push(0, 1, 1, 0);
        publish_loop
    }

    fn add_report(publish_loop: &PublishLoop, refusal: Option<RDKafkaErrorCode>) {
        let message = InFlightMessage { position: 0, partition: 0, bytes: 9 };
        let producer = publish_loop.producer.as_ref().expect("a producer");
        producer.add_report(DeliveryReport { message, refusal });
    }

    #[test]
    fn a_delivery_report_that_arrives_before_the_metadata_is_handled() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut publish_loop = unreachable(folder.path());
        add_report(&publish_loop, None);
        assert!(!publish_loop.fetch_metadata().expect("no refusal"), "no broker answers");
        assert_eq!(publish_loop.window.acknowledged(), 1);
        assert_eq!(publish_loop.publisher.sink.sessions.counts().published, 1);
        let mut publish_loop = unreachable(folder.path());
        add_report(&publish_loop, Some(RDKafkaErrorCode::TopicAuthorizationFailed));
        let error = publish_loop.fetch_metadata().expect_err("a refusal").to_string();
        assert!(error.contains("allow this user to write"), "{error}");
    }

    #[test]
    fn a_delivery_report_that_arrives_with_a_fatal_error_is_handled() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut publish_loop = unreachable(folder.path());
        add_report(&publish_loop, None);
        publish_loop.reset_producer(PublishError::Fatal("gap".to_owned()));
        assert_eq!(publish_loop.window.acknowledged(), 1);
    }
}
