//! Callbacks of the Kafka consumer, and the calls that follow a rebalance.
//!
//! librdkafka calls back while the reader polls. The callbacks only queue assignments and revocations; the reader applies
//! them between two polls.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use crate::broker_health::{BrokerHealth, forward_log};

/// A decision of the consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RebalanceEvent {
    /// The group assigns these partitions to this process.
    Assigned(Vec<i32>),
    /// The group takes these partitions away.
    Revoked(Vec<i32>),
}

/// The watermarks of a partition's log, from the statistics (every 5 s).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watermarks {
    /// Offset of the oldest retained message.
    pub(crate) low: u64,
    /// Offset after the newest message.
    pub(crate) high: u64,
}

/// The context of the consumer.
#[derive(Debug)]
pub(crate) struct ConsumerCallbacks {
    topic: String,
    rebalances: Mutex<VecDeque<RebalanceEvent>>,
    watermarks: Mutex<HashMap<i32, Watermarks>>,
    closing: AtomicBool,
    health: BrokerHealth,
}

impl ConsumerCallbacks {
    pub(crate) fn new(topic: String) -> Self {
        Self {
            topic,
            rebalances: Mutex::default(),
            watermarks: Mutex::default(),
            closing: AtomicBool::new(false),
            health: BrokerHealth::default(),
        }
    }

    /// The oldest decision of the group that the reader has not applied.
    pub(crate) fn next_rebalance(&self) -> Option<RebalanceEvent> {
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// The last known watermarks of a partition.
    pub(crate) fn watermarks(&self, partition: i32) -> Option<Watermarks> {
        self.watermarks.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).copied()
    }

    /// Makes revocations take effect at once: the consumer is about to close.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether the brokers answer.
    pub(crate) fn health(&self) -> &BrokerHealth {
        &self.health
    }
}

impl ClientContext for ConsumerCallbacks {
    fn stats(&self, statistics: Statistics) {
        if statistics.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP") {
            self.health.mark_up();
        }
        let Some(topic) = statistics.topics.get(&self.topic) else { return };
        let mut watermarks = self.watermarks.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, seen) in &topic.partitions {
            if let (Ok(low), Ok(high)) = (u64::try_from(seen.lo_offset), u64::try_from(seen.hi_offset)) {
                watermarks.insert(*partition, Watermarks { low, high });
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is no failure, and the poll reports it too.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            self.health.handle_client_error(&error, reason);
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        forward_log(level, facility, text);
    }
}

impl ConsumerContext for ConsumerCallbacks {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        if self.closing.load(Ordering::Relaxed) {
            if let Err(error) = unassign(consumer, &self.topic, &partitions) {
                tracing::debug!(topic = self.topic, ?partitions, %error, "unassigning while closing");
            }
            return;
        }
        let assigned = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let event =
            if assigned { RebalanceEvent::Assigned(partitions) } else { RebalanceEvent::Revoked(partitions) };
        // Bounded: librdkafka reports at most one between two polls.
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
    }
}

/// A list of partitions, all at one offset.
pub(crate) fn partition_list(
    topic: &str,
    partitions: &[i32],
    offset: Offset,
) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition_offset(topic, *partition, offset)?;
    }
    Ok(list)
}

/// Confirms an assignment to the group; the partitions stay paused until the reader seeks.
///
/// The offset is a number, so that no broker looks it up: a late answer would undo the seek.
pub(crate) fn assign(
    consumer: &BaseConsumer<ConsumerCallbacks>,
    topic: &str,
    partitions: &[i32],
) -> Result<(), KafkaError> {
    let list = partition_list(topic, partitions, Offset::Offset(0))?;
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(&list)?,
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(&list)?,
    }
    consumer.pause(&list)
}

/// Confirms a revocation to the group.
pub(crate) fn unassign(
    consumer: &BaseConsumer<ConsumerCallbacks>,
    topic: &str,
    partitions: &[i32],
) -> Result<(), KafkaError> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => {
            consumer.incremental_unassign(&partition_list(topic, partitions, Offset::Invalid)?)
        }
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
    }
}
