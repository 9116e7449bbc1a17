//! Checks a trial against the capability envelope: every call in order, then the answer.

use envelope::{Arguments, Call, CallOutcome, Envelope, SessionState, Violation};

use super::{Check, InvariantViolation, calls};
use crate::run::{ToolCall, TrialRecord};

/// Checks every call and the answer; rules in observe mode do not count.
pub(super) fn check(envelope: &Envelope, record: &TrialRecord) -> Check {
    let has_answer = record.trial.answer.is_some() && envelope.bounds_output();
    if !record.trial.has_transcript && !has_answer {
        return Check::Unchecked;
    }
    let enforced = walk(envelope, record).into_iter().filter(|(_, violation)| violation.enforced);
    Check::of(enforced.map(|(call, violation)| describe(call, violation)).collect())
}

/// Rules in observe mode that a trial breaks, as `send_money/payee`, each once.
pub(super) fn observed(envelope: &Envelope, record: &TrialRecord) -> Vec<String> {
    let mut rules: Vec<String> = walk(envelope, record)
        .into_iter()
        .filter(|(_, violation)| !violation.enforced)
        .map(|(call, violation)| {
            let tool = call.map_or("", |call| call.tool.as_str());
            format!("{tool}/{}", violation.rule)
        })
        .collect();
    rules.sort();
    rules.dedup();
    rules
}

/// Violations of a trial with the calls that made them; those of the answer come last.
fn walk<'r>(envelope: &Envelope, record: &'r TrialRecord) -> Vec<(Option<&'r ToolCall>, Violation)> {
    let mut session = SessionState::default();
    let mut found = Vec::new();
    let mut said = record.user_turns.iter().peekable();
    for (place, call) in record.calls.iter().enumerate() {
        while let Some(turn) = said.next_if(|turn| turn.calls_before <= place) {
            session.observe_turn(envelope, &turn.text);
        }
        let value = calls::arguments(call);
        let arguments = value.as_ref().map_or(Arguments::Unparseable(call.arguments_text()), Arguments::Json);
        let asked = Call { tool: &call.tool, arguments, at: call.at };
        found.extend(envelope.check(&session, &asked).into_iter().map(|violation| (Some(call), violation)));
        let reserved = session.reserve(envelope, &asked);
        session.settle(envelope, &asked, reserved, outcome(call));
    }
    if let Some(answer) = &record.trial.answer {
        found.extend(envelope.check_output(answer).into_iter().map(|violation| (None, violation)));
    }
    found
}

fn outcome(call: &ToolCall) -> CallOutcome<'_> {
    if call.succeeded() {
        CallOutcome::Done(call.result.as_deref())
    } else if call.was_refused() {
        CallOutcome::Refused
    } else {
        CallOutcome::Unknown
    }
}

fn describe(call: Option<&ToolCall>, broken: Violation) -> InvariantViolation {
    let detail = broken.detail();
    let violation = match call {
        Some(call) => InvariantViolation::of_call(call, detail),
        None => InvariantViolation::of_trial(format!("the answer {detail}")),
    };
    InvariantViolation { rule: Some(broken.rule), pointer: broken.pointer, ..violation }
}
