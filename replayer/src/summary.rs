//! What a replay did, in numbers: for `--json`, for a line on the terminal, for the demo.

use schemas::id::BuildId;
use schemas::trial::{Fidelity, Lane, Trial, TrialEnding};
use serde::Serialize;

use crate::corpus::{TornSession, UnusableSession};

/// Trials by how they ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Endings {
    /// The candidate answered every turn.
    pub complete: u32,
    /// It refused, crashed or answered with an error.
    pub failed: u32,
    /// It did not answer in time.
    pub timed_out: u32,
    /// The replay left the recording.
    pub truncated: u32,
    /// The surroundings failed.
    pub infrastructure: u32,
}

/// What a replay did. Of a resumed run every number is that of all its starts, unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Where the trials are.
    pub run: String,
    /// Whose trials they are.
    pub lane: Lane,
    /// The build that was replayed against.
    pub build: BuildId,
    /// Cases of the run.
    pub cases: usize,
    /// Trials planned.
    pub planned: usize,
    /// Trials that earlier starts had finished.
    pub already: usize,
    /// Trials that this start finished.
    pub ran: usize,
    /// All finished trials by how they ended.
    pub endings: Endings,
    /// How the world's answers were found.
    pub fidelity: Fidelity,
    /// Places where trials left the recording.
    pub divergences: usize,
    /// Calls of declared writes made again with the same arguments, in trials of this start.
    pub duplicated_writes: u64,
    /// Calls of which it could not be told whose they are, in this start.
    pub uncorrelated_calls: u64,
    /// Model calls.
    pub model_calls: u64,
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Sessions left out because something of them is missing.
    pub torn: Vec<TornSession>,
    /// Whole sessions left out because there is nothing to play.
    pub unusable: Vec<UnusableSession>,
    /// The replay was stopped before its end and can be resumed.
    pub interrupted: bool,
    /// How long this start took, milliseconds.
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
