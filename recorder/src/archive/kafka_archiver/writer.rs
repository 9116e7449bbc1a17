//! The writing side of one partition: claims it in the store, then commits what is handed over, one batch at a time.
//!
//! After any failure it ends and says so: the batch is read again from the broker under a new claim, for a commit whose
//! answer was lost may have been made.

use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use store::{ChunkIndex, Claim, Store, StoreError};
use tokio::sync::mpsc;

use super::partition_buffer::Ready;
use crate::backoff::Backoff;

/// Batches that may wait for the one being committed.
pub(crate) const MAX_WAITING: usize = 1;

/// The first wait after a failed claim; doubled up to [`MAX_RETRY`].
pub(crate) const FIRST_RETRY: Duration = Duration::from_millis(500);

/// The longest wait after a failed claim or commit.
pub(crate) const MAX_RETRY: Duration = Duration::from_secs(30);

/// What a writer has to say.
#[derive(Debug)]
pub(crate) enum News {
    /// The partition is claimed: it goes on here.
    Claimed {
        /// Offset of the next message.
        position: u64,
        /// Of each journal, how far it is stored.
        journals: BTreeMap<String, u64>,
    },
    /// A batch is committed.
    Committed {
        /// Up to where the partition is stored.
        next: u64,
        /// Exchanges in the batch.
        exchanges: u64,
        /// Files of the batch.
        files: u64,
    },
    /// The store says no for now; tried again.
    Refused(String),
    /// The batch is not committed, and the writer has ended.
    Failed(String),
    /// Another process has claimed the partition, and the writer has ended.
    Lost(String),
}

/// News of a partition.
#[derive(Debug)]
pub(crate) struct Report {
    /// Which partition.
    pub(crate) partition: i32,
    /// Which of its writers: news of an earlier one means nothing any more.
    pub(crate) epoch: u64,
    /// What is new.
    pub(crate) news: News,
}

/// The writer of one partition.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) lake: Store,
    /// The name of the partition in the store.
    pub(crate) source: String,
    pub(crate) partition: i32,
    pub(crate) epoch: u64,
    pub(crate) reports: SyncSender<Report>,
}

impl Writer {
    /// Works until nothing can be handed over any more, or something fails.
    pub(crate) async fn run(self, mut batches: mpsc::Receiver<Ready>) {
        let Some(mut claim) = self.claim(&mut batches).await else { return };
        self.report(News::Claimed { position: claim.position(), journals: claim.journals().clone() });
        let mut leaning = ChunkIndex::default();
        while let Some(ready) = batches.recv().await {
            let Ready { batch, next, journals, exchanges, .. } = ready;
            let made = self.lake.commit_claimed(&mut claim, next, journals, batch, &mut leaning).await;
            match made {
                Ok(commit) => {
                    let files = commit.files.len() as u64;
                    self.report(News::Committed { next, exchanges, files });
                }
                Err(error @ StoreError::LostPartition { .. }) => {
                    return self.report(News::Lost(error.to_string()));
                }
                Err(error) => return self.report(News::Failed(error.to_string())),
            }
        }
    }

    /// Claims the partition, again and again while the store says no; `None` once nobody wants it any more.
    async fn claim(&self, batches: &mut mpsc::Receiver<Ready>) -> Option<Claim> {
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        loop {
            match self.lake.claim(&self.source).await {
                Ok(claim) => return Some(claim),
                Err(error) => self.report(News::Refused(error.to_string())),
            }
            // Both branches are cancel-safe; before the claim nothing is handed over, so what comes is the end.
            tokio::select! {
                () = tokio::time::sleep(backoff.next_delay()) => {}
                _ = batches.recv() => return None,
            }
        }
    }

    fn report(&self, news: News) {
        // The reader is gone: then nobody needs to know.
        let _ = self.reports.send(Report { partition: self.partition, epoch: self.epoch, news });
    }
}
