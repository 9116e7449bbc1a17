//! Result of checking an invariant on one trial.

use crate::run::ToolCall;

/// What a check says of one trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Check {
    /// It holds.
    Kept,
    /// It does not; what was done, at least one thing.
    Broken(Vec<InvariantViolation>),
    /// The trial does not show it.
    Unchecked,
}

/// One thing that a trial did against an invariant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InvariantViolation {
    /// The exchange, where it was a call.
    pub(crate) seq: Option<u32>,
    /// The tool, where it was a call.
    pub(crate) tool: Option<String>,
    /// The rule, where the invariant has several.
    pub(crate) rule: Option<String>,
    /// Where in the arguments or the answer; empty for the whole.
    pub(crate) pointer: String,
    /// What was done, in words.
    pub(crate) detail: String,
}

impl InvariantViolation {
    /// Of the whole trial, or of its answer.
    pub(super) fn of_trial(detail: String) -> Self {
        Self { detail, ..Self::default() }
    }

    /// Of one call.
    pub(super) fn of_call(call: &ToolCall, detail: String) -> Self {
        Self { seq: Some(call.seq), tool: Some(call.tool.clone()), detail, ..Self::default() }
    }

    /// The violation as people are told of it: `call 7, send_money, rule payee: …`.
    pub(crate) fn words(&self) -> String {
        let mut place = Vec::new();
        place.extend(self.seq.map(|seq| format!("call {seq}")));
        place.extend(self.tool.clone());
        place.extend(self.rule.as_ref().map(|rule| format!("rule {rule}")));
        if place.is_empty() { self.detail.clone() } else { format!("{}: {}", place.join(", "), self.detail) }
    }
}

impl Check {
    pub(super) fn of(violations: Vec<InvariantViolation>) -> Self {
        if violations.is_empty() { Self::Kept } else { Self::Broken(violations) }
    }
}
