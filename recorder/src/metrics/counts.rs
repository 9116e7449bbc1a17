//! What became of every exchange that was started: journaled, or shed with a reason.

use std::collections::BTreeMap;

use serde::Serialize;

/// Counts of one recorder since it was started.
///
/// Once nothing is under way, `started` is `journaled` plus all of `shed`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ExchangeCounts {
    /// Exchanges whose request's head arrived.
    pub started: u64,
    /// Exchanges that are durable in the journal.
    pub journaled: u64,
    /// Exchanges that were not recorded, by reason.
    pub shed: BTreeMap<String, u64>,
    /// Exchanges that are in committed Parquet files.
    pub archived: u64,
    /// Exchanges that Kafka has acknowledged, those of an earlier run included.
    pub published: u64,
    /// Journal records that are neither in Parquet nor acknowledged by Kafka: they wait for the next start.
    pub waiting: u64,
    /// Connections that were upgraded (WebSocket) and passed through unrecorded.
    pub upgraded: u64,
}

impl ExchangeCounts {
    /// All exchanges that were shed.
    #[must_use]
    pub fn shed_total(&self) -> u64 {
        self.shed.values().sum()
    }
}
