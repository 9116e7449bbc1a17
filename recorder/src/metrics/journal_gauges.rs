//! Gauges of the journal: its size, and how far the sink is behind.
//!
//! Each value is current by itself; two values may stem from different moments. Counts of exchanges are in
//! [`crate::capture::sessions`].

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::encode::BodyLosses;

/// Gauges of one recorder. One thread sets each value.
#[derive(Debug, Default)]
pub(crate) struct JournalGauges {
    journal_bytes: AtomicU64,
    /// Position after the last durable record.
    durable: AtomicU64,
    /// Position after the last record that the sink has delivered.
    delivered: AtomicU64,
    /// End of the oldest exchange that is not delivered, microseconds since 1970; 0 if there is none.
    oldest: AtomicI64,
    skipped: AtomicU64,
    resent: AtomicU64,
    brokers_lost: AtomicBool,
    bodies_not_stored: AtomicU64,
    bodies_not_decoded: AtomicU64,
}

impl JournalGauges {
    pub(crate) fn set_journal_bytes(&self, bytes: u64) {
        self.journal_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Sets the position after the last durable record.
    pub(crate) fn set_durable(&self, position: u64) {
        self.durable.store(position, Ordering::Relaxed);
    }

    /// Sets the position after the last delivered record. `oldest` is the end of the oldest exchange that is not
    /// delivered, microseconds since 1970.
    pub(crate) fn set_delivered(&self, position: u64, oldest: Option<i64>) {
        self.delivered.store(position, Ordering::Relaxed);
        self.oldest.store(oldest.unwrap_or(0), Ordering::Relaxed);
    }

    /// Counts journal records that cannot be read.
    pub(crate) fn add_skipped(&self, records: u64) {
        self.skipped.fetch_add(records, Ordering::Relaxed);
    }

    /// Counts bodies that stored exchanges lack, or that are stored and not decoded.
    pub(crate) fn add_body_losses(&self, losses: BodyLosses) {
        self.bodies_not_stored.fetch_add(losses.not_stored, Ordering::Relaxed);
        self.bodies_not_decoded.fetch_add(losses.not_decoded, Ordering::Relaxed);
    }

    /// Bodies that stored exchanges lack, and exchanges whose bodies are stored and not decoded.
    pub(crate) fn body_losses(&self) -> BodyLosses {
        BodyLosses {
            not_stored: self.bodies_not_stored.load(Ordering::Relaxed),
            not_decoded: self.bodies_not_decoded.load(Ordering::Relaxed),
        }
    }

    /// Counts exchanges and close rows that are sent to Kafka again.
    #[cfg(feature = "kafka")]
    pub(crate) fn add_resent(&self, entries: u64) {
        self.resent.fetch_add(entries, Ordering::Relaxed);
    }

    #[cfg(feature = "kafka")]
    pub(crate) fn set_brokers_lost(&self, lost: bool) {
        self.brokers_lost.store(lost, Ordering::Relaxed);
    }

    /// Bytes of the journal on disk.
    pub(crate) fn journal_bytes(&self) -> u64 {
        self.journal_bytes.load(Ordering::Relaxed)
    }

    /// Durable records that the sink has not delivered.
    pub(crate) fn lag_records(&self) -> u64 {
        self.durable.load(Ordering::Relaxed).saturating_sub(self.delivered.load(Ordering::Relaxed))
    }

    /// Time since the end of the oldest exchange that is not delivered, in seconds. `now` is in microseconds since 1970.
    pub(crate) fn lag_seconds(&self, now: i64) -> f64 {
        match self.oldest.load(Ordering::Relaxed) {
            0 => 0.0,
            oldest => Duration::from_micros(u64::try_from(now - oldest).unwrap_or(0)).as_secs_f64(),
        }
    }

    /// Journal records that could not be read.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Exchanges and close rows that were sent to Kafka again.
    pub(crate) fn resent(&self) -> u64 {
        self.resent.load(Ordering::Relaxed)
    }

    /// Whether no broker responds.
    pub(crate) fn brokers_lost(&self) -> bool {
        self.brokers_lost.load(Ordering::Relaxed)
    }
}
