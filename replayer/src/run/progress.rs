//! The progress of a replay.

use schemas::id::CaseId;
use schemas::trial::TrialEnding;

/// Progress of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The sessions are selected.
    Corpus {
        /// Complete and usable sessions.
        complete: usize,
        /// Sessions left out because exchanges are missing.
        incomplete: usize,
        /// Complete sessions left out because they have no turn to replay.
        unusable: usize,
        /// Selected sessions.
        selected: usize,
    },
    /// The candidate answered the probe.
    Probed,
    /// The trials of the next wave are planned.
    Planned {
        /// Planned trials, earlier waves included.
        trials: usize,
        /// Finished trials, those of earlier starts included.
        already: usize,
    },
    /// A trial is finished and on disk.
    Finished {
        /// Finished trials, those of earlier starts included.
        done: usize,
        /// Planned trials.
        total: usize,
        /// Case of the trial.
        case: CaseId,
        /// Number of the trial within its case, from 0.
        trial: u32,
        /// Ending of the trial.
        ending: TrialEnding,
    },
}

/// Receives the progress of a replay.
pub type ProgressFn<'a> = dyn FnMut(Progress) + Send + 'a;
