//! Configuration of `foreshadow archive`: topic, store, and flush settings.
//!
//! One file may configure `record` and `archive`; the keys of other commands are accepted unchecked.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{
    ArchiveConfig, ConfigError, EncryptionConfig, KafkaConfig, MetricsConfig, line_of, one_line, wrong,
};

/// The whole configuration of `foreshadow archive`.
#[derive(Debug, Clone)]
pub struct ArchiverConfig {
    /// Directory or URL of the store.
    pub store: String,
    /// Cluster, topic and consumer group.
    pub kafka: KafkaConfig,
    /// Flush settings.
    pub archive: ArchiveConfig,
    /// Encryption of the files; absent, they are plain Parquet.
    pub encryption: Option<EncryptionConfig>,
    /// Listener for `/metrics`; absent, there is none.
    pub metrics: Option<MetricsConfig>,
}

/// The whole file, with the keys of other commands.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    store: Option<String>,
    kafka: Option<KafkaConfig>,
    #[serde(default)]
    archive: ArchiveConfig,
    encryption: Option<EncryptionConfig>,
    metrics: Option<MetricsConfig>,
    // Keys of other commands.
    #[serde(rename = "tenant")]
    _tenant: Option<IgnoredAny>,
    #[serde(rename = "agent")]
    _agent: Option<IgnoredAny>,
    #[serde(rename = "build")]
    _build: Option<IgnoredAny>,
    #[serde(rename = "state-dir")]
    _state_dir: Option<IgnoredAny>,
    #[serde(rename = "session")]
    _session: Option<IgnoredAny>,
    #[serde(rename = "redact")]
    _redact: Option<IgnoredAny>,
    #[serde(rename = "limits")]
    _limits: Option<IgnoredAny>,
    #[serde(rename = "listen")]
    _listen: Option<IgnoredAny>,
    #[serde(rename = "route")]
    _routes: Option<IgnoredAny>,
    #[serde(rename = "score")]
    _score: Option<IgnoredAny>,
    #[serde(rename = "tool")]
    _tools: Option<IgnoredAny>,
}

impl ArchiverConfig {
    /// Parses a file; `env` returns the value of an environment variable.
    ///
    /// # Errors
    /// The error has the key, the expected and the found value.
    pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let deserializer = toml::Deserializer::parse(text)
            .map_err(|error| wrong("(file)", &one_line(&error.to_string())))?;
        let file: File = serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let line = error.inner().span().map(|span| line_of(text, span.start));
            let line = line.map_or_else(String::new, |line| format!(" (line {line})"));
            let key = error.path().to_string();
            wrong(&key, &format!("{}{line}", one_line(error.inner().message())))
        })?;
        let missing = |key, expected: &str| wrong(key, &format!("expected {expected}, found nothing"));
        let mut config = Self {
            store: file.store.ok_or_else(|| missing("store", "the directory or URL of the store"))?,
            kafka: file.kafka.ok_or_else(|| missing("kafka", "a table [kafka] with `brokers`"))?,
            archive: file.archive,
            encryption: file.encryption,
            metrics: file.metrics,
        };
        if config.archive.flush_every.is_zero() {
            let detail = "expected a duration above zero such as \"30s\", found zero";
            return Err(wrong("archive.flush-every", detail));
        }
        config.kafka.resolve(env)?;
        Ok(config)
    }
}

#[cfg(all(test, feature = "kafka"))]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        ArchiverConfig::parse(text, &|_| None).expect_err("is rejected").to_string()
    }

    #[test]
    fn one_file_configures_record_and_archive() {
        let text = r#"
agent = "a"
store = "s"
state-dir = "d"
[kafka]
brokers = "127.0.0.1:9092"
[[route]]
edge = "model"
listen = "127.0.0.1:0"
upstream = "http://127.0.0.1:9/base"
"#;
        let config = ArchiverConfig::parse(text, &|_| None).expect("the file is valid");
        assert_eq!((config.store.as_str(), config.kafka.topic.as_str()), ("s", "foreshadow"));
        assert_eq!(config.archive.flush_bytes.0, 32 << 20);
    }

    #[test]
    fn missing_and_unknown_keys_are_errors() {
        assert!(refused("store = \"s\"").contains("[kafka]"));
        assert!(refused("[kafka]\nbrokers = \"b:1\"").contains("`store`"));
        let typo = refused("store = \"s\"\nstroe = \"s\"\n[kafka]\nbrokers = \"b:1\"");
        assert!(typo.contains("stroe") && typo.contains("line 2"), "{typo}");
        let typo = refused("store = \"s\"\n[kafka]\nbroker = \"b:1\"");
        assert!(typo.contains("kafka.broker") && typo.contains("unknown field"), "{typo}");
        let zero = refused("store = \"s\"\n[kafka]\nbrokers = \"b:1\"\n[archive]\nflush-every = \"0s\"");
        assert!(zero.contains("archive.flush-every"), "{zero}");
    }
}
