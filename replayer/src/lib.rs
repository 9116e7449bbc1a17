//! Replays recorded sessions many times against a candidate, with every side effect virtualised.
//!
//! From a store of sessions to a run of trials: [`World::bind`] the world, describe what is wanted in a [`Plan`], and
//! [`replay`]. Recording, measuring and deciding are other stages'.

mod answer;
mod candidate;
mod chat;
mod client;
mod clock;
mod corpus;
mod faults;
mod ladder;
mod ledger;
mod plan;
mod play;
pub mod program;
mod rows;
mod run;
mod script;
mod seed;
mod sse;
mod summary;
mod world;

pub use candidate::{Candidate, CandidateError};
pub use clock::Clock;
pub use corpus::{TornSession, UnusableSession};
pub use faults::{FaultKind, FaultRules, FaultsError};
pub use ledger::LedgerError;
pub use plan::{ModelMode, Plan};
pub use run::{Prepared, Progress, ReplayError, Tell, Waves, replay};
pub use script::UnusableError;
pub use seed::trial_seed;
pub use summary::{Endings, Summary};
pub use world::{World, WorldError};
