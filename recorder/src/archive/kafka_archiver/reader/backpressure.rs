//! What flows through the reader, and how much: batches out, dead letters out, and whether more may come in.

use std::time::Instant;

use rdkafka::consumer::Consumer as _;

use super::{End, LAG_EVERY, MEMORY_BYTES, PATIENCE, QUIET_SHARE, Reader, SETTLED};
use crate::archive::kafka_archiver::partition::{Partition, Stage};

impl Reader {
    /// Sends dead letters, and hears which lie in their topic.
    pub(super) fn bury(&mut self, now: Instant) {
        for (partition, offset) in self.dead.poll(now) {
            self.counts.dead_lettered.inc();
            if let Some(held) = self.state.partitions.get_mut(&partition) {
                held.gathering.confirm_buried(offset);
            }
        }
        let failing = self.dead.failing();
        let mut changed = (Vec::new(), Vec::new());
        for (partition, held) in &mut self.state.partitions {
            let hold = failing && held.gathering.awaits_burial();
            if hold != held.held && matches!(held.stage, Stage::Reading) {
                held.held = hold;
                if hold { changed.0.push(*partition) } else { changed.1.push(*partition) }
            }
        }
        self.pause(&changed.0);
        if !self.state.paused {
            self.resume(&changed.1);
        }
    }

    /// Hands over what is due: by size, by time, because its partition is given up, because the work is to end and
    /// nothing more comes, or because memory is short.
    pub(super) fn roll(&mut self, now: Instant) {
        let quiet = self.until_idle.is_some() && self.is_quiet();
        let settled = quiet && now.saturating_duration_since(self.state.active) >= SETTLED;
        let all = settled || self.state.end != End::No;
        let full = self.state.bytes() + self.dead.bytes() >= MEMORY_BYTES;
        // At the end of the topic, what makes a file of some size need not wait for it to settle.
        let flush_bytes = self.config.flush_bytes.0 / if quiet { QUIET_SHARE } else { 1 };
        let flush_every = self.config.flush_every;
        for held in self.state.partitions.values_mut() {
            let leaving = matches!(held.stage, Stage::Leaving);
            if all || leaving || held.is_due(flush_bytes, flush_every, now) {
                held.hand_over();
            }
        }
        if full {
            let mut largest: Vec<_> = self.state.partitions.values_mut().collect();
            largest.sort_by_key(|held| std::cmp::Reverse(held.gathering.ready_bytes()));
            // One is enough unless its writer is busy.
            let _ = largest.into_iter().any(Partition::hand_over);
        }
    }

    pub(super) fn report_lag(&mut self, now: Instant) {
        self.counts.gathered_bytes.set(i64::try_from(self.state.bytes()).unwrap_or(i64::MAX));
        self.counts.partitions.set(i64::try_from(self.state.partitions.len()).unwrap_or(i64::MAX));
        if now.saturating_duration_since(self.state.lag_at) < LAG_EVERY {
            return;
        }
        self.state.lag_at = now;
        for (partition, held) in &self.state.partitions {
            if let Some(ends) = self.consumer.context().ends(*partition) {
                self.counts.set_lag(*partition, ends.high.saturating_sub(held.stored));
            }
        }
    }

    /// Whether more may be read; while memory is short, reading waits, and after a while only answers the group.
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        let bytes = self.state.bytes() + self.dead.bytes();
        if bytes >= MEMORY_BYTES {
            let since = *self.state.full_since.get_or_insert(now);
            if now.saturating_duration_since(since) < PATIENCE {
                return false;
            }
            if !std::mem::replace(&mut self.state.paused, true) {
                tracing::warn!(bytes, "reading is paused: what was read cannot be committed fast enough");
                let all: Vec<i32> = self.state.partitions.keys().copied().collect();
                self.pause(&all);
            }
            return true;
        }
        self.state.full_since = None;
        if self.state.paused && bytes < MEMORY_BYTES / 2 {
            self.state.paused = false;
            tracing::warn!("reading goes on");
            let reading = (self.state.partitions.iter())
                .filter(|(_, held)| matches!(held.stage, Stage::Reading) && !held.held)
                .map(|(partition, _)| *partition);
            let reading: Vec<i32> = reading.collect();
            self.resume(&reading);
            self.wait_anew(now);
        }
        true
    }
}
