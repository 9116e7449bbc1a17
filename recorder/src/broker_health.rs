//! Whether the Kafka brokers answer, as one client sees it, and the client's log.
//!
//! librdkafka reports every failed attempt. [`BrokerHealth`] logs each change of state once and keeps the reason for the
//! metric `kafka_up`. It neither sends nor reads messages.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Whether a client's brokers answer. Starts as up.
#[derive(Debug, Default)]
pub(crate) struct BrokerHealth {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Why the brokers are down; absent while they are up.
    down_reason: Option<String>,
    /// Error codes logged since the brokers were last up.
    logged: Vec<RDKafkaErrorCode>,
    last_failure: Option<String>,
}

impl BrokerHealth {
    /// Records that a broker has answered.
    pub(crate) fn mark_up(&self) {
        let mut state = self.lock();
        if state.down_reason.take().is_some() {
            tracing::info!("Kafka brokers answer again");
        }
        state.logged.clear();
        state.last_failure = None;
    }

    /// Records that no broker answers. The reason of the last failed connection takes precedence over `reason`.
    pub(crate) fn mark_down(&self, reason: &str) {
        let mut state = self.lock();
        if state.down_reason.is_none() {
            let reason = state.last_failure.clone().unwrap_or_else(|| reason.to_owned());
            tracing::warn!(reason, "no Kafka broker answers; unsent records stay in the journal");
            state.down_reason = Some(reason);
        }
    }

    /// Why the brokers are down; absent while they are up.
    pub(crate) fn down_reason(&self) -> Option<String> {
        self.lock().down_reason.clone()
    }

    /// Handles an error of the whole client (`ClientContext::error`).
    pub(crate) fn handle_client_error(&self, error: &KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason);
        let KafkaError::Global(code) = error else { return };
        let code = *code;
        match code {
            RDKafkaErrorCode::AllBrokersDown => self.mark_down(reason),
            // A client works with the remaining brokers while one is away, so this alone is not logged.
            RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::OperationTimedOut => self.lock().last_failure = Some(reason.to_owned()),
            _ => {
                let mut state = self.lock();
                state.last_failure = Some(reason.to_owned());
                if !state.logged.contains(&code) {
                    state.logged.push(code);
                    tracing::error!(%code, reason, "a Kafka broker rejects this client; check `[kafka.properties]`");
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes a log line of librdkafka (`ClientContext::log`) on to `tracing`, target `librdkafka`.
///
/// Lines below `critical` repeat what client errors report, so they pass at debug level.
pub(crate) fn forward_log(level: RDKafkaLogLevel, facility: &str, text: &str) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_down_only_when_all_are_and_keep_the_first_reason() {
        let health = BrokerHealth::default();
        let one_away = KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure);
        health.handle_client_error(&one_away, "kafka-1: refused");
        assert_eq!(health.down_reason(), None, "another broker may answer");
        health.handle_client_error(
            &KafkaError::Global(RDKafkaErrorCode::AllBrokersDown),
            "1/1 brokers are down",
        );
        assert_eq!(health.down_reason().as_deref(), Some("kafka-1: refused"));
        health.mark_down("no acknowledgement");
        assert_eq!(health.down_reason().as_deref(), Some("kafka-1: refused"));
        health.mark_up();
        assert_eq!(health.down_reason(), None);
    }
}
