//! A tool call, and the violations that a check of it finds.

use serde_json::Value;

/// Characters of an observed value in a violation.
const MAX_OBSERVED: usize = 120;

/// A tool call before it is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call<'a> {
    /// Name of the tool.
    pub tool: &'a str,
    /// Parsed arguments, or their text.
    pub arguments: Arguments<'a>,
    /// Time of the call: UTC, microseconds since 1970.
    pub at: i64,
}

/// The arguments of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arguments<'a> {
    /// Parsed JSON.
    Json(&'a Value),
    /// Text that is not JSON. It violates every rule on the arguments.
    Unparseable(&'a str),
}

/// The kind of a violated rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum ViolationKind {
    /// The set of allowed tools.
    Tool,
    /// Values of arguments.
    Argument,
    /// Sums and numbers of calls.
    Rate,
    /// Repeated calls.
    Sequence,
    /// Answers to the caller.
    Output,
}

/// A rule that a call or an answer violates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Rule id: of a bound, or one of the fixed ids.
    pub rule: String,
    /// Kind of the rule.
    pub kind: ViolationKind,
    /// JSON pointer into the arguments or the answer; empty for all of it.
    pub pointer: String,
    /// The allowed values.
    pub expected: String,
    /// The observed value, shortened.
    pub observed: String,
    /// `false` for a rule in observe mode: its violations are reported and do not count.
    pub enforced: bool,
}

impl Violation {
    /// Formats pointer, observed value and allowed values as one phrase.
    #[must_use]
    pub fn detail(&self) -> String {
        let place = if self.pointer.is_empty() { String::new() } else { format!("{} is ", self.pointer) };
        format!("{place}{}, allowed: {}", self.observed, self.expected)
    }
}

pub(crate) fn violation(
    rule: &str,
    kind: ViolationKind,
    pointer: &str,
    expected: &str,
    observed: String,
) -> Violation {
    Violation {
        rule: rule.to_owned(),
        kind,
        pointer: pointer.to_owned(),
        expected: expected.to_owned(),
        observed,
        enforced: true,
    }
}

pub(crate) fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_OBSERVED).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
