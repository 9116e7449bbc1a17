//! The shape of `candidate.toml` as it is written; [`super::Candidate`] is what it is parsed into.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct CandidateFile {
    pub(crate) candidate: u32,
    pub(crate) kind: Kind,
    pub(crate) build: String,
    pub(crate) http: Option<HttpSection>,
    pub(crate) command: Option<CommandSection>,
    #[serde(default)]
    pub(crate) propagate: PropagateSection,
    #[serde(default)]
    pub(crate) world: WorldSection,
    pub(crate) model: Option<ModelSection>,
    #[serde(default)]
    pub(crate) probe: ProbeSection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Http,
    Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    GenericJson,
    OpenaiChat,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct HttpSection {
    pub(crate) url: String,
    pub(crate) method: Option<String>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) model: Option<String>,
    pub(crate) body: Option<Value>,
    pub(crate) answer: Option<String>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    #[serde(default, with = "humantime_serde")]
    pub(crate) timeout: Option<Duration>,
}

/// How a program is given the turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CommandInput {
    /// On its standard input.
    #[default]
    Stdin,
    /// In an argument, at `{{input}}`.
    Argv,
}

/// How long a program lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CommandProcess {
    /// Over all turns of a trial: one line in and one line out per turn.
    Trial,
    /// Over one turn: all of its standard output is the answer.
    #[default]
    Turn,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct CommandSection {
    pub(crate) argv: Vec<String>,
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    #[serde(default = "inherited")]
    pub(crate) inherit: Vec<String>,
    #[serde(default)]
    pub(crate) input: CommandInput,
    #[serde(default)]
    pub(crate) process: CommandProcess,
    pub(crate) folder: Option<PathBuf>,
    #[serde(default, with = "humantime_serde")]
    pub(crate) timeout: Option<Duration>,
}

/// What a program needs to start at all; secrets are not among it.
fn inherited() -> Vec<String> {
    ["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER"].map(str::to_owned).to_vec()
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct PropagateSection {
    pub(crate) header: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct WorldSection {
    pub(crate) listen: Option<SocketAddr>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct ModelSection {
    pub(crate) upstream: String,
    #[serde(default)]
    pub(crate) identify: bool,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    #[serde(default, with = "humantime_serde")]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct ProbeSection {
    pub(crate) url: Option<String>,
    #[serde(default, with = "humantime_serde")]
    pub(crate) timeout: Option<Duration>,
}
