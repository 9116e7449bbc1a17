//! Bounds and counts of the exchanges in flight: buffered bytes, queue length, journal fill, shed exchanges.
//!
//! The tap and the journal thread share one value. A call blocks for the lock of the session registry at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use super::exchange::CapturedExchange;
use super::sessions::SessionRegistry;
use crate::Clock;
use crate::config::Limits;

/// Fill level, of 255, from which a growing share of new sessions is shed.
pub(crate) const HALF_FULL: u8 = 128;

/// Session registry, memory bounds and clock of one recorder.
pub(crate) struct CaptureAccounts {
    pub(crate) sessions: Arc<SessionRegistry>,
    limits: Limits,
    clock: Clock,
    /// Bytes of exchanges in memory, over all of them.
    buffered_bytes: AtomicUsize,
    /// Exchanges in the journal queue.
    queued: AtomicUsize,
    /// Fill level of the journal, 0 to 255.
    journal_fill: AtomicU8,
}

impl std::fmt::Debug for CaptureAccounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaptureAccounts").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl CaptureAccounts {
    pub(crate) fn new(sessions: Arc<SessionRegistry>, limits: Limits, clock: Clock) -> Self {
        Self {
            sessions,
            limits,
            clock,
            buffered_bytes: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            journal_fill: AtomicU8::new(0),
        }
    }

    /// Wall clock, microseconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        (self.clock)()
    }

    /// Appends a frame to a body.
    ///
    /// # Errors
    /// The shed reason: the body or the memory of all bodies is over its bound.
    pub(super) fn append_bounded(&self, body: &mut Vec<u8>, frame: &[u8]) -> Result<(), &'static str> {
        let (largest, needed) = (self.limits.body_bytes.as_len(), body.len() + frame.len());
        if needed > largest {
            return Err("body too large");
        }
        if needed > body.capacity() {
            // A buffer grows by half, but not past the bound. While it grows, the old one exists too.
            let (before, wanted) =
                (body.capacity(), needed.max((body.capacity() + body.capacity() / 2).min(largest)));
            self.charge(wanted)?;
            body.reserve_exact(wanted - body.len());
            self.buffered_bytes.fetch_add(body.capacity().saturating_sub(wanted), Ordering::Relaxed);
            self.release(before);
        }
        body.extend_from_slice(frame);
        Ok(())
    }

    /// Charges bytes to the memory of all exchanges.
    ///
    /// # Errors
    /// The shed reason: the memory is full. Nothing is charged then.
    pub(crate) fn charge(&self, bytes: usize) -> Result<(), &'static str> {
        let buffered = self.buffered_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if buffered > self.limits.memory_bytes.as_len() {
            self.release(bytes);
            return Err("memory full");
        }
        Ok(())
    }

    /// Largest decompressed body to keep, bytes.
    pub(crate) fn unpacked_bytes(&self) -> usize {
        self.limits.unpacked_bytes.as_len()
    }

    /// Gives back memory of [`Self::append_bounded`] or [`Self::charge`].
    pub(crate) fn release(&self, bytes: usize) {
        self.buffered_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts an exchange that enters the journal queue.
    pub(super) fn enqueued(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an exchange that leaves the journal queue.
    pub(crate) fn dequeued(&self) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sets the fill level of the journal, 0 to 255.
    pub(crate) fn set_journal_fill(&self, fill: u8) {
        self.journal_fill.store(fill, Ordering::Relaxed);
    }

    /// Sets the share of new sessions to shed: zero while memory, queue and journal are at most half full, then rising
    /// to all of them.
    pub(super) fn update_shed_rate(&self) {
        let fill = |used: usize, bound: usize| used.saturating_mul(255) / bound.max(1);
        let memory = fill(self.buffered_bytes.load(Ordering::Relaxed), self.limits.memory_bytes.as_len());
        let queue = fill(self.queued.load(Ordering::Relaxed), self.limits.queue);
        let journal = usize::from(self.journal_fill.load(Ordering::Relaxed));
        let above_half = memory.max(queue).max(journal).saturating_sub(usize::from(HALF_FULL)) * 2;
        self.sessions.set_shed_rate(u8::try_from(above_half).unwrap_or(u8::MAX));
    }

    /// Sheds an exchange: frees its bodies and counts the loss, in its session where that is known.
    pub(crate) fn shed(&self, exchange: &CapturedExchange, reason: &'static str) {
        self.release(exchange.buffered_bytes());
        match &exchange.seq {
            Some(assigned) => self.sessions.shed(&assigned.session, reason, self.now()),
            None => self.sessions.shed_anonymous(reason),
        }
    }
}

#[cfg(test)]
impl CaptureAccounts {
    /// Accounts with these values of `limits.unpacked-bytes` and `limits.memory-bytes`.
    pub(crate) fn for_tests(unpacked: u64, memory: u64) -> Self {
        use crate::config::values::ByteSize;
        let scope = super::sessions::SessionScope {
            tenant: schemas::id::TenantId::parse("t").expect("id"),
            agent: schemas::id::AgentId::parse("a").expect("id"),
            build: None,
        };
        let hour = std::time::Duration::from_secs(3600);
        let sessions = Arc::new(SessionRegistry::new(scope, "i".to_owned(), hour, hour));
        let limits = Limits {
            unpacked_bytes: ByteSize(unpacked),
            memory_bytes: ByteSize(memory),
            ..Limits::default()
        };
        Self::new(sessions, limits, Arc::new(|| 0))
    }

    /// Charged bytes.
    pub(crate) fn buffered(&self) -> usize {
        self.buffered_bytes.load(Ordering::Relaxed)
    }
}
