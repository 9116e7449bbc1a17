//! The gate: replays both builds wave by wave, decides after each wave, and stops as soon as the verdict is clear.
//!
//! The order of the cases, the policy and the looks are fixed and written to `gate.json` before the first trial.
//! `replayer` replays, `scoring` scores and `decision` decides: this crate runs them in turn.
//!
//! This crate reads no environment, prints nothing and has no clock of its own: the caller passes them in.

mod config;
mod error;
mod gate;
mod look_schedule;
mod plan_lock;
#[cfg(test)]
mod reference;
mod replay_request;

pub use config::{GateConfig, Scoring};
pub use error::GateError;
pub use gate::{GateEvent, GateRequest, run};
pub use look_schedule::LookSchedule;
pub use replay_request::{ReplayRequest, Resources};
