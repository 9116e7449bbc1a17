//! Replays recorded sessions against a candidate build, in trials whose model and tool calls a simulated world answers.
//!
//! A caller binds a [`World`], describes the replay in a [`Plan`] and calls [`replay`], which writes a run of trials. A
//! caller that stops early uses [`Prepared`] and [`Waves`] instead. Recording, scoring and deciding are other crates'.
//!
//! The library prints nothing and reads no environment variable: the caller passes clock, incarnation and variables.

mod blocking;
mod candidate;
mod case_recording;
mod clock;
mod corpus;
mod faults;
mod http_client;
mod model_inputs;
mod openai_chat;
mod plan;
pub mod process;
mod provider_clock;
mod run;
mod shorten;
mod summary;
mod tool_answer;
mod tool_index;
mod trial_log;
mod trial_rows;
mod trial_runner;
mod world;

pub use candidate::{Candidate, CandidateError};
pub use case_recording::UnusableError;
pub use clock::Clock;
pub use corpus::{IncompleteSession, UnusableSession};
pub use faults::{FaultKind, FaultRules, FaultsError};
pub use plan::{ModelMode, Plan, trial_seed};
pub use run::{Prepared, Progress, ProgressFn, ReplayError, Waves, replay, run_both};
pub use summary::{Endings, MissCount, Summary};
pub use trial_log::TrialLogError;
pub use world::{World, WorldError};
