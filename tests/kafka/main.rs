//! Journal ▸ Kafka ▸ Parquet with the real binary, against the cluster of the harness: a broker that is away, archivers that
//! share partitions, are killed or paused, and messages that cannot be read.
//!
//! The cluster is a real Kafka where the test command provisions one, else librdkafka's mock.

mod archivers;
mod broker_away;
mod cluster;
mod dead_letters;
mod secured;
mod whole_path;
