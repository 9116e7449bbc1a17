//! Logs of the journal thread: one line per change of state, not one per record.

use store::log::LogError;

use crate::capture::accounts::HALF_FULL;
use crate::metrics::counts::ExchangeCounts;

/// Sweeps without a loss after which shedding counts as over.
const QUIET_SWEEPS: u32 = 30;

/// The states that are logged by now.
#[derive(Debug, Default)]
pub(super) struct LogOnce {
    /// The journal is more than half full.
    filling: bool,
    write_failing: bool,
    /// Close rows find no room.
    closes_waiting: bool,
    /// Shed exchanges at the last sweep.
    shed: u64,
    /// Sweeps since the last loss; absent while nothing is shed.
    quiet_sweeps: Option<u32>,
}

impl LogOnce {
    /// `fill` is the fill level of the journal, 0 to 255. Two thresholds keep a level near one from logging by turns.
    pub(super) fn fill(&mut self, fill: u8, bytes: u64, max_bytes: u64) {
        if !self.filling && fill > HALF_FULL {
            self.filling = true;
            tracing::warn!(
                bytes,
                max_bytes,
                "the journal is more than half full; a growing share of new sessions is shed"
            );
        } else if self.filling && fill < HALF_FULL / 4 * 3 {
            self.filling = false;
            tracing::info!(bytes, "the journal has room again");
        }
    }

    pub(super) fn write_failed(&mut self, error: &LogError) {
        if !std::mem::replace(&mut self.write_failing, true) {
            tracing::error!(%error, "the journal cannot be written; exchanges are shed until it can");
        }
    }

    pub(super) fn written(&mut self) {
        if std::mem::take(&mut self.write_failing) {
            tracing::info!("the journal can be written again");
        }
    }

    /// `refused` is the reason for which a close row was not written.
    pub(super) fn close_rows(&mut self, refused: Option<&'static str>) {
        if let Some(reason) = refused
            && !self.closes_waiting
        {
            tracing::warn!(reason, "close rows cannot be written; the next sweep tries again");
        }
        self.closes_waiting = refused.is_some();
    }

    pub(super) fn shed(&mut self, counts: &ExchangeCounts) {
        let shed = counts.shed_total();
        if shed > std::mem::replace(&mut self.shed, shed) {
            if self.quiet_sweeps.is_none() {
                tracing::warn!(shed, reasons = ?counts.shed, "exchanges are shed");
            }
            self.quiet_sweeps = Some(0);
        } else if let Some(quiet) = self.quiet_sweeps {
            self.quiet_sweeps = (quiet < QUIET_SWEEPS).then_some(quiet + 1);
            if self.quiet_sweeps.is_none() {
                tracing::info!(shed, "no exchange is shed any more");
            }
        }
    }
}
