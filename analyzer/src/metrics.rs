//! Metrics: each is a bounded contrast per case, candidate minus baseline, larger is better.
//!
//! This module turns trial values into the table of a case's contrast under every relabelling. The families define the
//! trial values. Nothing here tests or decides.

use crate::run::TrialRecord;
use crate::units::CaseUnits;

mod cost;
mod dispersion;
mod effects;
mod functional;
mod judged;
mod measured;
mod outcome;
mod scalar;
mod semantic;
mod sequence;
mod sliced;
mod table;

pub(crate) use judged::Correction;
pub(crate) use measured::{Bounds, Measured, Measurement, Setting, SliceOf};
pub(crate) use outcome::succeeded;
pub(crate) use semantic::one_model;
pub(crate) use table::CaseTable;

/// A description of trials of which only the pairwise distances matter.
pub(crate) struct Description {
    pub(crate) name: &'static str,
    /// Computes the distances between trials, row by row; absent if the trials lack this description.
    pub(crate) distances: fn(&[&TrialRecord]) -> Option<Vec<f64>>,
}

/// All descriptions of trials.
pub(crate) fn descriptions() -> [Description; 3] {
    [
        Description { name: "success", distances: outcome::distances },
        Description { name: "writes", distances: effects::distances },
        Description { name: "calls", distances: sequence::distances },
    ]
}

/// Weighted means of the lanes' values over the cases; geometric means for ratios.
pub(crate) fn means(metric: &Measured, units: &CaseUnits) -> [f64; 2] {
    let weight: f64 = metric.observed.iter().map(|table| units.weight(table.place)).sum();
    let over = |value: fn(&CaseTable) -> f64| {
        let value = |table: &CaseTable| {
            let value = value(table);
            if metric.unit.is_ratio() { value.ln() } else { value }
        };
        let sum: f64 = metric.observed.iter().map(|table| units.weight(table.place) * value(table)).sum();
        let mean = if weight > 0.0 { sum / weight } else { 0.0 };
        if metric.unit.is_ratio() { mean.exp() } else { mean }
    };
    [over(|case| case.baseline), over(|case| case.candidate)]
}

/// Measures every metric that these runs allow, in the order of [`METRICS`], then demoted invariants, then declared
/// slices.
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
