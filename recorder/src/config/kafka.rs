//! The Kafka cluster between recorders and archivers: where it is, and which properties of librdkafka are the user's.
//!
//! Properties are checked by librdkafka itself when the file is read; no broker is asked.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::{ConfigError, wrong};
use crate::kafka_client;

/// Properties that decide whether anything is lost or stored twice, with what to write instead.
const OWNED: [(&str, &str); 27] = [
    ("bootstrap.servers", "write `brokers`"),
    ("metadata.broker.list", "write `brokers`"),
    ("group.id", "write `group`"),
    ("enable.idempotence", ALWAYS),
    ("acks", ALWAYS),
    ("request.required.acks", ALWAYS),
    ("message.timeout.ms", ALWAYS),
    ("delivery.timeout.ms", ALWAYS),
    ("retries", ALWAYS),
    ("message.send.max.retries", ALWAYS),
    ("max.in.flight", ALWAYS),
    ("max.in.flight.requests.per.connection", ALWAYS),
    ("enable.gapless.guarantee", ALWAYS),
    ("delivery.report.only.error", ALWAYS),
    ("transactional.id", ALWAYS),
    ("queue.buffering.max.messages", ALWAYS),
    ("queue.buffering.max.kbytes", ALWAYS),
    ("partitioner", ALWAYS),
    ("enable.auto.commit", ALWAYS),
    ("enable.auto.offset.store", ALWAYS),
    ("auto.offset.reset", ALWAYS),
    ("isolation.level", ALWAYS),
    ("enable.partition.eof", ALWAYS),
    ("partition.assignment.strategy", ALWAYS),
    ("group.protocol", ALWAYS),
    ("statistics.interval.ms", "read `/metrics`"),
    ("test.mock.num.brokers", "name real `brokers`"),
];

const ALWAYS: &str = "take it out";

/// A Kafka topic between recorders and archivers.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port`, several with commas between.
    pub brokers: String,
    /// The topic of exchanges.
    #[serde(default = "default_topic")]
    pub topic: String,
    /// Where messages go that cannot be read; `<topic>.dead` where absent.
    pub dead_letter_topic: Option<String>,
    /// The consumer group of `foreshadow archive`.
    #[serde(default = "default_group")]
    pub group: String,
    /// Any property of librdkafka that is not the recorder's own, such as `security.protocol` or `sasl.password`;
    /// `${NAME}` takes a value from the environment.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// Without the values of properties, which may be passwords.
impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("dead_letter_topic", &self.dead_letter_topic)
            .field("group", &self.group)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

impl KafkaConfig {
    /// The topic for messages that cannot be read.
    #[must_use]
    pub fn dead_letter_topic(&self) -> String {
        self.dead_letter_topic.clone().unwrap_or_else(|| format!("{}.dead", self.topic))
    }

    /// Puts the values of variables in place of `${NAME}` and checks everything; `env` finds a variable.
    pub(crate) fn resolve(&mut self, env: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        let brokers: Vec<&str> = self.brokers.split(',').map(str::trim).collect();
        if brokers.iter().any(|broker| !is_broker(broker)) {
            let detail = format!(
                "expected `host:port`, several with commas between, such as \"kafka-1:9092,kafka-2:9092\", found {:?}",
                self.brokers
            );
            return Err(wrong("kafka.brokers", &detail));
        }
        let dead = self.dead_letter_topic();
        for (key, topic) in [("kafka.topic", &self.topic), ("kafka.dead-letter-topic", &dead)] {
            if !is_topic(topic) {
                let detail = format!(
                    "expected the name of a topic (1 to 249 letters, digits, dots, underscores and hyphens), found {topic:?}"
                );
                return Err(wrong(key, &detail));
            }
        }
        if self.topic == dead {
            return Err(wrong("kafka.dead-letter-topic", "is the topic itself; name another one"));
        }
        if self.group.is_empty() {
            return Err(wrong("kafka.group", "expected a name, found an empty one"));
        }
        for (name, value) in &mut self.properties {
            let key = format!("kafka.properties.\"{name}\"");
            if let Some((_, instead)) = OWNED.iter().find(|(owned, _)| owned == name) {
                let detail = format!("is set by foreshadow, so that nothing is lost or doubled; {instead}");
                return Err(wrong(&key, &detail));
            }
            *value = schemas::variables::expand(value, env).map_err(|detail| wrong(&key, &detail))?;
            kafka_client::check_property(name, value).map_err(|detail| wrong(&key, &detail))?;
        }
        // What is wrong only together, such as a mechanism without its protocol.
        kafka_client::check(self).map_err(|detail| wrong("kafka.properties", &detail))
    }
}

fn is_broker(text: &str) -> bool {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "9092"));
    !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_topic(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&text.len()) && text.chars().all(good) && text != "." && text != ".."
}

fn default_topic() -> String {
    "foreshadow".to_owned()
}

fn default_group() -> String {
    "foreshadow-archive".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str) -> Result<KafkaConfig, String> {
        let mut config: KafkaConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        let env = |name: &str| (name == "SECRET").then(|| "hunter2".to_owned());
        config.resolve(&env).map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn variables_are_put_in_and_never_shown() {
        let text = "brokers = \"a:1, b:2\"\n[properties]\n\"sasl.password\" = \"x-${SECRET}\"\n\"security.protocol\" = \"sasl_ssl\"\n\"sasl.mechanism\" = \"SCRAM-SHA-512\"\n\"sasl.username\" = \"u\"\n";
        let config = resolved(text).expect("a good configuration");
        assert_eq!(config.properties["sasl.password"], "x-hunter2");
        assert_eq!(
            (config.topic.as_str(), config.dead_letter_topic().as_str()),
            ("foreshadow", "foreshadow.dead")
        );
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(!format!("{:?}", kafka_client::client_config(&config)).contains("hunter2"));
    }

    #[test]
    fn says_what_is_wrong() {
        let with = |line: &str| {
            resolved(&format!("brokers = \"a:1\"\n[properties]\n{line}\n")).expect_err("refused")
        };
        for (line, said) in [
            ("\"enable.idempotence\" = \"false\"", "take it out"),
            ("\"group.id\" = \"mine\"", "write `group`"),
            ("\"linger.sm\" = \"5\"", "No such configuration property"),
            ("\"linger.ms\" = \"soon\"", "linger.ms"),
            ("\"sasl.password\" = \"${NO}\"", "no variable NO"),
            ("\"sasl.password\" = \"${NO\"", "not closed"),
        ] {
            let error = with(line);
            assert!(error.contains(said) && error.contains("kafka.properties"), "{line}: {error}");
        }
        assert!(resolved("brokers = \"a:b\"").expect_err("refused").contains("kafka.brokers"));
        assert!(resolved("brokers = \"\"").expect_err("refused").contains("kafka.brokers"));
        assert!(resolved("brokers = \"a\"\ntopic = \"a b\"").expect_err("refused").contains("kafka.topic"));
        let same =
            resolved("brokers = \"a\"\ntopic = \"t\"\ndead-letter-topic = \"t\"").expect_err("refused");
        assert!(same.contains("another one"), "{same}");
    }
}
