//! The one thread that owns the journal: takes finished captures, makes records of them, appends and syncs in groups.
//!
//! It never makes the tap wait: what does not fit is shed and counted. Parquet is the archive's.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use schemas::exchange::Edge;
use schemas::id::SessionId;
use schemas::record::Record;
use schemas::session::CloseReason;
use store::log::{LogError, LogWriter};
use tokio::sync::{oneshot, watch};

use crate::capture::{self, Capture, Intake};
use crate::scribe::Scribe;
use crate::sessions::DueClose;

/// Exchanges that share one sync.
const GROUP: usize = 256;

/// How long a group may be gathered: what waits for its sync is lost when the process is killed.
const GROUP_TIME: Duration = Duration::from_millis(20);

/// How long the thread sleeps when nothing comes.
const TICK: Duration = Duration::from_millis(100);

/// How often sessions are looked through for those that are over.
const SWEEP: Duration = Duration::from_secs(1);

/// What the journal is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// An exchange is finished.
    Exchange(Box<Capture>),
    /// Everything before this is to be durable; answered with the position after it.
    Flush(oneshot::Sender<Result<u64, String>>),
    /// All sessions are to be closed; answered when the rows are durable.
    CloseAll(oneshot::Sender<Result<u64, String>>),
    /// Everything before this position is in Parquet.
    Release(u64),
    /// The thread is to end.
    Stop,
}

/// What the archive is told: the position after the last durable record.
pub(crate) type Progress = watch::Sender<u64>;

/// The state of the thread.
#[derive(Debug)]
pub(crate) struct Journal {
    writer: LogWriter,
    max_bytes: u64,
    scribe: Scribe,
    intake: Arc<Intake>,
    progress: Progress,
    unsynced: Vec<(SessionId, Edge)>,
    unsynced_closes: Vec<DueClose>,
    last_sweep: Instant,
}

impl Journal {
    pub(crate) fn new(
        writer: LogWriter,
        max_bytes: u64,
        scribe: Scribe,
        intake: Arc<Intake>,
        progress: Progress,
    ) -> Self {
        Self {
            writer,
            max_bytes,
            scribe,
            intake,
            progress,
            unsynced: Vec::new(),
            unsynced_closes: Vec::new(),
            last_sweep: Instant::now(),
        }
    }

    /// Works until it is told to stop; everything taken by then is durable.
    pub(crate) fn run(mut self, receiver: &Receiver<Message>) {
        loop {
            let first = match receiver.recv_timeout(TICK) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Message::Stop),
            };
            let gathered = Instant::now();
            let more = || (gathered.elapsed() < GROUP_TIME).then(|| receiver.try_recv().ok()).flatten();
            let rest = std::iter::from_fn(more).take(GROUP);
            for message in first.into_iter().chain(rest) {
                if matches!(message, Message::Stop) {
                    // What is left to be said is said by `sync`, by counting.
                    let _ = self.sync();
                    return;
                }
                self.handle(message);
            }
            let _ = self.sync();
            if self.last_sweep.elapsed() >= SWEEP {
                self.last_sweep = Instant::now();
                self.close(None);
                let _ = self.sync();
            }
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Exchange(capture) => self.take(capture),
            Message::Flush(reply) => {
                let done = self.sync();
                // Nobody waits any more: then nobody needs the answer.
                let _ = reply.send(done);
            }
            Message::CloseAll(reply) => {
                let done = self.sync();
                self.close(Some(CloseReason::Shutdown));
                let _ = reply.send(done.and_then(|_| self.sync()));
            }
            Message::Release(position) => {
                if let Err(error) = self.writer.delete_before(position) {
                    tracing::warn!(%error, "archived journal segments cannot be deleted");
                }
                self.note_fill();
            }
            Message::Stop => {}
        }
    }

    fn take(&mut self, mut capture: Box<Capture>) {
        let edge = capture.route.edge;
        let held = capture.held();
        let scribe = &mut self.scribe;
        // A defect in decoding one exchange must not end the recording of all.
        let written = std::panic::catch_unwind(AssertUnwindSafe(|| scribe.write(&mut capture)));
        self.intake.queued.fetch_sub(1, Ordering::Relaxed);
        self.intake.release(held.saturating_sub(capture.held()));
        match written {
            Ok(Some((ticket, records))) => match self.append(&records) {
                Ok(()) => {
                    self.intake.release(capture.held());
                    self.unsynced.push((ticket.session, edge));
                }
                Err(reason) => capture::shed(&self.intake, &capture, Some(reason)),
            },
            // Its session is shed, and this exchange is counted.
            Ok(None) => self.intake.release(capture.held()),
            Err(_) => capture::shed(&self.intake, &capture, Some("encoding failed")),
        }
    }

    fn append(&mut self, records: &[Record]) -> Result<(), &'static str> {
        for record in records {
            let bytes = record.encode().map_err(|_| "encoding failed")?;
            self.writer.append(&bytes).map_err(|error| match error {
                LogError::Full { .. } => "journal full",
                LogError::RecordSize { .. } => "encoding failed",
                LogError::Io { .. }
                | LogError::InUse { .. }
                | LogError::Version { .. }
                | LogError::Damaged { .. } => {
                    tracing::error!(%error, "the journal cannot be written");
                    "journal failed"
                }
            })?;
        }
        Ok(())
    }

    /// Writes close rows of the sessions that are over, or with a reason of all.
    fn close(&mut self, all: Option<CloseReason>) {
        for due in self.intake.sessions.due(self.intake.now(), all) {
            match self.append(&[Record::Close(Box::new(due.row.clone()))]) {
                Ok(()) => {
                    self.scribe.forget(&due.row.session);
                    self.unsynced_closes.push(due);
                }
                // It stays open and is tried again at the next sweep.
                Err(reason) => tracing::warn!(reason, "a close row cannot be written"),
            }
        }
    }

    /// Makes durable what was appended; then, and only then, it counts as journaled.
    fn sync(&mut self) -> Result<u64, String> {
        if self.unsynced.is_empty() && self.unsynced_closes.is_empty() {
            return Ok(self.writer.next_position());
        }
        let now = self.intake.now();
        let synced = self.writer.sync();
        for (session, edge) in self.unsynced.drain(..) {
            match &synced {
                Ok(()) => self.intake.sessions.journaled(&session, edge, now),
                Err(_) => self.intake.sessions.shed(&session, "journal failed", now),
            }
        }
        for close in self.unsynced_closes.drain(..).filter(|_| synced.is_ok()) {
            self.intake.sessions.closed(&close);
        }
        self.note_fill();
        if let Err(error) = synced {
            tracing::error!(%error, "the journal cannot be synced");
            return Err(error.to_string());
        }
        self.progress.send_replace(self.writer.next_position());
        Ok(self.writer.next_position())
    }

    fn note_fill(&self) {
        let fill = self.writer.bytes().saturating_mul(255) / self.max_bytes.max(1);
        self.intake.journal_fill.store(u8::try_from(fill).unwrap_or(u8::MAX), Ordering::Relaxed);
    }
}
