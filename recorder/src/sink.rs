//! Shared parts of the two consumers of a journal: the local archiver and the Kafka publisher.
//!
//! A recorder runs exactly one of them, on a thread of its own. Each reads journal entries in order, delivers them, and
//! moves the checkpoint on. Reading is in [`crate::journal::reader`].

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::capture::queue::{JournalMessage, JournalQueue};
use crate::capture::sessions::SessionRegistry;
use crate::journal::checkpoint::Checkpoint;
use crate::metrics::journal_gauges::JournalGauges;

/// Flush requests that may wait in a sink's channel.
pub(crate) const MAX_FLUSH_REQUESTS: usize = 64;

/// A request to deliver every journal record before a position.
#[derive(Debug)]
pub(crate) struct FlushRequest {
    /// Position after the last record to deliver.
    pub(crate) position: u64,
    /// Gets the result; the requester may have stopped waiting.
    pub(crate) reply: oneshot::Sender<Result<(), SinkError>>,
}

/// A failed delivery.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum SinkError {
    /// Journal or store refused; the sink tries again.
    #[error("{0}")]
    Failed(String),
    /// Another process commits under the name of this journal; the sink has stopped.
    #[error("{0}")]
    TakenOver(String),
}

/// State of the recorder that a sink reads and updates.
#[derive(Debug)]
pub(crate) struct SinkContext {
    /// Folder of the journal's segments.
    pub(crate) folder: PathBuf,
    /// Name of the journal. Commits and Kafka messages carry it, so that a reader drops a record that arrives twice.
    pub(crate) journal: String,
    /// Counts archived and published exchanges.
    pub(crate) sessions: Arc<SessionRegistry>,
    pub(crate) gauges: Arc<JournalGauges>,
    pub(crate) queue: JournalQueue,
    pub(crate) checkpoint: Checkpoint,
}

impl SinkContext {
    /// Saves the checkpoint and lets the journal delete every segment before `position`.
    ///
    /// Blocks while the queue to the journal thread is full.
    pub(crate) fn advance(&mut self, position: u64) {
        if let Err(error) = self.checkpoint.save(position) {
            tracing::warn!(
                %error,
                position,
                "the checkpoint cannot be saved; after a restart some records are delivered again"
            );
        }
        // The journal thread ends after this one, unless it panicked.
        let _ = self.queue.send(JournalMessage::Release(position));
    }
}
