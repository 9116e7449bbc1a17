//! Result of checking an invariant on one trial.

use crate::run::ToolCall;

/// Result of checking an invariant on one trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Check {
    /// The trial keeps the invariant.
    Kept,
    /// The trial breaks the invariant, at least once.
    Broken(Vec<InvariantViolation>),
    /// The trial is not seen to break the invariant, but holds redacted values of these kinds, which cannot be checked.
    Redacted(Vec<String>),
    /// The invariant does not apply to the trial.
    Unchecked,
}

/// One violation of an invariant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InvariantViolation {
    /// Sequence number of the exchange, for a call.
    pub(crate) seq: Option<u32>,
    /// Name of the tool, for a call.
    pub(crate) tool: Option<String>,
    /// Name of the rule, if the invariant has several.
    pub(crate) rule: Option<String>,
    /// JSON pointer into the arguments or the answer; empty for the whole.
    pub(crate) pointer: String,
    /// The violation in words.
    pub(crate) detail: String,
}

impl InvariantViolation {
    /// A violation by the whole trial or its answer.
    pub(super) fn of_trial(detail: String) -> Self {
        Self { detail, ..Self::default() }
    }

    /// A violation by one call.
    pub(super) fn of_call(call: &ToolCall, detail: String) -> Self {
        Self { seq: Some(call.seq), tool: Some(call.tool.clone()), detail, ..Self::default() }
    }

    /// The violation with its location: `call 7, send_money, rule payee: …`.
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
