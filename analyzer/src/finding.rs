//! Sessions that explain each number of the verdict, the worst first.
//!
//! A finding is for review and never decides.

use serde::{Deserialize, Serialize};

/// Number of findings kept per metric or invariant.
pub const FINDINGS_PER_SUBJECT: usize = 20;

/// A case that explains a metric or an invariant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Name of the metric or invariant.
    pub subject: String,
    /// Id of the case.
    pub case: String,
    /// Contrast of the case, larger is better; absent for an invariant.
    pub effect: Option<f64>,
    /// Value of the baseline in this case, in the metric's unit.
    pub baseline: Option<f64>,
    /// Value of the candidate in this case, in the metric's unit.
    pub candidate: Option<f64>,
    /// The finding in one sentence.
    pub detail: String,
    /// Sessions to read: the recorded one, the baseline's and the candidate's.
    pub examples: Vec<Example>,
}

/// A session to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// `recorded`, `baseline` or `candidate`.
    pub lane: String,
    /// Number of the trial.
    pub trial: u32,
    /// Session id of the trial's exchanges in its run.
    pub session: String,
    /// Behaviour of the trial in one sentence; may be empty.
    pub detail: String,
}
