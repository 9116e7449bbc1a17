//! Turns two runs into a verdict: reads the runs from their stores, lets `analyzer` decide, writes the output files.
//!
//! The `analyze` command, the gate and the demo call this one service. The statistics are in `analyzer`.
//! This crate reads no environment, prints nothing and has no clock of its own: the caller passes them in.

mod collector;
mod comparability;
mod error;
mod input_files;
mod output_files;
mod request;
mod run_reader;
mod service;
mod transcripts;

pub use collector::Collector;
pub use error::DecisionError;
pub use input_files::{read_calibration, read_envelope, read_policy};
pub use request::{DecisionRequest, LookPlan, WaveState};
pub use run_reader::read_run;
pub use service::decide;
