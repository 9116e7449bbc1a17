//! The sections and keys of `candidate.toml`, before validation. The page of the reference is generated from them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A candidate: one build and the way to reach it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct CandidateFile {
    /// Version of the file format: 1.
    pub(crate) candidate: u32,
    /// Kind of the candidate; it selects `[http]` or `[command]`.
    pub(crate) kind: Kind,
    /// Name of the build in runs and reports.
    pub(crate) build: String,
    /// A running service; required for kind `http`.
    pub(crate) http: Option<HttpSection>,
    /// A program; required for kind `command`.
    pub(crate) command: Option<CommandSection>,
    /// Propagation of the trial identifier.
    #[serde(default)]
    pub(crate) propagate: PropagateSection,
    /// The simulated environment of the candidate.
    #[serde(default)]
    pub(crate) world: WorldSection,
    /// Model provider for `--model live`.
    pub(crate) model: Option<ModelSection>,
    /// Probe of the candidate before the first trial.
    #[serde(default)]
    pub(crate) probe: ProbeSection,
}

/// Kind of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A running service.
    Http,
    /// A program that the replayer starts.
    Command,
}

/// Protocol of the turns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    /// A JSON body from `body`, an answer at `answer`.
    #[default]
    GenericJson,
    /// `OpenAI` chat completions with the history of the trial.
    OpenaiChat,
}

/// `[http]`: a running service that gets one request for each turn.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct HttpSection {
    /// URL of the requests, `http://` or `https://`.
    pub(crate) url: String,
    /// HTTP method.
    #[serde(default = "post")]
    pub(crate) method: String,
    /// Protocol of requests and answers.
    #[serde(default)]
    pub(crate) protocol: Protocol,
    /// `model` of chat completions; without it, `agent`.
    pub(crate) model: Option<String>,
    /// Body of the requests: a table, or a string of JSON. Strings may contain `{{input}}`, `{{session}}`, `{{seed}}`,
    /// `{{turn}}`, `{{model_url}}`, `{{mcp_url}}` and `{{tools_url}}`; `{{history}}` as a whole string is the array of earlier
    /// messages. Required for protocol `generic-json`.
    pub(crate) body: Option<Value>,
    /// JSON pointer to the text of the answer. Required for protocol `generic-json`.
    pub(crate) answer: Option<String>,
    /// Request headers; `${NAME}` is replaced by an environment variable.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// Time limit of one turn.
    #[serde(default = "two_minutes", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub(crate) timeout: Duration,
}

/// Channel by which a program receives the turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CommandInput {
    /// Standard input.
    #[default]
    Stdin,
    /// The argument that contains `{{input}}`.
    Argv,
}

/// Lifetime of a program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CommandProcess {
    /// One process for each trial: one line in and one line out for each turn.
    Trial,
    /// One process for each turn: its whole standard output is the answer.
    #[default]
    Turn,
}

/// `[command]`: a program that the replayer starts. Its network access is not restricted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct CommandSection {
    /// Program and arguments, with the placeholders of `http.body`.
    pub(crate) argv: Vec<String>,
    /// Additional environment variables, with placeholders; `${NAME}` is replaced by a variable of this process.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// Environment variables that the program inherits.
    #[serde(default = "default_inherit_env")]
    pub(crate) inherit_env: Vec<String>,
    /// Channel of the turn.
    #[serde(default)]
    pub(crate) input: CommandInput,
    /// Lifetime of the process.
    #[serde(default)]
    pub(crate) process: CommandProcess,
    /// Working directory; without it, that of this process.
    pub(crate) working_dir: Option<PathBuf>,
    /// Time limit of one turn.
    #[serde(default = "two_minutes", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub(crate) timeout: Duration,
}

fn post() -> String {
    "POST".to_owned()
}

fn two_minutes() -> Duration {
    Duration::from_secs(120)
}

/// Variables that most programs need to start; none of them holds a secret.
fn default_inherit_env() -> Vec<String> {
    ["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER"].map(str::to_owned).to_vec()
}

/// `[propagate]`: the header by which the candidate passes the trial identifier on.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct PropagateSection {
    /// Header of the turn, besides `traceparent` and `baggage`, that the candidate passes on to its model and tools.
    pub(crate) header: Option<String>,
}

/// `[world]`: the simulated environment that answers model and tool calls.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct WorldSection {
    /// Loopback address and port; without it, a free port of 127.0.0.1.
    #[schemars(with = "Option<String>")]
    pub(crate) listen: Option<SocketAddr>,
}

/// `[model]`: the model provider of live model calls.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct ModelSection {
    /// Base URL, such as `https://api.example.com/v1`.
    pub(crate) upstream: String,
    /// Sends the headers `foreshadow-case`, `foreshadow-trial`, `foreshadow-call` and `foreshadow-seed`.
    #[serde(default)]
    pub(crate) identify: bool,
    /// Headers that replace those of the candidate; `${NAME}` is replaced by an environment variable.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// Longest silence of the provider: to the head of the answer, and between two parts of its body.
    #[serde(default = "two_minutes", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub(crate) timeout: Duration,
    /// Trials in a row, each lost to the provider, after which the replay stops.
    #[serde(default = "ten")]
    pub(crate) max_lost_trials: u32,
    /// Repetition of calls that the provider failed: status 408, 409, 425, 429 or 5xx, a timeout, a cut connection. An answer
    /// is not repeated after its first byte.
    #[serde(default)]
    pub(crate) retry: RetrySection,
}

/// `[model.retry]`: repetition of model calls that the provider failed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RetrySection {
    /// Attempts of a call, the first included; 1 repeats nothing.
    #[serde(default = "five")]
    pub(crate) attempts: u32,
    /// Pause before the second attempt; each further one is twice as long. A `retry-after` of the provider replaces it.
    #[serde(default = "one_second", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub(crate) pause: Duration,
    /// Longest pause, also for `retry-after`.
    #[serde(default = "one_minute", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub(crate) max_pause: Duration,
}

impl Default for RetrySection {
    fn default() -> Self {
        Self { attempts: five(), pause: one_second(), max_pause: one_minute() }
    }
}

fn ten() -> u32 {
    10
}

fn five() -> u32 {
    5
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn one_minute() -> Duration {
    Duration::from_secs(60)
}

/// `[probe]`: the check before the first trial that the candidate answers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct ProbeSection {
    /// URL that is requested with GET; without it, the probe sends the first turn of a case.
    pub(crate) url: Option<String>,
    /// Time limit; without it, that of a turn.
    #[serde(default, with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(crate) timeout: Option<Duration>,
}
