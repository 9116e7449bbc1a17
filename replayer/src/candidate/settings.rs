//! The validated values of `candidate.toml`.

use std::path::PathBuf;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Uri};

use super::sections::{CommandInput, CommandProcess};
use super::template::Template;

/// Transport of the turns.
#[derive(Debug, Clone)]
pub(crate) enum Transport {
    /// A running service.
    Http(HttpCandidate),
    /// A program that the replayer starts.
    Command(CommandCandidate),
}

/// A running service.
#[derive(Debug, Clone)]
pub(crate) struct HttpCandidate {
    pub(crate) url: Uri,
    pub(crate) method: Method,
    pub(crate) format: RequestFormat,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Bound of one turn.
    pub(crate) timeout: Duration,
}

/// Body of the requests to a service, and the position of the answer in its responses.
#[derive(Debug, Clone)]
pub(crate) enum RequestFormat {
    /// A JSON body from a template; `answer` is a JSON pointer.
    Json { body: Template, answer: String },
    /// A chat completion with the history.
    OpenaiChat { model: String },
}

/// A program that is started for each trial or each turn.
#[derive(Debug, Clone)]
pub(crate) struct CommandCandidate {
    /// Program and arguments, with placeholders; not empty.
    pub(crate) argv: Vec<String>,
    /// Environment, with placeholders; nothing else is inherited.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) input: CommandInput,
    pub(crate) process: CommandProcess,
    pub(crate) working_dir: Option<PathBuf>,
    /// Bound of one turn.
    pub(crate) timeout: Duration,
}

/// The model provider of live model calls.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    /// Base URL without a trailing slash.
    pub(crate) base: String,
    /// Whether requests carry `foreshadow-*` headers that identify case and trial.
    pub(crate) identify: bool,
    /// Headers that replace those of the candidate.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Bound of the time to the head of the answer.
    pub(crate) timeout: Duration,
}

/// Probe of the candidate before the first trial.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    /// Requested with GET; absent: the probe sends the first turn of a case.
    pub(crate) url: Option<Uri>,
    /// Bound of the probe; absent: that of a turn.
    pub(crate) timeout: Option<Duration>,
}
