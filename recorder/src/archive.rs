//! Archiving: recorded exchanges become committed Parquet files.
//!
//! The local archiver runs inside a recorder and reads its journal. The Kafka archiver is a process of its own and reads
//! a topic. Both commit through the `store` crate.

pub mod encryption;
#[cfg(feature = "kafka")]
pub mod kafka_archiver;
pub(crate) mod local_archiver;
