//! Declared invariants: one confirmed violation by the candidate blocks, without statistics.
//!
//! Only what the policy declares is checked here. An invariant that the baseline breaks too is no invariant of this
//! system: it is compared as a rate. What the analyzer notices by itself is never one.

use std::collections::BTreeMap;

use statrs::function::beta::beta_reg;

use crate::pairs::{PairedCase, Pairs};
use crate::policy::{InvariantPolicy, MonotonicEffects, Policy};
use crate::run::TrialRecord;
use crate::verdict::InvariantResult;
use crate::writes;

/// How many violating sessions are named.
const EXAMPLES: usize = 20;

/// Level of the upper bound on the share of violating cases.
const BOUND_LEVEL: f64 = 0.95;

/// What a check says of one trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Check {
    /// It holds.
    Kept,
    /// It does not; what was done, in words.
    Broken(String),
    /// The trial does not show it.
    Unchecked,
}

/// A declared invariant.
#[derive(Debug)]
pub(crate) enum Invariant<'p> {
    AnswerSchema(Box<jsonschema::Validator>),
    MonotonicEffects(&'p MonotonicEffects),
    Idempotency(&'p [String]),
    ResponseTime(u64),
}

impl<'p> Invariant<'p> {
    /// The invariants that the policy declares.
    pub(crate) fn declared(policy: &'p InvariantPolicy) -> Vec<Self> {
        let schema = policy.answer_schema.as_ref().and_then(|schema| jsonschema::validator_for(schema).ok());
        let list = [
            schema.map(|validator| Self::AnswerSchema(Box::new(validator))),
            policy.monotonic_effects.as_ref().map(Self::MonotonicEffects),
            policy.idempotency.as_ref().map(|declared| Self::Idempotency(declared.tools.as_slice())),
            policy.response_time_max_ms.map(Self::ResponseTime),
        ];
        list.into_iter().flatten().collect()
    }

    /// Its name, which is its key in the policy.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::AnswerSchema(_) => "answer_schema",
            Self::MonotonicEffects(_) => "monotonic_effects",
            Self::Idempotency(_) => "idempotency",
            Self::ResponseTime(_) => "response_time",
        }
    }

    /// Checks one trial.
    pub(crate) fn check(&self, record: &TrialRecord) -> Check {
        match self {
            Self::AnswerSchema(validator) => check_answer(validator, record),
            Self::MonotonicEffects(declared) => check_order(declared, record),
            Self::Idempotency(tools) => check_repeats(tools, record),
            Self::ResponseTime(max_ms) => check_time(*max_ms, record),
        }
    }
}

fn check_answer(validator: &jsonschema::Validator, record: &TrialRecord) -> Check {
    let Some(answer) = &record.trial.answer else { return Check::Unchecked };
    // An answer that is not JSON is a text, which a schema may well allow.
    let value = serde_json::from_str(answer).unwrap_or_else(|_| serde_json::Value::String(answer.clone()));
    match validator.validate(&value) {
        Ok(()) => Check::Kept,
        Err(error) => Check::Broken(format!("answer at `{}`: {error}", error.instance_path())),
    }
}

fn check_order(declared: &MonotonicEffects, record: &TrialRecord) -> Check {
    if !record.trial.has_transcript {
        return Check::Unchecked;
    }
    let place = |tool: &str| declared.order.iter().position(|listed| listed == tool);
    let mut last: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut furthest: Option<(usize, &str)> = None;
    for (number, call) in record.calls.iter().filter(|call| call.wrote()).enumerate() {
        if let Some(position) = place(&call.tool) {
            if let Some((reached, tool)) = furthest.filter(|(reached, _)| *reached > position) {
                return Check::Broken(format!(
                    "{} (place {position}) after {tool} (place {reached})",
                    call.tool
                ));
            }
            furthest = Some((position, &call.tool));
        }
        let key = (call.tool.as_str(), call.arguments_text());
        let before = last.insert(key, number);
        if before.is_some_and(|before| before + 1 < number) && call.idempotent != Some(true) {
            return Check::Broken(format!(
                "{}({}) made again after another write",
                call.tool,
                call.arguments_text()
            ));
        }
    }
    Check::Kept
}

fn check_repeats(tools: &[String], record: &TrialRecord) -> Check {
    if !record.trial.has_transcript {
        return Check::Unchecked;
    }
    match writes::repeated(record, tools) {
        Some((tool, arguments, count)) => Check::Broken(format!("{tool}({arguments}) made {count} times")),
        None => Check::Kept,
    }
}

fn check_time(max_ms: u64, record: &TrialRecord) -> Check {
    let longest = record.turns_us.iter().copied().max().or(record.trial.duration_us);
    match longest {
        None => Check::Unchecked,
        Some(time) if time <= max_ms.saturating_mul(1000) => Check::Kept,
        Some(time) => {
            Check::Broken(format!("a turn took {} ms, at most {max_ms} ms are allowed", time / 1000))
        }
    }
}

/// What came of all declared invariants.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// As the verdict lists them.
    pub(crate) results: Vec<InvariantResult>,
    /// Names of those that the baseline breaks too.
    pub(crate) demoted: Vec<&'static str>,
    /// Names of those that no candidate trial shows.
    pub(crate) unchecked: Vec<&'static str>,
    /// Violating candidate trials: invariant, case, record, what was done.
    pub(crate) broken: Vec<(&'static str, String, String, u32, String)>,
}

/// Checks every voting trial of both runs, paired or not.
pub(crate) fn check(policy: &Policy, pairs: &Pairs<'_>) -> Checked {
    let mut checked = Checked::default();
    for invariant in Invariant::declared(&policy.invariant) {
        check_one(&invariant, pairs, &mut checked);
    }
    checked
}

fn check_one(invariant: &Invariant<'_>, pairs: &Pairs<'_>, checked: &mut Checked) {
    let name = invariant.name();
    let mut result = InvariantResult {
        name: name.to_owned(),
        violations: 0,
        cases: 0,
        upper_bound: 1.0,
        examples: Vec::new(),
        details: Vec::new(),
        violations_baseline: 0,
    };
    let mut broken_cases = 0;
    for case in &pairs.cases {
        let broken = |record: &&&TrialRecord| matches!(invariant.check(record), Check::Broken(_));
        result.violations_baseline += crate::count::of(case.baseline.trials.iter().filter(broken).count());
        let outcomes: Vec<_> =
            case.candidate.trials.iter().map(|record| (*record, invariant.check(record))).collect();
        result.cases += u64::from(outcomes.iter().any(|(_, check)| *check != Check::Unchecked));
        broken_cases += u64::from(outcomes.iter().any(|(_, check)| matches!(check, Check::Broken(_))));
        for (record, check) in outcomes {
            if let Check::Broken(detail) = check {
                note(&mut result, case, record, &detail);
                let session = record.trial.session.to_string();
                checked.broken.push((name, case.case.to_string(), session, record.trial.trial, detail));
            }
        }
    }
    result.upper_bound = upper_bound(broken_cases, result.cases);
    if result.cases == 0 {
        checked.unchecked.push(name);
    }
    if result.violations_baseline > 0 {
        checked.demoted.push(name);
    }
    checked.results.push(result);
}

fn note(result: &mut InvariantResult, case: &PairedCase<'_>, record: &TrialRecord, detail: &str) {
    result.violations += 1;
    if result.examples.len() < EXAMPLES {
        result.examples.push(record.trial.session.to_string());
        result.details.push(format!("case {}, trial {}: {detail}", case.case, record.trial.trial));
    }
}

/// Upper 95 % bound of a share (Clopper and Pearson 1934): `hits` of `cases`.
fn upper_bound(hits: u64, cases: u64) -> f64 {
    if hits >= cases {
        return 1.0;
    }
    let (x, n) = (crate::count::float(hits), crate::count::float(cases));
    if hits == 0 {
        return 1.0 - (1.0 - BOUND_LEVEL).powf(1.0 / n);
    }
    let (mut low, mut high) = (x / n, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        // P(at most x of n) = 1 - I(p; x + 1, n - x).
        if beta_reg(x + 1.0, n - x, middle) < BOUND_LEVEL { low = middle } else { high = middle }
    }
    0.5 * (low + high)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{record, write};

    #[test]
    fn the_bound_is_clopper_pearson() {
        // scipy.stats.beta.ppf(.95, x + 1, n - x)
        assert!((upper_bound(0, 299) - 0.009_969).abs() < 1e-5);
        assert!((upper_bound(3, 100) - 0.075_712).abs() < 1e-5);
        assert!((upper_bound(5, 5) - 1.0).abs() < 1e-15);
    }

    #[test]
    fn a_write_made_twice_is_a_violation_unless_declared_harmless() {
        let twice = record("c", 0, vec![write("refund", "{\"id\":1}"), write("refund", "{\"id\":1}")]);
        assert!(matches!(check_repeats(&[], &twice), Check::Broken(text) if text.contains("2 times")));
        assert_eq!(check_repeats(&["mail".to_owned()], &twice), Check::Kept);
        let mut harmless = twice;
        harmless.calls.iter_mut().for_each(|call| call.idempotent = Some(true));
        assert_eq!(check_repeats(&[], &harmless), Check::Kept);
    }

    #[test]
    fn writes_only_move_forward() {
        let declared = MonotonicEffects { order: vec!["reserve".to_owned(), "capture".to_owned()] };
        let forward = record("c", 0, vec![write("reserve", "{}"), write("capture", "{}")]);
        let backward = record("c", 0, vec![write("capture", "{}"), write("reserve", "{}")]);
        assert_eq!(check_order(&declared, &forward), Check::Kept);
        assert!(matches!(check_order(&declared, &backward), Check::Broken(_)));
        let again = record("c", 0, vec![write("a", "1"), write("b", "1"), write("a", "1")]);
        assert!(matches!(check_order(&MonotonicEffects::default(), &again), Check::Broken(_)));
    }

    #[test]
    fn answers_and_times_are_checked_where_they_are_known() {
        let schema = serde_json::json!({"type": "object", "required": ["status"]});
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let mut trial = record("c", 0, vec![]);
        assert_eq!(check_answer(&validator, &trial), Check::Unchecked);
        trial.trial.answer = Some("{\"status\":\"done\"}".to_owned());
        assert_eq!(check_answer(&validator, &trial), Check::Kept);
        trial.trial.answer = Some("done".to_owned());
        assert!(matches!(check_answer(&validator, &trial), Check::Broken(_)));
        trial.turns_us = vec![10, 2_000_001];
        assert_eq!(check_time(2001, &trial), Check::Kept);
        assert!(matches!(check_time(1999, &trial), Check::Broken(_)));
    }
}
