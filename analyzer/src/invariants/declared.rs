//! The invariants that a policy declares, ready to check trials.

use std::collections::BTreeMap;

use ::envelope::Envelope;
use jsonschema::Validator;

use super::check::{Check, InvariantViolation};
use super::forbidden::ForbiddenPatterns;
use super::precedence::Precedence;
use super::{calls, envelope_check, precedence};
use crate::policy::{InvariantPolicy, MonotonicEffects};
use crate::run::TrialRecord;

/// A declared invariant.
#[derive(Debug)]
pub(crate) enum Invariant<'p> {
    AnswerSchema(Box<Validator>),
    ToolArguments(BTreeMap<&'p str, Validator>),
    MonotonicEffects(&'p MonotonicEffects),
    Idempotency(&'p [String]),
    ResponseTime(u64),
    Forbidden(Box<ForbiddenPatterns>),
    Order(Vec<Precedence<'p>>),
    Envelope(&'p Envelope),
}

impl<'p> Invariant<'p> {
    /// Invariants that the policy declares.
    pub(crate) fn declared(policy: &'p InvariantPolicy) -> Vec<Self> {
        let schema = policy.answer_schema.as_ref().and_then(|schema| jsonschema::validator_for(schema).ok());
        let list = [
            schema.map(|validator| Self::AnswerSchema(Box::new(validator))),
            policy.tool_arguments.as_ref().map(|schemas| {
                let built = schemas.iter().filter_map(|(tool, schema)| {
                    Some((tool.as_str(), jsonschema::validator_for(schema).ok()?))
                });
                Self::ToolArguments(built.collect())
            }),
            policy.monotonic_effects.as_ref().map(Self::MonotonicEffects),
            policy.idempotency.as_ref().map(|declared| Self::Idempotency(declared.tools.as_slice())),
            policy.response_time_max_ms.map(Self::ResponseTime),
            policy
                .forbidden
                .as_ref()
                .map(|forbidden| ForbiddenPatterns::new(forbidden, policy.token_key.as_ref()))
                .map(|patterns| Self::Forbidden(Box::new(patterns))),
            policy.order.as_ref().map(|rules| Self::Order(rules.iter().map(Precedence::new).collect())),
            policy.enabled_envelope().map(Self::Envelope),
        ];
        list.into_iter().flatten().collect()
    }

    /// Name, equal to the key in the policy.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::AnswerSchema(_) => "answer-schema",
            Self::ToolArguments(_) => "tool-arguments",
            Self::MonotonicEffects(_) => "monotonic-effects",
            Self::Idempotency(_) => "idempotency",
            Self::ResponseTime(_) => "response-time",
            Self::Forbidden(_) => "forbidden",
            Self::Order(_) => "order",
            Self::Envelope(_) => "envelope",
        }
    }

    /// Checks one trial.
    pub(crate) fn check(&self, record: &TrialRecord) -> Check {
        match self {
            Self::AnswerSchema(validator) => check_answer(validator, record),
            Self::ToolArguments(schemas) => calls::check_arguments(schemas, record),
            Self::MonotonicEffects(declared) => calls::check_forward(declared, record),
            Self::Idempotency(tools) => calls::check_repeats(tools, record),
            Self::ResponseTime(max_ms) => check_time(*max_ms, record),
            Self::Forbidden(texts) => texts.check(record),
            Self::Order(rules) => precedence::check(rules, record),
            Self::Envelope(envelope) => envelope_check::check(envelope, record),
        }
    }
}

fn check_answer(validator: &Validator, record: &TrialRecord) -> Check {
    let Some(answer) = &record.trial.answer else { return Check::Unchecked };
    // An answer that is not JSON is checked as a string.
    let value = serde_json::from_str(answer).unwrap_or_else(|_| serde_json::Value::String(answer.clone()));
    match validator.validate(&value) {
        Ok(()) => Check::Kept,
        Err(error) => {
            let pointer = error.instance_path().to_string();
            let violation = InvariantViolation::of_trial(format!("answer at `{pointer}`: {error}"));
            Check::Broken(vec![InvariantViolation { pointer, ..violation }])
        }
    }
}

fn check_time(max_ms: u64, record: &TrialRecord) -> Check {
    let longest = record.turns_us.iter().copied().max().or(record.trial.duration_us);
    match longest {
        None => Check::Unchecked,
        Some(time) if time <= max_ms.saturating_mul(1000) => Check::Kept,
        Some(time) => {
            let detail = format!("a turn took {} ms, at most {max_ms} ms are allowed", time / 1000);
            Check::Broken(vec![InvariantViolation::of_trial(detail)])
        }
    }
}

/// Whether the trial breaks no declared invariant.
pub(crate) fn keeps_all(invariants: &[Invariant<'_>], record: &TrialRecord) -> bool {
    invariants.iter().all(|invariant| !matches!(invariant.check(record), Check::Broken(_)))
}

/// 1 if the trial breaks the invariant, 0 if it keeps it, absent if the invariant does not apply.
pub(crate) fn broken_share(invariant: &Invariant<'_>, record: &TrialRecord) -> Option<f64> {
    match invariant.check(record) {
        Check::Kept => Some(0.0),
        Check::Broken(_) => Some(1.0),
        Check::Redacted(_) | Check::Unchecked => None,
    }
}
