//! The journal turned into Kafka messages: in order per session, acknowledged before it is let go.
//!
//! A thread of its own that never gives up: while brokers are away the journal grows to its bound, and the tap sheds.
//! What is sent twice, after a restart or a refusal, is told by its position; telling it is the archive's.

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

use self::delivery_window::Window;
use self::producer::{Line, Report, Sent};

mod delivery_window;
mod producer;

/// Bytes of messages that are on their way at a time; one entry may go past it.
const MAX_IN_FLIGHT_BYTES: usize = 32 << 20;

/// Entries that are on their way at a time.
const MAX_IN_FLIGHT: usize = 100_000;

/// Entries that are read between two looks at the reports.
const ROUND: usize = 256;

/// Content of one message where the user does not say more: below the limit that brokers come with (1 MiB).
const PART_BYTES: usize = 900_000;

/// A broker that refuses even parts of this size has a limit that is too small to go on with.
const MIN_PART_BYTES: usize = 8 << 10;

/// How long the thread waits for reports while something is on its way.
const BUSY_TICK: Duration = Duration::from_millis(10);

/// How long it sleeps when nothing is.
const IDLE_TICK: Duration = Duration::from_millis(50);

/// How often the journal is told what it may delete, and the position is written down.
const RELEASE_EVERY: Duration = Duration::from_millis(200);

/// Without an acknowledgement for this long the brokers are taken to be away.
const STALL: Duration = Duration::from_secs(10);

/// The first wait after a refusal; doubled up to [`MAX_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(200);

/// The longest wait after a refusal.
const MAX_RETRY: Duration = Duration::from_secs(15);

/// What the publisher works with.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) kafka: KafkaConfig,
    pub(crate) sink: SinkContext,
}

/// One message that is not sent yet.
#[derive(Debug)]
struct Outgoing {
    key: Arc<[u8]>,
    payload: Vec<u8>,
    position: u64,
}

/// How far a round came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fill {
    /// Everything durable is on its way or has arrived.
    AtEnd,
    /// There is more to read.
    More,
    /// Enough is on its way.
    Full,
}

/// Why nothing goes on for a while.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Journal(#[from] LogError),
    #[error("{0}")]
    Record(#[from] RecordError),
    #[error("{0}")]
    Producer(#[from] KafkaError),
    #[error("the producer has ended: {0}")]
    Fatal(String),
    #[error("{code}; {}", advice(*code))]
    Refused { code: RDKafkaErrorCode },
}

/// The state of the thread.
#[derive(Debug)]
struct Work {
    publisher: Publisher,
    health: Arc<BrokerHealth>,
    /// Absent after a refusal, until the wait is over.
    line: Option<Line>,
    entries: JournalReader,
    outbox: VecDeque<Outgoing>,
    window: Window,
    in_flight_bytes: usize,
    part_bytes: usize,
    /// Set once a broker refused a message for its size.
    shrunk: bool,
    said: Option<String>,
    backoff: Backoff,
    retry_at: Instant,
    last_release: Instant,
    /// When something arrived last, or when something was first on its way again.
    last_arrival: Instant,
    /// Position that the journal was told last.
    released: u64,
}

impl Publisher {
    /// Asks librdkafka whether a producer can be made; no broker is asked.
    pub(crate) fn check(kafka: &KafkaConfig) -> Result<(), KafkaError> {
        Line::open(kafka, &Arc::new(BrokerHealth::default()), None).map(drop)
    }

    /// Works until the flush queue is closed; what is not acknowledged then is in the journal for the next start.
    pub(crate) fn run(self, progress: &watch::Receiver<u64>, mut flushes: mpsc::Receiver<FlushRequest>) {
        let position = self.sink.checkpoint.position();
        let entries = match JournalReader::open(&self.sink.folder, position) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(%error, "the journal cannot be read; nothing is published");
                return;
            }
        };
        let now = Instant::now();
        let part_bytes = producer::part_bytes(&self.kafka, PART_BYTES);
        let mut work = Work {
            publisher: self,
            health: Arc::new(BrokerHealth::default()),
            line: None,
            entries,
            outbox: VecDeque::new(),
            window: Window::new(position),
            in_flight_bytes: 0,
            part_bytes,
            shrunk: false,
            said: None,
            backoff: Backoff::new(FIRST_RETRY, MAX_RETRY),
            retry_at: now,
            last_release: now,
            last_arrival: now,
            released: 0,
        };
        work.run(progress, &mut flushes);
    }
}

impl Work {
    fn run(&mut self, progress: &watch::Receiver<u64>, flushes: &mut mpsc::Receiver<FlushRequest>) {
        let mut waiting: Vec<FlushRequest> = Vec::new();
        loop {
            match flushes.try_recv() {
                Ok(flush) => waiting.push(flush),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => break,
            }
            let synced = *progress.borrow();
            let at_end = match self.step(synced) {
                Ok(fill) => fill == Fill::AtEnd,
                Err(trouble) => {
                    self.give_up(trouble);
                    false
                }
            };
            self.note(synced, at_end);
            let arrived = |flush: &mut FlushRequest| at_end && self.window.is_clear_before(flush.position);
            let arrived: Vec<FlushRequest> = waiting.extract_if(.., arrived).collect();
            if !arrived.is_empty() {
                self.release();
            }
            for flush in arrived {
                // Nobody waits any more: then nobody needs the answer.
                let _ = flush.reply.send(Ok(()));
            }
        }
        self.line = None;
        self.release();
    }

    /// Sends what is new, takes what is reported, and says how far it came.
    fn step(&mut self, synced: u64) -> Result<Fill, Trouble> {
        if self.line.is_none() {
            if Instant::now() < self.retry_at {
                std::thread::sleep(BUSY_TICK);
                return Ok(Fill::Full);
            }
            self.begin_again()?;
        }
        if !self.reaches_topic()? {
            return Ok(Fill::Full);
        }
        let fill = self.fill(synced)?;
        let Some(line) = &mut self.line else { return Ok(Fill::Full) };
        let wait = match fill {
            Fill::More => Duration::ZERO,
            Fill::Full => BUSY_TICK,
            Fill::AtEnd if self.window.len() > 0 => BUSY_TICK,
            Fill::AtEnd => IDLE_TICK,
        };
        let reports = line.reports(wait);
        let fatal = line.fatal();
        self.take(reports)?;
        fatal.map_or(Ok(fill), |text| Err(Trouble::Fatal(text)))
    }

    /// Whether the partitions of the topic are known; where no broker says them, everything waits.
    fn reaches_topic(&mut self) -> Result<bool, Trouble> {
        let Some(line) = &mut self.line else { return Ok(false) };
        match line.ask_partitions() {
            Ok(()) => Ok(true),
            Err(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve,
            ) => {
                // What librdkafka has to say of it.
                let nothing_is_sent = line.reports(BUSY_TICK);
                debug_assert!(nothing_is_sent.is_empty(), "a line without partitions has sent nothing");
                Ok(false)
            }
            Err(code) => Err(Trouble::Refused { code }),
        }
    }

    /// Makes a producer and goes back to what is acknowledged; the one before it is gone by now.
    fn begin_again(&mut self) -> Result<(), Trouble> {
        let limit = self.shrunk.then_some(self.part_bytes);
        self.line = Some(Line::open(&self.publisher.kafka, &self.health, limit)?);
        self.entries = JournalReader::open(&self.publisher.sink.folder, self.window.acknowledged())?;
        self.publisher.sink.gauges.add_resent(self.window.len() as u64);
        self.window = Window::new(self.window.acknowledged());
        self.outbox.clear();
        self.in_flight_bytes = 0;
        self.last_arrival = Instant::now();
        Ok(())
    }

    fn fill(&mut self, synced: u64) -> Result<Fill, Trouble> {
        for _ in 0..ROUND {
            let full = self.in_flight_bytes >= MAX_IN_FLIGHT_BYTES || self.window.len() >= MAX_IN_FLIGHT;
            if !self.send()? || full {
                return Ok(Fill::Full);
            }
            let entry = self.entries.next(synced)?;
            self.publisher.sink.gauges.add_skipped(self.entries.take_skipped());
            let Some(entry) = entry else { return Ok(Fill::AtEnd) };
            self.load(&entry)?;
        }
        Ok(Fill::More)
    }

    /// Makes the messages of an entry.
    fn load(&mut self, entry: &JournalEntry) -> Result<(), Trouble> {
        let payloads = messages(entry, &self.publisher.sink.journal, self.part_bytes)?;
        if self.window.len() == 0 {
            self.last_arrival = Instant::now();
        }
        let parts = u32::try_from(payloads.len()).unwrap_or(u32::MAX);
        self.window.push(entry.position, parts, entry.exchanges(), entry.ended_at());
        let key: Arc<[u8]> = entry.key().into();
        for payload in payloads {
            self.in_flight_bytes += payload.len();
            self.outbox.push_back(Outgoing { key: Arc::clone(&key), payload, position: entry.position });
        }
        Ok(())
    }

    /// Hands waiting messages to the producer; `false` where it takes no more for now.
    fn send(&mut self) -> Result<bool, Trouble> {
        let Some(line) = &mut self.line else { return Ok(false) };
        while let Some(next) = self.outbox.front() {
            let partition = line.partition_of(&next.key);
            if !line.takes(partition) {
                return Ok(false);
            }
            let sent = Sent { position: next.position, partition, bytes: next.payload.len() };
            match line.send(&next.key, &next.payload, sent) {
                Ok(()) => {
                    self.outbox.pop_front();
                }
                Err(RDKafkaErrorCode::QueueFull) => return Ok(false),
                Err(code) => return Err(Trouble::Refused { code }),
            }
        }
        Ok(true)
    }

    fn take(&mut self, reports: Vec<Report>) -> Result<(), Trouble> {
        let mut refused = None;
        for Report { sent, refused: code } in reports {
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(sent.bytes);
            match code {
                None => {
                    self.last_arrival = Instant::now();
                    self.backoff.reset();
                    if self.said.take().is_some() {
                        tracing::info!("the journal is published again");
                    }
                    let exchanges = self.window.arrived(sent.position);
                    self.publisher.sink.sessions.count_published(exchanges);
                }
                // The first one says why; the others fail because of it.
                Some(code) => refused = refused.or(Some(code)),
            }
        }
        refused.map_or(Ok(()), |code| Err(Trouble::Refused { code }))
    }

    /// Ends the producer; after a wait everything that is not acknowledged is sent again.
    fn give_up(&mut self, trouble: Trouble) {
        // A producer that has ended refuses everything; the message that ended it says why.
        let cause = self.line.as_mut().and_then(|line| line.cause(BUSY_TICK));
        let ended = matches!(trouble, Trouble::Fatal(_) | Trouble::Refused { code: RDKafkaErrorCode::Fatal });
        let trouble = cause.filter(|_| ended).map_or(trouble, |code| Trouble::Refused { code });
        self.line = None;
        let too_large = matches!(trouble, Trouble::Refused { code: RDKafkaErrorCode::MessageSizeTooLarge });
        if too_large && self.part_bytes > MIN_PART_BYTES {
            self.part_bytes = (self.part_bytes / 2).max(MIN_PART_BYTES);
            self.shrunk = true;
            tracing::warn!(
                bytes = self.part_bytes,
                "the broker takes no messages of this size; sending smaller parts"
            );
            self.retry_at = Instant::now();
            return;
        }
        let text = trouble.to_string();
        if self.said.as_ref() != Some(&text) {
            tracing::error!(problem = text, "the journal cannot be published; it is kept and tried again");
            self.said = Some(text);
        }
        self.retry_at = Instant::now() + self.backoff.next_delay();
    }

    /// Keeps the gauges, and once in a while tells the journal what it may delete.
    fn note(&mut self, synced: u64, at_end: bool) {
        let unreached = self.line.as_ref().is_some_and(|line| !line.knows_topic());
        if (self.window.len() > 0 || unreached) && self.last_arrival.elapsed() >= STALL {
            self.health.mark_down("nothing was acknowledged for 10 s");
        }
        let clear = at_end && self.window.len() == 0;
        let handed_on = if clear { synced } else { self.window.acknowledged() };
        let gauges = &self.publisher.sink.gauges;
        gauges.set_delivered(handed_on, self.window.oldest());
        gauges.set_brokers_lost(self.health.down_reason().is_some() || self.said.is_some());
        if self.last_release.elapsed() >= RELEASE_EVERY {
            self.release();
        }
    }

    fn release(&mut self) {
        self.last_release = Instant::now();
        let acknowledged = self.window.acknowledged();
        if acknowledged <= self.released {
            return;
        }
        self.released = acknowledged;
        self.publisher.sink.advance(acknowledged);
    }
}

/// The messages of an entry: one, or parts of at most so many bytes of content.
fn messages(entry: &JournalEntry, journal: &str, part_bytes: usize) -> Result<Vec<Vec<u8>>, RecordError> {
    let mut content = Vec::with_capacity(entry.bytes() + 64);
    for read in entry.records() {
        codec::write_framed(&mut content, &read.encoded);
    }
    let parts = u32::try_from(content.len().div_ceil(part_bytes)).unwrap_or(u32::MAX);
    let parcel = |(part, span): (u32, &[u8])| {
        MessageValue {
            journal: journal.to_owned(),
            position: entry.position,
            part,
            parts,
            content: span.to_vec(),
        }
        .encode()
    };
    (0..parts).zip(content.chunks(part_bytes)).map(parcel).collect()
}

/// What is to be done about a refusal.
fn advice(code: RDKafkaErrorCode) -> &'static str {
    match code {
        RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::UnknownTopicOrPartition
        | RDKafkaErrorCode::UnknownPartition
        | RDKafkaErrorCode::InvalidTopic => "create the topic, or correct `kafka.topic`",
        RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            "allow this user to write to the topic"
        }
        RDKafkaErrorCode::MessageSizeTooLarge => "raise `max.message.bytes` of the topic to 64 KiB or more",
        _ => "see the broker's log",
    }
}

#[cfg(test)]
mod tests {
    use store::log::{LogOptions, LogWriter};

    use super::*;
    use crate::journal::reader::tests::{chunk, close};

    #[test]
    fn an_entry_goes_out_whole_or_in_parts_of_one_position() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = LogWriter::open(folder.path(), LogOptions::default()).expect("opens");
        let written = [chunk("s", 1, 2000), chunk("s", 2, 3000), close("s")];
        for record in &written {
            writer.append(record).expect("has room");
        }
        writer.sync().expect("syncs");
        let entry = JournalReader::open(folder.path(), 0).and_then(|mut entries| entries.next(3));
        let entry = entry.expect("reads").expect("an entry");
        assert_eq!(entry.key(), b"t\0s");
        for (part_bytes, count) in [(1 << 20, 1), (1000, 6)] {
            let messages = messages(&entry, "j", part_bytes).expect("encodes");
            assert_eq!(messages.len(), count);
            let mut content = Vec::new();
            for (part, message) in (0u32..).zip(&messages) {
                let parcel = MessageValue::decode(message).expect("decodes");
                assert_eq!((parcel.journal.as_str(), parcel.position, parcel.part), ("j", 2, part));
                assert_eq!(parcel.parts as usize, count);
                content.extend(parcel.content);
            }
            let unpacked: Result<Vec<&[u8]>, _> = codec::read_framed(&content).collect();
            assert_eq!(unpacked.expect("whole"), written);
        }
    }
}
