//! One partition in the hands of this process: where it stands, what is gathered, what is being committed.

use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use store::Store;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::partition_buffer::{Gathering, Ready};
use super::writer::{FIRST_RETRY, MAX_RETRY, MAX_WAITING, Report, Writer};
use crate::backoff::Backoff;

/// Where a partition stands.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Its writer is claiming it.
    Claiming,
    /// It is claimed; reading begins there as soon as the consumer can go there.
    Seeking {
        /// Offset of the next message.
        position: u64,
    },
    /// Messages are read and gathered.
    Reading,
    /// Nothing is read any more; what was gathered is being committed.
    Leaving,
    /// Its claim was lost or a commit failed; claimed again later, if it is still this process's.
    Resting {
        /// When.
        until: Instant,
    },
}

/// A batch that is being committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flight {
    /// Bytes of its messages.
    pub(crate) bytes: u64,
    /// Up to where the partition is stored with it.
    pub(crate) next: u64,
}

/// A partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) stage: Stage,
    pub(crate) gathering: Gathering,
    pub(crate) flight: Option<Flight>,
    /// Up to where it is stored.
    pub(crate) stored: u64,
    /// Whether everything that the broker has was read.
    pub(crate) at_end: bool,
    /// Paused for dead letters that cannot be written.
    pub(crate) held: bool,
    /// Where messages were missing, and the consumer was sent back once.
    pub(crate) hole: Option<u64>,
    pub(crate) epoch: u64,
    backoff: Backoff,
    batches: Option<mpsc::Sender<Ready>>,
    task: Option<JoinHandle<()>>,
}

/// What every writer needs.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    pub(crate) lake: Store,
    pub(crate) topic: String,
    pub(crate) runtime: Handle,
    pub(crate) reports: SyncSender<Report>,
}

impl Partition {
    /// Begins with a claim.
    pub(crate) fn claim(desk: &Desk, partition: i32, epoch: u64) -> Self {
        let mut made = Self {
            stage: Stage::Claiming,
            gathering: Gathering::new(0, &std::collections::BTreeMap::new()),
            flight: None,
            stored: 0,
            at_end: false,
            held: false,
            hole: None,
            epoch,
            backoff: Backoff::new(FIRST_RETRY, MAX_RETRY),
            batches: None,
            task: None,
        };
        made.start_writer(desk, partition, epoch);
        made
    }

    /// Claims it once more; returns the writer that has ended.
    pub(crate) fn claim_again(&mut self, desk: &Desk, partition: i32, epoch: u64) -> Option<JoinHandle<()>> {
        let ended = self.task.take();
        self.stage = Stage::Claiming;
        self.start_writer(desk, partition, epoch);
        ended
    }

    fn start_writer(&mut self, desk: &Desk, partition: i32, epoch: u64) {
        let (batches, receiver) = mpsc::channel(MAX_WAITING);
        let writer = Writer {
            lake: desk.lake.clone(),
            source: format!("{}-{partition}", desk.topic),
            partition,
            epoch,
            reports: desk.reports.clone(),
        };
        self.epoch = epoch;
        self.batches = Some(batches);
        self.task = Some(desk.runtime.spawn(writer.run(receiver)));
    }

    /// Hands what is ready to the writer; whether there was anything and it had room.
    pub(crate) fn hand_over(&mut self) -> bool {
        if self.flight.is_some() || !self.gathering.has_news() {
            return false;
        }
        let Some(batches) = &self.batches else { return false };
        let Ok(place) = batches.try_reserve() else { return false };
        let ready = self.gathering.take();
        self.flight = Some(Flight { bytes: ready.bytes, next: ready.next });
        place.send(ready);
        true
    }

    /// A batch is committed.
    pub(crate) fn committed(&mut self) -> Option<Flight> {
        self.backoff.reset();
        let flight = self.flight.take();
        if let Some(flight) = flight {
            self.stored = flight.next;
        }
        flight
    }

    /// Drops everything that is not committed and rests.
    pub(crate) fn rest(&mut self, now: Instant, at_least: Duration) {
        self.flight = None;
        self.batches = None;
        self.at_end = false;
        self.gathering = Gathering::new(self.stored, &std::collections::BTreeMap::new());
        self.stage = Stage::Resting { until: now + self.backoff.next_delay().max(at_least) };
    }

    /// Ends the writer after what it was handed; returns it.
    pub(crate) fn end(mut self) -> Option<JoinHandle<()>> {
        self.batches = None;
        self.task.take()
    }

    /// Bytes of messages that are read and not committed.
    pub(crate) fn bytes(&self) -> u64 {
        self.gathering.bytes() + self.flight.map_or(0, |flight| flight.bytes)
    }

    /// Whether a batch is due by size or time.
    pub(crate) fn is_due(&self, flush_bytes: u64, flush_every: Duration, now: Instant) -> bool {
        let old =
            self.gathering.since().is_some_and(|since| now.saturating_duration_since(since) >= flush_every);
        self.flight.is_none() && (old || self.gathering.ready_bytes() >= flush_bytes)
    }

    /// Whether nothing is left that a commit would change.
    pub(crate) fn is_clean(&self) -> bool {
        self.flight.is_none() && !self.gathering.has_news() && !self.gathering.awaits_burial()
    }
}
