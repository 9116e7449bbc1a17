//! View models of the page's sections. Every value is a text or a number that the template prints as it is.

pub(super) mod answer_drift;
pub(super) mod calibration;
pub(super) mod completeness;
pub(super) mod invariants;
pub(super) mod look_history;
pub(super) mod metrics;
pub(super) mod outcome_sources;
pub(super) mod reproduction;
pub(super) mod slices;
pub(super) mod summary;
