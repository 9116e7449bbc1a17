//! Which partitions the reader has: what the group assigns and revokes, what the writers have claimed, and the end.

use std::collections::BTreeMap;
use std::time::Instant;

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{ASK_WAIT, End, LEAVE_WAIT, Leaving, Reader, count_expired};
use crate::archive::kafka_archiver::ArchiverError;
use crate::archive::kafka_archiver::consumer_callbacks::{self as group, Turn};
use crate::archive::kafka_archiver::partition::{Partition, Stage};
use crate::archive::kafka_archiver::partition_buffer::Gathering;

impl Reader {
    /// Writes an offset to the group, for whoever watches its lag; nothing depends on it.
    pub(super) fn tell_group(&self, partition: i32, next: u64) {
        let offset = Offset::Offset(i64::try_from(next).unwrap_or(i64::MAX));
        let told = group::listed(&self.desk.topic, &[partition], offset)
            .and_then(|list| self.consumer.commit(&list, CommitMode::Async));
        if let Err(error) = told {
            tracing::debug!(partition, %error, "offset for the group's lag");
        }
    }

    /// Acts on what the group has decided; one thing at a time.
    pub(super) fn follow_group(&mut self, now: Instant) {
        while self.state.leaving.is_none() {
            let Some(turn) = self.consumer.context().next_turn() else { return };
            self.consumer.context().health().mark_up();
            match turn {
                Turn::Assigned(partitions) => self.take_over(&partitions, now),
                Turn::Revoked(partitions) => self.leave(partitions, now + LEAVE_WAIT),
            }
        }
    }

    pub(super) fn take_over(&mut self, partitions: &[i32], now: Instant) {
        self.state.joined = true;
        self.state.active = now;
        tracing::info!(?partitions, "partitions assigned");
        if let Err(error) = group::accept(&self.consumer, &self.desk.topic, partitions) {
            // The group has changed its mind meanwhile; it will say so.
            tracing::warn!(%error, ?partitions, "the assignment is no longer valid");
        }
        for partition in partitions {
            let epoch = self.state.next_epoch();
            let held = Partition::claim(&self.desk, *partition, epoch);
            if let Some(before) = self.state.partitions.insert(*partition, held) {
                self.state.ended.extend(before.end());
            }
        }
    }

    /// Begins to give partitions up: what is gathered of them is committed, for a bounded time.
    pub(super) fn leave(&mut self, partitions: Vec<i32>, deadline: Instant) {
        tracing::info!(?partitions, "partitions are given up");
        for partition in &partitions {
            if let Some(held) = self.state.partitions.get_mut(partition) {
                match held.stage {
                    Stage::Reading => held.stage = Stage::Leaving,
                    // Nothing is gathered.
                    Stage::Claiming | Stage::Seeking { .. } | Stage::Resting { .. } | Stage::Leaving => {
                        held.stage = Stage::Leaving;
                        held.gathering = Gathering::new(held.stored, &BTreeMap::new());
                    }
                }
            }
        }
        self.state.leaving = Some(Leaving { partitions, deadline });
    }

    pub(super) fn finish_leaving(&mut self, now: Instant) {
        let Some(Leaving { partitions, deadline }) = &self.state.leaving else { return };
        let clean = |partition| self.state.partitions.get(partition).is_none_or(Partition::is_clean);
        if !partitions.iter().all(clean) && now < *deadline {
            return;
        }
        let Some(Leaving { partitions, .. }) = self.state.leaving.take() else { return };
        let stopping = matches!(self.state.end, End::Stop { .. });
        for partition in &partitions {
            self.dead.forget(*partition);
            self.counts.forget_lag(*partition);
            if let Some(held) = self.state.partitions.remove(partition) {
                if stopping {
                    self.state.waiting_parts += held.gathering.waiting_parts() as u64;
                    self.state.uncommitted += held.gathering.next().saturating_sub(held.stored);
                }
                self.state.ended.extend(held.end());
            }
        }
        self.state.active = now;
        if stopping {
            return;
        }
        if let Err(error) = group::release(&self.consumer, &self.desk.topic, &partitions) {
            tracing::warn!(%error, ?partitions, "partitions were already given up");
        }
    }

    /// Goes to where the claims say.
    pub(super) fn seek_claimed(&mut self, now: Instant) -> Result<(), ArchiverError> {
        let claimed: Vec<(i32, u64)> = (self.state.partitions.iter())
            .filter_map(|(partition, held)| match held.stage {
                Stage::Seeking { position } => Some((*partition, position)),
                Stage::Claiming | Stage::Reading | Stage::Leaving | Stage::Resting { .. } => None,
            })
            .collect();
        for (partition, position) in claimed {
            let Ok((low, high)) = self.consumer.fetch_watermarks(&self.desk.topic, partition, ASK_WAIT)
            else {
                tracing::debug!(partition, "the ends of the partition are not known yet");
                continue;
            };
            let (low, high) = (u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0));
            if position > high {
                let topic = self.desk.topic.clone();
                return Err(ArchiverError::OtherTopic { topic, partition, position, high });
            }
            let offset = Offset::Offset(i64::try_from(position.max(low)).unwrap_or(i64::MAX));
            if let Err(error) = self.consumer.seek(&self.desk.topic, partition, offset, ASK_WAIT) {
                // The consumer has not taken the assignment up yet.
                tracing::debug!(partition, %error, "seek");
                continue;
            }
            count_expired(&self.counts, partition, position, low);
            self.state.active = now;
            if let Some(held) = self.state.partitions.get_mut(&partition) {
                held.stage = Stage::Reading;
                held.at_end = false;
            }
            if !self.state.paused {
                self.resume(&[partition]);
            }
        }
        Ok(())
    }

    pub(super) fn claim_rested(&mut self, now: Instant) {
        let rested: Vec<i32> = (self.state.partitions.iter())
            .filter(|(_, held)| matches!(held.stage, Stage::Resting { until } if until <= now))
            .map(|(partition, _)| *partition)
            .collect();
        for partition in rested {
            let epoch = self.state.next_epoch();
            if let Some(held) = self.state.partitions.get_mut(&partition) {
                self.state.ended.extend(held.claim_again(&self.desk, partition, epoch));
            }
        }
        self.state.ended.retain(|task| !task.is_finished());
    }

    pub(super) fn pause(&self, partitions: &[i32]) {
        self.steer(partitions, |list| self.consumer.pause(list));
    }

    pub(super) fn resume(&self, partitions: &[i32]) {
        self.steer(partitions, |list| self.consumer.resume(list));
    }

    pub(super) fn steer(
        &self,
        partitions: &[i32],
        how: impl FnOnce(&TopicPartitionList) -> Result<(), KafkaError>,
    ) {
        if partitions.is_empty() {
            return;
        }
        let steered =
            group::listed(&self.desk.topic, partitions, Offset::Invalid).and_then(|list| how(&list));
        if let Err(error) = steered {
            tracing::debug!(?partitions, %error, "the partitions are not this process's any more");
        }
    }

    /// Leaves the group and waits for the writers.
    pub(super) fn close(&mut self) {
        self.dead.close();
        self.consumer.context().close();
        self.consumer.unsubscribe();
        for (_, held) in std::mem::take(&mut self.state.partitions) {
            self.state.uncommitted += held.gathering.next().saturating_sub(held.stored);
            self.state.ended.extend(held.end());
        }
        let ended = std::mem::take(&mut self.state.ended);
        let all = async {
            for task in ended {
                if let Err(error) = task.await {
                    tracing::error!(%error, "a writer broke off");
                }
            }
        };
        self.desk.runtime.block_on(async {
            if tokio::time::timeout(LEAVE_WAIT, all).await.is_err() {
                tracing::warn!(
                    "the store did not answer in time; what it was asked for last is left to the next start"
                );
            }
        });
    }
}
