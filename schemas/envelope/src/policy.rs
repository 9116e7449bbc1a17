//! The parsed envelope: declared tools, bounds on their arguments, session sets and limits on answers.

use std::collections::{BTreeMap, BTreeSet};

use jsonschema::Validator;
use regex::Regex;
use schemas::exchange::Effect;

use crate::decimal::Decimal;
use crate::pointer::Pointer;

/// A parsed capability envelope.
#[derive(Debug)]
pub struct Envelope {
    pub(crate) agent: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) digest: String,
    pub(crate) undeclared_tool: DefaultAction,
    pub(crate) max_calls: Option<u64>,
    pub(crate) tools: BTreeMap<String, ToolPolicy>,
    pub(crate) sets: BTreeMap<String, Vec<SetSource>>,
    pub(crate) output: OutputRules,
    pub(crate) not_checked: Vec<NotChecked>,
}

/// The action for an undeclared tool or argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultAction {
    /// A violation.
    Deny,
    /// No violation.
    Allow,
}

/// A declared tool.
#[derive(Debug)]
pub struct ToolPolicy {
    /// Effect of a call; `unknown` if the envelope does not declare one.
    pub effect: Effect,
    /// Whether the effect can be undone; absent if the envelope does not declare it.
    pub reversible: Option<bool>,
    pub(crate) args: Option<ArgsSchema>,
    pub(crate) bounds: Vec<Bound>,
}

/// The schema of a tool's arguments.
#[derive(Debug)]
pub(crate) struct ArgsSchema {
    pub(crate) schema: serde_json::Value,
    pub(crate) validator: Validator,
}

/// A rule on the arguments of a tool.
#[derive(Debug)]
pub struct Bound {
    /// Rule id, unique within the tool.
    pub id: String,
    /// The condition on the arguments.
    pub condition: Condition,
    /// Whether the arguments may be absent or null.
    pub optional: bool,
    /// `false` in observe mode: a violation is reported and does not count.
    pub enforced: bool,
}

/// The condition of a bound.
#[derive(Debug)]
pub enum Condition {
    /// The argument is one of these values.
    In {
        /// Pointer to the argument.
        arg: Pointer,
        /// Allowed values.
        allowed: AllowedValues,
    },
    /// The argument is a number between these.
    Range {
        /// Pointer to the argument.
        arg: Pointer,
        /// Inclusive minimum.
        min: Option<Decimal>,
        /// Inclusive maximum.
        max: Option<Decimal>,
    },
    /// The argument, summed over the calls of the window, is at most this. Negative values count as 0.
    Sum {
        /// Pointer to the argument.
        arg: Pointer,
        /// Inclusive maximum of the sum.
        max: Decimal,
        /// The calls that count.
        window: Window,
    },
    /// No two calls of the window have the same values of these arguments.
    Unique {
        /// Pointers to the arguments.
        args: Vec<Pointer>,
        /// The calls that count.
        window: Window,
    },
}

/// The allowed values of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedValues {
    /// Fixed values in canonical JSON.
    pub values: BTreeSet<String>,
    /// Names of session sets.
    pub sets: Vec<String>,
}

/// The earlier calls that a sum or a uniqueness rule includes.
///
/// Only calls of the same session count, however long the window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// All calls of the session.
    Session,
    /// Calls that started at most this many microseconds earlier.
    Rolling(i64),
}

/// The source of a session set's values.
#[derive(Debug)]
pub enum SetSource {
    /// An argument of a call that succeeded.
    Argument {
        /// Name of the tool.
        tool: String,
        /// Pointer to the argument.
        arg: Pointer,
    },
    /// A value in the JSON result of a call that succeeded.
    Result {
        /// Name of the tool.
        tool: String,
        /// Pointer into the result.
        result: Pointer,
    },
    /// Matches in the result text of a call that succeeded: group 1, or the entire match without one.
    ResultText {
        /// Name of the tool.
        tool: String,
        /// Regular expression without look-around.
        pattern: Regex,
    },
    /// Matches in the caller's text: group 1, or the entire match without one.
    Turn {
        /// Regular expression without look-around.
        pattern: Regex,
    },
}

/// Limits on an answer to the caller.
#[derive(Debug, Default)]
pub(crate) struct OutputRules {
    pub(crate) validator: Option<Validator>,
    pub(crate) max_bytes: Option<u64>,
}

/// A key that this build parses and does not check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotChecked {
    /// Line in the file, from 1.
    pub line: usize,
    /// The key, with its tool.
    pub key: String,
    /// Whether the key forbids something that this build allows.
    pub restricts: bool,
}

impl Envelope {
    /// The agent that the envelope declares.
    #[must_use]
    pub fn agent(&self) -> Option<&str> {
        self.agent.as_deref()
    }

    /// The version that the envelope declares.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// BLAKE3 digest of the content, schema files included, as 64 hexadecimal digits. Comments and formatting do not change it.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The keys that this build does not check, sorted by line.
    #[must_use]
    pub fn not_checked(&self) -> &[NotChecked] {
        &self.not_checked
    }

    /// The declared tools by name.
    pub fn tools(&self) -> impl Iterator<Item = (&str, &ToolPolicy)> {
        self.tools.iter().map(|(name, tool)| (name.as_str(), tool))
    }

    /// The action for undeclared tools.
    #[must_use]
    pub fn undeclared_tool(&self) -> DefaultAction {
        self.undeclared_tool
    }

    /// Maximum number of calls of a session.
    #[must_use]
    pub fn max_calls(&self) -> Option<u64> {
        self.max_calls
    }

    /// Whether the envelope limits answers to the caller.
    #[must_use]
    pub fn bounds_output(&self) -> bool {
        self.output.validator.is_some() || self.output.max_bytes.is_some()
    }

    /// Whether a rule reads results of this tool.
    #[must_use]
    pub fn needs_result_of(&self, tool: &str) -> bool {
        self.sources().any(|source| match source {
            SetSource::Result { tool: named, .. } | SetSource::ResultText { tool: named, .. } => {
                named == tool
            }
            SetSource::Argument { .. } | SetSource::Turn { .. } => false,
        })
    }

    /// Whether a rule reads results of any tool.
    #[must_use]
    pub fn needs_results(&self) -> bool {
        self.tools.keys().any(|tool| self.needs_result_of(tool))
    }

    fn sources(&self) -> impl Iterator<Item = &SetSource> {
        self.sets.values().flatten()
    }
}

impl PartialEq for Envelope {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl ToolPolicy {
    /// The declared JSON Schema of the arguments.
    #[must_use]
    pub fn args_schema(&self) -> Option<&serde_json::Value> {
        self.args.as_ref().map(|args| &args.schema)
    }

    /// The bounds on the arguments, in the order of the file.
    #[must_use]
    pub fn bounds(&self) -> &[Bound] {
        &self.bounds
    }
}
