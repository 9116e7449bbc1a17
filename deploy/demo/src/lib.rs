//! The demo: records, replays and decides on made-up traffic, without any connection beyond loopback.
//!
//! A refund agent of a small shop serves customers through the tap. Then the demo replays its current build, a harmless
//! change and a regressed change, and decides on both changes. The demo uses the same configuration parsers, stages and
//! report as a user's own gateway. Only the backend, the model and the customers are scripted.
//!
//! This crate reads no environment, prints nothing and has no clock of its own: the caller passes them in.

mod agent;
mod backend;
mod builds;
mod config_files;
mod error;
mod http;
mod live_traffic;
mod model_server;
mod output_folder;
mod replays;
mod rng;
mod scenario;
mod scripted_model;
mod tool_server;

pub use error::DemoError;
pub use live_traffic::RecordingCounts;
pub use output_folder::OutputFolder;
pub use scenario::{DecidedChange, DemoEvent, Scenario, ScenarioResult, Size};
