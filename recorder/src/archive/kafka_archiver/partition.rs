//! One assigned partition: its state, its uncommitted messages, and its running commit.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::partition_buffer::PartitionBuffer;
use super::writer::{self, WriterContext, WriterHandle};
use crate::backoff::Backoff;

/// State of a partition.
#[derive(Debug)]
pub(crate) enum PartitionState {
    /// The writer claims the partition.
    Claiming,
    /// The partition is claimed; the consumer has not sought its position yet.
    Seeking {
        /// Offset of the next message.
        position: u64,
    },
    /// The reader buffers messages.
    Reading,
    /// Reading has stopped; the buffered messages are being committed.
    Leaving,
    /// The claim was lost or a commit failed. The reader claims the partition again if it is still assigned.
    Backoff {
        /// Earliest time of the next claim.
        until: Instant,
    },
}

/// A running commit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InFlightCommit {
    /// Bytes of its messages.
    pub(crate) bytes: u64,
    /// Offset that it records.
    pub(crate) next: u64,
}

/// An assigned partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) state: PartitionState,
    pub(crate) buffer: PartitionBuffer,
    pub(crate) in_flight: Option<InFlightCommit>,
    /// Offset after the last message that the store holds.
    pub(crate) committed: u64,
    /// Whether the reader has read the log to its end.
    pub(crate) at_end: bool,
    /// Whether reading is paused until the dead-letter topic accepts messages.
    pub(crate) paused_for_dlq: bool,
    /// Offset before a gap, to which the consumer has sought back once.
    pub(crate) gap_retry: Option<u64>,
    /// Number of the current writer.
    pub(crate) epoch: u64,
    backoff: Backoff,
    writer: Option<WriterHandle>,
}

impl Partition {
    /// Starts with a claim.
    pub(crate) fn claim(context: &WriterContext, partition: i32, epoch: u64) -> Self {
        Self {
            state: PartitionState::Claiming,
            buffer: PartitionBuffer::new(0, &BTreeMap::new()),
            in_flight: None,
            committed: 0,
            at_end: false,
            paused_for_dlq: false,
            gap_retry: None,
            epoch,
            backoff: writer::backoff(),
            writer: Some(WriterHandle::start(context, partition, epoch)),
        }
    }

    /// Claims the partition again with a new writer; returns the task of the old one.
    pub(crate) fn claim_again(
        &mut self,
        context: &WriterContext,
        partition: i32,
        epoch: u64,
    ) -> Option<JoinHandle<()>> {
        let old = self.writer.replace(WriterHandle::start(context, partition, epoch));
        self.state = PartitionState::Claiming;
        self.epoch = epoch;
        old.map(WriterHandle::close)
    }

    /// Sends the buffered messages to the writer; `false` if there are none, or the writer is busy.
    pub(crate) fn start_commit(&mut self) -> bool {
        if self.in_flight.is_some() || !self.buffer.is_dirty() {
            return false;
        }
        let Some(place) = self.writer.as_ref().and_then(WriterHandle::try_reserve) else { return false };
        let request = self.buffer.take_commit();
        self.in_flight = Some(InFlightCommit { bytes: request.bytes, next: request.next });
        place.send(request);
        true
    }

    /// Records that the running commit is made.
    pub(crate) fn commit_made(&mut self) {
        self.backoff.reset();
        if let Some(commit) = self.in_flight.take() {
            self.committed = commit.next;
        }
    }

    /// Drops the uncommitted messages and claims the partition after a delay of at least `min_delay`.
    pub(crate) fn back_off(&mut self, now: Instant, min_delay: Duration) {
        self.in_flight = None;
        self.at_end = false;
        self.buffer = PartitionBuffer::new(self.committed, &BTreeMap::new());
        self.state = PartitionState::Backoff { until: now + self.backoff.next_delay().max(min_delay) };
    }

    /// Whether a commit is running whose writer has ended without a report: it has panicked.
    pub(crate) fn has_lost_commit(&self) -> bool {
        self.in_flight.is_some() && self.writer.as_ref().is_some_and(WriterHandle::has_ended)
    }

    /// Closes the writer's queue; returns its task, which ends after the queued commit.
    pub(crate) fn close(self) -> Option<JoinHandle<()>> {
        self.writer.map(WriterHandle::close)
    }

    /// Bytes of messages that are read and not committed.
    pub(crate) fn bytes(&self) -> u64 {
        self.buffer.bytes() + self.in_flight.map_or(0, |commit| commit.bytes)
    }

    /// Number of messages that are read and not committed.
    pub(crate) fn uncommitted(&self) -> u64 {
        self.buffer.next().saturating_sub(self.committed)
    }

    /// Whether a commit is due by size or time.
    pub(crate) fn is_due(&self, flush_bytes: u64, flush_every: Duration, now: Instant) -> bool {
        let oldest = self.buffer.oldest();
        let old = oldest.is_some_and(|oldest| now.saturating_duration_since(oldest) >= flush_every);
        self.in_flight.is_none() && (old || self.buffer.committable_bytes() >= flush_bytes)
    }

    /// Whether everything read is committed and every dead letter is acknowledged.
    pub(crate) fn is_clean(&self) -> bool {
        self.in_flight.is_none() && !self.buffer.is_dirty() && !self.buffer.has_pending_dead_letters()
    }
}
