//! Acceptance figures of the decision: simulated and real outcome tables in, rates of correct and wrong verdicts out.
//!
//! `tests/calibration/run` measures all of them and prints a table. The test suite runs the same code with fewer
//! repetitions and correspondingly wider limits. Seeds are fixed, so a test always passes or always fails. Only the
//! named command measures time, and nothing asserts it.

mod classical;
mod figures;
mod rate;
mod reference;
mod report;
mod rng;
mod simulation;
mod table;
