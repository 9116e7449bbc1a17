//! Order rules: one call must succeed in the session before another is made, with an equal argument if required.

use std::collections::BTreeSet;

use envelope::Pointer;
use schemas::canonical::canonical;

use super::{Check, InvariantViolation, calls};
use crate::policy::OrderRule;
use crate::run::{ToolCall, TrialRecord};

/// A rule with parsed pointers.
#[derive(Debug)]
pub(crate) struct Precedence<'p> {
    pub(super) rule: &'p OrderRule,
    pub(super) same: Option<(Pointer, Pointer)>,
}

impl<'p> Precedence<'p> {
    pub(super) fn new(rule: &'p OrderRule) -> Self {
        // The policy accepts only pointers that parse.
        let same = rule.same.as_ref();
        let same = same.and_then(|(first, then)| Some((Pointer::parse(first)?, Pointer::parse(then)?)));
        Self { rule, same }
    }

    pub(super) fn is_first(&self, call: &ToolCall) -> bool {
        self.rule.first.contains(&call.tool)
    }

    pub(super) fn is_then(&self, call: &ToolCall) -> bool {
        self.rule.then.contains(&call.tool)
    }
}

/// Checks every rule. A call that the tool refused counts as made.
pub(super) fn check(rules: &[Precedence<'_>], record: &TrialRecord) -> Check {
    if !record.trial.has_transcript {
        return Check::Unchecked;
    }
    let violations = rules.iter().flat_map(|rule| broken(rule, record));
    let mut violations: Vec<InvariantViolation> = violations.collect();
    violations.sort_by_key(|violation| violation.seq);
    Check::of(violations)
}

fn broken(rule: &Precedence<'_>, record: &TrialRecord) -> Vec<InvariantViolation> {
    let mut violations = Vec::new();
    let mut happened = false;
    let mut values: BTreeSet<String> = BTreeSet::new();
    let name = rule.rule.name();
    let violation = |call: &ToolCall, pointer: &str, detail: String| InvariantViolation {
        rule: Some(name.clone()),
        pointer: pointer.to_owned(),
        ..InvariantViolation::of_call(call, detail)
    };
    for call in &record.calls {
        if rule.is_then(call) {
            let before = rule.rule.first.join(" or ");
            match &rule.same {
                None if happened => {}
                None => violations.push(violation(call, "", format!("called before {before} succeeded"))),
                Some((first, then)) => {
                    let wanted = values_at(call, then);
                    let missing = wanted.iter().find(|value| !values.contains(*value));
                    if wanted.is_empty() {
                        let detail = format!("has no argument {then} to compare with {before}");
                        violations.push(violation(call, then.as_str(), detail));
                    } else if let Some(value) = missing {
                        let detail =
                            format!("{then} is {value}, but no {before} succeeded with that {first}");
                        violations.push(violation(call, then.as_str(), detail));
                    }
                }
            }
        }
        if rule.is_first(call) && call.succeeded() {
            happened = true;
            if let Some((first, _)) = &rule.same {
                values.extend(values_at(call, first));
            }
        }
    }
    violations
}

fn values_at(call: &ToolCall, place: &Pointer) -> Vec<String> {
    let Some(arguments) = calls::arguments(call) else { return Vec::new() };
    place.resolve(&arguments).unwrap_or_default().into_iter().map(|(_, value)| canonical(value)).collect()
}
