//! What an archiver has done since it was started, and how far it is behind.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;

use crate::metrics::PREFIX;

/// Which partition a number is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    partition: i32,
}

/// Counts since the start; clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub(crate) consumed: Counter,
    pub(crate) consumed_bytes: Counter,
    pub(crate) redelivered: Counter,
    pub(crate) archived: Counter,
    pub(crate) dead_lettered: Counter,
    pub(crate) expired: Counter,
    pub(crate) commits: Counter,
    pub(crate) files: Counter,
    pub(crate) takeovers: Counter,
    pub(crate) gathered_bytes: Gauge,
    pub(crate) partitions: Gauge,
    lag: Family<PartitionLabel, Gauge>,
}

/// What an archiver has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Messages read.
    pub consumed: u64,
    /// Exchanges in committed files.
    pub archived: u64,
    /// Messages whose records were already known, and were dropped.
    pub redelivered: u64,
    /// Messages that could not be read and lie in the dead-letter topic.
    pub dead_lettered: u64,
    /// Messages that the broker deleted before they were read.
    pub expired: u64,
    /// Commits with records.
    pub commits: u64,
    /// Files in them.
    pub files: u64,
    /// Messages that stay in Kafka because the rest of their parcels has not come.
    pub waiting_parts: u64,
    /// Messages that were read and are not committed; they stay in Kafka for the next start.
    pub uncommitted: u64,
}

impl Counts {
    /// The counts as Prometheus reads them.
    pub(crate) fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix(PREFIX);
        let counters = [
            ("archive_consumed_messages", "Kafka messages read", &self.consumed),
            ("archive_consumed_bytes", "Bytes of the Kafka messages read", &self.consumed_bytes),
            (
                "archive_redelivered_messages",
                "Messages dropped because their records were known",
                &self.redelivered,
            ),
            ("archive_archived_exchanges", "Exchanges in committed files", &self.archived),
            (
                "archive_dead_letters",
                "Unreadable messages put into the dead-letter topic",
                &self.dead_lettered,
            ),
            (
                "archive_expired_messages",
                "Messages that the broker deleted before they were read",
                &self.expired,
            ),
            ("archive_commits", "Commits with records", &self.commits),
            ("archive_files", "Files in the commits", &self.files),
            ("archive_takeovers", "Partitions lost to another process while they were held", &self.takeovers),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let gathered = "Bytes of messages that are read and not committed";
        registry.register("archive_gathered_bytes", gathered, self.gathered_bytes.clone());
        registry.register(
            "archive_partitions",
            "Partitions that this process reads",
            self.partitions.clone(),
        );
        let lag = "Messages of a partition that are not committed";
        registry.register("archive_lag_messages", lag, self.lag.clone());
        registry
    }

    /// Says how far a partition is behind.
    pub(crate) fn set_lag(&self, partition: i32, messages: u64) {
        let messages = i64::try_from(messages).unwrap_or(i64::MAX);
        self.lag.get_or_create(&PartitionLabel { partition }).set(messages);
    }

    /// A partition is another process's now.
    pub(crate) fn forget_lag(&self, partition: i32) {
        self.lag.remove(&PartitionLabel { partition });
    }

    /// The counts as they are.
    pub(crate) fn summary(&self) -> Summary {
        Summary {
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
    fn prometheus_reads_the_counts_as_they_are() {
        let counts = Counts::default();
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
