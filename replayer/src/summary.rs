//! The totals of a replay: the output of `foreshadow replay --json`.

use std::collections::{BTreeMap, BTreeSet};

use schemas::id::BuildId;
use schemas::trial::{Divergence, Fidelity, Lane, Trial, TrialEnding};
use serde::Serialize;

use crate::corpus::{IncompleteSession, UnusableSession};

/// Distinct kinds of misses that are counted apart; a candidate can put a new identifier in every path.
const MAX_MISSES: usize = 1000;

/// Calls of one kind to which the recording has no answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct MissCount {
    /// The tool, for a tool call.
    pub tool: Option<String>,
    /// Method and path, or the JSON-RPC method; absent for a tool call.
    pub path: Option<String>,
    /// JSON pointer of the first argument that differs from the nearest recorded call.
    pub argument: Option<String>,
    /// Number of calls.
    pub calls: u64,
    /// Number of trials that made such a call.
    pub trials: u64,
}

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
    /// The part of `fidelity` that counts model calls.
    pub model_fidelity: Fidelity,
    /// Calls to which the recording has no answer.
    pub divergences: usize,
    /// The same calls by tool, argument and path.
    pub misses: Vec<MissCount>,
    /// Repeated writes with the same arguments, in trials of this start.
    pub duplicated_writes: u64,
    /// Calls without a trial identifier, in this start.
    pub uncorrelated_calls: u64,
    /// The same calls by path.
    pub uncorrelated_paths: BTreeMap<String, u64>,
    /// Calls that came after the end of their trial, in this start.
    pub late_calls: u64,
    /// Model calls.
    pub model_calls: u64,
    /// Attempts that were repeated because the model provider failed.
    pub provider_retries: u64,
    /// Model calls that the provider failed after all attempts.
    pub provider_failures: u64,
    /// Infrastructure failures of earlier starts that this start ran again or will run again.
    pub rerun: usize,
    /// Why the model provider is down, if the replay stopped for that.
    pub provider_down: Option<String>,
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
        if let Some(fidelity) = &trial.model_fidelity {
            self.model_fidelity.add(fidelity);
        }
        self.divergences += trial.divergences.len();
        self.add_misses(&trial.divergences);
        self.provider_retries += u64::from(trial.provider_retries.unwrap_or(0));
        self.provider_failures += u64::from(trial.provider_failures.unwrap_or(0));
        self.input_tokens += trial.input_tokens.unwrap_or(0);
        self.output_tokens += trial.output_tokens.unwrap_or(0);
    }

    /// Counts the misses of one trial.
    fn add_misses(&mut self, divergences: &[Divergence]) {
        let mut counted: BTreeSet<usize> = BTreeSet::new();
        for divergence in divergences {
            let Divergence { tool, path, argument, .. } = divergence;
            let is_same =
                |miss: &MissCount| miss.tool == *tool && miss.path == *path && miss.argument == *argument;
            let position = match self.misses.iter().position(is_same) {
                Some(position) => position,
                None if self.misses.len() < MAX_MISSES => {
                    let (tool, path, argument) = (tool.clone(), path.clone(), argument.clone());
                    self.misses.push(MissCount { tool, path, argument, calls: 0, trials: 0 });
                    self.misses.len() - 1
                }
                None => continue,
            };
            self.misses[position].calls += 1;
            self.misses[position].trials += u64::from(counted.insert(position));
        }
    }
}
