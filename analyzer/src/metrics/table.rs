//! Contrast of a case under every relabelling of its trials.

use crate::stats::labels::Relabeller;
use crate::stats::stream::StreamKey;

/// A case with its contrast under every relabelling, the observed one first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CaseTable {
    /// Index in [`crate::pairs::Pairs::cases`].
    pub(crate) place: usize,
    /// Value of the baseline.
    pub(crate) baseline: f64,
    /// Value of the candidate.
    pub(crate) candidate: f64,
    /// Contrast as observed, then under the other relabellings.
    pub(crate) contrasts: Vec<f64>,
}

impl CaseTable {
    pub(crate) fn observed(&self) -> f64 {
        self.contrasts[0]
    }
}

/// Relabellings of a metric.
pub(crate) fn relabeller(seed: u64, metric: &str) -> Relabeller {
    Relabeller::new(StreamKey::new(seed, &format!("relabel {metric}")))
}
