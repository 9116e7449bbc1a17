//! The parsed envelope: declared tools, bounds on their arguments, session sets and limits on answers.

use std::collections::{BTreeMap, BTreeSet};

use jsonschema::Validator;
use regex::Regex;
use schemas::exchange::Effect;

use crate::decimal::Decimal;
use crate::pointer::Pointer;

/// A declared capability boundary, ready to be checked.
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

/// What becomes of what nobody declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultAction {
    /// It is a violation.
    Deny,
    /// It is let through.
    Allow,
}

/// A declared tool.
#[derive(Debug)]
pub struct ToolPolicy {
    /// What a call does outside; unknown where the envelope does not say.
    pub effect: Effect,
    /// The effect can be undone; absent where the envelope does not say.
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
    /// Its name, unique within the tool.
    pub id: String,
    /// What must hold.
    pub condition: Condition,
    /// Whether the arguments may be absent or null.
    pub optional: bool,
    /// Whether breaking it is a violation that counts; else it is only reported.
    pub enforced: bool,
}

/// What a bound demands.
#[derive(Debug)]
pub enum Condition {
    /// The argument is one of these values.
    In {
        /// The argument.
        arg: Pointer,
        /// The values.
        allowed: AllowedValues,
    },
    /// The argument is a number between these.
    Range {
        /// The argument.
        arg: Pointer,
        /// The least.
        min: Option<Decimal>,
        /// The most.
        max: Option<Decimal>,
    },
    /// The argument, summed over the calls of the window, stays at or under this. Negative values do not make room.
    Sum {
        /// The argument.
        arg: Pointer,
        /// The most.
        max: Decimal,
        /// Over which calls.
        window: Window,
    },
    /// No two calls of the window have the same values here.
    Unique {
        /// The arguments, together.
        args: Vec<Pointer>,
        /// Over which calls.
        window: Window,
    },
}

/// Values that an argument may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedValues {
    /// Fixed ones, in canonical JSON.
    pub values: BTreeSet<String>,
    /// Names of session sets.
    pub sets: Vec<String>,
}

/// Which calls a sum or uniqueness looks back at.
///
/// A session knows only its own calls: what a window reaches beyond it is not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// All of the session.
    Session,
    /// Those of the session that started at most this many microseconds before.
    Rolling(i64),
}

/// Where the values of a session set come from.
#[derive(Debug)]
pub enum SetSource {
    /// An argument of a call that succeeded.
    Argument {
        /// The tool.
        tool: String,
        /// The argument.
        arg: Pointer,
    },
    /// A place in the JSON result of a call that succeeded.
    Result {
        /// The tool.
        tool: String,
        /// The place.
        place: Pointer,
    },
    /// Matches in the result of a call that succeeded: group 1, or all where there is none.
    ResultText {
        /// The tool.
        tool: String,
        /// The pattern.
        pattern: Regex,
    },
    /// Matches in what the caller said: group 1, or all where there is none.
    Turn {
        /// The pattern.
        pattern: Regex,
    },
}

/// What an answer to the caller must keep.
#[derive(Debug, Default)]
pub(crate) struct OutputRules {
    pub(crate) validator: Option<Validator>,
    pub(crate) max_bytes: Option<u64>,
}

/// A key of the envelope that this build reads and does not check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotChecked {
    /// Its line, from 1.
    pub line: usize,
    /// The key with the tool it belongs to.
    pub key: String,
    /// Whether it forbids something that this build would let pass.
    pub restricts: bool,
}

impl Envelope {
    /// The agent that it is for, where it says.
    #[must_use]
    pub fn agent(&self) -> Option<&str> {
        self.agent.as_deref()
    }

    /// Its version, where it says.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Names its content, schema files included: BLAKE3, 64 hexadecimal digits. Comments and spelling do not matter.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Keys that this build does not check, by line.
    #[must_use]
    pub fn not_checked(&self) -> &[NotChecked] {
        &self.not_checked
    }

    /// The declared tools by name.
    pub fn tools(&self) -> impl Iterator<Item = (&str, &ToolPolicy)> {
        self.tools.iter().map(|(name, tool)| (name.as_str(), tool))
    }

    /// What becomes of tools that are not declared.
    #[must_use]
    pub fn undeclared_tool(&self) -> DefaultAction {
        self.undeclared_tool
    }

    /// How many calls a session may make.
    #[must_use]
    pub fn max_calls(&self) -> Option<u64> {
        self.max_calls
    }

    /// Whether an answer to the caller is bounded at all.
    #[must_use]
    pub fn bounds_output(&self) -> bool {
        self.output.validator.is_some() || self.output.max_bytes.is_some()
    }

    /// Whether a rule needs what calls of this tool returned.
    #[must_use]
    pub fn needs_result_of(&self, tool: &str) -> bool {
        self.sources().any(|source| match source {
            SetSource::Result { tool: named, .. } | SetSource::ResultText { tool: named, .. } => {
                named == tool
            }
            SetSource::Argument { .. } | SetSource::Turn { .. } => false,
        })
    }

    /// Whether a rule needs what any call returned.
    #[must_use]
    pub fn needs_results(&self) -> bool {
        self.tools.keys().any(|tool| self.needs_result_of(tool))
    }

    /// Whether a rule needs what the caller said.
    #[must_use]
    pub fn needs_turns(&self) -> bool {
        self.sources().any(|source| matches!(source, SetSource::Turn { .. }))
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
    /// The schema of its arguments as declared, where there is one.
    #[must_use]
    pub fn args_schema(&self) -> Option<&serde_json::Value> {
        self.args.as_ref().map(|args| &args.schema)
    }

    /// The rules on its arguments, in the order of the file.
    #[must_use]
    pub fn bounds(&self) -> &[Bound] {
        &self.bounds
    }
}
