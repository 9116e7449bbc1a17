//! The one thread that owns the journal: takes finished captures, makes records of them, appends and syncs in groups.
//!
//! It never makes the tap wait: what does not fit is shed and counted. Parquet is the archive's.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use codec::Record;
use schemas::exchange::Edge;
use schemas::id::SessionId;
use schemas::session::CloseReason;
use store::log::{LogError, LogWriter};
use tokio::sync::{oneshot, watch};

use crate::capture::{self, Capture, Intake};
use crate::metrics::journal_gauges::JournalGauges;

pub(crate) mod checkpoint;
pub(crate) mod reader;
use crate::capture::sessions::PendingClose;
use crate::encode::Scribe;

/// Exchanges that share one sync.
const GROUP: usize = 256;

/// What the log puts before a record, in bytes.
const FRAME_BYTES: u64 = 8;

/// How long a group may be gathered: what waits for its sync is lost when the process is killed.
const GROUP_TIME: Duration = Duration::from_millis(20);

/// How long the thread sleeps when nothing comes.
const TICK: Duration = Duration::from_millis(100);

/// How often sessions are looked through for those that are over.
const SWEEP: Duration = Duration::from_secs(1);

/// Of the journal's bytes this share (one in so many) is kept for close rows: a session whose row finds no room is torn.
const CLOSE_SHARE: u64 = 16;

/// Looks without a loss after which shedding is said to be over.
const QUIET_SWEEPS: u32 = 30;

/// What the journal is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// An exchange is finished.
    Exchange(Box<Capture>),
    /// Everything before this is to be durable; answered with the position after it.
    Flush(oneshot::Sender<Result<u64, String>>),
    /// All sessions are to be closed; answered when the rows are durable.
    CloseAll(oneshot::Sender<Result<u64, String>>),
    /// Everything before this position is in Parquet, or acknowledged by Kafka.
    Release(u64),
    /// The thread is to end.
    Stop,
}

/// What archive or publisher is told: the position after the last durable record.
pub(crate) type Progress = watch::Sender<u64>;

/// The state of the thread.
#[derive(Debug)]
pub(crate) struct Journal {
    writer: LogWriter,
    max_bytes: u64,
    scribe: Scribe,
    intake: Arc<Intake>,
    progress: Progress,
    gauges: Arc<JournalGauges>,
    unsynced: Vec<(SessionId, Edge)>,
    unsynced_closes: Vec<PendingClose>,
    last_sweep: Instant,
    said: Said,
}

/// What was said last, so that each change is said once.
#[derive(Debug, Default)]
struct Said {
    /// The journal is more than half full.
    filling: bool,
    /// The disk refuses.
    failing: bool,
    /// Close rows find no room.
    rows_wait: bool,
    /// Exchanges that were shed by the last look.
    shed: u64,
    /// Looks since the last loss; absent while nothing is shed.
    quiet: Option<u32>,
}

impl Journal {
    pub(crate) fn new(
        writer: LogWriter,
        max_bytes: u64,
        scribe: Scribe,
        intake: Arc<Intake>,
        progress: Progress,
        gauges: Arc<JournalGauges>,
    ) -> Self {
        gauges.set_journal_bytes(writer.bytes());
        gauges.set_synced(writer.next_position());
        Self {
            writer,
            max_bytes,
            scribe,
            intake,
            progress,
            gauges,
            unsynced: Vec::new(),
            unsynced_closes: Vec::new(),
            last_sweep: Instant::now(),
            said: Said::default(),
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
                self.say_what_is_shed();
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
            Ok(Some((ticket, records))) => match self.append(&records, self.max_bytes / CLOSE_SHARE) {
                Ok(()) => {
                    self.intake.release(capture.held());
                    self.unsynced.push((ticket.session, edge));
                    self.note_fill();
                }
                Err(reason) => capture::shed(&self.intake, &capture, Some(reason)),
            },
            // Its session is shed, and this exchange is counted.
            Ok(None) => self.intake.release(capture.held()),
            Err(_) => capture::shed(&self.intake, &capture, Some("encoding failed")),
        }
    }

    /// Appends all of it, or nothing where less than `reserve` bytes would be left.
    fn append(&mut self, records: &[Record], reserve: u64) -> Result<(), &'static str> {
        let mut encoded = Vec::with_capacity(records.len());
        for record in records {
            encoded.push(record.encode().map_err(|_| "encoding failed")?);
        }
        let bytes: u64 = encoded.iter().map(|record| record.len() as u64 + FRAME_BYTES).sum();
        if self.writer.bytes() + bytes > self.max_bytes.saturating_sub(reserve) {
            return Err("journal full");
        }
        for record in &encoded {
            self.writer.append(record).map_err(|error| match error {
                LogError::Full { .. } => "journal full",
                LogError::RecordSize { .. } => "encoding failed",
                LogError::Io { .. }
                | LogError::InUse { .. }
                | LogError::Version { .. }
                | LogError::Damaged { .. } => {
                    self.say_failing(&error);
                    "journal failed"
                }
            })?;
        }
        Ok(())
    }

    /// Writes close rows of the sessions that are over, or with a reason of all.
    fn close(&mut self, all: Option<CloseReason>) {
        let mut refused = None;
        for due in self.intake.sessions.due(self.intake.now(), all) {
            match self.append(&[Record::Close(Box::new(due.row.clone()))], 0) {
                Ok(()) => {
                    self.scribe.forget(&due.row.session);
                    self.unsynced_closes.push(due);
                }
                // It stays open and is tried again at the next sweep.
                Err(reason) => refused = Some(reason),
            }
        }
        if let Some(reason) = refused
            && !self.said.rows_wait
        {
            tracing::warn!(reason, "close rows cannot be written; they are tried again");
        }
        self.said.rows_wait = refused.is_some();
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
            self.say_failing(&error);
            return Err(error.to_string());
        }
        if std::mem::take(&mut self.said.failing) {
            tracing::info!("the journal can be written again");
        }
        self.gauges.set_synced(self.writer.next_position());
        self.progress.send_replace(self.writer.next_position());
        Ok(self.writer.next_position())
    }

    fn note_fill(&mut self) {
        self.gauges.set_journal_bytes(self.writer.bytes());
        let fill = self.writer.bytes().saturating_mul(255) / self.max_bytes.max(1);
        let fill = u8::try_from(fill).unwrap_or(u8::MAX);
        self.intake.journal_fill.store(fill, Ordering::Relaxed);
        // Where it is said to be filling and where it is said to have room are apart, so that it is not said by turns.
        if !self.said.filling && fill > capture::HALF_FULL {
            self.said.filling = true;
            tracing::warn!(
                bytes = self.writer.bytes(),
                bound = self.max_bytes,
                "the journal is more than half full; a growing share of new sessions is shed"
            );
        } else if self.said.filling && fill < capture::HALF_FULL / 4 * 3 {
            self.said.filling = false;
            tracing::info!(bytes = self.writer.bytes(), "the journal has room again");
        }
    }

    fn say_failing(&mut self, error: &LogError) {
        if !std::mem::replace(&mut self.said.failing, true) {
            tracing::error!(%error, "the journal cannot be written; what is not in it is shed");
        }
    }

    fn say_what_is_shed(&mut self) {
        let counts = self.intake.sessions.counts();
        let shed = counts.shed_total();
        if shed > std::mem::replace(&mut self.said.shed, shed) {
            if self.said.quiet.is_none() {
                tracing::warn!(shed, reasons = ?counts.shed, "exchanges are shed");
            }
            self.said.quiet = Some(0);
        } else if let Some(quiet) = self.said.quiet {
            self.said.quiet = (quiet < QUIET_SWEEPS).then_some(quiet + 1);
            if self.said.quiet.is_none() {
                tracing::info!(shed, "no exchange is shed any more");
            }
        }
    }
}
