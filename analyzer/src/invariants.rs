//! Declared invariants: one confirmed violation by the candidate blocks, without statistics.
//!
//! Only what the policy or the envelope declares is checked here. An invariant that the baseline breaks too is no invariant
//! of this system: it is compared as a rate. What the analyzer notices by itself is never one.

use std::collections::BTreeMap;

use ::envelope::Envelope;
use jsonschema::Validator;

use crate::policy::{InvariantPolicy, MonotonicEffects};
use crate::run::TrialRecord;

mod calls;
mod envelope_check;
mod evaluate;
mod forbidden;
mod mutants;
mod mutation_check;
mod precedence;
mod sample;
#[cfg(test)]
mod tests;

use forbidden::Texts;
use precedence::Precedence;

pub(crate) use evaluate::{CaveatKind, Checked, check, envelope_name};

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
    fn of_trial(detail: String) -> Self {
        Self { detail, ..Self::default() }
    }

    /// Of one call.
    fn of_call(call: &crate::run::ToolCall, detail: String) -> Self {
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
    fn of(violations: Vec<InvariantViolation>) -> Self {
        if violations.is_empty() { Self::Kept } else { Self::Broken(violations) }
    }
}

/// A declared invariant.
#[derive(Debug)]
pub(crate) enum Invariant<'p> {
    AnswerSchema(Box<Validator>),
    ToolArguments(BTreeMap<&'p str, Validator>),
    MonotonicEffects(&'p MonotonicEffects),
    Idempotency(&'p [String]),
    ResponseTime(u64),
    Forbidden(Box<Texts>),
    Order(Vec<Precedence<'p>>),
    Envelope(&'p Envelope),
}

impl<'p> Invariant<'p> {
    /// The invariants that the policy declares.
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
            policy.forbidden.as_ref().map(|forbidden| Self::Forbidden(Box::new(Texts::new(forbidden)))),
            policy.order.as_ref().map(|rules| Self::Order(rules.iter().map(Precedence::new).collect())),
            policy.enabled_envelope().map(Self::Envelope),
        ];
        list.into_iter().flatten().collect()
    }

    /// Its name, which is its key in the policy.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::AnswerSchema(_) => "answer_schema",
            Self::ToolArguments(_) => "tool_arguments",
            Self::MonotonicEffects(_) => "monotonic_effects",
            Self::Idempotency(_) => "idempotency",
            Self::ResponseTime(_) => "response_time",
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
    // An answer that is not JSON is a text, which a schema may well allow.
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

/// Whether the trial keeps every declared invariant that it shows.
pub(crate) fn keeps_all(invariants: &[Invariant<'_>], record: &TrialRecord) -> bool {
    invariants.iter().all(|invariant| !matches!(invariant.check(record), Check::Broken(_)))
}

/// 1 where the trial breaks it, 0 where it keeps it, nothing where it does not show it.
pub(crate) fn broken_share(invariant: &Invariant<'_>, record: &TrialRecord) -> Option<f64> {
    match invariant.check(record) {
        Check::Kept => Some(0.0),
        Check::Broken(_) => Some(1.0),
        Check::Unchecked => None,
    }
}
