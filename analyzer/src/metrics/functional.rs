//! Functions from the trial values of an arm to its value.

use crate::stats::variance::{float, mean};

/// Function from the trial values of an arm to the arm's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Functional {
    /// Mean.
    Mean,
    /// Probability that this many trials, drawn without replacement, all succeed; values are 0 or 1.
    PassK(usize),
    /// Probability that two trials agree; values are 0 or 1.
    Agreement,
}

impl Functional {
    /// Smallest number of trials that the function needs.
    pub(super) fn least(self) -> usize {
        match self {
            Self::Mean => 1,
            Self::PassK(k) => k,
            Self::Agreement => 2,
        }
    }

    pub(super) fn of(self, values: &[f64]) -> f64 {
        let total = float(values.len());
        let successes = values.iter().sum::<f64>();
        match self {
            Self::Mean => mean(values),
            // C(c, k) / C(K, k)
            Self::PassK(k) => {
                (0..k).map(|step| (successes - float(step)).max(0.0) / (total - float(step))).product()
            }
            Self::Agreement => {
                let failures = total - successes;
                (successes * (successes - 1.0) + failures * (failures - 1.0)) / (total * (total - 1.0))
            }
        }
    }
}
