//! The metrics: each a bounded contrast per case, candidate minus baseline, larger is better.
//!
//! Here is what they share: how trial values become the table of a case's contrast under every relabelling. What the
//! values are is in the files of the families. Nothing here tests or decides.

use crate::run::TrialRecord;
use crate::stats::variance::mean;

mod cost;
mod dispersion;
mod effects;
mod measured;
mod outcome;
mod scalar;
mod semantic;
mod sequence;
mod sliced;
mod table;

use measured::spec;
pub(crate) use measured::{Bounds, Measured, Measurement, Setting, SliceOf};
pub(crate) use outcome::succeeded;
pub(crate) use semantic::one_model;
pub(crate) use table::CaseTable;

/// What a trial is described by where its distance from other trials is all that counts.
pub(crate) struct Description {
    pub(crate) name: &'static str,
    /// The distances between trials, row by row; nothing where the trials are not so described.
    pub(crate) distances: fn(&[&TrialRecord]) -> Option<Vec<f64>>,
}

/// Everything that trials are described by.
pub(crate) fn descriptions() -> [Description; 3] {
    [
        Description { name: "success", distances: outcome::distances },
        Description { name: "writes", distances: effects::distances },
        Description { name: "calls", distances: sequence::distances },
    ]
}

/// Means of the lanes' values over the cases; of ratios geometric ones.
pub(crate) fn means(metric: &Measured) -> [f64; 2] {
    let over = |value: fn(&CaseTable) -> f64| {
        let values: Vec<f64> = metric.observed.iter().map(value).collect();
        if metric.unit.is_ratio() {
            mean(&values.iter().map(|value| value.ln()).collect::<Vec<_>>()).exp()
        } else {
            mean(&values)
        }
    };
    [over(|case| case.baseline), over(|case| case.candidate)]
}

/// Measures everything that these runs allow, in the order of [`METRICS`], then demoted invariants, then named slices.
pub(crate) fn measure(setting: Setting<'_>, demoted: &[&'static str]) -> Measurement {
    let mut measurement = Measurement::default();
    outcome::measure(setting, &mut measurement);
    effects::measure(setting, &mut measurement);
    measurement.take("unscorable", outcome::unscorable(setting));
    semantic::measure(setting, &mut measurement);
    sequence::measure(setting, &mut measurement);
    cost::measure(setting, &mut measurement);
    for name in demoted {
        measurement.take(&format!("invariant.{name}"), effects::demoted(setting, name));
    }
    let sliced = sliced::measure(setting, &measurement.metrics);
    measurement.metrics.extend(sliced);
    measurement
}
