//! The totals of a replay: the output of `foreshadow replay --json`.

use schemas::id::BuildId;
use schemas::trial::{Fidelity, Lane, Trial, TrialEnding};
use serde::Serialize;

use crate::corpus::{IncompleteSession, UnusableSession};

/// Trials by ending.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Endings {
    /// The candidate answered every turn.
    pub complete: u32,
    /// The candidate refused, crashed or answered with an error.
    pub failed: u32,
    /// The candidate did not answer a turn in time.
    pub timed_out: u32,
    /// The trial stopped because it left the recording. `replay` does not stop trials for that reason.
    pub truncated: u32,
    /// The model provider or the harness failed.
    pub infrastructure: u32,
}

/// Totals of a run. In a resumed run they include earlier starts, except where a field says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The run that contains the trials.
    pub run: String,
    /// Lane of the trials.
    pub lane: Lane,
    /// The build under test.
    pub build: BuildId,
    /// Cases that were replayed.
    pub cases: usize,
    /// Planned trials.
    pub planned: usize,
    /// Trials that earlier starts finished.
    pub already: usize,
    /// Trials that this start finished.
    pub ran: usize,
    /// Finished trials by ending.
    pub endings: Endings,
    /// World answers by the way in which they were found.
    pub fidelity: Fidelity,
    /// Calls to which the recording has no answer.
    pub divergences: usize,
    /// Repeated writes with the same arguments, in trials of this start.
    pub duplicated_writes: u64,
    /// Calls without a trial identifier, in this start.
    pub uncorrelated_calls: u64,
    /// Model calls.
    pub model_calls: u64,
    /// Input tokens.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// Sessions left out because exchanges are missing.
    pub incomplete: Vec<IncompleteSession>,
    /// Complete sessions left out because they have no turn to replay.
    pub unusable: Vec<UnusableSession>,
    /// Whether the replay stopped before its end; `--resume` continues it.
    pub interrupted: bool,
    /// Duration of this start, milliseconds.
    pub elapsed_ms: u64,
}

impl Summary {
    pub(crate) fn add(&mut self, trial: &Trial) {
        match trial.ending {
            TrialEnding::Complete => self.endings.complete += 1,
            TrialEnding::Failed => self.endings.failed += 1,
            TrialEnding::TimedOut => self.endings.timed_out += 1,
            TrialEnding::Truncated => self.endings.truncated += 1,
            TrialEnding::Infrastructure => self.endings.infrastructure += 1,
        }
        if let Some(fidelity) = &trial.fidelity {
            self.fidelity.add(fidelity);
        }
        self.divergences += trial.divergences.len();
        self.input_tokens += trial.input_tokens.unwrap_or(0);
        self.output_tokens += trial.output_tokens.unwrap_or(0);
    }
}
