//! What changes from moment to moment beside the counts: the journal, and how far what hands it on is behind.
//!
//! Single numbers without a common moment; counts of exchanges are in `sessions`.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// The numbers, each set by one thread.
#[derive(Debug, Default)]
pub(crate) struct JournalGauges {
    journal_bytes: AtomicU64,
    synced: AtomicU64,
    delivered: AtomicU64,
    /// When the oldest exchange that waits ended, in microseconds since 1970; 0 where none waits.
    oldest: AtomicI64,
    skipped: AtomicU64,
    resent: AtomicU64,
    brokers_lost: AtomicBool,
}

impl JournalGauges {
    pub(crate) fn set_journal_bytes(&self, bytes: u64) {
        self.journal_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Everything before this position is durable.
    pub(crate) fn set_synced(&self, position: u64) {
        self.synced.store(position, Ordering::Relaxed);
    }

    pub(crate) fn set_delivered(&self, position: u64, oldest: Option<i64>) {
        self.delivered.store(position, Ordering::Relaxed);
        self.oldest.store(oldest.unwrap_or(0), Ordering::Relaxed);
    }

    pub(crate) fn add_skipped(&self, records: u64) {
        self.skipped.fetch_add(records, Ordering::Relaxed);
    }

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

    /// Journal records that are not handed on.
    pub(crate) fn waiting(&self) -> u64 {
        self.synced.load(Ordering::Relaxed).saturating_sub(self.delivered.load(Ordering::Relaxed))
    }

    /// How long the oldest exchange that is not handed on has waited, in seconds.
    pub(crate) fn waiting_seconds(&self, now: i64) -> f64 {
        match self.oldest.load(Ordering::Relaxed) {
            0 => 0.0,
            oldest => {
                std::time::Duration::from_micros(u64::try_from(now - oldest).unwrap_or(0)).as_secs_f64()
            }
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

    /// Whether no broker answers.
    pub(crate) fn brokers_lost(&self) -> bool {
        self.brokers_lost.load(Ordering::Relaxed)
    }
}
