//! What every Kafka client of this crate shares: its configuration, and what is said of the brokers.
//!
//! librdkafka says a line for each attempt; here each change is said once. What is sent or read is not here.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::config::KafkaConfig;

/// The configuration of a client: brokers and the user's properties. What decides whether anything is lost or doubled is
/// added by the client itself, and is refused in the user's file.
pub(crate) fn client_config(kafka: &KafkaConfig) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("client.id", "foreshadow").set("bootstrap.servers", &kafka.brokers);
    // Each attempt is a line to librdkafka; they are kept for whoever asks for debug output.
    config.set_log_level(RDKafkaLogLevel::Info);
    for (name, value) in &kafka.properties {
        config.set(name, value);
    }
    config
}

/// Asks librdkafka whether it knows a property and takes the value; the answer does not contain the value.
pub(crate) fn check_property(name: &str, value: &str) -> Result<(), String> {
    let mut config = ClientConfig::new();
    match config.set(name, value).create_native_config() {
        Ok(_) => Ok(()),
        Err(error) => Err(said(&error, value)),
    }
}

/// Asks librdkafka whether the properties go together.
pub(crate) fn check(kafka: &KafkaConfig) -> Result<(), String> {
    client_config(kafka).create_native_config().map(|_| ()).map_err(|error| said(&error, ""))
}

fn said(error: &KafkaError, secret: &str) -> String {
    let text = match error {
        KafkaError::ClientConfig(_, detail, ..) => detail.clone(),
        other => other.to_string(),
    };
    if secret.is_empty() { text } else { text.replace(secret, "…") }
}

/// Whether the brokers answer, as far as one client knows; says each change once.
#[derive(Debug, Default)]
pub(crate) struct Contact {
    state: Mutex<ContactState>,
}

#[derive(Debug, Default)]
struct ContactState {
    /// Why nobody answers.
    lost: Option<String>,
    /// Said since the brokers were last heard.
    said: Vec<RDKafkaErrorCode>,
    last_failure: Option<String>,
}

impl Contact {
    /// A broker has answered.
    pub(crate) fn heard(&self) {
        let mut state = self.lock();
        if state.lost.take().is_some() {
            tracing::info!("the Kafka brokers answer again");
        }
        state.said.clear();
        state.last_failure = None;
    }

    /// Nobody has answered for too long.
    pub(crate) fn lose(&self, reason: &str) {
        let mut state = self.lock();
        if state.lost.is_none() {
            let reason = state.last_failure.clone().unwrap_or_else(|| reason.to_owned());
            tracing::warn!(reason, "the Kafka brokers do not answer; what is not sent waits");
            state.lost = Some(reason);
        }
    }

    /// Why nobody answers; absent while somebody does.
    pub(crate) fn lost(&self) -> Option<String> {
        self.lock().lost.clone()
    }

    /// Takes what librdkafka says of the whole client (`ClientContext::error`).
    pub(crate) fn error(&self, error: &KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason);
        let KafkaError::Global(code) = error else { return };
        let code = *code;
        match code {
            RDKafkaErrorCode::AllBrokersDown => self.lose(reason),
            // One of several may be gone without harm: remembered, and said when nobody is left.
            RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::OperationTimedOut => self.lock().last_failure = Some(reason.to_owned()),
            _ => {
                let mut state = self.lock();
                state.last_failure = Some(reason.to_owned());
                if !state.said.contains(&code) {
                    state.said.push(code);
                    tracing::error!(%code, reason, "a Kafka broker refuses; see `[kafka.properties]`");
                }
            }
        }
    }

    /// Takes a log line of librdkafka (`ClientContext::log`).
    pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", facility, text);
            }
            RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning
            | RDKafkaLogLevel::Notice
            | RDKafkaLogLevel::Info
            | RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, text),
        }
    }

    fn lock(&self) -> MutexGuard<'_, ContactState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_are_lost_once_and_heard_again() {
        let contact = Contact::default();
        contact.error(&KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), "kafka-1: refused");
        assert_eq!(contact.lost(), None, "another one may answer");
        contact.error(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        assert_eq!(contact.lost().as_deref(), Some("kafka-1: refused"));
        contact.lose("nothing for long");
        assert_eq!(contact.lost().as_deref(), Some("kafka-1: refused"));
        contact.heard();
        assert_eq!(contact.lost(), None);
    }
}
