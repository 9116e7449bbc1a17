//! Agreement that a judge needs before its scores decide.

use serde::Serialize;

/// Agreement with labels that a judge must reach in each slice whose cases it decides.
///
/// Bounds, not estimates, must reach the thresholds, so a good judge with few labels does not qualify yet. Defaults:
/// 30 cases, as for every tested slice (DECISION 1.10); agreement of three in four; and a kappa of 0.40, which Landis
/// and Koch (1977) call the end of "fair". If half the labels are successes, kappa is the share of a true change that
/// remains after the judge's errors, so at 0.40 a true change shows as at least two fifths of its size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct JudgePolicy {
    /// Level of the lower bounds.
    pub alpha: f64,
    /// Smallest number of labelled cases.
    pub min_cases: u64,
    /// Smallest lower bound of raw agreement.
    pub min_agreement: f64,
    /// Smallest lower bound of Cohen's kappa.
    pub min_kappa: f64,
}

impl Default for JudgePolicy {
    fn default() -> Self {
        Self { alpha: 0.05, min_cases: 30, min_agreement: 0.75, min_kappa: 0.40 }
    }
}
