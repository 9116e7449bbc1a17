//! What explains the verdict: the sessions behind each number, the worst first.
//!
//! A finding is for a person to look at; it never decides.

use serde::{Deserialize, Serialize};

/// How many findings are kept per metric or invariant.
pub const FINDINGS_PER_SUBJECT: usize = 20;

/// One case that explains a metric or an invariant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The metric or invariant.
    pub subject: String,
    /// The case.
    pub case: String,
    /// The case's contrast, larger is better; absent for an invariant.
    pub effect: Option<f64>,
    /// The baseline's value in this case.
    pub baseline: Option<f64>,
    /// The candidate's value in this case.
    pub candidate: Option<f64>,
    /// What is to be seen, in one sentence.
    pub detail: String,
    /// Sessions to look at, the recorded one and the baseline's beside the candidate's.
    pub examples: Vec<Example>,
}

/// A session to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// `recorded`, `baseline` or `candidate`.
    pub lane: String,
    /// The trial's number.
    pub trial: u32,
    /// What its exchanges are stored under in its run.
    pub session: String,
    /// What it did, in words; empty where there is nothing to add.
    pub detail: String,
}
