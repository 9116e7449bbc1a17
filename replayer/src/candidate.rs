//! `candidate.toml`: the build under test and its transport, validated once.
//!
//! Sending turns is in `candidate::http` and `candidate::command`. The caller supplies the environment variables.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Uri};
use schemas::canonical::canonical;
use schemas::id::BuildId;

pub(crate) mod command;
pub(crate) mod endpoint;
pub(crate) mod http;
#[cfg(test)]
mod reference;
pub(crate) mod sections;
pub(crate) mod settings;
pub(crate) mod template;
pub(crate) mod turn;

use sections::{CandidateFile, CommandSection, HttpSection, Kind, Protocol};
use settings::{CommandCandidate, HttpCandidate, Probe, RequestFormat, Retry, Transport, Upstream};
use template::Template;

/// An invalid candidate file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CandidateError {
    /// Invalid TOML, or a key or value that the file format does not have.
    #[error("{0}")]
    Toml(String),
    /// A missing, invalid or contradictory value.
    #[error("{key}: {detail}")]
    Value {
        /// Path of the key, such as `http.url`.
        key: String,
        /// Cause and remedy.
        detail: String,
    },
}

fn bad(key: &str, detail: impl Into<String>) -> CandidateError {
    CandidateError::Value { key: key.to_owned(), detail: detail.into() }
}

/// The build under test and its transport.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub(crate) build: BuildId,
    pub(crate) transport: Transport,
    pub(crate) propagate: Option<HeaderName>,
    pub(crate) model: Option<Upstream>,
    pub(crate) probe: Probe,
    listen: SocketAddr,
    digest_text: String,
}

impl Candidate {
    /// Parses a candidate file (TOML). `env` looks up the variables of `${NAME}` in headers and of `inherit-env`.
    ///
    /// # Errors
    /// Names the key, the expected and the found value.
    pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, CandidateError> {
        let table: toml::Table =
            toml::from_str(text).map_err(|error| CandidateError::Toml(error.to_string()))?;
        let file: CandidateFile =
            toml::from_str(text).map_err(|error| CandidateError::Toml(error.to_string()))?;
        if file.candidate != 1 {
            return Err(bad(
                "candidate",
                format!("is {}, this build reads version 1; write `candidate = 1`", file.candidate),
            ));
        }
        let build = BuildId::parse(&file.build).map_err(|error| bad("build", error.to_string()))?;
        let transport = match (file.kind, file.http, file.command) {
            (Kind::Http, Some(http), None) => Transport::Http(read_http(http, env)?),
            (Kind::Command, None, Some(command)) => Transport::Command(read_command(command, env)?),
            (Kind::Http, None, _) => {
                return Err(bad("http", "kind = \"http\" needs an [http] section with `url`"));
            }
            (Kind::Command, _, None) => {
                return Err(bad("command", "kind = \"command\" needs a [command] section with `argv`"));
            }
            (Kind::Http, Some(_), Some(_)) => {
                return Err(bad("command", "kind is \"http\"; remove [command]"));
            }
            (Kind::Command, Some(_), Some(_)) => {
                return Err(bad("http", "kind is \"command\"; remove [http]"));
            }
        };
        let propagate = file.propagate.header.map(|name| {
            HeaderName::try_from(&name)
                .map_err(|_| bad("propagate.header", format!("{name:?} is not a header name")))
        });
        let url = file.probe.url.map(|text| absolute("probe.url", &text)).transpose()?;
        Ok(Self {
            build,
            transport,
            propagate: propagate.transpose()?,
            model: file.model.map(|section| read_upstream(section, env)).transpose()?,
            probe: Probe { url, timeout: file.probe.timeout },
            listen: file.world.listen.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            digest_text: digest_text(table),
        })
    }

    /// Address on which the world listens for this candidate. Port 0 means any free port.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The build under test.
    #[must_use]
    pub fn build(&self) -> &BuildId {
        &self.build
    }

    /// Whether the candidate is a program that the replayer starts, with unrestricted network access.
    #[must_use]
    pub fn is_command(&self) -> bool {
        matches!(self.transport, Transport::Command(_))
    }

    /// Retries of live model calls in words; absent without `[model]`.
    #[must_use]
    pub fn model_retry(&self) -> Option<String> {
        self.model.as_ref().map(|upstream| upstream.retry.to_string())
    }

    /// Whether any URL of the file is `https`.
    pub(crate) fn needs_tls(&self) -> bool {
        let secure = |uri: &Uri| uri.scheme_str() == Some("https");
        let service = match &self.transport {
            Transport::Http(http) => secure(&http.url),
            Transport::Command(_) => false,
        };
        service
            || self.probe.url.as_ref().is_some_and(secure)
            || self.model.as_ref().is_some_and(|upstream| upstream.base.starts_with("https:"))
    }

    /// The settings that a resumed run must share, as canonical JSON.
    pub(crate) fn digest_text(&self) -> &str {
        &self.digest_text
    }

    pub(crate) fn turn_timeout(&self) -> Duration {
        match &self.transport {
            Transport::Http(http) => http.timeout,
            Transport::Command(command) => command.timeout,
        }
    }
}

/// Leaves out `[world]` and `[probe]`, which may change between the starts of a run.
fn digest_text(mut table: toml::Table) -> String {
    table.remove("world");
    table.remove("probe");
    // The conversion fails for NaN alone, which JSON lacks.
    serde_json::to_value(&table).map_or_else(|_| format!("{table:?}"), |value| canonical(&value))
}

fn read_http(
    section: HttpSection,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<HttpCandidate, CandidateError> {
    let method = Method::from_bytes(section.method.as_bytes());
    let method = method.map_err(|_| bad("http.method", "not an HTTP method"))?;
    let format = match (section.protocol, section.body, section.answer) {
        (Protocol::GenericJson, Some(body), Some(answer)) => {
            if !answer.is_empty() && !answer.starts_with('/') {
                return Err(bad(
                    "http.answer",
                    format!("{answer:?} is not a JSON pointer; write for example \"/reply\""),
                ));
            }
            RequestFormat::Json {
                body: Template::parse(body).map_err(|detail| bad("http.body", detail))?,
                answer,
            }
        }
        (Protocol::GenericJson, None, _) => {
            return Err(bad(
                "http.body",
                "missing; write for example body = { message = \"{{input}}\" }, or protocol = \"openai-chat\"",
            ));
        }
        (Protocol::GenericJson, _, None) => {
            return Err(bad(
                "http.answer",
                "missing; write a JSON pointer to the text of the answer, for example \"/reply\"",
            ));
        }
        (Protocol::OpenaiChat, None, None) => {
            RequestFormat::OpenaiChat { model: section.model.unwrap_or_else(|| "agent".to_owned()) }
        }
        (Protocol::OpenaiChat, _, _) => {
            return Err(bad(
                "http.protocol",
                "\"openai-chat\" defines body and answer; remove `body` and `answer`",
            ));
        }
    };
    Ok(HttpCandidate {
        url: absolute("http.url", &section.url)?,
        method,
        format,
        headers: read_headers("http.headers", &section.headers, env)?,
        timeout: section.timeout,
    })
}

fn read_command(
    section: CommandSection,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<CommandCandidate, CandidateError> {
    if section.argv.is_empty() {
        return Err(bad("command.argv", "is empty; write a program and its arguments"));
    }
    for text in section.argv.iter().chain(section.env.values()) {
        template::check(text).map_err(|detail| bad("command", detail))?;
    }
    let by_argv = section.input == sections::CommandInput::Argv;
    if by_argv && section.process == sections::CommandProcess::Trial {
        return Err(bad(
            "command.input",
            "\"argv\" needs process = \"turn\": a running program gets no new arguments",
        ));
    }
    if by_argv && !section.argv.iter().any(|text| text.contains("{{input}}")) {
        return Err(bad("command.argv", "input = \"argv\" needs {{input}} in one argument"));
    }
    let inherited =
        section.inherit_env.iter().filter_map(|name| env(name).map(|value| (name.clone(), value)));
    let mut variables: Vec<(String, String)> = inherited.collect();
    for (name, text) in &section.env {
        variables.push((
            name.clone(),
            schemas::variables::expand(text, env)
                .map_err(|detail| bad(&format!("command.env.{name}"), detail))?,
        ));
    }
    Ok(CommandCandidate {
        argv: section.argv,
        env: variables,
        input: section.input,
        process: section.process,
        working_dir: section.working_dir,
        timeout: section.timeout,
    })
}

fn read_upstream(
    section: sections::ModelSection,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Upstream, CandidateError> {
    absolute("model.upstream", &section.upstream)?;
    if section.retry.attempts == 0 {
        return Err(bad("model.retry.attempts", "is 0; write at least 1, which repeats nothing"));
    }
    if section.max_lost_trials == 0 {
        return Err(bad("model.max-lost-trials", "is 0; write at least 1"));
    }
    Ok(Upstream {
        base: section.upstream.trim_end_matches('/').to_owned(),
        identify: section.identify,
        headers: read_headers("model.headers", &section.headers, env)?,
        timeout: section.timeout,
        retry: Retry {
            attempts: section.retry.attempts,
            pause: section.retry.pause,
            max_pause: section.retry.max_pause,
        },
        max_lost_trials: section.max_lost_trials,
    })
}

fn absolute(key: &str, text: &str) -> Result<Uri, CandidateError> {
    let uri = text.parse::<Uri>().ok();
    let absolute =
        uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    absolute.ok_or_else(|| bad(key, format!("{text:?} is not a URL with http:// or https:// and a host")))
}

fn read_headers(
    key: &str,
    headers: &BTreeMap<String, String>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(HeaderName, HeaderValue)>, CandidateError> {
    let mut read = Vec::new();
    for (name, text) in headers {
        let key = format!("{key}.{name}");
        let header = HeaderName::try_from(name).map_err(|_| bad(&key, "not a header name"))?;
        let value = schemas::variables::expand(text, env).map_err(|detail| bad(&key, detail))?;
        let mut value = HeaderValue::try_from(value).map_err(|_| bad(&key, "not a header value"))?;
        value.set_sensitive(true);
        read.push((header, value));
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTTP: &str = r#"
        candidate = 1
        kind = "http"
        build = "b-1"
        [http]
        url = "http://127.0.0.1:9000/chat"
        body = { message = "{{input}}" }
        answer = "/reply"
        headers = { authorization = "Bearer ${KEY}" }
    "#;

    fn parse(text: &str) -> Result<Candidate, CandidateError> {
        Candidate::parse(text, &|name| (name == "KEY").then(|| "k".to_owned()))
    }

    #[test]
    fn reads_an_http_candidate() {
        let candidate = parse(HTTP).expect("a candidate");
        assert_eq!(candidate.build().as_str(), "b-1");
        let Transport::Http(http) = &candidate.transport else { panic!("an http candidate") };
        assert_eq!(http.headers[0].1, "Bearer k");
        assert!(!candidate.digest_text().contains("Bearer k"), "the digest must not contain a secret");
    }

    #[test]
    fn the_digest_leaves_out_the_address_of_the_world() {
        let moved = format!("{HTTP}\n[world]\nlisten = \"127.0.0.1:4010\"\n");
        assert_eq!(parse(HTTP).expect("a").digest_text(), parse(&moved).expect("b").digest_text());
        let other = HTTP.replace("/reply", "/other");
        assert_ne!(parse(HTTP).expect("a").digest_text(), parse(&other).expect("b").digest_text());
    }

    #[test]
    fn errors_name_the_key_and_the_remedy() {
        let of =
            |from: &str, to: &str| parse(&HTTP.replace(from, to)).expect_err("a broken file").to_string();
        assert!(of("candidate = 1", "candidate = 2").contains("version 1"));
        assert!(of("{{input}}", "{{inptu}}").contains("{{inptu}}"));
        assert!(of("http://127", "127").contains("http://"));
        assert!(of("${KEY}", "${NO}").contains("environment variable NO is not set"));
        assert!(of("answer", "anwser").contains("anwser"));
        assert!(of("\"/reply\"", "\"reply\"").contains("JSON pointer"));
        assert!(of("kind = \"http\"", "kind = \"command\"").contains("[command]"));
    }
}
