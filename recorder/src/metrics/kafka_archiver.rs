//! Counters of the Kafka archiver, for `/metrics` and for its summary.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;

use super::page::PREFIX;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    partition: i32,
}

/// Counters and gauges of an archiver; clones share their values.
#[derive(Debug, Clone, Default)]
pub(crate) struct ArchiverCounters {
    pub(crate) consumed: Counter,
    pub(crate) consumed_bytes: Counter,
    pub(crate) redelivered: Counter,
    pub(crate) archived: Counter,
    pub(crate) dead_lettered: Counter,
    pub(crate) expired: Counter,
    pub(crate) commits: Counter,
    pub(crate) files: Counter,
    pub(crate) takeovers: Counter,
    pub(crate) buffered_bytes: Gauge,
    pub(crate) partitions: Gauge,
    lag: Family<PartitionLabel, Gauge>,
}

/// The counts of an archiver since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ArchiverSummary {
    /// Kafka messages read.
    pub consumed: u64,
    /// Exchanges in committed files.
    pub archived: u64,
    /// Messages dropped because the store already holds their records.
    pub redelivered: u64,
    /// Messages that the dead-letter topic has acknowledged.
    pub dead_lettered: u64,
    /// Messages that the broker deleted before the archiver read them.
    pub expired: u64,
    /// Commits of batches.
    pub commits: u64,
    /// Files in these commits.
    pub files: u64,
    /// Parts that stay in Kafka because other parts of their message have not arrived.
    pub waiting_parts: u64,
    /// Messages that were read and not committed. The next start reads them again.
    pub uncommitted: u64,
}

impl ArchiverCounters {
    /// The registry that `/metrics` serves.
    pub(crate) fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix(PREFIX);
        let counters = [
            ("archive_consumed_messages", "Kafka messages read", &self.consumed),
            ("archive_consumed_bytes", "Bytes of the Kafka messages read", &self.consumed_bytes),
            (
                "archive_redelivered_messages",
                "Messages dropped because the store already holds their records",
                &self.redelivered,
            ),
            ("archive_archived_exchanges", "Exchanges in committed files", &self.archived),
            (
                "archive_dead_letters",
                "Messages that the dead-letter topic has acknowledged",
                &self.dead_lettered,
            ),
            (
                "archive_expired_messages",
                "Messages that the broker deleted before they were read",
                &self.expired,
            ),
            ("archive_commits", "Commits of batches", &self.commits),
            ("archive_files", "Files in the commits", &self.files),
            ("archive_takeovers", "Partitions that another process claimed meanwhile", &self.takeovers),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let buffered = "Bytes of messages that are read and not committed";
        registry.register("archive_buffered_bytes", buffered, self.buffered_bytes.clone());
        let partitions = "Partitions assigned to this process";
        registry.register("archive_partitions", partitions, self.partitions.clone());
        let lag = "Messages of a partition that are not committed";
        registry.register("archive_lag_messages", lag, self.lag.clone());
        registry
    }

    /// Counts a commit.
    pub(crate) fn count_commit(&self, exchanges: u64, files: u64) {
        self.commits.inc();
        self.archived.inc_by(exchanges);
        self.files.inc_by(files);
    }

    /// Sets the number of uncommitted messages of a partition.
    pub(crate) fn set_lag(&self, partition: i32, messages: u64) {
        let messages = i64::try_from(messages).unwrap_or(i64::MAX);
        self.lag.get_or_create(&PartitionLabel { partition }).set(messages);
    }

    /// Removes the lag of a partition that this process no longer has.
    pub(crate) fn forget_lag(&self, partition: i32) {
        self.lag.remove(&PartitionLabel { partition });
    }

    /// The counts so far, without those that are known only at the end.
    pub(crate) fn summary(&self) -> ArchiverSummary {
        ArchiverSummary {
            consumed: self.consumed.get(),
            archived: self.archived.get(),
            redelivered: self.redelivered.get(),
            dead_lettered: self.dead_lettered.get(),
            expired: self.expired.get(),
            commits: self.commits.get(),
            files: self.files.get(),
            waiting_parts: 0,
            uncommitted: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_text_has_the_current_values() {
        let counts = ArchiverCounters::default();
        let registry = counts.registry();
        counts.consumed.inc_by(3);
        counts.set_lag(1, 7);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
        for line in [
            "# TYPE foreshadow_archive_consumed_messages counter",
            "foreshadow_archive_consumed_messages_total 3",
            "foreshadow_archive_lag_messages{partition=\"1\"} 7",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        counts.forget_lag(1);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
        assert!(!text.contains("partition=\"1\""));
    }
}
