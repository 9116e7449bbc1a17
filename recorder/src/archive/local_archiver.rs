//! The journal turned into Parquet: batches that exist only through their commit, resumed from the last one.
//!
//! A thread with a small runtime of its own, so that encoding never takes a worker from the tap. A batch is cut after an
//! exchange or a close row, never after a piece.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use store::{Batch, ChunkIndex, Store, StoreError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::capture::sessions::SessionRegistry;
use crate::config::ArchiveConfig;
use crate::journal::Message;
use crate::journal::checkpoint::Checkpoint;
use crate::journal::reader::JournalReader;
use crate::metrics::journal_gauges::JournalGauges;

/// Flushes that may wait.
pub(crate) const MAX_FLUSHES: usize = 64;

/// The first wait after a failed commit; doubled up to [`MAX_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(200);

/// The longest wait after a failed commit.
const MAX_RETRY: Duration = Duration::from_secs(30);

/// A wish to have everything before a position committed.
#[derive(Debug)]
pub(crate) struct Flush {
    pub(crate) position: u64,
    pub(crate) reply: oneshot::Sender<Result<(), ArchiveError>>,
}

/// Why the journal is not archived.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// Journal or store say no for now.
    #[error("{0}")]
    Failed(String),
    /// Another process commits in this journal's name.
    #[error("{0}")]
    Lost(String),
}

/// Where records come from and go to.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) lake: Store,
    pub(crate) folder: PathBuf,
    pub(crate) source: String,
    pub(crate) config: ArchiveConfig,
    pub(crate) sessions: Arc<SessionRegistry>,
    pub(crate) gauges: Arc<JournalGauges>,
    pub(crate) journal: SyncSender<Message>,
    /// Where the position is written down for a start that publishes.
    pub(crate) checkpoint: Checkpoint,
    /// Position of the first record that is not committed.
    pub(crate) position: u64,
}

/// Entries that are read and not committed.
struct Gathered {
    entries: JournalReader,
    batch: Batch,
    bytes: u64,
    /// Position after the last entry.
    cut: u64,
    since: Option<Instant>,
    /// When the oldest entry ended.
    oldest: Option<i64>,
}

impl Archive {
    /// Works until the flush queue is closed; a flush that fails says why. Where another process commits in this
    /// journal's name nothing is tried again: what is left stays in the journal.
    pub(crate) async fn run(
        mut self,
        mut progress: watch::Receiver<u64>,
        mut flushes: mpsc::Receiver<Flush>,
    ) {
        let mut leaning = ChunkIndex::default();
        let mut waiting: Vec<Flush> = Vec::new();
        let mut gathered: Option<Gathered> = None;
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        let mut said = None;
        loop {
            let wanted = waiting.iter().map(|flush| flush.position).max().unwrap_or(0);
            let synced = *progress.borrow_and_update();
            match self.advance(&mut gathered, &mut leaning, synced, wanted).await {
                Ok(()) => {
                    backoff.reset();
                    if said.take().is_some() {
                        tracing::info!("the journal is archived again");
                    }
                    // Pieces without their exchange, left by a crash at the end of the journal, cannot be committed; nothing
                    // else can be missing here.
                    for flush in waiting.drain(..) {
                        // Nobody waits any more: then nobody needs the answer.
                        let _ = flush.reply.send(Ok(()));
                    }
                }
                Err(problem) => {
                    let text = problem.to_string();
                    if said.as_ref() != Some(&text) {
                        tracing::error!(%problem, "the journal cannot be archived; it is kept and tried again");
                        said = Some(text);
                    }
                    for flush in waiting.drain(..) {
                        let _ = flush.reply.send(Err(problem.clone()));
                    }
                    if matches!(problem, ArchiveError::Lost(_)) {
                        return refuse(&problem, flushes).await;
                    }
                    gathered = None;
                    leaning = ChunkIndex::default();
                    // Both branches are cancel-safe; a flush that comes meanwhile is a wish to try at once.
                    tokio::select! {
                        () = tokio::time::sleep(backoff.next_delay()) => {}
                        flush = flushes.recv() => match flush {
                            Some(flush) => waiting.push(flush),
                            None => return,
                        },
                    }
                    continue;
                }
            }
            let roll = gathered
                .as_ref()
                .and_then(|gathered| gathered.since)
                .map(|since| since + self.config.flush_every);
            // All three branches are cancel-safe: nothing is taken from a channel that is not returned.
            tokio::select! {
                flush = flushes.recv() => match flush {
                    Some(flush) => waiting.push(flush),
                    None => return,
                },
                changed = progress.changed() => if changed.is_err() { return },
                () = sleep_until(roll) => {}
            }
        }
    }

    /// Reads what is new and durable, before `synced`, and commits what is due or wanted.
    async fn advance(
        &mut self,
        gathered: &mut Option<Gathered>,
        leaning: &mut ChunkIndex,
        synced: u64,
        wanted: u64,
    ) -> Result<(), ArchiveError> {
        loop {
            let held = match gathered {
                Some(held) => held,
                None => gathered.insert(self.open()?),
            };
            let full = held.read(synced, self.config.flush_bytes.0)?;
            self.gauges.add_skipped(held.entries.take_skipped());
            self.gauges.set_delivered(if held.since.is_none() { synced } else { self.position }, held.oldest);
            let old = held.since.is_some_and(|since| since.elapsed() >= self.config.flush_every);
            if held.cut > self.position && (full || old || wanted > self.position) {
                let (batch, next) = held.take();
                self.commit(batch, next, leaning).await?;
            }
            if !full {
                return Ok(());
            }
        }
    }

    fn open(&self) -> Result<Gathered, ArchiveError> {
        let entries = JournalReader::open(&self.folder, self.position).map_err(failed)?;
        Ok(Gathered::new(entries, self.position))
    }

    async fn commit(
        &mut self,
        batch: Batch,
        next: u64,
        leaning: &mut ChunkIndex,
    ) -> Result<(), ArchiveError> {
        let exchanges = batch.exchanges.len() as u64;
        match self.lake.commit(&self.source, self.position, next, batch, leaning).await {
            Ok(_) => {}
            Err(error) => {
                // The put may have been done and only its answer lost; the commits say.
                let resumed = self.lake.resume_position(&self.source).await.unwrap_or(self.position);
                if resumed != next {
                    return Err(match error {
                        StoreError::LostPartition { .. } => ArchiveError::Lost(error.to_string()),
                        error => failed(error),
                    });
                }
            }
        }
        self.position = next;
        self.sessions.count_archived(exchanges);
        self.gauges.set_delivered(next, None);
        if let Err(error) = self.checkpoint.save(next) {
            tracing::warn!(%error, "the archived position cannot be written down");
        }
        // The journal thread has ended only when nothing is left to be deleted.
        let _ = self.journal.send(Message::Release(next));
        Ok(())
    }
}

impl Gathered {
    fn new(entries: JournalReader, cut: u64) -> Self {
        Self { entries, batch: Batch::default(), bytes: 0, cut, since: None, oldest: None }
    }

    /// Reads to the last durable entry, or until a batch is full; says which.
    fn read(&mut self, synced: u64, flush_bytes: u64) -> Result<bool, ArchiveError> {
        while self.bytes < flush_bytes {
            let Some(entry) = self.entries.next(synced).map_err(failed)? else { return Ok(false) };
            self.bytes += entry.bytes() as u64;
            self.cut = entry.position + 1;
            self.since.get_or_insert_with(Instant::now);
            self.oldest.get_or_insert(entry.ended_at());
            for read in entry.pieces {
                self.batch.push(read.record);
            }
            self.batch.push(entry.last.record);
        }
        Ok(true)
    }

    /// Takes what can be committed and the position after it.
    fn take(&mut self) -> (Batch, u64) {
        self.bytes = 0;
        self.since = None;
        self.oldest = None;
        (std::mem::take(&mut self.batch), self.cut)
    }
}

/// Says why nothing is archived any more to everyone who asks, until nobody can.
async fn refuse(problem: &ArchiveError, mut flushes: mpsc::Receiver<Flush>) {
    while let Some(flush) = flushes.recv().await {
        // Nobody waits any more: then nobody needs the answer.
        let _ = flush.reply.send(Err(problem.clone()));
    }
}

fn failed(error: impl std::fmt::Display) -> ArchiveError {
    ArchiveError::Failed(error.to_string())
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use store::log::{LogOptions, LogWriter};

    use super::*;
    use crate::journal::reader::tests::close;

    #[test]
    fn what_is_written_and_not_yet_durable_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = LogWriter::open(folder.path(), LogOptions::default()).expect("opens");
        for session in ["one", "two", "three"] {
            writer.append(&close(session)).expect("has room");
        }
        writer.sync().expect("syncs");
        let mut gathered = Gathered::new(JournalReader::open(folder.path(), 0).expect("opens"), 0);
        for (synced, rows) in [(0, 0), (1, 1), (1, 1), (3, 3)] {
            assert!(!gathered.read(synced, 1 << 20).expect("reads"));
            assert_eq!((gathered.cut, gathered.batch.closes.len()), (synced, rows));
        }
    }
}
