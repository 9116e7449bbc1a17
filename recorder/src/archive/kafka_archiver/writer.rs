//! Writer of one partition: claims it in the store, then commits one batch at a time.
//!
//! After any failure the writer reports it and ends. The reader then claims the partition again and reads from its last
//! commit, because a commit whose answer was lost may exist.

use std::collections::BTreeMap;
use std::time::Duration;

use store::{ChunkIndex, Claim, Store, StoreError};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::partition_buffer::CommitRequest;
use crate::backoff::Backoff;

/// Commit requests that may wait for the running one.
const MAX_QUEUED_COMMITS: usize = 1;

/// The first delay after a failed claim or commit; each further one is twice as long.
const FIRST_RETRY: Duration = Duration::from_millis(500);

/// The longest delay after a failed claim or commit.
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Delays between the attempts of one partition.
pub(crate) fn backoff() -> Backoff {
    Backoff::new(FIRST_RETRY, MAX_RETRY)
}

/// What happened to a partition in the store.
#[derive(Debug)]
pub(crate) enum WriterEvent {
    /// The partition is claimed.
    Claimed {
        /// Offset of the next message.
        position: u64,
        /// Position after the last stored record, by journal.
        journals: BTreeMap<String, u64>,
    },
    /// A batch is committed.
    Committed {
        /// Offset after the last message that the store holds.
        next: u64,
        /// Exchanges in the batch.
        exchanges: u64,
        /// Files of the batch.
        files: u64,
    },
    /// The store refused the claim; the writer tries again. Contains the error.
    ClaimRefused(String),
    /// A commit failed, and the writer has ended. Contains the error.
    CommitFailed(String),
    /// Another process has claimed the partition, and the writer has ended. Contains the error.
    PartitionLost(String),
}

/// An event of a partition's writer.
#[derive(Debug)]
pub(crate) struct WriterReport {
    /// Number of the partition.
    pub(crate) partition: i32,
    /// Number of the writer: the reader ignores states that an earlier writer of the partition reports.
    pub(crate) epoch: u64,
    /// The event.
    pub(crate) event: WriterEvent,
}

/// What all writers share.
#[derive(Debug, Clone)]
pub(crate) struct WriterContext {
    pub(crate) store: Store,
    /// Name of the topic.
    pub(crate) topic: String,
    /// Runtime of the writers.
    pub(crate) runtime: Handle,
    /// Queue to the reader.
    pub(crate) reports: mpsc::Sender<WriterReport>,
}

/// A running writer. Dropping the handle lets it finish the queued commit and end.
#[derive(Debug)]
pub(crate) struct WriterHandle {
    commits: mpsc::Sender<CommitRequest>,
    task: JoinHandle<()>,
}

impl WriterHandle {
    /// Starts the writer of a partition.
    pub(crate) fn start(context: &WriterContext, partition: i32, epoch: u64) -> Self {
        let (commits, requests) = mpsc::channel(MAX_QUEUED_COMMITS);
        let writer = Writer {
            store: context.store.clone(),
            source: format!("{}-{partition}", context.topic),
            partition,
            epoch,
            reports: context.reports.clone(),
        };
        Self { commits, task: context.runtime.spawn(writer.run(requests)) }
    }

    /// Reserves the place of a commit request; absent while the queue is full, or after the writer has ended.
    pub(crate) fn try_reserve(&self) -> Option<mpsc::Permit<'_, CommitRequest>> {
        self.commits.try_reserve().ok()
    }

    /// Whether the writer has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Closes the queue; the task ends after the queued commit.
    pub(crate) fn close(self) -> JoinHandle<()> {
        self.task
    }
}

/// The writer of one partition.
#[derive(Debug)]
struct Writer {
    store: Store,
    /// Name of the partition in the store.
    source: String,
    partition: i32,
    epoch: u64,
    reports: mpsc::Sender<WriterReport>,
}

impl Writer {
    /// Claims the partition and commits requests until their queue closes or a commit fails.
    async fn run(self, mut requests: mpsc::Receiver<CommitRequest>) {
        let Some(mut claim) = self.claim(&mut requests).await else { return };
        let (position, journals) = (claim.position(), claim.journals().clone());
        self.report(WriterEvent::Claimed { position, journals }).await;
        let mut chunk_index = ChunkIndex::default();
        while let Some(request) = requests.recv().await {
            let CommitRequest { batch, next, journals, exchanges, .. } = request;
            let made = self.store.commit_claimed(&mut claim, next, journals, batch, &mut chunk_index).await;
            let event = match made {
                Ok(commit) => WriterEvent::Committed { next, exchanges, files: commit.files.len() as u64 },
                Err(error @ StoreError::LostPartition { .. }) => {
                    WriterEvent::PartitionLost(error.to_string())
                }
                Err(error) => WriterEvent::CommitFailed(error.to_string()),
            };
            let failed = !matches!(event, WriterEvent::Committed { .. });
            self.report(event).await;
            if failed {
                return;
            }
        }
    }

    /// Claims the partition, with retries; `None` after the queue of requests has closed.
    async fn claim(&self, requests: &mut mpsc::Receiver<CommitRequest>) -> Option<Claim> {
        let mut backoff = backoff();
        loop {
            match self.store.claim(&self.source).await {
                Ok(claim) => return Some(claim),
                Err(error) => self.report(WriterEvent::ClaimRefused(error.to_string())).await,
            }
            // Both branches are cancel-safe. The reader sends no request before the claim, so `recv` returns only on close.
            tokio::select! {
                () = tokio::time::sleep(backoff.next_delay()) => {}
                _ = requests.recv() => return None,
            }
        }
    }

    async fn report(&self, event: WriterEvent) {
        // An error means that the reader has ended and needs no report.
        let _ = self.reports.send(WriterReport { partition: self.partition, epoch: self.epoch, event }).await;
    }
}
