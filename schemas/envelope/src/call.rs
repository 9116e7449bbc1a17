//! A tool call, and the violations that a check of it finds.

use serde_json::Value;

/// Characters of an observed value in a violation.
const MAX_OBSERVED: usize = 120;

/// A call as the agent wants it made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call<'a> {
    /// The tool's name.
    pub tool: &'a str,
    /// Its arguments.
    pub arguments: Arguments<'a>,
    /// When it was made, UTC, microseconds since 1970.
    pub at: i64,
}

/// The arguments of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arguments<'a> {
    /// As JSON.
    Json(&'a Value),
    /// A text that is no JSON: nothing can be shown to hold of it.
    Unparseable(&'a str),
}

/// What kind of rule was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum ViolationKind {
    /// Which tools may be called.
    Tool,
    /// What they may be called with.
    Argument,
    /// How much or how often.
    Rate,
    /// What must not come again.
    Sequence,
    /// What the caller may be answered.
    Output,
}

/// One rule that a call or an answer broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule: the id of a bound, or one of the fixed ids.
    pub rule: String,
    /// Its kind.
    pub kind: ViolationKind,
    /// Where in the arguments or the answer; empty for the whole.
    pub pointer: String,
    /// What the rule demands.
    pub expected: String,
    /// What was found, shortened.
    pub observed: String,
    /// Whether it counts; a rule in observe mode is only reported.
    pub enforced: bool,
}

impl Violation {
    /// The violation in one phrase: where, what was found, what is allowed.
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
