//! The signals that ask a command to end: an interrupt from a terminal, and what CI runners and orchestrators send.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// SIGINT and SIGTERM, caught from the moment this is made.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Catches both; neither ends the process by itself any more.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub(crate) fn catch() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next of either; cancel-safe.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Turns a signal into a cancellation: what is finished is kept.
pub(crate) async fn cancel_on_signal(cancel: CancellationToken) {
    if let Ok(mut signals) = Signals::catch() {
        signals.next().await;
        cancel.cancel();
    }
}
