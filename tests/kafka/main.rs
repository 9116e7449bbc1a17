//! Journal, Kafka and Parquet with the real binary: brokers that are down, archivers that share partitions or are killed or
//! paused, and undecodable messages.
//!
//! The cluster is a real Kafka if the test command provisions one, else librdkafka's mock.

mod archivers;
mod broker_away;
mod cluster;
mod dead_letters;
mod secured;
mod whole_path;

use serde_json::Value;

/// The counts of a recorder: the last JSON object of its output.
fn counts(output: &str) -> Value {
    serde_json::from_str(&output[output.rfind("\n{\n").expect("the output has counts")..]).expect("JSON")
}

/// Exchanges that a recorder shed; a busy machine sheds some.
fn shed(output: &str) -> usize {
    let counts = counts(output);
    let shed = counts["shed"].as_object().expect("by reason").values().filter_map(Value::as_u64).sum::<u64>();
    usize::try_from(shed).expect("fits")
}
