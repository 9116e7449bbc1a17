//! Reader thread: polls the broker, decodes and buffers messages, and sends batches to the writers.
//!
//! The reader owns the state of every partition. Decisions of the group and reports of writers change that state between two
//! polls. A partition always resumes at the position in the store; the offset committed to the group only shows the lag to
//! Kafka's tools.

mod assignment;
mod backpressure;
mod state;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};

use super::consumer_callbacks::ConsumerCallbacks;
use super::error::ArchiverError;
use super::partition::{Partition, PartitionState};
use super::partition_buffer::{PartitionBuffer, PushOutcome};
use super::writer::{WriterEvent, WriterReport};
use crate::metrics::kafka_archiver::{ArchiverCounters, ArchiverSummary};

use self::state::{LEAVE_WAIT, POLL_WAIT, count_expired};
pub(crate) use self::state::{Reader, ReaderState};

/// The longest wait of a poll while a partition is being claimed: its consumer must seek soon after the claim.
const CLAIM_POLL_WAIT: Duration = Duration::from_millis(5);

/// Messages read in one pass of the loop.
const MAX_PASS_MESSAGES: usize = 1000;

/// Bytes read in one pass of the loop.
const MAX_PASS_BYTES: usize = 4 << 20;

/// Delay before the next claim of a partition that another process has claimed: longer than a rebalance takes to revoke it.
const LOST_BACKOFF: Duration = Duration::from_secs(6);

/// A pass that took longer than this does not count towards the timeout of incomplete messages.
const LONG_PASS: Duration = Duration::from_secs(5);

impl Reader {
    /// Runs until a stop is requested or the archiver is idle for the configured time.
    ///
    /// # Errors
    /// The consumer has failed for good, or the topic cannot be read.
    pub(crate) fn run(mut self) -> Result<ArchiverSummary, ArchiverError> {
        let result = self.run_loop();
        self.close();
        result?;
        let mut summary = self.counters.summary();
        summary.waiting_parts = self.state.waiting_parts;
        summary.uncommitted = self.state.uncommitted;
        Ok(summary)
    }

    fn run_loop(&mut self) -> Result<(), ArchiverError> {
        loop {
            let now = Instant::now();
            if now.saturating_duration_since(self.state.pass_started) > LONG_PASS {
                self.state.reset_part_timeouts(now);
            }
            self.state.pass_started = now;
            while let Ok(report) = self.reports.try_recv() {
                self.handle_report(report, now);
            }
            self.apply_rebalances(now);
            self.seek_claimed(now)?;
            self.poll_dead_letters(now);
            self.claim_after_backoff(now);
            self.start_due_commits(now);
            self.finish_revocation(now);
            self.report_lag(now);
            if self.is_finished(now) {
                return Ok(());
            }
            if self.has_room(now) {
                self.read()?;
            } else if let Some(report) = self.wait_for_report() {
                self.handle_report(report, now);
            }
        }
    }

    fn wait_for_report(&mut self) -> Option<WriterReport> {
        let runtime = self.writers.runtime.clone();
        runtime.block_on(async { tokio::time::timeout(POLL_WAIT, self.reports.recv()).await.ok().flatten() })
    }

    fn handle_report(&mut self, report: WriterReport, now: Instant) {
        let WriterReport { partition: number, epoch, event } = report;
        let partition = self.state.partitions.get_mut(&number).filter(|partition| partition.epoch == epoch);
        let Some(partition) = partition else {
            // From the writer of a partition that was given up at its deadline. Its commit exists all the same.
            if let WriterEvent::Committed { exchanges, files, .. } = event {
                self.counters.count_commit(exchanges, files);
            }
            return;
        };
        let topic = &self.writers.topic;
        match event {
            WriterEvent::Claimed { position, journals } => {
                if std::mem::take(&mut self.state.claim_refused) {
                    tracing::warn!("the store accepts claims again");
                }
                partition.committed = position;
                partition.buffer = PartitionBuffer::new(position, &journals);
                if matches!(partition.state, PartitionState::Claiming) {
                    partition.state = PartitionState::Seeking { position };
                }
                tracing::info!(topic, partition = number, position, "partition claimed");
            }
            WriterEvent::Committed { next, exchanges, files } => {
                partition.commit_made();
                self.counters.count_commit(exchanges, files);
                self.commit_offset(number, next);
            }
            WriterEvent::ClaimRefused(error) => {
                if !std::mem::replace(&mut self.state.claim_refused, true) {
                    tracing::error!(
                        topic,
                        partition = number,
                        error,
                        "partition cannot be claimed; retrying"
                    );
                }
            }
            WriterEvent::CommitFailed(error) => {
                let from = partition.committed;
                tracing::error!(
                    topic,
                    partition = number,
                    error,
                    from,
                    "commit failed; reading again from the last commit"
                );
                self.drop_uncommitted(number, Duration::ZERO, now);
            }
            WriterEvent::PartitionLost(error) => {
                tracing::warn!(
                    topic,
                    partition = number,
                    error,
                    "another process has claimed the partition; uncommitted messages are dropped. If this repeats, two \
                     consumer groups write to one store: give each group its own store"
                );
                self.counters.takeovers.inc();
                self.drop_uncommitted(number, LOST_BACKOFF, now);
            }
        }
    }

    /// Drops the uncommitted messages of a partition. After a new claim the reader reads them again, unless the group has
    /// assigned the partition to another process.
    fn drop_uncommitted(&mut self, number: i32, min_delay: Duration, now: Instant) {
        self.dead_letters.forget(number);
        let Some(partition) = self.state.partitions.get_mut(&number) else { return };
        let leaving = matches!(partition.state, PartitionState::Leaving);
        if leaving && self.state.stop_deadline.is_some() {
            self.state.uncommitted += partition.uncommitted();
        }
        partition.back_off(now, min_delay);
        if leaving {
            partition.state = PartitionState::Leaving;
        }
        self.pause(&[number]);
    }

    /// Whether the loop ends. Starts an orderly stop when one is requested, or when the archiver is idle.
    fn is_finished(&mut self, now: Instant) -> bool {
        if let Some(deadline) = self.state.stop_deadline {
            return self.state.partitions.is_empty() || now >= deadline;
        }
        if self.stop.load(Ordering::Relaxed) || self.is_idle(now) {
            return self.begin_stop(now);
        }
        false
    }

    /// Whether `--exit-when-idle` is due: every partition is read to its end and committed under the normal flush settings,
    /// and no message has arrived for the configured time.
    fn is_idle(&self, now: Instant) -> bool {
        let Some(idle_time) = self.exit_when_idle else { return false };
        let is_idle = |partition: &Partition| {
            matches!(partition.state, PartitionState::Reading) && partition.at_end && partition.is_clean()
        };
        self.state.joined
            && self.state.revocation.is_none()
            && now.saturating_duration_since(self.state.last_activity) >= idle_time
            && self.state.partitions.values().all(is_idle)
    }

    fn begin_stop(&mut self, now: Instant) -> bool {
        let deadline = now + LEAVE_WAIT;
        self.state.stop_deadline = Some(deadline);
        let revoked = self.state.revocation.take().map(|revocation| revocation.partitions);
        let mut all: Vec<i32> = self.state.partitions.keys().copied().collect();
        all.extend(revoked.unwrap_or_default());
        all.sort_unstable();
        all.dedup();
        self.leave(all, deadline);
        self.state.partitions.is_empty()
    }

    /// Polls the broker and buffers messages, up to the bounds of one pass.
    fn read(&mut self) -> Result<(), ArchiverError> {
        let is_claiming = |partition: &Partition| {
            matches!(partition.state, PartitionState::Claiming | PartitionState::Seeking { .. })
        };
        let claiming = !self.state.claim_refused && self.state.partitions.values().any(is_claiming);
        let mut wait = if claiming { CLAIM_POLL_WAIT } else { POLL_WAIT };
        let mut bytes = 0;
        for _ in 0..MAX_PASS_MESSAGES {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    bytes += message.payload_len();
                    buffer_message(&mut self.state, &self.counters, &self.consumer, &message);
                }
                Some(Err(KafkaError::PartitionEOF(number))) => {
                    self.consumer.context().health().mark_up();
                    if let Some(partition) = self.state.partitions.get_mut(&number)
                        && matches!(partition.state, PartitionState::Reading)
                    {
                        partition.at_end = true;
                    }
                }
                Some(Err(error)) => self.check_poll_error(&error)?,
            }
            wait = Duration::ZERO;
            if bytes >= MAX_PASS_BYTES {
                break;
            }
        }
        if bytes > 0 {
            self.consumer.context().health().mark_up();
        }
        let now = self.state.pass_started;
        for (number, partition) in &mut self.state.partitions {
            if partition.at_end && !self.state.paused && !partition.paused_for_dlq {
                partition.buffer.expire_parts(now);
            }
            let letters = partition.buffer.take_dead_letters();
            if !letters.is_empty() {
                self.dead_letters.add(*number, letters, now);
            }
        }
        Ok(())
    }

    /// Separates the poll errors that end the archiver from those that pass.
    fn check_poll_error(&self, error: &KafkaError) -> Result<(), ArchiverError> {
        let topic = || self.writers.topic.clone();
        match error {
            KafkaError::MessageConsumptionFatal(_) => Err(ArchiverError::Kafka(error.to_string())),
            KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownTopicOrPartition)
                if self.exit_when_idle.is_some() && self.state.partitions.is_empty() =>
            {
                Err(ArchiverError::NoTopic { topic: topic() })
            }
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed,
            ) => Err(ArchiverError::AccessDenied { topic: topic(), detail: error.to_string() }),
            // The consumer's callbacks get the error too, and log it.
            _ => Ok(()),
        }
    }
}

fn buffer_message(
    state: &mut ReaderState,
    counters: &ArchiverCounters,
    consumer: &BaseConsumer<ConsumerCallbacks>,
    message: &BorrowedMessage<'_>,
) {
    let (topic, number, now) = (message.topic(), message.partition(), state.pass_started);
    let Some(partition) = state.partitions.get_mut(&number) else { return };
    let Ok(offset) = u64::try_from(message.offset()) else { return };
    if !matches!(partition.state, PartitionState::Reading) {
        return;
    }
    partition.at_end = false;
    let expected = partition.buffer.next();
    if offset > expected && partition.gap_retry != Some(expected) {
        // The consumer may stand elsewhere than the seek asked for; no message may be skipped because of that.
        tracing::warn!(topic, partition = number, expected, offset, "offsets are missing; seeking back once");
        partition.gap_retry = Some(expected);
        partition.state = PartitionState::Seeking { position: expected };
        return;
    }
    if offset > expected
        && let Some(watermarks) = consumer.context().watermarks(number)
    {
        // A gap that remains comes from transactions or compaction; offsets below the low watermark were deleted.
        count_expired(counters, topic, number, expected, watermarks.low.min(offset));
    }
    let payload = message.payload().unwrap_or_default();
    match partition.buffer.push(offset, message.key().unwrap_or_default(), payload, now) {
        PushOutcome::AlreadyRead => return,
        PushOutcome::Redelivered => {
            counters.redelivered.inc();
        }
        PushOutcome::Part | PushOutcome::DeadLettered | PushOutcome::Buffered => {}
    }
    state.last_activity = now;
    counters.consumed.inc();
    counters.consumed_bytes.inc_by(payload.len() as u64);
}
