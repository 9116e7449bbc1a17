//! SIGINT from a terminal and SIGTERM from CI runners and orchestrators: both ask a command to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Handlers of SIGINT and SIGTERM; from their creation on, neither signal ends the process by itself.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Installs both handlers.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub(crate) fn catch() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next signal. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Runs `work` and cancels `cancel` on the first signal; the work then finishes what it has begun.
pub(crate) async fn cancel_on_signal<T>(cancel: CancellationToken, work: impl Future<Output = T>) -> T {
    let watch = async {
        if let Ok(mut signals) = Signals::catch() {
            signals.next().await;
            cancel.cancel();
        }
        std::future::pending::<()>().await;
    };
    // The watch never completes, so the work always does; dropping the watch is safe.
    tokio::select! {
        done = work => done,
        () = watch => unreachable!("the watch is pending for ever"),
    }
}
