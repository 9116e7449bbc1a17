//! Configuration of the recorder: one TOML file.
//!
//! Parsing checks the file completely, so a [`Config`] is valid. Paths stay relative to the working directory, and
//! parsing opens no other file.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use schemas::exchange::{Edge, Effect};
use schemas::id::{AgentId, BuildId, TenantId};
use schemas::tools::{Tool, ToolCatalog};
use serde::{Deserialize, Serialize};

use self::values::{ByteSize, HeaderText, Listen, PathPrefix, Pointer, Upstream};

pub mod archiver;
mod kafka;
#[cfg(feature = "kafka")]
mod librdkafka;
#[cfg(test)]
mod reference;
pub mod values;

pub use self::kafka::KafkaConfig;

/// Headers with credentials. The recorder never keeps them; `redact.keep-headers` must not list them.
pub const SECRET_HEADERS: [&str; 8] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-amz-security-token",
];

/// An invalid configuration.
#[derive(Debug, thiserror::Error)]
#[error("key `{key}`: {detail}; correct it and start again")]
pub struct ConfigError {
    /// Path of the key, such as `route[1].upstream`; `(file)` if the text is not TOML.
    pub key: String,
    /// Expected and found value, and the line where known.
    pub detail: String,
}

/// Configuration of `foreshadow record`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Tenant of the traffic. Files, keys and tokens are separate per tenant.
    #[serde(default = "default_tenant")]
    #[schemars(with = "String")]
    pub tenant: TenantId,
    /// Name of the agent.
    #[schemars(with = "String")]
    pub agent: AgentId,
    /// Version of the agent that runs behind the routes.
    #[schemars(with = "Option<String>")]
    pub build: Option<BuildId>,
    /// Folder of the store, or an object-store URL. Required without `[kafka]`.
    pub store: Option<String>,
    /// Folder of the journal. It must survive a restart of the recorder.
    pub state_dir: PathBuf,
    /// Identity and end of sessions.
    #[serde(default)]
    pub session: SessionConfig,
    /// Headers to keep.
    #[serde(default)]
    pub redact: RedactConfig,
    /// Bounds of memory and disk.
    #[serde(default)]
    pub limits: Limits,
    /// Size and age at which records become Parquet files.
    #[serde(default)]
    pub archive: ArchiveConfig,
    /// Kafka topic between recorder and store. Without it, `record` writes the store itself. With it, `archive` does.
    pub kafka: Option<KafkaConfig>,
    /// Keys that encrypt the files of the store. Without them, files are plain Parquet.
    pub encryption: Option<EncryptionConfig>,
    /// Prometheus endpoint of this process.
    pub metrics: Option<MetricsConfig>,
    /// Settings of every listener.
    #[serde(default)]
    pub listen: ListenConfig,
    /// One listener with its upstream. At least one is required.
    #[serde(rename = "route")]
    pub routes: Vec<Route>,
    /// Effect of one tool of the agent. A replay treats an undeclared tool as a write.
    #[serde(rename = "tool", default)]
    pub tools: Vec<ToolConfig>,
    /// Read by `foreshadow score`.
    #[serde(rename = "score")]
    #[schemars(skip)]
    _score: Option<serde::de::IgnoredAny>,
}

/// Identity and end of sessions.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SessionConfig {
    /// Request header with the session id.
    pub header: HeaderText,
    /// Key of the W3C baggage entry with the session id.
    pub baggage_key: String,
    /// Path prefix before the session id (`/~session/ID/…`). The tap removes both before it forwards the request.
    pub session_path_prefix: PathPrefix,
    /// The recorder closes a session after this time without traffic.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "values::DurationText")]
    pub idle_timeout: Duration,
    /// The recorder closes a session at this age.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "values::DurationText")]
    pub max_age: Duration,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            header: HeaderText::literal("x-session-id"),
            baggage_key: "session.id".to_owned(),
            session_path_prefix: PathPrefix::literal("/~session"),
            idle_timeout: Duration::from_secs(600),
            max_age: Duration::from_secs(24 * 3600),
        }
    }
}

/// Headers to keep beside the built-in list.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RedactConfig {
    /// Names of headers whose values are kept. Headers with credentials are never kept.
    pub keep_headers: Vec<HeaderText>,
}

/// Bounds of memory and disk.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// Largest body that the recorder keeps. The tap forwards a larger one, and the recorder sheds its session.
    pub body_bytes: ByteSize,
    /// Finished exchanges that wait for the journal at most.
    pub queue: usize,
    /// Bytes of exchanges in memory at most, over all of them: bodies, heads, and the work of encoding one.
    pub memory_bytes: ByteSize,
    /// Largest decompressed body that the recorder keeps. It stores an exchange with a larger one without that body.
    pub unpacked_bytes: ByteSize,
    /// Bytes of the journal on disk at most. A full journal sheds whole sessions.
    pub journal_bytes: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: ByteSize(8 << 20),
            queue: 4096,
            memory_bytes: ByteSize(256 << 20),
            unpacked_bytes: ByteSize(32 << 20),
            journal_bytes: ByteSize(1 << 30),
        }
    }
}

/// Size and age at which records become Parquet files.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ArchiveConfig {
    /// Bytes of waiting records that start a batch of files.
    pub flush_bytes: ByteSize,
    /// Age of the oldest waiting record that starts a batch of files.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "values::DurationText")]
    pub flush_every: Duration,
}

impl Default for ArchiveConfig {
    fn default() -> Self {
        Self { flush_bytes: ByteSize(32 << 20), flush_every: Duration::from_secs(30) }
    }
}

/// Keys that encrypt the files of the store.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EncryptionConfig {
    /// The keys of one tenant.
    #[serde(rename = "key")]
    pub keys: Vec<TenantKeyConfig>,
}

/// The keys that wrap the data keys of one tenant's files.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TenantKeyConfig {
    /// Tenant whose files the keys encrypt.
    #[schemars(with = "String")]
    pub tenant: TenantId,
    /// File with the key of all columns that are not payload: 64 hexadecimal digits.
    pub metadata_key_file: PathBuf,
    /// File with the key of bodies and decoded texts: 64 hexadecimal digits. Without it, this process neither reads nor writes
    /// them.
    pub payload_key_file: Option<PathBuf>,
}

/// Prometheus endpoint.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MetricsConfig {
    /// Address of `/metrics`.
    pub listen: Listen,
}

/// Settings of every listener.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ListenConfig {
    /// Certificate of the listeners. With it, every listener speaks TLS.
    pub tls: Option<TlsConfig>,
}

/// A certificate and its key.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file of the certificate chain.
    pub cert: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
}

/// Protocol that the recorder decodes on a route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RouteProtocol {
    /// Detected from path and body of each exchange.
    #[default]
    Auto,
    /// OpenAI chat completions.
    OpenaiChat,
    /// MCP over streamable HTTP.
    Mcp,
    /// JSON, decoded with the configured pointers.
    GenericJson,
    /// No decoding.
    Opaque,
}

/// HTTP version towards an upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamHttp {
    /// The version that TLS negotiates, else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 by prior knowledge.
    Http2,
}

/// One listener with its upstream.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Route {
    /// Name in logs and metrics. Default: `<edge>-<number>`.
    pub name: Option<String>,
    /// Boundary of the traffic: `turn` (caller to agent), `model` (agent to provider) or `tool` (agent to tool server).
    #[schemars(with = "String")]
    pub edge: Edge,
    /// Address that clients connect to. Port 0 lets the system choose.
    pub listen: Listen,
    /// Path prefix of the requests that take this route. The longest prefix wins.
    #[serde(default)]
    pub path: PathPrefix,
    /// Whether the tap removes the prefix before it forwards the request.
    #[serde(default)]
    pub strip_path: bool,
    /// Target of the requests. The tap puts the path of this URL in front of the request's path.
    pub upstream: Upstream,
    /// HTTP version towards the upstream.
    #[serde(default)]
    pub upstream_http: UpstreamHttp,
    /// PEM file with the root certificates for the upstream. Default: the roots of the system.
    pub upstream_ca: Option<PathBuf>,
    /// Protocol that the recorder decodes.
    #[serde(default)]
    pub protocol: RouteProtocol,
    /// Generic JSON: pointer to the input in the request.
    pub input: Option<Pointer>,
    /// Generic JSON: pointer to the output in the response.
    pub output: Option<Pointer>,
    /// Generic JSON: pointer to the session id in the request.
    pub session: Option<Pointer>,
    /// Generic JSON on the tool edge: name of the tool. Default: the last segment of the path.
    pub tool: Option<String>,
}

/// Effect of one tool.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ToolConfig {
    /// Name of the tool on the wire.
    pub name: String,
    /// `read` or `write`.
    #[schemars(with = "String")]
    pub effect: Effect,
    /// Whether another call can undo the effect.
    pub reversible: Option<bool>,
    /// Whether a repeated call changes nothing more.
    pub idempotent: Option<bool>,
}

impl Config {
    /// Parses a configuration file without references to environment variables.
    ///
    /// # Errors
    /// The first invalid key, with expected and found value.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::parse_in(text, &|_| None)
    }

    /// Parses a configuration file; `env` returns the value of `${NAME}`.
    ///
    /// # Errors
    /// The first invalid key, with expected and found value.
    pub fn parse_in(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let deserializer = toml::Deserializer::parse(text).map_err(|error| ConfigError {
            key: "(file)".to_owned(),
            detail: one_line(&error.to_string()),
        })?;
        let mut config: Self = serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let line = error.inner().span().map(|span| line_of(text, span.start));
            let line = line.map_or_else(String::new, |line| format!(" (line {line})"));
            ConfigError {
                key: error.path().to_string(),
                detail: format!("{}{line}", one_line(error.inner().message())),
            }
        })?;
        config.check_routes()?;
        config.check_rest()?;
        match (&config.store, &mut config.kafka) {
            (None, None) => {
                let detail = "expected a directory or URL such as \"./store\", or a table [kafka] with `brokers`, found neither";
                return Err(wrong("store", detail));
            }
            (_, Some(kafka)) => kafka.resolve(env)?,
            (Some(_), None) => {}
        }
        for (index, route) in config.routes.iter_mut().enumerate() {
            let edge: &str = route.edge.into();
            route.name.get_or_insert_with(|| format!("{edge}-{index}"));
        }
        Ok(config)
    }

    /// The tools of `[[tool]]`, by name.
    #[must_use]
    pub fn catalog(&self) -> ToolCatalog {
        let entry = |tool: &ToolConfig| {
            let value = Tool {
                effect: tool.effect,
                reversible: tool.reversible,
                idempotent: tool.idempotent,
                ..Tool::default()
            };
            (tool.name.clone(), value)
        };
        ToolCatalog(self.tools.iter().map(entry).collect())
    }

    fn check_routes(&self) -> Result<(), ConfigError> {
        if self.routes.is_empty() {
            return Err(wrong("route", "expected at least one [[route]], found none"));
        }
        for (index, route) in self.routes.iter().enumerate() {
            let generic = route.protocol == RouteProtocol::GenericJson;
            let pointers = [("input", &route.input), ("output", &route.output), ("session", &route.session)];
            for (key, pointer) in pointers {
                if pointer.is_some() && !generic {
                    let detail =
                        "applies only with `protocol = \"generic-json\"`; set that, or remove the key";
                    return Err(wrong(&format!("route[{index}].{key}"), detail));
                }
            }
            if generic && route.output.is_none() {
                let detail =
                    "expected a JSON pointer such as \"/answer\" (protocol is generic-json), found nothing";
                return Err(wrong(&format!("route[{index}].output"), detail));
            }
            if route.tool.is_some() && !(generic && route.edge == Edge::Tool) {
                let detail =
                    "applies only with `protocol = \"generic-json\"` on the tool edge; remove the key";
                return Err(wrong(&format!("route[{index}].tool"), detail));
            }
            let is_same = |other: &&Route| other.listen == route.listen && other.path == route.path;
            if !route.listen.is_ephemeral() && self.routes[..index].iter().any(|other| is_same(&other)) {
                let detail = format!(
                    "an earlier route has the same listen {} and path {}; change one of the paths",
                    route.listen, route.path
                );
                return Err(wrong(&format!("route[{index}].path"), &detail));
            }
        }
        Ok(())
    }

    fn check_rest(&self) -> Result<(), ConfigError> {
        for (index, header) in self.redact.keep_headers.iter().enumerate() {
            if SECRET_HEADERS.contains(&header.as_str()) {
                let detail = format!("`{header}` carries credentials and is never kept; remove it");
                return Err(wrong(&format!("redact.keep-headers[{index}]"), &detail));
            }
        }
        if self.limits.queue == 0 {
            return Err(wrong("limits.queue", "expected at least 1, found 0"));
        }
        for (key, value) in [
            ("session.idle-timeout", self.session.idle_timeout),
            ("session.max-age", self.session.max_age),
            ("archive.flush-every", self.archive.flush_every),
        ] {
            if value.is_zero() {
                return Err(wrong(key, "expected a duration above zero such as \"30s\", found zero"));
            }
        }
        for (index, tool) in self.tools.iter().enumerate() {
            if self.tools[..index].iter().any(|other| other.name == tool.name) {
                return Err(wrong(
                    &format!("tool[{index}].name"),
                    &format!("`{}` is declared twice; remove one", tool.name),
                ));
            }
        }
        Ok(())
    }
}

fn default_tenant() -> TenantId {
    TenantId::parse("default").expect("a plain word is an identifier")
}

fn wrong(key: &str, detail: &str) -> ConfigError {
    ConfigError { key: key.to_owned(), detail: detail.to_owned() }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
agent = "a"
store = "s"
state-dir = "d"
[[route]]
edge = "model"
listen = "127.0.0.1:0"
upstream = "http://127.0.0.1:9/base"
"#;

    fn refused(text: &str) -> String {
        Config::parse(text).expect_err("refused").to_string()
    }

    #[test]
    fn reads_the_smallest_file() {
        let config = Config::parse(SMALL).expect("a good file");
        assert_eq!(config.tenant.as_str(), "default");
        assert_eq!(config.routes[0].name.as_deref(), Some("model-0"));
        assert_eq!(config.limits.body_bytes.0, 8 << 20);
    }

    #[test]
    fn an_error_names_the_key_and_the_line() {
        let error = refused(&SMALL.replace("upstream", "upstraem"));
        assert!(
            error.contains("route[0].upstraem")
                && error.contains("unknown field")
                && error.contains("line 8"),
            "{error}"
        );
        let error = refused(&SMALL.replace("\"model\"", "\"modle\""));
        assert!(
            error.contains("route[0].edge") && error.contains("modle") && error.contains("turn"),
            "{error}"
        );
        let error = refused(&format!("{SMALL}[session]\nidle-timeout = \"soon\"\n"));
        assert!(error.contains("session.idle-timeout"), "{error}");
        assert!(refused("agent = ").contains("(file)"));
        assert!(refused(&SMALL.replace("store = \"s\"", "")).contains("found neither"));
    }

    #[test]
    fn refuses_keys_that_do_not_fit_together() {
        assert!(refused(&format!("{SMALL}input = \"/x\"\n")).contains("generic-json"));
        assert!(
            refused(&format!("{SMALL}[redact]\nkeep-headers = [\"Authorization\"]\n")).contains("never kept")
        );
        assert!(
            refused(&SMALL.replace("[[route]]", "[[route]]\nlisten = \"127.0.0.1:1\"")).contains("(file)")
        );
    }
}
