//! The recorder's configuration: one TOML file, read whole and checked whole.
//!
//! A value of these types is fit to be used; paths are kept as they are written, and nothing is opened here.

use std::path::PathBuf;
use std::time::Duration;

use schemas::exchange::{Edge, Effect};
use schemas::id::{AgentId, BuildId, TenantId};
use schemas::tools::{Tool, ToolCatalog};
use serde::Deserialize;

use self::values::{ByteSize, HeaderText, Listen, PathPrefix, Pointer, Upstream};

pub mod archiver;
mod kafka;
#[cfg(feature = "kafka")]
mod librdkafka;
pub mod values;

pub use self::kafka::KafkaConfig;

/// Headers that carry credentials; they are never kept, whatever the configuration says.
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

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("key `{key}`: {detail}; correct it and start again")]
pub struct ConfigError {
    /// The path of the key, `route[1].upstream`; `(file)` where the text is not TOML.
    pub key: String,
    /// What was expected and what was found.
    pub detail: String,
}

/// The whole configuration of `foreshadow record`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Whose traffic it is.
    #[serde(default = "default_tenant")]
    pub tenant: TenantId,
    /// Which agent the traffic belongs to.
    pub agent: AgentId,
    /// Which version of it runs, where known.
    pub build: Option<BuildId>,
    /// Directory or URL of the store; needed where the journal is not published.
    pub store: Option<String>,
    /// Directory of the journal.
    pub state_dir: PathBuf,
    /// How sessions are told apart.
    #[serde(default)]
    pub session: SessionConfig,
    /// What is kept of headers.
    #[serde(default)]
    pub redact: RedactConfig,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// When the journal becomes Parquet.
    #[serde(default)]
    pub archive: ArchiveConfig,
    /// Where the journal is published; absent, the journal becomes Parquet in this process. Where both are there the store
    /// is left to `foreshadow archive`.
    pub kafka: Option<KafkaConfig>,
    /// How files of the store are encrypted; absent, they are plain Parquet.
    pub encryption: Option<EncryptionConfig>,
    /// Where counts can be fetched.
    pub metrics: Option<MetricsConfig>,
    /// TLS in front.
    #[serde(default)]
    pub listen: ListenConfig,
    /// Where traffic comes in and goes to, at least one.
    #[serde(rename = "route")]
    pub routes: Vec<Route>,
    /// What the agent's tools do outside.
    #[serde(rename = "tool", default)]
    pub tools: Vec<ToolConfig>,
    /// Of `foreshadow score`, which reads it by itself.
    #[serde(rename = "score")]
    _score: Option<serde::de::IgnoredAny>,
}

/// How sessions are told apart.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SessionConfig {
    /// The request header that names the session.
    pub header: HeaderText,
    /// The W3C baggage entry that names it.
    pub baggage_key: String,
    /// A leading path segment after which the session's name stands (`/~session/ID/…`); cut off before forwarding.
    pub session_path_prefix: PathPrefix,
    /// A session without traffic for this long is closed.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// A session older than this is closed.
    #[serde(with = "humantime_serde")]
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

/// What is kept of headers beside the built-in list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RedactConfig {
    /// Names of headers whose values are kept.
    pub keep_headers: Vec<HeaderText>,
}

/// Bounds on what the recorder holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// The largest body that is kept; a larger one sheds its session and is still forwarded.
    pub body_bytes: ByteSize,
    /// Finished exchanges that may wait for the journal.
    pub queue: usize,
    /// Bytes of bodies held in memory, over all exchanges.
    pub memory_bytes: ByteSize,
    /// Bytes of the journal on disk.
    pub journal_bytes: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: ByteSize(8 << 20),
            queue: 4096,
            memory_bytes: ByteSize(256 << 20),
            journal_bytes: ByteSize(1 << 30),
        }
    }
}

/// When the journal becomes Parquet.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ArchiveConfig {
    /// A batch of files is written when this much waits.
    pub flush_bytes: ByteSize,
    /// Or when anything waited this long.
    #[serde(with = "humantime_serde")]
    pub flush_every: Duration,
}

impl Default for ArchiveConfig {
    fn default() -> Self {
        Self { flush_bytes: ByteSize(32 << 20), flush_every: Duration::from_secs(30) }
    }
}

/// Keys of tenants by which files are encrypted.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EncryptionConfig {
    /// One key pair per tenant.
    #[serde(rename = "key")]
    pub keys: Vec<TenantKeyConfig>,
}

/// The keys that wrap the data keys of one tenant's files.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TenantKeyConfig {
    /// The tenant.
    pub tenant: TenantId,
    /// File with 64 hexadecimal digits: opens what is not payload.
    pub metadata_key_file: PathBuf,
    /// File with 64 hexadecimal digits: opens bodies and decoded texts. Without it they are neither read nor written.
    pub payload_key_file: Option<PathBuf>,
}

/// A listener for Prometheus.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MetricsConfig {
    /// Where `/metrics` is served.
    pub listen: Listen,
}

/// What every listener has in common.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ListenConfig {
    /// Where present, every listener speaks TLS.
    pub tls: Option<TlsConfig>,
}

/// A certificate and its key.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file of the certificate chain.
    pub cert: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
}

/// What the bytes of a route are read as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteProtocol {
    /// Told from path and body of each exchange.
    #[default]
    Auto,
    /// OpenAI chat completions.
    OpenaiChat,
    /// MCP over streamable HTTP.
    Mcp,
    /// JSON read by the configured pointers.
    GenericJson,
    /// Never looked into.
    Opaque,
}

/// Which HTTP version is spoken to an upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamHttp {
    /// What TLS negotiates, else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 by prior knowledge.
    Http2,
}

/// One way through the tap.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Route {
    /// What it is called; `<edge>-<place>` where it is not said.
    pub name: Option<String>,
    /// Which boundary it is.
    pub edge: Edge,
    /// Where clients connect.
    pub listen: Listen,
    /// Requests whose path begins with this take it; the longest one wins.
    #[serde(default)]
    pub path: PathPrefix,
    /// Whether the prefix is cut off before forwarding.
    #[serde(default)]
    pub strip_path: bool,
    /// Where requests are forwarded to; a path of its own is put in front.
    pub upstream: Upstream,
    /// HTTP version towards the upstream.
    #[serde(default)]
    pub upstream_http: UpstreamHttp,
    /// PEM file of the roots that the upstream's certificate is checked against; the system's where absent.
    pub upstream_ca: Option<PathBuf>,
    /// What the bytes are read as.
    #[serde(default)]
    pub protocol: RouteProtocol,
    /// Generic JSON: where the request says what was asked.
    pub input: Option<Pointer>,
    /// Generic JSON: where the answer says what was answered.
    pub output: Option<Pointer>,
    /// Generic JSON: where the request names the session.
    pub session: Option<Pointer>,
    /// Generic JSON on the tool edge: the tool's name; the last path segment where absent.
    pub tool: Option<String>,
}

/// What one tool does outside.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ToolConfig {
    /// Its name on the wire.
    pub name: String,
    /// What a call does.
    pub effect: Effect,
    /// The effect can be undone.
    pub reversible: Option<bool>,
    /// Repeating the call changes nothing more.
    pub idempotent: Option<bool>,
}

impl Config {
    /// Parses the text of a configuration file that asks for no variable of the environment.
    ///
    /// # Errors
    /// Names the key, what was expected and what was found.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::parse_in(text, &|_| None)
    }

    /// Parses the text of a configuration file; `env` finds the value of `${NAME}`.
    ///
    /// # Errors
    /// Names the key, what was expected and what was found.
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
                let detail = "expected a directory or URL such as \"./store\", or brokers under `[kafka]`, found neither";
                return Err(wrong("store", detail));
            }
            (_, Some(kafka)) => kafka.resolve(env)?,
            (Some(_), None) => {}
        }
        for (place, route) in config.routes.iter_mut().enumerate() {
            let edge = edge_name(route.edge);
            route.name.get_or_insert_with(|| format!("{edge}-{place}"));
        }
        Ok(config)
    }

    /// The declared tools.
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
        for (place, route) in self.routes.iter().enumerate() {
            let generic = route.protocol == RouteProtocol::GenericJson;
            let pointers = [("input", &route.input), ("output", &route.output), ("session", &route.session)];
            for (key, pointer) in pointers {
                if pointer.is_some() && !generic {
                    let detail =
                        "is read only with `protocol = \"generic-json\"`; set that, or take the key out";
                    return Err(wrong(&format!("route[{place}].{key}"), detail));
                }
            }
            if generic && route.output.is_none() {
                let detail =
                    "expected a JSON pointer such as \"/answer\" (protocol is generic-json), found nothing";
                return Err(wrong(&format!("route[{place}].output"), detail));
            }
            if route.tool.is_some() && !(generic && route.edge == Edge::Tool) {
                let detail = "is read only with `protocol = \"generic-json\"` on the tool edge";
                return Err(wrong(&format!("route[{place}].tool"), detail));
            }
            let fixed = |other: &&Route| other.listen == route.listen && other.path == route.path;
            if !route.listen.is_ephemeral() && self.routes[..place].iter().any(|other| fixed(&other)) {
                let detail = format!(
                    "listens on {} and path {} like an earlier route; give one of them another path",
                    route.listen, route.path
                );
                return Err(wrong(&format!("route[{place}].path"), &detail));
            }
        }
        Ok(())
    }

    fn check_rest(&self) -> Result<(), ConfigError> {
        for (place, header) in self.redact.keep_headers.iter().enumerate() {
            if SECRET_HEADERS.contains(&header.as_str()) {
                let detail = format!("`{header}` carries credentials and is never kept; take it out");
                return Err(wrong(&format!("redact.keep-headers[{place}]"), &detail));
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
        for (place, tool) in self.tools.iter().enumerate() {
            if self.tools[..place].iter().any(|other| other.name == tool.name) {
                return Err(wrong(
                    &format!("tool[{place}].name"),
                    &format!("`{}` is declared twice", tool.name),
                ));
            }
        }
        Ok(())
    }
}

/// `turn`, `model` or `tool`.
pub(crate) fn edge_name(edge: Edge) -> &'static str {
    match edge {
        Edge::Turn => "turn",
        Edge::Model => "model",
        Edge::Tool => "tool",
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
    fn names_key_and_line_of_a_typo() {
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
    fn refuses_what_makes_no_sense_together() {
        assert!(refused(&format!("{SMALL}input = \"/x\"\n")).contains("generic-json"));
        assert!(
            refused(&format!("{SMALL}[redact]\nkeep-headers = [\"Authorization\"]\n")).contains("never kept")
        );
        assert!(
            refused(&SMALL.replace("[[route]]", "[[route]]\nlisten = \"127.0.0.1:1\"")).contains("(file)")
        );
    }
}
