//! A case's contrast under every relabelling of its trials.

use crate::stats::labels::Relabeller;
use crate::stats::stream::StreamKey;

/// A case and its contrast under every relabelling, the observed one first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CaseTable {
    /// Its place in [`crate::pairs::Pairs::cases`].
    pub(crate) place: usize,
    /// The baseline's value.
    pub(crate) baseline: f64,
    /// The candidate's value.
    pub(crate) candidate: f64,
    /// The contrast as observed, then under the other relabellings.
    pub(crate) contrasts: Vec<f64>,
}

impl CaseTable {
    pub(crate) fn observed(&self) -> f64 {
        self.contrasts[0]
    }
}

/// The relabellings of a metric.
pub(crate) fn relabeller(seed: u64, metric: &str) -> Relabeller {
    Relabeller::new(StreamKey::new(seed, &format!("relabel {metric}")))
}
