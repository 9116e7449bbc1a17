//! Recorder: records the live traffic of an agent, and imports and archives recordings.
//!
//! [`start`] runs a recorder. An exchange passes these modules in order:
//!
//! - `tap`: reverse proxy; forwards each request and response, and copies the bytes.
//! - `capture`: bounded copy of one exchange, its session and its sequence number.
//! - `encode`: decompresses, redacts, decodes, links and chunks the copy.
//! - `journal`: appends the records to a log on disk and syncs them in groups.
//! - `publish` sends the journal to Kafka, or [`archive`] turns it into Parquet files.
//!
//! `archive::kafka_archiver` turns a Kafka topic into Parquet files. [`import`] converts transcripts of other tools.

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
mod sink;
mod tap;

pub use metrics::counts::ExchangeCounts;
pub use metrics::server::MetricsError;
pub use recorder::{BoundRoute, FlushError, Recorder, StartError, start};

/// Wall clock: microseconds since 1970, UTC. The library takes it as an argument and never reads the system clock itself.
pub type Clock = std::sync::Arc<dyn Fn() -> i64 + Send + Sync>;
