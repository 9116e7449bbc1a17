//! Mutants: trials changed to break one rule of an invariant, for the mutation check.
//!
//! A mutant is built from the rule alone. Whether the check notices the violation is the question.

use envelope::{
    ARGS_SCHEMA, Bound, Condition, Decimal, DefaultAction, Envelope, MAX_CALLS, OUTPUT_MAX_BYTES,
    OUTPUT_SCHEMA, Pointer, UNDECLARED_ARGUMENT, UNDECLARED_TOOL,
};
use schemas::canonical::canonical;
use schemas::exchange::Ending;
use serde_json::{Value, json};

use super::forbidden::Rule;
use super::precedence::Precedence;
use super::{Invariant, InvariantViolation, calls, sample};
use crate::run::{ToolCall, TrialRecord};

/// A name and value that no session has.
const STRANGER: &str = "foreshadow-mutant";

/// Largest number of calls that a mutant repeats to exceed a bound on calls.
const MAX_REPEATED: u64 = 10_000;

/// Length of a text that exceeds any plausible bound on texts.
const LONG: usize = 20_000;

type Mutate<'i> = Box<dyn Fn(&TrialRecord) -> Vec<TrialRecord> + 'i>;
type Expect<'i> = Box<dyn Fn(&InvariantViolation) -> bool + 'i>;

/// One rule of an invariant, with the mutation that breaks it.
pub(super) struct Probe<'i> {
    /// Name of the rule as violations report it; empty if the invariant has one rule.
    pub(super) rule: String,
    /// Builds mutants of a trial; none if the rule does not apply to the trial.
    pub(super) mutate: Mutate<'i>,
    /// Whether a violation is of this rule.
    pub(super) expect: Expect<'i>,
}

impl<'i> Probe<'i> {
    fn new(rule: String, mutate: impl Fn(&TrialRecord) -> Vec<TrialRecord> + 'i) -> Self {
        Self { rule, mutate: Box::new(mutate), expect: Box::new(|_| true) }
    }

    fn expecting(self, expect: impl Fn(&InvariantViolation) -> bool + 'i) -> Self {
        Self { expect: Box::new(expect), ..self }
    }
}

/// Rules of an invariant with their mutations.
pub(super) fn probes<'i>(invariant: &'i Invariant<'_>) -> Vec<Probe<'i>> {
    match invariant {
        Invariant::AnswerSchema(_) => vec![Probe::new(String::new(), wrong_answers)],
        Invariant::ToolArguments(schemas) => schemas
            .keys()
            .map(|tool| {
                Probe::new(format!("schema of {tool}"), move |record| wrong_arguments(record, tool))
                    .expecting(move |violation| violation.tool.as_deref() == Some(*tool))
            })
            .collect(),
        Invariant::MonotonicEffects(declared) => {
            let is = |rule: &'static str| {
                move |violation: &InvariantViolation| violation.rule.as_deref() == Some(rule)
            };
            let mut probes = vec![Probe::new("again".to_owned(), made_again).expecting(is("again"))];
            if declared.order.len() > 1 {
                let order = Probe::new("order".to_owned(), move |record| backwards(record, &declared.order));
                probes.push(order.expecting(is("order")));
            }
            probes
        }
        Invariant::Idempotency(tools) => {
            vec![Probe::new(String::new(), move |record| made_twice(record, tools))]
        }
        Invariant::ResponseTime(max_ms) => {
            vec![Probe::new(String::new(), move |record| slowed(record, *max_ms))]
        }
        Invariant::Forbidden(texts) => {
            let probe = |rule: &'i Rule| {
                Probe::new(rule.name.clone(), move |record| {
                    saying(record, rule, texts.answer, texts.arguments)
                })
                .expecting(move |violation| violation.rule.as_ref() == Some(&rule.name))
            };
            texts.rules.iter().map(probe).collect()
        }
        Invariant::Order(rules) => {
            let probe = |rule: &'i Precedence<'_>| {
                Probe::new(rule.rule.name(), move |record| unprepared(record, rule))
                    .expecting(move |violation| violation.rule == Some(rule.rule.name()))
            };
            rules.iter().map(probe).collect()
        }
        Invariant::Envelope(envelope) => of_envelope(envelope),
    }
}

// === answers, times, texts ===

fn with_answer(record: &TrialRecord, answer: String) -> TrialRecord {
    let mut mutant = record.clone();
    mutant.trial.answer = Some(answer);
    mutant
}

/// The answer replaced by values of every type, and with each of its own members removed or emptied.
fn wrong_answers(record: &TrialRecord) -> Vec<TrialRecord> {
    let Some(answer) = &record.trial.answer else { return Vec::new() };
    let own = serde_json::from_str(answer).unwrap_or_else(|_| Value::String(answer.clone()));
    wrong_values(&own).into_iter().map(|value| with_answer(record, canonical(&value))).collect()
}

fn wrong_values(own: &Value) -> Vec<Value> {
    let mut values = vec![
        json!(null),
        json!(true),
        json!(-1.5),
        json!(STRANGER),
        json!([STRANGER]),
        json!({STRANGER: true}),
    ];
    if let Value::Object(map) = own {
        for key in map.keys() {
            let mut less = map.clone();
            less.remove(key);
            values.push(Value::Object(less));
            for wrong in wrong_members() {
                let mut other = map.clone();
                other.insert(key.clone(), wrong);
                values.push(Value::Object(other));
            }
        }
        let mut more = map.clone();
        more.insert(STRANGER.to_owned(), json!(true));
        values.push(Value::Object(more));
    }
    values
}

/// A value of every type, and texts and numbers on both sides of plausible bounds.
fn wrong_members() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(STRANGER),
        json!(""),
        json!("x".repeat(LONG)),
        json!(-1e15),
        json!(1e15),
        json!(0.5),
        json!([STRANGER]),
        json!({STRANGER: true}),
    ]
}

fn slowed(record: &TrialRecord, max_ms: u64) -> Vec<TrialRecord> {
    let over = max_ms.saturating_add(1).saturating_mul(1000);
    let mut mutant = record.clone();
    match mutant.turns_us.first_mut() {
        Some(turn) => *turn = over,
        None if mutant.trial.duration_us.is_some() => mutant.trial.duration_us = Some(over),
        None => return Vec::new(),
    }
    vec![mutant]
}

/// The text in the answer, and in the arguments of the first call.
fn saying(record: &TrialRecord, rule: &Rule, answer: bool, arguments: bool) -> Vec<TrialRecord> {
    let Some(text) = sample::matching(&rule.regex) else { return Vec::new() };
    let mut mutants = Vec::new();
    if let Some(said) = record.trial.answer.as_ref().filter(|_| answer) {
        mutants.push(with_answer(record, text.clone()));
        mutants.push(with_answer(record, format!("{said} {text}")));
    }
    if arguments && let Some(place) = record.calls.iter().position(|call| calls::arguments(call).is_some()) {
        mutants.push(with_arguments(record, place, &json!({STRANGER: text})));
    }
    mutants
}

// === calls ===

fn with_arguments(record: &TrialRecord, place: usize, arguments: &Value) -> TrialRecord {
    let mut mutant = record.clone();
    mutant.calls[place].arguments = Some(canonical(arguments));
    mutant.calls[place].arguments_verbatim = None;
    mutant
}

/// The first call of a tool whose arguments are JSON.
fn first_call(record: &TrialRecord, tool: &str) -> Option<(usize, Value)> {
    let mut places = record.calls.iter().enumerate().filter(|(_, call)| call.tool == tool);
    places.find_map(|(place, call)| Some((place, calls::arguments(call)?)))
}

fn wrong_arguments(record: &TrialRecord, tool: &str) -> Vec<TrialRecord> {
    let Some((place, own)) = first_call(record, tool) else { return Vec::new() };
    wrong_values(&own).iter().map(|value| with_arguments(record, place, value)).collect()
}

/// Makes a call one that was certainly carried out.
fn done(call: &ToolCall) -> ToolCall {
    ToolCall { ending: Ending::Complete, status: None, is_error: Some(false), ..call.clone() }
}

fn writes<'r>(record: &'r TrialRecord, tools: &'r [String]) -> impl Iterator<Item = (usize, &'r ToolCall)> {
    let counts = |call: &ToolCall| {
        call.wrote() && call.idempotent != Some(true) && (tools.is_empty() || tools.contains(&call.tool))
    };
    record.calls.iter().enumerate().filter(move |(_, call)| counts(call))
}

/// The first write repeated at once.
fn made_twice(record: &TrialRecord, tools: &[String]) -> Vec<TrialRecord> {
    let Some((place, call)) = writes(record, tools).next() else { return Vec::new() };
    let mut mutant = record.clone();
    mutant.calls.insert(place + 1, call.clone());
    vec![mutant]
}

/// The first write repeated after another one.
fn made_again(record: &TrialRecord) -> Vec<TrialRecord> {
    let Some((_, call)) = writes(record, &[]).next() else { return Vec::new() };
    let mut mutant = record.clone();
    mutant.calls.push(ToolCall { arguments: Some(json!({STRANGER: true}).to_string()), ..call.clone() });
    mutant.calls.push(call.clone());
    vec![mutant]
}

/// The first write of a listed tool followed by a write of an earlier tool in the list, or the reverse.
fn backwards(record: &TrialRecord, order: &[String]) -> Vec<TrialRecord> {
    let listed = record.calls.iter().filter(|call| call.wrote());
    let found =
        listed.filter_map(|call| Some((call, order.iter().position(|tool| *tool == call.tool)?))).next();
    let Some((call, position)) = found else { return Vec::new() };
    let other = if position > 0 { position - 1 } else { 1 };
    let other = ToolCall { tool: order[other].clone(), ..call.clone() };
    let pair = if position > 0 { [call.clone(), other] } else { [other, call.clone()] };
    let mut mutant = record.clone();
    mutant.calls.extend(pair);
    vec![mutant]
}

/// The required earlier call removed, and made to fail.
fn unprepared(record: &TrialRecord, rule: &Precedence<'_>) -> Vec<TrialRecord> {
    if !record.calls.iter().any(|call| rule.is_then(call)) {
        return Vec::new();
    }
    let mut without = record.clone();
    without.calls.retain(|call| rule.is_then(call) || !rule.is_first(call));
    let mut failing = record.clone();
    for call in failing.calls.iter_mut().filter(|call| rule.is_first(call)) {
        call.is_error = Some(true);
    }
    vec![without, failing]
}

// === the envelope ===

fn of_envelope(envelope: &Envelope) -> Vec<Probe<'_>> {
    let is =
        |rule: &'static str| move |violation: &InvariantViolation| violation.rule.as_deref() == Some(rule);
    let mut probes = Vec::new();
    if envelope.undeclared_tool() == DefaultAction::Deny {
        let renamed = |record: &TrialRecord| {
            let mut mutant = record.clone();
            let call = mutant.calls.first_mut();
            call.map(|call| call.tool = STRANGER.to_owned()).map_or_else(Vec::new, |()| vec![mutant])
        };
        probes.push(Probe::new(UNDECLARED_TOOL.to_owned(), renamed).expecting(is(UNDECLARED_TOOL)));
    }
    if let Some(most) = envelope.max_calls() {
        let probe = Probe::new(MAX_CALLS.to_owned(), move |record| repeated(record, most));
        probes.push(probe.expecting(is(MAX_CALLS)));
    }
    for (name, tool) in envelope.tools() {
        if tool.args_schema().is_some() {
            let probe =
                Probe::new(format!("{name}/{ARGS_SCHEMA}"), move |record| wrong_arguments(record, name));
            probes.push(probe.expecting(move |violation| {
                let rule = violation.rule.as_deref();
                violation.tool.as_deref() == Some(name)
                    && (rule == Some(ARGS_SCHEMA) || rule == Some(UNDECLARED_ARGUMENT))
            }));
        }
        for bound in tool.bounds().iter().filter(|bound| bound.enforced) {
            let probe =
                Probe::new(format!("{name}/{}", bound.id), move |record| out_of_bound(record, name, bound));
            probes.push(probe.expecting(move |violation| {
                violation.tool.as_deref() == Some(name) && violation.rule.as_deref() == Some(&bound.id)
            }));
        }
    }
    if envelope.bounds_output() {
        let answers = |record: &TrialRecord| {
            let mut mutants = wrong_answers(record);
            if let Some(answer) = &record.trial.answer {
                mutants.push(with_answer(record, format!("{answer}{}", "x".repeat(1 << 20))));
            }
            mutants
        };
        probes.push(Probe::new("output".to_owned(), answers).expecting(|violation| {
            matches!(violation.rule.as_deref(), Some(OUTPUT_SCHEMA | OUTPUT_MAX_BYTES))
        }));
    }
    probes
}

/// The first call repeated until the bound is exceeded.
fn repeated(record: &TrialRecord, most: u64) -> Vec<TrialRecord> {
    let Some(call) = record.calls.first().filter(|_| most <= MAX_REPEATED) else { return Vec::new() };
    let mut mutant = record.clone();
    let wanted = usize::try_from(most).unwrap_or(usize::MAX).saturating_add(1);
    while mutant.calls.len() < wanted {
        mutant.calls.push(call.clone());
    }
    vec![mutant]
}

fn out_of_bound(record: &TrialRecord, tool: &str, bound: &Bound) -> Vec<TrialRecord> {
    let Some((place, own)) = first_call(record, tool) else { return Vec::new() };
    let with = |arg: &Pointer, value: Value| {
        let mut arguments = own.clone();
        put(&mut arguments, arg, value).then(|| with_arguments(record, place, &arguments))
    };
    let beyond = |arg: &Pointer, number: Decimal| json_number(number).and_then(|number| with(arg, number));
    let one = Decimal::parse("1").unwrap_or_default();
    let mutants = match &bound.condition {
        Condition::In { arg, .. } => vec![with(arg, json!(STRANGER))],
        Condition::Range { arg, min, max } => vec![
            max.and_then(|max| max.plus(one)).and_then(|number| beyond(arg, number)),
            min.and_then(|min| min.minus(one)).and_then(|number| beyond(arg, number)),
        ],
        Condition::Sum { arg, max, .. } => {
            vec![max.plus(one).filter(|more| !more.is_negative()).and_then(|number| beyond(arg, number))]
        }
        Condition::Unique { .. } => {
            let mut mutant = record.clone();
            let call = done(&record.calls[place]);
            mutant.calls[place] = call.clone();
            mutant.calls.insert(place + 1, call);
            vec![Some(mutant)]
        }
    };
    mutants.into_iter().flatten().collect()
}

/// Sets a value at a pointer; adds the last member of an object if it is missing.
fn put(arguments: &mut Value, place: &Pointer, value: Value) -> bool {
    if place.replace(arguments, value.clone()) {
        return true;
    }
    let name = place.as_str().trim_start_matches('/');
    match arguments.as_object_mut() {
        Some(map) if !name.contains(['/', '*', '~']) => {
            map.insert(name.to_owned(), value);
            true
        }
        Some(_) | None => false,
    }
}

fn json_number(number: Decimal) -> Option<Value> {
    serde_json::from_str(&number.to_string()).ok()
}
