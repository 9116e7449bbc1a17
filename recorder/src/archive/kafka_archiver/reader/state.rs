//! The reader's state and its bounds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::archive::kafka_archiver::consumer_callbacks::ConsumerCallbacks;
use crate::archive::kafka_archiver::dead_letters::DeadLetters;
use crate::archive::kafka_archiver::partition::Partition;
use crate::archive::kafka_archiver::writer::{WriterContext, WriterReport};
use crate::config::ArchiveConfig;
use crate::metrics::kafka_archiver::ArchiverCounters;

/// Bytes of messages that are read and not committed, over all partitions. At the bound, reading stops.
pub(super) const MAX_BUFFERED_BYTES: u64 = 128 << 20;

/// The longest wait of a poll for a message.
pub(super) const POLL_WAIT: Duration = Duration::from_millis(100);

/// Time that the buffer may stay full before the reader pauses the partitions and polls for the group's sake.
pub(super) const FULL_BEFORE_PAUSE: Duration = Duration::from_secs(10);

/// The longest wait for the last commit of revoked partitions.
pub(super) const LEAVE_WAIT: Duration = Duration::from_secs(20);

/// The longest wait for an answer of a broker.
pub(super) const BROKER_WAIT: Duration = Duration::from_secs(5);

/// Time between two updates of the lag gauges.
pub(super) const LAG_EVERY: Duration = Duration::from_secs(5);

/// Partitions that the group has revoked.
#[derive(Debug)]
pub(super) struct Revocation {
    pub(super) partitions: Vec<i32>,
    /// Latest time of their last commits.
    pub(super) deadline: Instant,
}

/// The reading side of an archiver.
pub(crate) struct Reader {
    pub(crate) consumer: BaseConsumer<ConsumerCallbacks>,
    pub(crate) writers: WriterContext,
    pub(crate) reports: mpsc::Receiver<WriterReport>,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) counters: ArchiverCounters,
    pub(crate) config: ArchiveConfig,
    pub(crate) exit_when_idle: Option<Duration>,
    /// Set by `Archiver::stop`.
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) state: ReaderState,
}

/// The mutable state of the reader.
pub(crate) struct ReaderState {
    pub(super) partitions: BTreeMap<i32, Partition>,
    pub(super) revocation: Option<Revocation>,
    /// Tasks of writers that are closed and may still run.
    pub(super) closed_writers: Vec<JoinHandle<()>>,
    pub(super) last_epoch: u64,
    /// Whether the group has assigned partitions at least once.
    pub(super) joined: bool,
    /// Deadline of an orderly stop; absent while the archiver runs.
    pub(super) stop_deadline: Option<Instant>,
    /// Arrival of the last message, or of the last change of the assignment.
    pub(super) last_activity: Instant,
    /// Start of the current pass of the reader's loop.
    pub(super) pass_started: Instant,
    /// Since when the buffer is full.
    pub(super) full_since: Option<Instant>,
    pub(super) paused: bool,
    /// Whether the last claim was refused, so that a change is logged once.
    pub(super) claim_refused: bool,
    pub(super) lag_reported: Instant,
    /// Parts of incomplete messages in partitions that were given up in the stop.
    pub(super) waiting_parts: u64,
    /// Uncommitted messages of partitions that were given up in the stop.
    pub(super) uncommitted: u64,
}

impl ReaderState {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            partitions: BTreeMap::new(),
            revocation: None,
            closed_writers: Vec::new(),
            last_epoch: 0,
            joined: false,
            stop_deadline: None,
            last_activity: now,
            pass_started: now,
            full_since: None,
            paused: false,
            claim_refused: false,
            lag_reported: now,
            waiting_parts: 0,
            uncommitted: 0,
        }
    }

    /// Bytes of messages that are read and not committed.
    pub(super) fn bytes(&self) -> u64 {
        self.partitions.values().map(Partition::bytes).sum()
    }

    pub(super) fn next_epoch(&mut self) -> u64 {
        self.last_epoch += 1;
        self.last_epoch
    }

    /// Restarts the timeouts of incomplete messages.
    pub(super) fn reset_part_timeouts(&mut self, now: Instant) {
        for partition in self.partitions.values_mut() {
            partition.buffer.reset_part_timeouts(now);
        }
    }
}

/// Counts and logs messages that the broker deleted before the archiver read them.
pub(super) fn count_expired(
    counters: &ArchiverCounters,
    topic: &str,
    partition: i32,
    position: u64,
    low: u64,
) {
    let lost = low.saturating_sub(position);
    if lost > 0 {
        tracing::error!(
            topic,
            partition,
            lost,
            from = position,
            to = low,
            "the broker deleted messages before the archiver read them, so they are lost; raise the topic's retention, or \
             run more archivers"
        );
        counters.expired.inc_by(lost);
    }
}
