//! What a judge must be shown before its word may decide.

use serde::Serialize;

/// How well a judge must be shown to agree with labels, in each slice that it is to vote in.
///
/// Bounds, not estimates, must reach the thresholds: with few labels a good judge does not vote yet. The defaults: 30
/// cases, as for every slice that may speak (DECISION 1.10); three of four words right; and a kappa of 0.40, the least
/// that Landis and Koch (1977) call more than fair. Where labels are half successes kappa is what is left of a true
/// change after the judge's errors, so at 0.40 a true change shows as no less than two fifths of itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct JudgePolicy {
    /// Level of the lower bounds.
    pub alpha: f64,
    /// Labelled cases that are needed.
    pub min_cases: u64,
    /// What the lower bound of raw agreement must reach.
    pub min_agreement: f64,
    /// What the lower bound of Cohen's kappa must reach.
    pub min_kappa: f64,
}

impl Default for JudgePolicy {
    fn default() -> Self {
        Self { alpha: 0.05, min_cases: 30, min_agreement: 0.75, min_kappa: 0.40 }
    }
}
