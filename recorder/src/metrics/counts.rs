//! Exchange counts of a recorder: each started exchange ends as journaled or as shed with a reason.

use std::collections::BTreeMap;

use serde::Serialize;

/// Exchange counts of one recorder since its start.
///
/// Once no exchange is in flight, `started` equals `journaled` plus the sum of `shed`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ExchangeCounts {
    /// Exchanges whose request head arrived.
    pub started: u64,
    /// Exchanges that are durable in the journal.
    pub journaled: u64,
    /// Exchanges that were not recorded, by reason.
    pub shed: BTreeMap<String, u64>,
    /// Exchanges in committed Parquet files.
    pub archived: u64,
    /// Exchanges that Kafka acknowledged, including those that an earlier run journaled.
    pub published: u64,
    /// Durable journal records that are neither in Parquet nor acknowledged by Kafka. The next start delivers them.
    pub waiting: u64,
    /// Connections that were upgraded (WebSocket) and forwarded without a recording.
    pub upgraded: u64,
}

impl ExchangeCounts {
    /// Shed exchanges over all reasons.
    #[must_use]
    pub fn shed_total(&self) -> u64 {
        self.shed.values().sum()
    }
}
