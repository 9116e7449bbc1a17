//! Flow through the reader: commits and dead letters out, and the memory bound on messages in.

use std::time::Instant;

use rdkafka::consumer::Consumer as _;

use super::state::{FULL_BEFORE_PAUSE, LAG_EVERY, MAX_BUFFERED_BYTES, Reader};
use crate::archive::kafka_archiver::partition::{Partition, PartitionState};

impl Reader {
    /// Sends dead letters, and pauses partitions while the dead-letter topic refuses them.
    pub(super) fn poll_dead_letters(&mut self, now: Instant) {
        for (number, offset) in self.dead_letters.poll(now) {
            self.counters.dead_lettered.inc();
            if let Some(partition) = self.state.partitions.get_mut(&number) {
                partition.buffer.ack_dead_letter(offset, now);
            }
        }
        let failing = self.dead_letters.is_failing();
        let (mut to_pause, mut to_resume) = (Vec::new(), Vec::new());
        for (number, partition) in &mut self.state.partitions {
            let pause = failing && partition.buffer.has_pending_dead_letters();
            if pause != partition.paused_for_dlq && matches!(partition.state, PartitionState::Reading) {
                partition.paused_for_dlq = pause;
                if pause { to_pause.push(*number) } else { to_resume.push(*number) }
            }
        }
        self.pause(&to_pause);
        if !self.state.paused {
            self.resume(&to_resume);
        }
    }

    /// Commits the partitions that are due by size or time, that leave, or, at the memory bound, the largest one.
    pub(super) fn start_due_commits(&mut self, now: Instant) {
        let (flush_bytes, flush_every) = (self.config.flush_bytes.0, self.config.flush_every);
        for partition in self.state.partitions.values_mut() {
            let leaving = matches!(partition.state, PartitionState::Leaving);
            if leaving || partition.is_due(flush_bytes, flush_every, now) {
                partition.start_commit();
            }
        }
        if self.state.bytes() + self.dead_letters.bytes() >= MAX_BUFFERED_BYTES {
            let mut by_size: Vec<_> = self.state.partitions.values_mut().collect();
            by_size.sort_by_key(|partition| std::cmp::Reverse(partition.buffer.committable_bytes()));
            // The first whose writer is not busy.
            let _ = by_size.into_iter().any(Partition::start_commit);
        }
    }

    /// Updates the gauges of buffered bytes and lag.
    pub(super) fn report_lag(&mut self, now: Instant) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.counters.buffered_bytes.set(gauge(self.state.bytes()));
        self.counters.partitions.set(gauge(self.state.partitions.len() as u64));
        if now.saturating_duration_since(self.state.lag_reported) < LAG_EVERY {
            return;
        }
        self.state.lag_reported = now;
        for (number, partition) in &self.state.partitions {
            if let Some(watermarks) = self.consumer.context().watermarks(*number) {
                self.counters.set_lag(*number, watermarks.high.saturating_sub(partition.committed));
            }
        }
    }

    /// Whether the reader may poll. At the memory bound it waits; after [`FULL_BEFORE_PAUSE`] it pauses all partitions and
    /// polls again, so that the group does not expel this process.
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        let bytes = self.state.bytes() + self.dead_letters.bytes();
        if bytes >= MAX_BUFFERED_BYTES {
            let since = *self.state.full_since.get_or_insert(now);
            if now.saturating_duration_since(since) < FULL_BEFORE_PAUSE {
                return false;
            }
            if !std::mem::replace(&mut self.state.paused, true) {
                tracing::warn!(bytes, "reading is paused: commits are slower than the topic");
                let all: Vec<i32> = self.state.partitions.keys().copied().collect();
                self.pause(&all);
            }
            return true;
        }
        self.state.full_since = None;
        if self.state.paused && bytes < MAX_BUFFERED_BYTES / 2 {
            self.state.paused = false;
            tracing::warn!(bytes, "reading resumes");
            let reading = |partition: &Partition| {
                matches!(partition.state, PartitionState::Reading) && !partition.paused_for_dlq
            };
            let partitions = self.state.partitions.iter();
            let to_resume: Vec<i32> =
                partitions.filter(|(_, partition)| reading(partition)).map(|(number, _)| *number).collect();
            self.resume(&to_resume);
            self.state.reset_part_timeouts(now);
        }
        true
    }
}
