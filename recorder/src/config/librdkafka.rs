//! librdkafka's own check of client properties, and the client configuration they make.
//!
//! No function here contacts a broker.

use std::collections::BTreeMap;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;

/// The configuration of a client: brokers and the user's properties.
pub(super) fn client_config(brokers: &str, properties: &BTreeMap<String, String>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("client.id", "foreshadow").set("bootstrap.servers", brokers);
    // librdkafka logs each connection attempt; the client contexts pass these lines on at debug level.
    config.set_log_level(RDKafkaLogLevel::Info);
    for (name, value) in properties {
        config.set(name, value);
    }
    config
}

/// Checks that librdkafka knows a property and accepts its value.
///
/// # Errors
/// librdkafka's text, with the value masked because it may be a password.
pub(super) fn check_property(name: &str, value: &str) -> Result<(), String> {
    let created = ClientConfig::new().set(name, value).create_native_config();
    created.map(drop).map_err(|error| {
        let text = detail(&error);
        if value.is_empty() { text } else { text.replace(value, "…") }
    })
}

/// Checks that librdkafka accepts the properties in combination.
///
/// # Errors
/// librdkafka's text.
pub(super) fn check_all(brokers: &str, properties: &BTreeMap<String, String>) -> Result<(), String> {
    client_config(brokers, properties).create_native_config().map(drop).map_err(|error| detail(&error))
}

fn detail(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, detail, ..) => detail.clone(),
        other => other.to_string(),
    }
}
