//! The `[kafka]` table: the cluster between recorders and archivers.
//!
//! Properties of librdkafka pass through to the client, except those that decide whether a record is lost or stored twice.
//! librdkafka itself checks the properties while the file is parsed; parsing never contacts a broker.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

#[cfg(feature = "kafka")]
use super::librdkafka;
use super::{ConfigError, wrong};

/// Properties that foreshadow sets itself, each with the remedy that the error text names.
const RESERVED: [(&str, &str); 27] = [
    ("bootstrap.servers", "write `brokers`"),
    ("metadata.broker.list", "write `brokers`"),
    ("group.id", "write `group`"),
    ("enable.idempotence", REMOVE),
    ("acks", REMOVE),
    ("request.required.acks", REMOVE),
    ("message.timeout.ms", REMOVE),
    ("delivery.timeout.ms", REMOVE),
    ("retries", REMOVE),
    ("message.send.max.retries", REMOVE),
    ("max.in.flight", REMOVE),
    ("max.in.flight.requests.per.connection", REMOVE),
    ("enable.gapless.guarantee", REMOVE),
    ("delivery.report.only.error", REMOVE),
    ("transactional.id", REMOVE),
    ("queue.buffering.max.messages", REMOVE),
    ("queue.buffering.max.kbytes", REMOVE),
    ("partitioner", REMOVE),
    ("enable.auto.commit", REMOVE),
    ("enable.auto.offset.store", REMOVE),
    ("auto.offset.reset", REMOVE),
    ("isolation.level", REMOVE),
    ("enable.partition.eof", REMOVE),
    ("partition.assignment.strategy", REMOVE),
    ("group.protocol", REMOVE),
    ("statistics.interval.ms", "read `/metrics`"),
    ("test.mock.num.brokers", "name real `brokers`"),
];

const REMOVE: &str = "remove it";

/// A Kafka topic that recorders publish to and archivers read.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KafkaConfig {
    /// Bootstrap brokers as `host:port`, separated by commas.
    pub brokers: String,
    /// Topic of the recorded exchanges; default `foreshadow`.
    #[serde(default = "default_topic")]
    pub topic: String,
    /// Topic of messages that the archiver cannot decode or store; default `<topic>.dead`.
    pub dead_letter_topic: Option<String>,
    /// Consumer group of `foreshadow archive`; default `foreshadow-archive`.
    #[serde(default = "default_group")]
    pub group: String,
    /// Properties of librdkafka, such as `security.protocol` or `sasl.password`. `${NAME}` in a value stands for the
    /// environment variable NAME.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// Omits the values of properties, which may be passwords.
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
    /// The dead-letter topic: the configured one, or `<topic>.dead`.
    #[must_use]
    pub fn dead_letter_topic(&self) -> String {
        self.dead_letter_topic.clone().unwrap_or_else(|| format!("{}.dead", self.topic))
    }

    /// The configuration of a librdkafka client: brokers and the user's properties. Each client adds the reserved ones.
    #[cfg(feature = "kafka")]
    pub(crate) fn client_config(&self) -> rdkafka::ClientConfig {
        librdkafka::client_config(&self.brokers, &self.properties)
    }

    /// Substitutes `${NAME}` in the values of properties and checks the whole table; `env` returns the value of a variable.
    ///
    /// # Errors
    /// The build has no Kafka support, or a value cannot be used; the error names the key.
    pub(crate) fn resolve(&mut self, env: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        if !cfg!(feature = "kafka") {
            let detail = "this build has no Kafka support: use a build with the cargo feature `kafka` (a default \
                          feature), or remove [kafka] and set `store`";
            return Err(wrong("kafka", detail));
        }
        self.check_names()?;
        for (name, value) in &mut self.properties {
            let key = format!("kafka.properties.\"{name}\"");
            if let Some((_, remedy)) = RESERVED.iter().find(|(reserved, _)| reserved == name) {
                let detail = format!(
                    "foreshadow sets this property, so that no record is lost or stored twice; {remedy}"
                );
                return Err(wrong(&key, &detail));
            }
            *value = schemas::variables::expand(value, env).map_err(|detail| wrong(&key, &detail))?;
            #[cfg(feature = "kafka")]
            librdkafka::check_property(name, value).map_err(|detail| wrong(&key, &detail))?;
        }
        // Some properties are wrong only in combination, such as a SASL mechanism without its protocol.
        #[cfg(feature = "kafka")]
        librdkafka::check_all(&self.brokers, &self.properties)
            .map_err(|detail| wrong("kafka.properties", &detail))?;
        Ok(())
    }

    fn check_names(&self) -> Result<(), ConfigError> {
        if !self.brokers.split(',').map(str::trim).all(is_broker) {
            let detail = format!(
                "expected `host:port`, several separated by commas, such as \"kafka-1:9092,kafka-2:9092\", found {:?}",
                self.brokers
            );
            return Err(wrong("kafka.brokers", &detail));
        }
        let dead_letter_topic = self.dead_letter_topic();
        for (key, topic) in [("kafka.topic", &self.topic), ("kafka.dead-letter-topic", &dead_letter_topic)] {
            if !is_topic(topic) {
                let detail = format!(
                    "expected the name of a topic (1 to 249 letters, digits, dots, underscores and hyphens), found {topic:?}"
                );
                return Err(wrong(key, &detail));
            }
        }
        if self.topic == dead_letter_topic {
            return Err(wrong("kafka.dead-letter-topic", "is the same as `kafka.topic`; name another topic"));
        }
        if self.group.is_empty() {
            return Err(wrong("kafka.group", "expected the name of a consumer group, found an empty text"));
        }
        Ok(())
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

#[cfg(all(test, feature = "kafka"))]
mod tests {
    use super::*;

    fn resolved(text: &str) -> Result<KafkaConfig, String> {
        let mut config: KafkaConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        let env = |name: &str| (name == "SECRET").then(|| "hunter2".to_owned());
        config.resolve(&env).map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn variables_are_substituted_and_never_printed() {
        let text = "brokers = \"a:1, b:2\"\n[properties]\n\"sasl.password\" = \"x-${SECRET}\"\n\"security.protocol\" = \"sasl_ssl\"\n\"sasl.mechanism\" = \"SCRAM-SHA-512\"\n\"sasl.username\" = \"u\"\n";
        let config = resolved(text).expect("the configuration is valid");
        assert_eq!(config.properties["sasl.password"], "x-hunter2");
        assert_eq!(
            (config.topic.as_str(), config.dead_letter_topic().as_str()),
            ("foreshadow", "foreshadow.dead")
        );
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(!format!("{:?}", config.client_config()).contains("hunter2"));
    }

    #[test]
    fn errors_name_the_key_and_the_remedy() {
        let with = |line: &str| {
            resolved(&format!("brokers = \"a:1\"\n[properties]\n{line}\n")).expect_err("is rejected")
        };
        for (line, expected) in [
            ("\"enable.idempotence\" = \"false\"", "remove it"),
            ("\"group.id\" = \"mine\"", "write `group`"),
            ("\"linger.sm\" = \"5\"", "No such configuration property"),
            ("\"linger.ms\" = \"soon\"", "linger.ms"),
            ("\"sasl.password\" = \"${NO}\"", "variable NO is not set"),
            ("\"sasl.password\" = \"${NO\"", "no closing"),
        ] {
            let error = with(line);
            assert!(error.contains(expected) && error.contains("kafka.properties"), "{line}: {error}");
        }
        assert!(resolved("brokers = \"a:b\"").expect_err("is rejected").contains("kafka.brokers"));
        assert!(resolved("brokers = \"\"").expect_err("is rejected").contains("kafka.brokers"));
        assert!(
            resolved("brokers = \"a\"\ntopic = \"a b\"").expect_err("is rejected").contains("kafka.topic")
        );
        let same =
            resolved("brokers = \"a\"\ntopic = \"t\"\ndead-letter-topic = \"t\"").expect_err("is rejected");
        assert!(same.contains("name another topic"), "{same}");
    }
}

#[cfg(all(test, not(feature = "kafka")))]
mod tests_without_kafka {
    use super::*;

    #[test]
    fn a_build_without_kafka_rejects_the_table_and_names_the_remedy() {
        let mut config: KafkaConfig = toml::from_str("brokers = \"a:1\"").expect("the table parses");
        let error = config.resolve(&|_| None).expect_err("is rejected").to_string();
        assert!(error.contains("no Kafka support") && error.contains("set `store`"), "{error}");
    }
}
