//! Bounded queue from the tap to the journal thread.
//!
//! The tap never waits for room: a full queue refuses a captured exchange. Control messages may wait. The stop signal
//! is a flag beside the queue, so that a full queue cannot lose it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;

use super::exchange::CapturedExchange;

/// Receives the position after the last durable record, or the error of the journal.
pub(crate) type PositionReply = oneshot::Sender<Result<u64, String>>;

/// One message to the journal thread.
#[derive(Debug)]
pub(crate) enum JournalMessage {
    /// A captured exchange has ended.
    Exchange(Box<CapturedExchange>),
    /// Makes every earlier message durable, then replies.
    Flush(PositionReply),
    /// Closes every session, then replies once the close rows are durable.
    CloseAll(PositionReply),
    /// A sink has delivered every record before this position.
    Release(u64),
    /// Wakes the thread after a stop request.
    Wake,
}

/// Sending side. Clones send into the same queue.
#[derive(Debug, Clone)]
pub(crate) struct JournalQueue {
    sender: SyncSender<JournalMessage>,
    stop: Arc<AtomicBool>,
}

/// Receiving side, owned by the journal thread.
#[derive(Debug)]
pub(crate) struct JournalInbox {
    receiver: Receiver<JournalMessage>,
    stop: Arc<AtomicBool>,
    capacity: usize,
}

/// The journal thread has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disconnected;

/// Makes a queue for `capacity` messages.
pub(crate) fn journal_queue(capacity: usize) -> (JournalQueue, JournalInbox) {
    let (sender, receiver) = sync_channel(capacity);
    let stop = Arc::new(AtomicBool::new(false));
    (JournalQueue { sender, stop: Arc::clone(&stop) }, JournalInbox { receiver, stop, capacity })
}

impl JournalQueue {
    /// Enqueues a captured exchange without waiting.
    ///
    /// # Errors
    /// Gives the exchange back with a shed reason: the queue is full, or the journal thread has ended.
    pub(crate) fn try_send(
        &self,
        capture: Box<CapturedExchange>,
    ) -> Result<(), (Box<CapturedExchange>, &'static str)> {
        let (message, reason) = match self.sender.try_send(JournalMessage::Exchange(capture)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(message)) => (message, "queue full"),
            Err(TrySendError::Disconnected(message)) => (message, "journal failed"),
        };
        // The channel returns the message that it refuses.
        let JournalMessage::Exchange(capture) = message else { return Ok(()) };
        Err((capture, reason))
    }

    /// Enqueues a message and blocks while the queue is full.
    ///
    /// # Errors
    /// The journal thread has ended.
    pub(crate) fn send(&self, message: JournalMessage) -> Result<(), Disconnected> {
        self.sender.send(message).map_err(|_| Disconnected)
    }

    /// Tells the journal thread to end after the messages that are queued by now. Never blocks.
    pub(crate) fn request_stop(&self) {
        self.stop.store(true, Ordering::Release);
        // A full queue needs no wake-up: the thread looks at the flag after the messages it takes.
        let _ = self.sender.try_send(JournalMessage::Wake);
    }
}

impl JournalInbox {
    /// Waits at most `timeout` for a message. A queue without senders counts as a stop request.
    pub(crate) fn receive(&self, timeout: Duration) -> Option<JournalMessage> {
        match self.receiver.recv_timeout(timeout) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.stop.store(true, Ordering::Release);
                None
            }
        }
    }

    /// A message that is there already.
    pub(crate) fn try_receive(&self) -> Option<JournalMessage> {
        self.receiver.try_recv().ok()
    }

    /// Whether a stop was requested.
    pub(crate) fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The messages to handle after a stop request: at most a full queue, so that a busy tap cannot delay the end.
    pub(crate) fn remaining(&self) -> impl Iterator<Item = JournalMessage> {
        self.receiver.try_iter().take(self.capacity)
    }
}
