//! One version of the demo's agent: everything that a release changes, in one file.

use anyhow::Context as _;
use serde::Deserialize;

/// A version of the agent, as its `agent.toml` spells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::command::demo) struct Build {
    /// The version's name.
    pub(in crate::command::demo) build: String,
    /// The system prompt.
    pub(in crate::command::demo) prompt: String,
    /// Whether model answers are asked for as a stream.
    pub(in crate::command::demo) stream: bool,
    /// What the agent does when a tool is slow: it timed out, or answered that it is still working.
    pub(in crate::command::demo) when_slow: WhenSlow,
}

/// What to do about a slow tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::command::demo) enum WhenSlow {
    /// Tell the model, which looks whether it was done.
    Report,
    /// Call it again.
    Retry,
}

impl Build {
    /// Parses an `agent.toml`.
    pub(in crate::command::demo) fn parse(text: &str) -> anyhow::Result<Self> {
        toml::from_str(text).context("the agent's file cannot be read")
    }
}
