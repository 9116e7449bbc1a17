//! Records live agent traffic: a reverse proxy with a copy on the side, a journal on disk, Kafka or Parquet behind it.
//!
//! [`start`] runs the tap of a [`config::Config`]; what passes is forwarded first and copied second, redacted before
//! anything is written, journaled in groups, and published or archived into a store under commits. Other doors are not here.

pub mod archive;
mod backoff;
#[cfg(feature = "kafka")]
mod broker_health;
mod capture;
pub mod config;
mod encode;
pub mod import;
mod journal;
mod metrics;
#[cfg(feature = "kafka")]
mod publish;
mod recorder;
mod tap;

pub use metrics::MetricsError;
pub use metrics::counts::ExchangeCounts;
pub use recorder::{BoundRoute, FlushError, Recorder, StartError, start};

/// The wall clock: microseconds since 1970, UTC. An argument, so that the library never reads it itself.
pub type Clock = std::sync::Arc<dyn Fn() -> i64 + Send + Sync>;
