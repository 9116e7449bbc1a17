//! The disk under the stages: the checksummed log between tap and archive, and the lake of Parquet files and commits.
//!
//! The one place that opens files and object stores for sessions, so that recorder, replayer and the binary read and
//! write the same layout without importing one another. It knows nothing of protocols, Kafka or statistics.

pub mod batch;
pub mod keyring;
pub mod lake;
pub mod log;
pub mod session;
