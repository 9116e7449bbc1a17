//! The recorder with a Kafka cluster (librdkafka's mock): order, completeness, and records that wait in the journal.

mod brokers;
mod harness;
mod order;
