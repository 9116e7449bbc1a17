//! Partitions of the reader: assignment, claim, seek, revocation, and the end of the consumer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::state::{BROKER_WAIT, LEAVE_WAIT, Reader, Revocation, count_expired};
use crate::archive::kafka_archiver::consumer_callbacks::{RebalanceEvent, assign, partition_list, unassign};
use crate::archive::kafka_archiver::error::ArchiverError;
use crate::archive::kafka_archiver::partition::{Partition, PartitionState};
use crate::archive::kafka_archiver::partition_buffer::PartitionBuffer;
use crate::archive::kafka_archiver::writer::{WriterEvent, WriterReport};
use crate::metrics::kafka_archiver::ArchiverCounters;

impl Reader {
    /// Commits an offset to the group, for tools that show its lag. The archiver never reads it.
    pub(super) fn commit_offset(&self, number: i32, next: u64) {
        let topic = &self.writers.topic;
        let offset = Offset::Offset(i64::try_from(next).unwrap_or(i64::MAX));
        let committed = partition_list(topic, &[number], offset)
            .and_then(|list| self.consumer.commit(&list, CommitMode::Async));
        if let Err(error) = committed {
            tracing::debug!(topic, partition = number, offset = next, %error, "commit of the group's offset");
        }
    }

    /// Applies the decisions of the group, one at a time: a revocation ends before the next one begins.
    pub(super) fn apply_rebalances(&mut self, now: Instant) {
        while self.state.revocation.is_none() {
            let Some(event) = self.consumer.context().next_rebalance() else { return };
            self.consumer.context().health().mark_up();
            match event {
                RebalanceEvent::Assigned(partitions) => self.on_assigned(&partitions, now),
                RebalanceEvent::Revoked(partitions) => self.leave(partitions, now + LEAVE_WAIT),
            }
        }
    }

    fn on_assigned(&mut self, partitions: &[i32], now: Instant) {
        let topic = &self.writers.topic;
        self.state.joined = true;
        self.state.last_activity = now;
        tracing::info!(topic, ?partitions, "partitions assigned");
        if let Err(error) = assign(&self.consumer, topic, partitions) {
            // The group has started another rebalance, which will follow.
            tracing::warn!(topic, ?partitions, %error, "assignment is outdated");
        }
        for number in partitions {
            let epoch = self.state.next_epoch();
            let partition = Partition::claim(&self.writers, *number, epoch);
            if let Some(old) = self.state.partitions.insert(*number, partition) {
                self.state.closed_writers.extend(old.close());
            }
        }
    }

    /// Stops reading partitions and commits their messages, until the deadline.
    pub(super) fn leave(&mut self, partitions: Vec<i32>, deadline: Instant) {
        tracing::info!(topic = self.writers.topic, ?partitions, "leaving partitions");
        for number in &partitions {
            if let Some(partition) = self.state.partitions.get_mut(number) {
                match std::mem::replace(&mut partition.state, PartitionState::Leaving) {
                    PartitionState::Reading => {}
                    // The buffer is empty, or belongs to a position that has changed.
                    PartitionState::Claiming
                    | PartitionState::Seeking { .. }
                    | PartitionState::Backoff { .. }
                    | PartitionState::Leaving => {
                        partition.buffer = PartitionBuffer::new(partition.committed, &BTreeMap::new());
                    }
                }
            }
        }
        self.state.revocation = Some(Revocation { partitions, deadline });
    }

    /// Gives revoked partitions up once they are committed, or at the deadline.
    pub(super) fn finish_revocation(&mut self, now: Instant) {
        let Some(Revocation { partitions, deadline }) = &self.state.revocation else { return };
        let clean = |number| self.state.partitions.get(number).is_none_or(Partition::is_clean);
        if !partitions.iter().all(clean) && now < *deadline {
            return;
        }
        let Some(Revocation { partitions, .. }) = self.state.revocation.take() else { return };
        let stopping = self.state.stop_deadline.is_some();
        for number in &partitions {
            self.dead_letters.forget(*number);
            self.counters.forget_lag(*number);
            if let Some(partition) = self.state.partitions.remove(number) {
                if stopping {
                    self.state.waiting_parts += partition.buffer.waiting_parts() as u64;
                    self.state.uncommitted += partition.uncommitted();
                }
                self.state.closed_writers.extend(partition.close());
            }
        }
        self.state.last_activity = now;
        if stopping {
            return;
        }
        let topic = &self.writers.topic;
        if let Err(error) = unassign(&self.consumer, topic, &partitions) {
            tracing::warn!(topic, ?partitions, %error, "revocation is outdated");
        }
    }

    /// Seeks the positions of claimed partitions and starts reading them.
    pub(super) fn seek_claimed(&mut self, now: Instant) -> Result<(), ArchiverError> {
        let topic = self.writers.topic.clone();
        let partitions = self.state.partitions.iter();
        let seeking = partitions.filter_map(|(number, partition)| match partition.state {
            PartitionState::Seeking { position } => Some((*number, position)),
            PartitionState::Claiming
            | PartitionState::Reading
            | PartitionState::Leaving
            | PartitionState::Backoff { .. } => None,
        });
        let seeking: Vec<(i32, u64)> = seeking.collect();
        for (number, position) in seeking {
            let (low, high) = match self.consumer.fetch_watermarks(&topic, number, BROKER_WAIT) {
                Ok((low, high)) => (u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0)),
                Err(error) => {
                    tracing::debug!(topic, partition = number, %error, "watermarks");
                    continue;
                }
            };
            if position > high {
                return Err(ArchiverError::TopicRecreated { topic, partition: number, position, high });
            }
            let offset = Offset::Offset(i64::try_from(position.max(low)).unwrap_or(i64::MAX));
            if let Err(error) = self.consumer.seek(&topic, number, offset, BROKER_WAIT) {
                // The consumer has not applied the assignment yet.
                tracing::debug!(topic, partition = number, position, %error, "seek");
                continue;
            }
            count_expired(&self.counters, &topic, number, position, low);
            self.state.last_activity = now;
            if let Some(partition) = self.state.partitions.get_mut(&number) {
                partition.state = PartitionState::Reading;
                partition.at_end = false;
            }
            if !self.state.paused {
                self.resume(&[number]);
            }
        }
        Ok(())
    }

    /// Claims partitions again whose backoff has passed, and backs off those whose writer has panicked.
    pub(super) fn claim_after_backoff(&mut self, now: Instant) {
        let topic = self.writers.topic.clone();
        let mut to_pause = Vec::new();
        for (number, partition) in &mut self.state.partitions {
            if partition.has_lost_commit() {
                tracing::error!(
                    topic,
                    partition = number,
                    "the writer panicked; reading again from the last commit. Please report this"
                );
                self.dead_letters.forget(*number);
                partition.back_off(now, Duration::ZERO);
                to_pause.push(*number);
            }
            if matches!(partition.state, PartitionState::Backoff { until } if until <= now) {
                self.state.last_epoch += 1;
                let old = partition.claim_again(&self.writers, *number, self.state.last_epoch);
                self.state.closed_writers.extend(old);
            }
        }
        self.pause(&to_pause);
        self.state.closed_writers.retain(|task| !task.is_finished());
    }

    pub(super) fn pause(&self, partitions: &[i32]) {
        self.pause_or_resume(partitions, |list| self.consumer.pause(list));
    }

    pub(super) fn resume(&self, partitions: &[i32]) {
        self.pause_or_resume(partitions, |list| self.consumer.resume(list));
    }

    fn pause_or_resume(
        &self,
        partitions: &[i32],
        call: impl FnOnce(&TopicPartitionList) -> Result<(), KafkaError>,
    ) {
        if partitions.is_empty() {
            return;
        }
        let topic = &self.writers.topic;
        let done = partition_list(topic, partitions, Offset::Invalid).and_then(|list| call(&list));
        if let Err(error) = done {
            tracing::debug!(topic, ?partitions, %error, "partitions are no longer assigned");
        }
    }

    /// Leaves the group, then waits for the writers and counts their last commits.
    pub(super) fn close(&mut self) {
        self.dead_letters.close();
        self.consumer.context().close();
        self.consumer.unsubscribe();
        for (_, partition) in std::mem::take(&mut self.state.partitions) {
            self.state.uncommitted += partition.uncommitted();
            self.state.closed_writers.extend(partition.close());
        }
        let writers = std::mem::take(&mut self.state.closed_writers);
        let (runtime, reports, counters) = (&self.writers.runtime, &mut self.reports, &self.counters);
        let finished = async {
            let all = futures::future::join_all(writers);
            tokio::pin!(all);
            loop {
                // Both branches are cancel-safe: `all` is only borrowed. A writer with a full queue waits for its reports to
                // be received, so they are received until all writers have ended.
                tokio::select! {
                    biased;
                    Some(report) = reports.recv() => count_late_commit(counters, &report),
                    ended = &mut all => break ended,
                }
            }
        };
        match runtime.block_on(async { tokio::time::timeout(LEAVE_WAIT, finished).await }) {
            Ok(ended) => {
                for error in ended.into_iter().filter_map(Result::err) {
                    tracing::error!(%error, "a writer panicked; please report this");
                }
            }
            Err(_) => {
                tracing::warn!(
                    "the store did not answer in time; the next start reads again from the last commit"
                );
            }
        }
    }
}

fn count_late_commit(counters: &ArchiverCounters, report: &WriterReport) {
    if let WriterEvent::Committed { exchanges, files, .. } = report.event {
        counters.count_commit(exchanges, files);
    }
}
