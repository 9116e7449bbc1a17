//! Journal thread: encodes captured exchanges, appends their records, and syncs them in groups.
//!
//! One thread owns the journal. It never makes the tap wait: an exchange that does not fit is shed and counted. The
//! sinks (local archiver, Kafka publisher) read the journal on threads of their own.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::Record;
use schemas::exchange::Edge;
use schemas::id::SessionId;
use schemas::session::CloseReason;
use store::log::{LogError, LogWriter};
use tokio::sync::watch;

use self::log_once::LogOnce;
use crate::capture::accounts::CaptureAccounts;
use crate::capture::exchange::CapturedExchange;
use crate::capture::queue::{JournalInbox, JournalMessage};
use crate::capture::sessions::PendingClose;
use crate::encode::ExchangeEncoder;
use crate::metrics::journal_gauges::JournalGauges;

pub(crate) mod checkpoint;
mod log_once;
pub(crate) mod reader;

/// Messages that share one sync.
const GROUP: usize = 256;

/// Bytes that the log adds to each record.
const FRAME_BYTES: u64 = 8;

/// Longest time to collect a group. A killed process loses the records that wait for their sync.
const GROUP_TIME: Duration = Duration::from_millis(20);

/// Longest wait for a message; afterwards the thread checks for a stop request and a sweep.
const TICK: Duration = Duration::from_millis(100);

/// Time between two sweeps for due sessions.
const SWEEP: Duration = Duration::from_secs(1);

/// Share of the journal (one in so many bytes) that is reserved for close rows: a session without one is incomplete.
const CLOSE_SHARE: u64 = 16;

/// The journal thread.
#[derive(Debug)]
pub(crate) struct Journal {
    writer: LogWriter,
    max_bytes: u64,
    encoder: ExchangeEncoder,
    accounts: Arc<CaptureAccounts>,
    /// Tells the sink the position after the last durable record.
    durable: watch::Sender<u64>,
    gauges: Arc<JournalGauges>,
    unsynced: Vec<(SessionId, Edge)>,
    unsynced_closes: Vec<PendingClose>,
    last_sweep: Instant,
    log: LogOnce,
}

impl Journal {
    /// `max_bytes` bounds the journal on disk.
    pub(crate) fn new(
        writer: LogWriter,
        max_bytes: u64,
        encoder: ExchangeEncoder,
        accounts: Arc<CaptureAccounts>,
        durable: watch::Sender<u64>,
        gauges: Arc<JournalGauges>,
    ) -> Self {
        gauges.set_journal_bytes(writer.bytes());
        gauges.set_durable(writer.next_position());
        Self {
            writer,
            max_bytes,
            encoder,
            accounts,
            durable,
            gauges,
            unsynced: Vec::new(),
            unsynced_closes: Vec::new(),
            last_sweep: Instant::now(),
            log: LogOnce::default(),
        }
    }

    /// Runs until a stop is requested. Messages that are queued by then are handled and durable when it returns.
    pub(crate) fn run(mut self, inbox: &JournalInbox) {
        while !inbox.stop_requested() {
            let first = inbox.receive(TICK);
            let started = Instant::now();
            let more = || (started.elapsed() < GROUP_TIME).then(|| inbox.try_receive()).flatten();
            let rest = std::iter::from_fn(more).take(GROUP);
            for message in first.into_iter().chain(rest) {
                self.handle(message);
            }
            // `sync` counts and logs a failure.
            let _ = self.sync();
            if self.last_sweep.elapsed() >= SWEEP {
                self.last_sweep = Instant::now();
                self.close_due();
                let _ = self.sync();
                self.log.shed(&self.accounts.sessions.counts());
            }
        }
        for message in inbox.remaining() {
            self.handle(message);
        }
        let _ = self.sync();
    }

    fn handle(&mut self, message: JournalMessage) {
        match message {
            JournalMessage::Exchange(captured) => self.record(captured),
            JournalMessage::Flush(reply) => {
                let position = self.sync();
                // The requester may have stopped waiting.
                let _ = reply.send(position);
            }
            JournalMessage::CloseAll(reply) => {
                let synced = self.sync();
                let closes = self.accounts.sessions.all_closes(self.accounts.now(), CloseReason::Shutdown);
                self.write_closes(closes);
                let _ = reply.send(synced.and_then(|_| self.sync()));
            }
            JournalMessage::Release(position) => {
                if let Err(error) = self.writer.delete_before(position) {
                    tracing::warn!(%error, position, "delivered journal segments cannot be deleted");
                }
                self.update_fill();
            }
            JournalMessage::Wake => {}
        }
    }

    /// Encodes and appends one exchange, or sheds it.
    fn record(&mut self, mut captured: Box<CapturedExchange>) {
        let edge = captured.route.edge;
        let buffered = captured.buffered_bytes();
        let encoder = &mut self.encoder;
        // A panic while one exchange is encoded must not end the recording of the others.
        let encoded = std::panic::catch_unwind(AssertUnwindSafe(|| encoder.encode(&mut captured)));
        self.gauges.add_body_losses(encoder.take_losses());
        self.accounts.dequeued();
        // The encoder took the bodies; `shed` releases the rest.
        self.accounts.release(buffered.saturating_sub(captured.buffered_bytes()));
        match encoded {
            Ok(Some((assigned, records))) => match self.append(&records, self.max_bytes / CLOSE_SHARE) {
                Ok(()) => {
                    self.accounts.release(captured.buffered_bytes());
                    self.unsynced.push((assigned.session, edge));
                    self.update_fill();
                }
                Err(reason) => self.accounts.shed(&captured, reason),
            },
            // The registry has counted this exchange of a shed session.
            Ok(None) => self.accounts.release(captured.buffered_bytes()),
            Err(_) => self.accounts.shed(&captured, "encoding failed"),
        }
    }

    /// Appends all records, or none where less than `reserve` bytes would remain free.
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
                    self.log.write_failed(&error);
                    "journal failed"
                }
            })?;
        }
        Ok(())
    }

    /// Writes close rows of the sessions that are due.
    fn close_due(&mut self) {
        let closes = self.accounts.sessions.due_closes(self.accounts.now());
        self.write_closes(closes);
    }

    fn write_closes(&mut self, closes: Vec<PendingClose>) {
        let mut refused = None;
        for close in closes {
            match self.append(&[Record::Close(Box::new(close.row.clone()))], 0) {
                Ok(()) => {
                    self.encoder.forget(&close.row.session);
                    self.unsynced_closes.push(close);
                }
                // The session stays open; the next sweep tries again.
                Err(reason) => refused = Some(reason),
            }
        }
        self.log.close_rows(refused);
    }

    /// Syncs the appended records, and only then counts them as journaled. Returns the position after the last durable
    /// record.
    fn sync(&mut self) -> Result<u64, String> {
        if self.unsynced.is_empty() && self.unsynced_closes.is_empty() {
            return Ok(self.writer.next_position());
        }
        let now = self.accounts.now();
        let synced = self.writer.sync();
        let sessions = &self.accounts.sessions;
        for (session, edge) in self.unsynced.drain(..) {
            match &synced {
                Ok(()) => sessions.journaled(&session, edge, now),
                Err(_) => sessions.shed(&session, "journal failed", now),
            }
        }
        for close in self.unsynced_closes.drain(..).filter(|_| synced.is_ok()) {
            sessions.closed(&close);
        }
        self.update_fill();
        if let Err(error) = synced {
            self.log.write_failed(&error);
            return Err(error.to_string());
        }
        self.log.written();
        self.gauges.set_durable(self.writer.next_position());
        self.durable.send_replace(self.writer.next_position());
        Ok(self.writer.next_position())
    }

    fn update_fill(&mut self) {
        self.gauges.set_journal_bytes(self.writer.bytes());
        let fill = self.writer.bytes().saturating_mul(255) / self.max_bytes.max(1);
        let fill = u8::try_from(fill).unwrap_or(u8::MAX);
        self.accounts.set_journal_fill(fill);
        self.log.fill(fill, self.writer.bytes(), self.max_bytes);
    }
}

#[cfg(test)]
mod tests {
    use schemas::id::{AgentId, TenantId};
    use schemas::keys::RootKey;
    use schemas::tools::ToolCatalog;
    use store::log::LogOptions;

    use super::*;
    use crate::capture::queue::journal_queue;
    use crate::capture::sessions::{SessionRegistry, SessionScope};
    use crate::config::Limits;
    use crate::encode::redact::Redactor;

    fn journal(folder: &std::path::Path) -> Journal {
        let tenant = TenantId::parse("t").expect("id");
        let keys = RootKey::new([1; 32]).tenant(&tenant);
        let scope = SessionScope { tenant, agent: AgentId::parse("a").expect("id"), build: None };
        let hour = Duration::from_secs(3600);
        let sessions = Arc::new(SessionRegistry::new(scope, "i".to_owned(), hour, hour));
        let redactor = Arc::new(Redactor::new(keys.clone(), vec![]));
        let accounts = Arc::new(CaptureAccounts::new(sessions, Limits::default(), Arc::new(|| 0)));
        let encoder =
            ExchangeEncoder::new(Arc::clone(&accounts), redactor, keys, ToolCatalog::default(), "i");
        let writer = LogWriter::open(folder, LogOptions::default()).expect("opens");
        Journal::new(writer, 1 << 20, encoder, accounts, watch::channel(0).0, Arc::default())
    }

    #[test]
    fn a_full_queue_does_not_lose_the_stop_request() {
        let folder = tempfile::tempdir().expect("a folder");
        let (queue, inbox) = journal_queue(1);
        let (reply, mut position) = tokio::sync::oneshot::channel();
        queue.send(JournalMessage::Flush(reply)).expect("has room");
        queue.request_stop();
        let (ended, end) = std::sync::mpsc::channel();
        let journal = journal(folder.path());
        // The sender stays alive: only the request can end the thread.
        let thread = std::thread::spawn(move || {
            journal.run(&inbox);
            ended.send(()).expect("the test waits");
        });
        end.recv_timeout(Duration::from_secs(20)).expect("the journal thread ends");
        thread.join().expect("no panic");
        assert_eq!(position.try_recv().expect("a queued message is handled"), Ok(0));
        drop(queue);
    }
}
