//! Invariants of tool calls and writes: argument schemas, forward-only order, no repetition.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jsonschema::Validator;
use serde_json::Value;

use super::{Check, InvariantViolation};
use crate::policy::MonotonicEffects;
use crate::run::{ToolCall, TrialRecord};
use crate::writes;

/// Arguments as JSON; absent if they are not JSON.
pub(super) fn arguments(call: &ToolCall) -> Option<Value> {
    serde_json::from_str(call.arguments.as_deref()?).ok()
}

/// Checks that the arguments of every call satisfy the schema declared for its tool.
pub(super) fn check_arguments(schemas: &BTreeMap<&str, Validator>, record: &TrialRecord) -> Check {
    if !record.trial.has_transcript {
        return Check::Unchecked;
    }
    let mut violations = Vec::new();
    for call in &record.calls {
        let Some(validator) = schemas.get(call.tool.as_str()) else { continue };
        let Some(value) = arguments(call) else {
            let detail = format!("arguments are not JSON: {}", call.arguments_text());
            violations.push(InvariantViolation::of_call(call, detail));
            continue;
        };
        if let Err(error) = validator.validate(&value) {
            let pointer = error.instance_path().to_string();
            let violation = InvariantViolation::of_call(call, format!("arguments at `{pointer}`: {error}"));
            violations.push(InvariantViolation { pointer, ..violation });
        }
    }
    Check::of(violations)
}

/// Checks that writes keep the declared order and that none is repeated after another write.
pub(super) fn check_forward(declared: &MonotonicEffects, record: &TrialRecord) -> Check {
    if !record.trial.has_transcript {
        return Check::Unchecked;
    }
    let place = |tool: &str| declared.order.iter().position(|listed| listed == tool);
    let mut violations = Vec::new();
    let mut last: BTreeMap<(&str, Cow<'_, str>), usize> = BTreeMap::new();
    let mut furthest: Option<(usize, &str)> = None;
    for (number, call) in record.calls.iter().filter(|call| call.wrote()).enumerate() {
        if let Some(position) = place(&call.tool) {
            match furthest.filter(|(reached, _)| *reached > position) {
                Some((reached, tool)) => {
                    let detail =
                        format!("{} (position {position}) after {tool} (position {reached})", call.tool);
                    violations.push(InvariantViolation {
                        rule: Some("order".to_owned()),
                        ..InvariantViolation::of_call(call, detail)
                    });
                }
                None => furthest = Some((position, &call.tool)),
            }
        }
        let key = (call.tool.as_str(), call.compared_text());
        let before = last.insert(key, number);
        if before.is_some_and(|before| before + 1 < number) && call.idempotent != Some(true) {
            let detail = format!("{}({}) repeated after another write", call.tool, call.arguments_text());
            violations.push(InvariantViolation {
                rule: Some("again".to_owned()),
                ..InvariantViolation::of_call(call, detail)
            });
        }
    }
    Check::of(violations)
}

/// Checks that no write repeats with the same arguments, unless it is declared idempotent.
pub(super) fn check_repeats(tools: &[String], record: &TrialRecord) -> Check {
    if !record.trial.has_transcript {
        return Check::Unchecked;
    }
    let Some((tool, arguments, count)) = writes::repeated(record, tools) else { return Check::Kept };
    let named = |call: &&ToolCall| call.wrote() && call.tool == tool;
    let first = record.calls.iter().filter(named).find(|call| call.arguments_text() == arguments);
    let same = |call: &&ToolCall| first.is_some_and(|first| first.compared_text() == call.compared_text());
    let second = record.calls.iter().filter(named).filter(same).nth(1);
    let detail = format!("{tool}({arguments}) made {count} times");
    let violation = second.map_or_else(
        || InvariantViolation::of_trial(detail.clone()),
        |call| InvariantViolation::of_call(call, detail.clone()),
    );
    Check::Broken(vec![violation])
}
