//! Agreement that a judge needs before its scores decide.

use serde::Serialize;

/// Agreement with labels that a judge must reach in each slice whose cases it decides.
///
/// Defaults: 30 cases, as for every tested slice (DECISION 1.10), half of them in each lane; agreement of three in four,
/// by its lower bound; and a discrimination of 0.40. Discrimination is the share of a true change that remains after
/// the judge's errors, so at 0.40 a true change shows as two fifths of its size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct JudgePolicy {
    /// Level of the lower bounds.
    pub alpha: f64,
    /// Smallest number of labelled cases.
    pub min_cases: u64,
    /// Smallest lower bound of raw agreement.
    pub min_agreement: f64,
    /// Smallest discrimination: share of successes passed plus share of failures caught, minus 1.
    pub min_discrimination: f64,
}

impl Default for JudgePolicy {
    fn default() -> Self {
        Self { alpha: 0.05, min_cases: 30, min_agreement: 0.75, min_discrimination: 0.40 }
    }
}
