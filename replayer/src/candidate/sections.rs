//! The sections and keys of `candidate.toml`, before validation.

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

/// Channel by which a program receives the turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CommandInput {
    /// Standard input.
    #[default]
    Stdin,
    /// The argument that contains `{{input}}`.
    Argv,
}

/// Lifetime of a program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CommandProcess {
    /// One process for each trial: one line in and one line out for each turn.
    Trial,
    /// One process for each turn: its whole standard output is the answer.
    #[default]
    Turn,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct CommandSection {
    pub(crate) argv: Vec<String>,
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    #[serde(default = "default_inherit_env")]
    pub(crate) inherit_env: Vec<String>,
    #[serde(default)]
    pub(crate) input: CommandInput,
    #[serde(default)]
    pub(crate) process: CommandProcess,
    pub(crate) working_dir: Option<PathBuf>,
    #[serde(default, with = "humantime_serde")]
    pub(crate) timeout: Option<Duration>,
}

/// Variables that most programs need to start; none of them holds a secret.
fn default_inherit_env() -> Vec<String> {
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
