//! The reading side: one thread that polls the broker, decodes, gathers, and hands batches to the writers.
//!
//! It alone knows where each partition stands; the group's decisions and the writers' news change that between two polls.
//! The position to go on from is always the store's, never the group's offset, which is only written for whoever watches
//! the group's lag.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use tokio::task::JoinHandle;

use super::ArchiverError;
use super::consumer_callbacks::Group;
use super::dead_letters::DeadLetters;
use super::partition::{Desk, Partition, Stage};
use super::partition_buffer::{Gathering, Taken};
use super::writer::{News, Report};
use crate::config::ArchiveConfig;
use crate::metrics::kafka_archiver::Counts;

mod assignment;
mod backpressure;

/// Bytes of messages that are read and not committed, over all partitions; then nothing is read until some are.
pub(crate) const MEMORY_BYTES: u64 = 128 << 20;

/// The longest a poll waits for a message.
const POLL_WAIT: Duration = Duration::from_millis(100);

/// The same while a partition is being claimed: its messages are asked for once the writer has said where it goes on.
const CLAIM_POLL_WAIT: Duration = Duration::from_millis(5);

/// Messages taken between two looks at everything else.
const MAX_MESSAGES_A_TURN: usize = 1000;

/// Bytes of messages taken between two looks at everything else.
const MAX_BYTES_A_TURN: usize = 4 << 20;

/// How long reading waits for the writers before it pauses the partitions and only answers the group.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest that partitions which are given up wait for their last commit.
const LEAVE_WAIT: Duration = Duration::from_secs(20);

/// The longest that a question to the broker may take.
const ASK_WAIT: Duration = Duration::from_secs(5);

/// How long a partition that another process has claimed is left alone: longer than the group needs to say that it is
/// not this process's any more.
const LOST_REST: Duration = Duration::from_secs(6);

/// How long nothing must have come before the rest is committed, where the work is to end once nothing comes.
const SETTLED: Duration = Duration::from_millis(100);

/// Where everything is read and the work is to end once nothing comes, a batch is due at this part of its size.
const QUIET_SHARE: u64 = 4;

/// A turn that took longer than this was no time in which parts could have come.
const LONG_TURN: Duration = Duration::from_secs(5);

/// How often it is said how far the partitions are behind.
const LAG_EVERY: Duration = Duration::from_secs(5);

/// Partitions that the group has revoked, and until when their last commits may take.
#[derive(Debug)]
struct Leaving {
    partitions: Vec<i32>,
    deadline: Instant,
}

/// How the archiver comes to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    No,
    /// Nothing has come for the wanted time: the rest is being committed, and reading goes on until it is.
    Idle,
    /// A stop was asked for: the rest is committed once, until then.
    Stop {
        deadline: Instant,
    },
}

/// The reading side of an archiver.
pub(crate) struct Reader {
    pub(crate) consumer: BaseConsumer<Group>,
    pub(crate) desk: Desk,
    pub(crate) reports: Receiver<Report>,
    pub(crate) dead: DeadLetters,
    pub(crate) counts: Counts,
    pub(crate) config: ArchiveConfig,
    pub(crate) until_idle: Option<Duration>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) state: State,
}

/// What the reader knows.
pub(crate) struct State {
    partitions: BTreeMap<i32, Partition>,
    leaving: Option<Leaving>,
    ended: Vec<JoinHandle<()>>,
    epoch: u64,
    joined: bool,
    end: End,
    /// When a message came last, or a partition.
    active: Instant,
    /// When the last turn began.
    turned: Instant,
    /// Since when the memory bound is reached.
    full_since: Option<Instant>,
    paused: bool,
    refused: bool,
    lag_at: Instant,
    /// Parts that stay in Kafka, counted when their partition was given up.
    waiting_parts: u64,
    uncommitted: u64,
}

impl State {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            partitions: BTreeMap::new(),
            leaving: None,
            ended: Vec::new(),
            epoch: 0,
            joined: false,
            end: End::No,
            active: now,
            turned: now,
            full_since: None,
            paused: false,
            refused: false,
            lag_at: now,
            waiting_parts: 0,
            uncommitted: 0,
        }
    }

    fn bytes(&self) -> u64 {
        self.partitions.values().map(Partition::bytes).sum()
    }

    fn next_epoch(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch
    }
}

impl Reader {
    /// Works until a stop is asked for, or nothing has come for the wanted time and all is committed.
    pub(crate) fn run(mut self) -> Result<super::Summary, ArchiverError> {
        let worked = self.work();
        self.close();
        worked?;
        let mut summary = self.counts.summary();
        summary.waiting_parts = self.state.waiting_parts;
        summary.uncommitted = self.state.uncommitted;
        Ok(summary)
    }

    fn work(&mut self) -> Result<(), ArchiverError> {
        loop {
            let now = Instant::now();
            if now.saturating_duration_since(self.state.turned) > LONG_TURN {
                self.wait_anew(now);
            }
            self.state.turned = now;
            while let Ok(report) = self.reports.try_recv() {
                self.hear(report, now)?;
            }
            self.follow_group(now);
            self.seek_claimed(now)?;
            self.bury(now);
            self.claim_rested(now);
            self.roll(now);
            self.finish_leaving(now);
            self.report_lag(now);
            if self.is_over(now) {
                return Ok(());
            }
            if self.has_room(now) {
                self.read()?;
            } else {
                match self.reports.recv_timeout(POLL_WAIT) {
                    Ok(report) => self.hear(report, now)?,
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
                }
            }
        }
    }

    /// Takes the news of a writer.
    fn hear(&mut self, Report { partition, epoch, news }: Report, now: Instant) -> Result<(), ArchiverError> {
        let Some(held) = self.state.partitions.get_mut(&partition).filter(|held| held.epoch == epoch) else {
            // The writer of a partition that was given up in haste: what it has done is counted all the same.
            if let News::Committed { exchanges, files, .. } = news {
                self.count_commit(exchanges, files);
            }
            return Ok(());
        };
        match news {
            News::Claimed { position, journals } => {
                if std::mem::take(&mut self.state.refused) {
                    tracing::warn!("the store answers again");
                }
                held.stored = position;
                held.gathering = Gathering::new(position, &journals);
                if matches!(held.stage, Stage::Claiming) {
                    held.stage = Stage::Seeking { position };
                }
                tracing::info!(partition, position, "partition claimed");
            }
            News::Committed { next, exchanges, files } => {
                held.committed();
                self.tell_group(partition, next);
                self.count_commit(exchanges, files);
            }
            News::Refused(problem) => {
                if !std::mem::replace(&mut self.state.refused, true) {
                    tracing::error!(partition, %problem, "the partition cannot be claimed; trying again");
                }
            }
            News::Failed(problem) => {
                tracing::error!(partition, %problem, "a commit failed; its messages are read again");
                self.drop_gathered(partition, Duration::ZERO, now);
            }
            News::Lost(problem) => {
                tracing::warn!(
                    partition,
                    %problem,
                    "the partition is another process's; what was gathered of it is dropped. If this goes on, two \
                     consumer groups write to one store: give each a store of its own"
                );
                self.counts.takeovers.inc();
                self.drop_gathered(partition, LOST_REST, now);
            }
        }
        Ok(())
    }

    fn count_commit(&self, exchanges: u64, files: u64) {
        self.counts.commits.inc();
        self.counts.archived.inc_by(exchanges);
        self.counts.files.inc_by(files);
    }

    /// Drops what is gathered and not committed; it is read again under a new claim, if the group leaves the partition here.
    fn drop_gathered(&mut self, partition: i32, at_least: Duration, now: Instant) {
        self.dead.forget(partition);
        let Some(held) = self.state.partitions.get_mut(&partition) else { return };
        let leaving = matches!(held.stage, Stage::Leaving);
        if leaving && matches!(self.state.end, End::Stop { .. }) {
            self.state.uncommitted += held.gathering.next().saturating_sub(held.stored);
        }
        held.rest(now, at_least);
        if leaving {
            held.stage = Stage::Leaving;
        }
        self.pause(&[partition]);
    }

    /// Whether the work is done; begins to end it where it is to end.
    fn is_over(&mut self, now: Instant) -> bool {
        if self.stop.load(Ordering::Relaxed) && !matches!(self.state.end, End::Stop { .. }) {
            return self.begin_stop(now);
        }
        match self.state.end {
            End::Stop { deadline } => self.state.partitions.is_empty() || now >= deadline,
            End::No | End::Idle => {
                let Some(wanted) = self.until_idle else { return false };
                let quiet = self.is_quiet() && now.saturating_duration_since(self.state.active) >= wanted;
                self.state.end = if quiet { End::Idle } else { End::No };
                quiet && self.state.partitions.values().all(Partition::is_clean) && self.begin_stop(now)
            }
        }
    }

    /// Whether everything that is assigned is read to its end.
    fn is_quiet(&self) -> bool {
        let read = |held: &Partition| matches!(held.stage, Stage::Reading) && held.at_end;
        self.state.joined && self.state.leaving.is_none() && self.state.partitions.values().all(read)
    }

    fn begin_stop(&mut self, now: Instant) -> bool {
        let deadline = now + LEAVE_WAIT;
        self.state.end = End::Stop { deadline };
        let mut all: Vec<i32> = self.state.partitions.keys().copied().collect();
        all.extend(self.state.leaving.take().into_iter().flat_map(|leaving| leaving.partitions));
        all.dedup();
        self.leave(all, deadline);
        self.state.partitions.is_empty()
    }

    /// Polls, and gathers what comes.
    fn read(&mut self) -> Result<(), ArchiverError> {
        let is_claiming = |held: &Partition| matches!(held.stage, Stage::Claiming | Stage::Seeking { .. });
        let claiming = !self.state.refused && self.state.partitions.values().any(is_claiming);
        let mut wait = if claiming { CLAIM_POLL_WAIT } else { POLL_WAIT };
        let mut bytes = 0;
        for _ in 0..MAX_MESSAGES_A_TURN {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let now = self.state.turned;
                    bytes += message.payload_len();
                    take(&mut self.state, &self.counts, &self.consumer, &message, now);
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.consumer.context().health().mark_up();
                    let held = self.state.partitions.get_mut(&partition);
                    if let Some(held) = held.filter(|held| matches!(held.stage, Stage::Reading)) {
                        held.at_end = true;
                    }
                }
                Some(Err(error)) => self.fail(&error)?,
            }
            wait = Duration::ZERO;
            if bytes >= MAX_BYTES_A_TURN {
                break;
            }
        }
        if bytes > 0 {
            self.consumer.context().health().mark_up();
        }
        let now = self.state.turned;
        for (partition, held) in &mut self.state.partitions {
            if held.at_end && !self.state.paused && !held.held {
                held.gathering.expire(now);
            }
            let letters = held.gathering.buried();
            if !letters.is_empty() {
                self.dead.add(*partition, letters, now);
            }
        }
        Ok(())
    }

    /// Takes an error of a poll: most pass by themselves.
    fn fail(&self, error: &KafkaError) -> Result<(), ArchiverError> {
        let topic = || self.desk.topic.clone();
        match error {
            KafkaError::MessageConsumptionFatal(_) => Err(ArchiverError::Kafka(error.to_string())),
            KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownTopicOrPartition)
                if self.until_idle.is_some() && self.state.partitions.is_empty() =>
            {
                Err(ArchiverError::NoTopic { topic: topic() })
            }
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed,
            ) => Err(ArchiverError::Refused { topic: topic(), detail: error.to_string() }),
            // The client's context has heard of it too, and says what is to be said.
            _ => Ok(()),
        }
    }

    fn wait_anew(&mut self, now: Instant) {
        for held in self.state.partitions.values_mut() {
            held.gathering.wait_anew(now);
        }
    }
}

/// Gathers a message.
fn take(
    state: &mut State,
    counts: &Counts,
    consumer: &BaseConsumer<Group>,
    message: &BorrowedMessage<'_>,
    now: Instant,
) {
    let partition = message.partition();
    let Some(held) = state.partitions.get_mut(&partition) else { return };
    let Ok(offset) = u64::try_from(message.offset()) else { return };
    if !matches!(held.stage, Stage::Reading) {
        return;
    }
    held.at_end = false;
    let expected = held.gathering.next();
    if offset > expected && held.hole != Some(expected) {
        // Nothing may be passed over because the consumer stands elsewhere than it was told to.
        tracing::warn!(partition, expected, offset, "messages are missing; going back to look again");
        held.hole = Some(expected);
        held.stage = Stage::Seeking { position: expected };
        return;
    }
    if offset > expected
        && let Some(ends) = consumer.context().ends(partition)
    {
        // Transactions and compaction leave holes, found a second time; what is below the low end was deleted.
        count_expired(counts, partition, expected, ends.low.min(offset));
    }
    let payload = message.payload().unwrap_or_default();
    match held.gathering.push(offset, message.key().unwrap_or_default(), payload, now) {
        Taken::Passed => return,
        Taken::Redelivered => {
            counts.redelivered.inc();
        }
        Taken::Part | Taken::Buried | Taken::Gathered => {}
    }
    state.active = now;
    counts.consumed.inc();
    counts.consumed_bytes.inc_by(payload.len() as u64);
}

/// Says loudly what the broker has deleted before it was read.
fn count_expired(counts: &Counts, partition: i32, position: u64, low: u64) {
    let lost = low.saturating_sub(position);
    if lost > 0 {
        tracing::error!(
            partition,
            lost,
            from = position,
            to = low,
            "messages were deleted by the broker before they were read: they are lost. Give the topic a longer \
             retention, or archive sooner"
        );
        counts.expired.inc_by(lost);
    }
}
