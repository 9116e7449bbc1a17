//! The acceptance figures of the decision: simulated and real outcome tables in, rates of right and wrong verdicts out.
//!
//! `tests/calibration/run` measures all of them and prints a table. What runs among the tests is the same code with fewer
//! repetitions and limits that are wider by just what that costs; seeds are fixed, so that it passes or fails, never both.
//! Time is measured only there, and asserted nowhere.

mod classical;
mod figures;
mod rate;
mod reference;
mod report;
mod rng;
mod simulation;
mod table;
