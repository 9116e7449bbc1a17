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

use serde_json::Value;

/// The last JSON object that a recorder printed: its counts.
fn counts(said: &str) -> Value {
    serde_json::from_str(&said[said.rfind("\n{\n").expect("prints its counts")..]).expect("is JSON")
}

/// Exchanges that a recorder did not keep up with, as it counts them itself: a busy machine sheds some.
fn shed(said: &str) -> usize {
    let counts = counts(said);
    let shed = counts["shed"].as_object().expect("by reason").values().filter_map(Value::as_u64).sum::<u64>();
    usize::try_from(shed).expect("fits")
}
