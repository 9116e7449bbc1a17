//! Local archiver: turns the journal of this recorder into Parquet files, on a thread of its own.
//!
//! A batch ends after an exchange or a close row, never after a chunk, and exists only through its commit. A restart
//! resumes at the last commit. The thread reads the journal and encodes Parquet; its small runtime serves the store's
//! requests alone, so that neither reading nor encoding delays the tap.

use std::time::Duration;

use store::{Batch, ChunkIndex, Store, StoreError};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::config::ArchiveConfig;
use crate::journal::reader::JournalReader;
use crate::sink::{FlushRequest, SinkContext, SinkError};

/// Wait after the first failed commit. It doubles up to [`MAX_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(200);

/// Longest wait after a failed commit.
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Archives a journal into a store.
#[derive(Debug)]
pub(crate) struct LocalArchiver {
    pub(crate) store: Store,
    pub(crate) config: ArchiveConfig,
    /// The checkpoint is saved as well: a later start may publish instead.
    pub(crate) sink: SinkContext,
    /// Position of the first record that is not committed.
    pub(crate) position: u64,
}

/// Entries that are read and not committed.
struct PendingBatch {
    reader: JournalReader,
    batch: Batch,
    bytes: u64,
    /// Position after the last entry.
    next: u64,
    /// When the first entry was read.
    since: Option<Instant>,
    /// End of the first entry's exchange, microseconds since 1970.
    oldest: Option<i64>,
}

/// Reason to poll the journal again.
enum Event {
    Flush(FlushRequest),
    /// More records are durable, or a deadline has passed.
    Due,
    /// The recorder ends.
    End,
}

impl LocalArchiver {
    /// Runs until the channel of flush requests closes. A failed commit is tried again, except where another process
    /// commits under the name of this journal; the remaining records then stay in the journal.
    pub(crate) fn run(
        mut self,
        runtime: &Runtime,
        mut durable: watch::Receiver<u64>,
        mut requests: mpsc::Receiver<FlushRequest>,
    ) {
        let mut chunks = ChunkIndex::default();
        let mut pending: Option<PendingBatch> = None;
        let mut waiting: Vec<FlushRequest> = Vec::new();
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        let mut logged = None;
        loop {
            let wanted = waiting.iter().map(|request| request.position).max().unwrap_or(0);
            let until = *durable.borrow_and_update();
            let event = match self.poll(runtime, &mut pending, &mut chunks, until, wanted) {
                Ok(()) => {
                    backoff.reset();
                    if logged.take().is_some() {
                        tracing::info!("the journal is archived again");
                    }
                    // Only orphan chunks can remain, left by a crash at the end of the journal; nothing commits them.
                    reply(&mut waiting, &Ok(()));
                    let due = pending.as_ref().and_then(|pending| pending.since);
                    let due = due.map(|since| since + self.config.flush_every);
                    runtime.block_on(next_event(&mut requests, Some(&mut durable), due))
                }
                Err(problem) => {
                    let text = problem.to_string();
                    if logged.as_ref() != Some(&text) {
                        tracing::error!(%problem, "the journal cannot be archived; it is kept, and the archiver tries again");
                        logged = Some(text);
                    }
                    reply(&mut waiting, &Err(problem.clone()));
                    if matches!(problem, SinkError::TakenOver(_)) {
                        return refuse(&problem, requests);
                    }
                    pending = None;
                    chunks = ChunkIndex::default();
                    // A flush request ends the wait: it asks for an attempt now.
                    let retry_at = Instant::now() + backoff.next_delay();
                    runtime.block_on(next_event(&mut requests, None, Some(retry_at)))
                }
            };
            match event {
                Event::Flush(request) => waiting.push(request),
                Event::Due => {}
                Event::End => return,
            }
        }
    }

    /// Reads the entries before the position `durable`. Commits them if the batch is full or old, or if a flush requests
    /// positions up to `wanted`.
    fn poll(
        &mut self,
        runtime: &Runtime,
        pending: &mut Option<PendingBatch>,
        chunks: &mut ChunkIndex,
        durable: u64,
        wanted: u64,
    ) -> Result<(), SinkError> {
        loop {
            let batch = match pending {
                Some(batch) => batch,
                None => {
                    let reader = JournalReader::open(&self.sink.folder, self.position).map_err(failed)?;
                    pending.insert(PendingBatch::new(reader, self.position))
                }
            };
            let full = batch.read(durable, self.config.flush_bytes.0)?;
            let gauges = &self.sink.gauges;
            gauges.add_skipped(batch.reader.take_skipped());
            gauges.set_delivered(if batch.since.is_none() { durable } else { self.position }, batch.oldest);
            let old = batch.since.is_some_and(|since| since.elapsed() >= self.config.flush_every);
            if batch.next > self.position && (full || old || wanted > self.position) {
                let (rows, next) = batch.take();
                runtime.block_on(self.commit(rows, next, chunks))?;
                self.sink.gauges.set_delivered(next, None);
                self.sink.advance(next);
            }
            if !full {
                return Ok(());
            }
        }
    }

    async fn commit(&mut self, batch: Batch, next: u64, chunks: &mut ChunkIndex) -> Result<(), SinkError> {
        let exchanges = batch.exchanges.len() as u64;
        let journal = &self.sink.journal;
        if let Err(error) = self.store.commit(journal, self.position, next, batch, chunks).await {
            // The commit may exist although its response was lost; the store's log decides.
            let resumed = self.store.resume_position(journal).await.unwrap_or(self.position);
            if resumed != next {
                return Err(match error {
                    StoreError::LostPartition { .. } => SinkError::TakenOver(error.to_string()),
                    error => failed(error),
                });
            }
        }
        self.position = next;
        self.sink.sessions.count_archived(exchanges);
        Ok(())
    }
}

impl PendingBatch {
    fn new(reader: JournalReader, next: u64) -> Self {
        Self { reader, batch: Batch::default(), bytes: 0, next, since: None, oldest: None }
    }

    /// Reads until the last durable entry (`false`) or until the batch has `flush_bytes` (`true`).
    fn read(&mut self, durable: u64, flush_bytes: u64) -> Result<bool, SinkError> {
        while self.bytes < flush_bytes {
            let Some(entry) = self.reader.next(durable).map_err(failed)? else { return Ok(false) };
            self.bytes += entry.bytes() as u64;
            self.next = entry.position + 1;
            self.since.get_or_insert_with(Instant::now);
            self.oldest.get_or_insert(entry.ended_at());
            for chunk in entry.chunks {
                self.batch.push(chunk.record);
            }
            self.batch.push(entry.last.record);
        }
        Ok(true)
    }

    /// Takes the rows to commit, and the position after them.
    fn take(&mut self) -> (Batch, u64) {
        self.bytes = 0;
        self.since = None;
        self.oldest = None;
        (std::mem::take(&mut self.batch), self.next)
    }
}

/// Waits for a flush request, for more durable records, or for a time.
async fn next_event(
    requests: &mut mpsc::Receiver<FlushRequest>,
    durable: Option<&mut watch::Receiver<u64>>,
    time: Option<Instant>,
) -> Event {
    let more = async {
        match durable {
            Some(durable) => durable.changed().await.is_ok(),
            None => std::future::pending().await,
        }
    };
    let time = async {
        match time {
            Some(time) => tokio::time::sleep_until(time).await,
            None => std::future::pending().await,
        }
    };
    // All branches are cancel-safe: a channel keeps what a cancelled branch did not return.
    tokio::select! {
        request = requests.recv() => request.map_or(Event::End, Event::Flush),
        journal_runs = more => if journal_runs { Event::Due } else { Event::End },
        () = time => Event::Due,
    }
}

fn reply(waiting: &mut Vec<FlushRequest>, result: &Result<(), SinkError>) {
    for request in waiting.drain(..) {
        // The requester may have stopped waiting.
        let _ = request.reply.send(result.clone());
    }
}

/// Refuses flush requests until the channel closes.
fn refuse(problem: &SinkError, mut requests: mpsc::Receiver<FlushRequest>) {
    while let Some(request) = requests.blocking_recv() {
        reply(&mut vec![request], &Err(problem.clone()));
    }
}

fn failed(error: impl std::fmt::Display) -> SinkError {
    SinkError::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use store::log::{LogOptions, LogWriter};

    use super::*;
    use crate::journal::reader::tests::close;

    #[test]
    fn a_batch_has_durable_records_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = LogWriter::open(folder.path(), LogOptions::default()).expect("opens");
        for session in ["one", "two", "three"] {
            writer.append(&close(session)).expect("has room");
        }
        writer.sync().expect("syncs");
        let reader = JournalReader::open(folder.path(), 0).expect("opens");
        let mut pending = PendingBatch::new(reader, 0);
        for (durable, rows) in [(0, 0), (1, 1), (1, 1), (3, 3)] {
            assert!(!pending.read(durable, 1 << 20).expect("reads"));
            assert_eq!((pending.next, pending.batch.closes.len()), (durable, rows));
        }
    }
}
