//! One build of the demo's agent: everything that a release can change, in one file.

use anyhow::Context as _;
use serde::Deserialize;

/// The contents of an `agent.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Build {
    /// Name of the build.
    pub(crate) build: String,
    /// System prompt.
    pub(crate) prompt: String,
    /// Requests streamed model responses.
    pub(crate) stream: bool,
    /// Reaction to a tool call that timed out or is still processing.
    pub(crate) when_slow: WhenSlow,
}

/// Reaction to a slow tool call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WhenSlow {
    /// Reports it to the model, which checks the status.
    Report,
    /// Repeats the call.
    Retry,
}

impl Build {
    /// Parses an `agent.toml`.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        toml::from_str(text).context("agent.toml cannot be parsed")
    }
}
