//! The consumer group's side of the archiver: what librdkafka reports while it is polled.
//!
//! Assignments are only noted here; the reader acts on them between two polls, where its state is at hand.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use crate::broker_health::{BrokerHealth, forward_log};

/// What the group has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    /// These partitions are this process's now.
    Assigned(Vec<i32>),
    /// These partitions are this process's no more.
    Revoked(Vec<i32>),
}

/// The ends of a partition's log, as the broker last said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    /// Offset of the oldest message that is kept.
    pub(crate) low: u64,
    /// Offset after the newest message.
    pub(crate) high: u64,
}

/// The context of the consumer.
#[derive(Debug)]
pub(crate) struct Group {
    topic: String,
    turns: Mutex<VecDeque<Turn>>,
    ends: Mutex<HashMap<i32, Ends>>,
    closing: AtomicBool,
    health: BrokerHealth,
}

impl Group {
    pub(crate) fn new(topic: String) -> Self {
        Self {
            topic,
            turns: Mutex::default(),
            ends: Mutex::default(),
            closing: AtomicBool::new(false),
            health: BrokerHealth::default(),
        }
    }

    /// The next thing that the group has decided.
    pub(crate) fn next_turn(&self) -> Option<Turn> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// The ends of a partition's log, some seconds old.
    pub(crate) fn ends(&self, partition: i32) -> Option<Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).copied()
    }

    /// From now on what is revoked is given up at once: the consumer is being closed.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether the brokers answer.
    pub(crate) fn health(&self) -> &BrokerHealth {
        &self.health
    }
}

impl ClientContext for Group {
    fn stats(&self, statistics: Statistics) {
        if statistics.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP") {
            self.health.mark_up();
        }
        let Some(topic) = statistics.topics.get(&self.topic) else { return };
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, seen) in &topic.partitions {
            if let (Ok(low), Ok(high)) = (u64::try_from(seen.lo_offset), u64::try_from(seen.hi_offset)) {
                ends.insert(*partition, Ends { low, high });
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is no trouble; it comes from the poll as well.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            self.health.handle_client_error(&error, reason);
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        forward_log(level, facility, text);
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        if self.closing.load(Ordering::Relaxed) {
            if let Err(error) = release(consumer, &self.topic, &partitions) {
                tracing::debug!(%error, "giving partitions up while closing");
            }
            return;
        }
        let assigned = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let turn = if assigned { Turn::Assigned(partitions) } else { Turn::Revoked(partitions) };
        // At most as many as librdkafka reports between two polls: one.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).push_back(turn);
    }
}

/// A list of these partitions, all at one offset.
pub(crate) fn listed(
    topic: &str,
    partitions: &[i32],
    offset: rdkafka::Offset,
) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition_offset(topic, *partition, offset)?;
    }
    Ok(list)
}

/// Takes what the group has assigned; reading begins only where it is told to.
///
/// The offset is a number, so that no broker is asked for it: an answer that comes late would undo the seek.
pub(crate) fn accept(
    consumer: &BaseConsumer<Group>,
    topic: &str,
    partitions: &[i32],
) -> Result<(), KafkaError> {
    let list = listed(topic, partitions, rdkafka::Offset::Offset(0))?;
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(&list)?,
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(&list)?,
    }
    consumer.pause(&list)
}

/// Gives up what the group has revoked.
pub(crate) fn release(
    consumer: &BaseConsumer<Group>,
    topic: &str,
    partitions: &[i32],
) -> Result<(), KafkaError> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => {
            consumer.incremental_unassign(&listed(topic, partitions, rdkafka::Offset::Invalid)?)
        }
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
    }
}
