//! Replays recorded sessions many times against a candidate, with every side effect virtualised.
//!
//! From a store of sessions to a run of trials: [`World::bind`] the world, describe what is wanted in a [`Plan`], and
//! [`replay`]. Recording, measuring and deciding are other stages'.

mod candidate;
mod case_recording;
mod clock;
mod corpus;
mod faults;
mod http_client;
mod openai_chat;
mod plan;
pub mod process;
mod run;
mod seed;
mod sse;
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
pub use corpus::{TornSession, UnusableSession};
pub use faults::{FaultKind, FaultRules, FaultsError};
pub use plan::{ModelMode, Plan};
pub use run::{Prepared, Progress, ReplayError, Tell, Waves, replay};
pub use seed::trial_seed;
pub use summary::{Endings, Summary};
pub use trial_log::LedgerError;
pub use world::{World, WorldError};
