//! One version of the demo's agent: everything that a release changes, in one file.

use anyhow::Context as _;
use serde::Deserialize;

/// A version of the agent, as its `agent.toml` spells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Build {
    /// The version's name.
    pub(crate) build: String,
    /// The system prompt.
    pub(crate) prompt: String,
    /// Whether model answers are asked for as a stream.
    pub(crate) stream: bool,
    /// What the agent does when a tool is slow: it timed out, or answered that it is still working.
    pub(crate) when_slow: WhenSlow,
}

/// What to do about a slow tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WhenSlow {
    /// Tell the model, which looks whether it was done.
    Report,
    /// Call it again.
    Retry,
}

impl Build {
    /// Parses an `agent.toml`.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        toml::from_str(text).context("the agent's file cannot be read")
    }
}
