//! The capability envelope: what an agent may do, declared in TOML, and the pure check of one call against it.
//!
//! A closed vocabulary: declared tools, JSON Schemas of their arguments, and bounds (`in`, `min`, `max`, `sum`, `unique`)
//! on single arguments. Whatever cannot be evaluated (a missing argument, a value of another type, a number too large)
//! is a violation, never a pass. Keys that a later build checks (`require`, `approve`, `breaker`, …) are read and kept in
//! [`Envelope::not_checked`], so that nobody takes them for checked. Nothing here decides what happens to a call.
//!
//! ```toml
//! envelope = 1
//! agent = "refund-support"
//! version = "2026-11-20.1"
//! [defaults]
//! undeclared_tool = "deny"                  # or "allow"; deny is the default
//! undeclared_argument = "deny"              # an argument that the tool's schema does not name
//! max_calls_per_session = 60
//!
//! [session.orders]                          # what rules call `session.orders`: values that this session has seen
//! from = [{ tool = "find_order", arg = "/order_id" }]            # an argument of a call that succeeded
//! [session.emails]
//! from = [{ tool = "find_order", result = "/customer/email" },   # a place in its JSON result
//!         { tool = "find_mail", result_pattern = 'from: (\S+)' },# group 1, or all, of matches in its result
//!         { turn = '\S+@\S+' }]                                  # matches in what the caller said
//!
//! [[tool]]
//! name = "refund"
//! effect = "write"
//! args_schema = "schemas/refund.json"       # a file beside the envelope, or the schema itself as a table
//! bound = [
//!   { id = "own-order",   arg = "/order_id", in = "session.orders" },          # or a list; a list may name sets too
//!   { id = "cap-call",    arg = "/amount_cents", min = 1, max = 20000 },
//!   { id = "cap-session", sum = "/amount_cents", per = "session", max = 50000 },
//!   { id = "once",        unique = ["/order_id"], per = "24h" },
//!   { id = "currency",    arg = "/currency", in = ["EUR"], optional = true },  # may be left out or null
//!   { id = "canary",      arg = "/note", in = ["a", "b"], mode = "observe" },  # reported, never a violation that blocks
//! ]
//! [output]
//! max_bytes = 8192                          # of an answer to the caller
//! schema = "schemas/reply.json"
//! ```
//!
//! Places are JSON pointers; a segment `*` means every element. A set holds what the session itself has seen, so take its
//! values from fields that only the owner of a tool writes: a pattern over free text believes whoever wrote the text.

use std::collections::{BTreeMap, BTreeSet};

use jsonschema::Validator;
use regex::Regex;

use schemas::exchange::Effect;

mod check;
mod decimal;
mod file;
mod parse;
mod pointer;
mod rules;
mod session;
#[cfg(test)]
mod tests;

pub use check::{Arguments, Call, Kind, Violation};
pub use decimal::Decimal;
pub use parse::EnvelopeError;
pub use pointer::{Absent, Pointer};
pub use session::{Outcome, Reserved, Session};

/// Rule id of a tool that the envelope does not declare.
pub const UNDECLARED_TOOL: &str = "undeclared_tool";

/// Rule id of an argument that the tool's schema does not name.
pub const UNDECLARED_ARGUMENT: &str = "undeclared_argument";

/// Rule id of arguments that do not satisfy the tool's schema.
pub const ARGS_SCHEMA: &str = "args_schema";

/// Rule id of more calls than a session may make.
pub const MAX_CALLS: &str = "max_calls_per_session";

/// Rule id of an answer that does not satisfy `[output] schema`.
pub const OUTPUT_SCHEMA: &str = "output.schema";

/// Rule id of an answer longer than `[output] max_bytes`.
pub const OUTPUT_MAX_BYTES: &str = "output.max_bytes";

/// A declared capability boundary, ready to be checked.
#[derive(Debug)]
pub struct Envelope {
    agent: Option<String>,
    version: Option<String>,
    digest: String,
    undeclared_tool: Undeclared,
    max_calls: Option<u64>,
    tools: BTreeMap<String, Tool>,
    sets: BTreeMap<String, Vec<Source>>,
    output: OutputRules,
    not_checked: Vec<NotChecked>,
}

/// What becomes of what nobody declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undeclared {
    /// It is a violation.
    Deny,
    /// It is let through.
    Allow,
}

/// A declared tool.
#[derive(Debug)]
pub struct Tool {
    /// What a call does outside; unknown where the envelope does not say.
    pub effect: Effect,
    /// The effect can be undone; absent where the envelope does not say.
    pub reversible: Option<bool>,
    args: Option<ArgsSchema>,
    bounds: Vec<Bound>,
}

/// The schema of a tool's arguments.
#[derive(Debug)]
struct ArgsSchema {
    schema: serde_json::Value,
    validator: Validator,
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
        allowed: Allowed,
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
pub struct Allowed {
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
pub enum Source {
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
struct OutputRules {
    validator: Option<Validator>,
    max_bytes: Option<u64>,
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
    pub fn tools(&self) -> impl Iterator<Item = (&str, &Tool)> {
        self.tools.iter().map(|(name, tool)| (name.as_str(), tool))
    }

    /// What becomes of tools that are not declared.
    #[must_use]
    pub fn undeclared_tool(&self) -> Undeclared {
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
            Source::Result { tool: named, .. } | Source::ResultText { tool: named, .. } => named == tool,
            Source::Argument { .. } | Source::Turn { .. } => false,
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
        self.sources().any(|source| matches!(source, Source::Turn { .. }))
    }

    fn sources(&self) -> impl Iterator<Item = &Source> {
        self.sets.values().flatten()
    }
}

impl PartialEq for Envelope {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Tool {
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
