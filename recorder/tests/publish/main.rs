//! The recorder in front of a Kafka cluster (librdkafka's own mock): what arrives there, and what waits.

mod brokers;
mod harness;
mod order;
