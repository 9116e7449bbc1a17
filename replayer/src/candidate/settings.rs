//! The validated values of `candidate.toml`.

use std::path::PathBuf;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
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
    /// Bound of the provider's silence.
    pub(crate) timeout: Duration,
    pub(crate) retry: Retry,
    /// Trials in a row, each lost to the provider, after which the replay stops.
    pub(crate) max_lost_trials: u32,
}

/// Repetition of model calls that the provider failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retry {
    /// Attempts of a call, at least 1.
    pub(crate) attempts: u32,
    pub(crate) pause: Duration,
    /// Bound of each pause, also of one that the provider asks for.
    pub(crate) max_pause: Duration,
}

impl Retry {
    /// The pauses before the second and each further attempt.
    pub(crate) fn pauses(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        ExponentialBuilder::new()
            .with_min_delay(self.pause)
            .with_max_delay(self.max_pause)
            .with_factor(2.0)
            .with_max_times(self.attempts.saturating_sub(1) as usize)
            .build()
    }
}

impl std::fmt::Display for Retry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { attempts, pause, max_pause } = self;
        write!(f, "{attempts} attempts, pauses from {pause:?} to {max_pause:?}")
    }
}

/// Probe of the candidate before the first trial.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    /// Requested with GET; absent: the probe sends the first turn of a case.
    pub(crate) url: Option<Uri>,
    /// Bound of the probe; absent: that of a turn.
    pub(crate) timeout: Option<Duration>,
}
