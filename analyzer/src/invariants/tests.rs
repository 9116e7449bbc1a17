use ::envelope::Envelope;
use schemas::exchange::Ending;
use schemas::trial::Lane;
use serde_json::json;

use super::evaluate::upper_bound;
use super::*;
use crate::fixture::{read, record, run, write};
use crate::pairs::Pairs;
use crate::policy::{DeclaredEnvelope, Policy};
use crate::run::{Run, ToolCall, TrialRecord, UserTurn};
use crate::verdict::{InvariantResult, InvariantState};

fn policy(text: &str) -> Policy {
    Policy::parse(text).expect("a policy")
}

/// Result of the policy's only invariant on a trial.
fn verdict_of(policy: &Policy, trial: &TrialRecord) -> Check {
    let invariants = Invariant::declared(&policy.invariant);
    let [invariant] = &invariants[..] else { panic!("{invariants:?}") };
    invariant.check(trial)
}

/// Rules and calls of its violations.
fn violations(policy: &Policy, trial: &TrialRecord) -> Vec<(Option<u32>, String)> {
    match verdict_of(policy, trial) {
        Check::Broken(violations) => violations
            .into_iter()
            .map(|violation| (violation.seq, violation.rule.unwrap_or_default()))
            .collect(),
        Check::Kept => Vec::new(),
        Check::Redacted(_) | Check::Unchecked => panic!("not checked"),
    }
}

fn at(seq: u32, call: ToolCall) -> ToolCall {
    ToolCall { seq, ..call }
}

/// A run of trials, one per case.
fn runs(lane: Lane, trials: &[TrialRecord]) -> Run {
    let mut trials = trials.to_vec();
    for (place, trial) in trials.iter_mut().enumerate() {
        let named = record(&format!("case-{place:03}"), 0, Vec::new()).trial;
        (trial.trial.case, trial.trial.session) = (named.case, named.session);
    }
    run(lane, trials)
}

/// Result of the policy's only invariant on a baseline and a candidate.
fn results(policy: &Policy, before: &[TrialRecord], after: &[TrialRecord]) -> (InvariantResult, Checked) {
    let (before, after) = (runs(Lane::Baseline, before), runs(Lane::Candidate, after));
    let pairs = Pairs::new(&before, &after, None).expect("two runs");
    let checked = check(policy, &pairs, 1);
    (checked.results[0].clone(), checked)
}

#[test]
fn the_bound_is_clopper_pearson() {
    // scipy.stats.beta.ppf(.95, x + 1, n - x)
    assert!((upper_bound(0, 299) - 0.009_969).abs() < 1e-5);
    assert!((upper_bound(3, 100) - 0.075_710_793_749_83).abs() < 1e-12);
    assert!((upper_bound(1, 20) - 0.216_106_164_206_847_3).abs() < 1e-12);
    assert!((upper_bound(7, 16) - 0.666_625_828_475_075_6).abs() < 1e-12);
    assert!((upper_bound(5, 5) - 1.0).abs() < 1e-15);
    assert!((upper_bound(0, 2995) - 0.001).abs() < 1e-6);
}

#[test]
fn a_write_made_twice_is_a_violation_unless_declared_harmless() {
    let twice =
        record("c", 0, vec![at(3, write("refund", "{\"id\":1}")), at(7, write("refund", "{\"id\":1}"))]);
    assert_eq!(violations(&policy("[invariant.idempotency]"), &twice), [(Some(7), String::new())]);
    assert_eq!(violations(&policy("[invariant.idempotency]\ntools = [\"mail\"]"), &twice), []);
    let mut harmless = twice;
    harmless.calls.iter_mut().for_each(|call| call.idempotent = Some(true));
    assert_eq!(violations(&policy("[invariant.idempotency]"), &harmless), []);
}

#[test]
fn writes_only_move_forward() {
    let declared = policy("[invariant.monotonic-effects]\norder = [\"reserve\", \"capture\"]");
    let forward = record("c", 0, vec![write("reserve", "{}"), write("capture", "{}")]);
    let backward = record("c", 0, vec![write("capture", "{}"), at(1, write("reserve", "{}"))]);
    assert_eq!(violations(&declared, &forward), []);
    assert_eq!(violations(&declared, &backward), [(Some(1), "order".to_owned())]);
    let again = record("c", 0, vec![write("a", "1"), write("b", "1"), at(2, write("a", "1"))]);
    assert_eq!(violations(&declared, &again), [(Some(2), "again".to_owned())]);
}

#[test]
fn answers_and_times_are_checked_where_they_are_known() {
    let schema = policy("[invariant.answer-schema]\nschema = { type = \"object\", required = [\"status\"] }");
    let time = |ms: u32| policy(&format!("[invariant.response-time]\nmax-ms = {ms}"));
    let mut trial = record("c", 0, vec![]);
    assert_eq!(verdict_of(&schema, &trial), Check::Unchecked);
    assert_eq!(verdict_of(&time(1), &trial), Check::Unchecked);
    trial.trial.answer = Some("{\"status\":\"done\"}".to_owned());
    assert_eq!(verdict_of(&schema, &trial), Check::Kept);
    trial.trial.answer = Some("done".to_owned());
    assert!(matches!(verdict_of(&schema, &trial), Check::Broken(_)));
    trial.turns_us = vec![10, 2_000_001];
    assert_eq!(verdict_of(&time(2001), &trial), Check::Kept);
    assert!(matches!(verdict_of(&time(1999), &trial), Check::Broken(_)));
}

#[test]
fn arguments_satisfy_the_schema_of_their_tool() {
    let declared =
        policy("[invariant.tool-arguments.schemas]\nrefund = { type = \"object\", required = [\"id\"] }");
    let mut trial = record("c", 0, vec![write("mail", "[]"), at(4, write("refund", "{\"id\":1}"))]);
    assert_eq!(violations(&declared, &trial), []);
    trial.calls[1].arguments = Some("{}".to_owned());
    assert_eq!(violations(&declared, &trial), [(Some(4), String::new())]);
    (trial.calls[1].arguments, trial.calls[1].arguments_verbatim) = (None, Some("{'id': 1}".to_owned()));
    assert_eq!(violations(&declared, &trial), [(Some(4), String::new())]);
}

#[test]
fn forbidden_texts_are_found_behind_escapes_and_in_keys() {
    let declared = policy(
        "[invariant.forbidden]\nliterals = [\"a\\\"b\"]\npatterns = ['\\b4[0-9]{15}\\b']\nignore-case = true",
    );
    let card = "4111111111111111";
    let mut trial = record("c", 0, vec![at(2, read("note", &json!({"text": ["x A\"B y"]}).to_string()))]);
    assert_eq!(violations(&declared, &trial), [(Some(2), "literal 1".to_owned())]);
    trial.calls[0].arguments = Some(json!({card: 1}).to_string());
    trial.trial.answer = Some(format!("card {card}."));
    let rule = "pattern \"\\\\b4[0-9]{15}\\\\b\"".to_owned();
    assert_eq!(violations(&declared, &trial), [(None, rule.clone()), (Some(2), rule.clone())]);
    trial.calls[0].arguments = Some(format!("{{\"n\":{card}}}"));
    assert_eq!(violations(&declared, &trial).len(), 2);
    let only_arguments = policy("[invariant.forbidden]\npatterns = ['4[0-9]{15}']\nwithin = [\"arguments\"]");
    trial.calls.clear();
    assert_eq!(violations(&only_arguments, &trial), []);
    trial.trial.has_transcript = false;
    assert_eq!(verdict_of(&only_arguments, &trial), Check::Unchecked);
}

#[test]
fn what_must_come_first_has_succeeded_first_and_with_the_same_argument() {
    let declared = policy(
        "[invariant.order]\nrules = [{ first = [\"find\", \"seek\"], then = \"refund\", same = [\"/order\", \"/id\"] }, \
         { first = \"login\", then = [\"find\", \"seek\"] }]",
    );
    let find = |order: u32| read("find", &format!("{{\"order\":{order}}}"));
    let refund = at(9, write("refund", "{\"id\":1}"));
    let login = read("login", "{}");
    let of = |calls: Vec<ToolCall>| violations(&declared, &record("c", 0, calls));
    let broken = [(Some(9), "find or seek before refund".to_owned())];
    assert_eq!(of(vec![login.clone(), find(1), refund.clone()]), []);
    assert_eq!(of(vec![login.clone(), find(2), refund.clone()]), broken, "another order");
    assert_eq!(of(vec![login.clone(), refund.clone(), find(1)]), broken, "too late");
    let failed = ToolCall { is_error: Some(true), ..find(1) };
    assert_eq!(of(vec![login.clone(), failed, refund.clone()]), broken, "it failed");
    let lost = ToolCall { ending: Ending::Failed, ..find(1) };
    assert_eq!(of(vec![login.clone(), lost, refund.clone()]), broken, "no answer");
    let nothing = at(9, write("refund", "{}"));
    assert_eq!(of(vec![login, find(1), nothing]), broken, "nothing to compare");
    assert_eq!(of(vec![at(1, find(1))]), [(Some(1), "login before find or seek".to_owned())]);
}

const ENVELOPE: &str = r#"
envelope = 1
[defaults]
undeclared-argument = "allow"
[session.named]
from = [{ turn = '[A-Z]{2}[0-9]+' }]
[session.ids]
from = [{ tool = "find", result = "/id" }]
[[tool]]
name = "find"
[[tool]]
name = "pay"
bound = [
  { id = "payee", arg = "/to", in = ["DE1", "session.named"] },
  { id = "cap", sum = "/amount", max = 100 },
  { id = "known", arg = "/id", in = "session.ids", optional = true },
  { id = "watched", arg = "/amount", max = 5, mode = "observe" },
]
[[tool]]
name = "mail"
bound = [{ id = "never-called", arg = "/to", in = ["a"] }]
"#;

fn with_envelope(text: &str) -> Policy {
    let envelope = Envelope::parse(text, &|_| Err("no files".to_owned())).expect("an envelope");
    let mut policy = Policy::default();
    policy.invariant.declared_envelope = Some(DeclaredEnvelope::new(envelope));
    policy
}

fn pay(to: &str, amount: u32) -> ToolCall {
    write("pay", &json!({"to": to, "amount": amount}).to_string())
}

#[test]
fn the_envelope_follows_a_session() {
    let declared = with_envelope(ENVELOPE);
    let of = |trial: &TrialRecord| violations(&declared, trial);
    let mut trial = record("c", 0, vec![pay("DE1", 60), at(1, pay("FR7", 30)), at(2, pay("DE1", 11))]);
    let payee = (Some(1), "payee".to_owned());
    assert_eq!(of(&trial), [payee.clone(), (Some(2), "cap".to_owned())]);
    trial.calls[0].is_error = Some(true);
    assert_eq!(of(&trial), std::slice::from_ref(&payee), "a refused payment takes nothing of the cap");
    trial.calls[0].ending = Ending::Failed;
    assert_eq!(of(&trial).len(), 2, "a lost payment may count");
    trial.calls.truncate(2);
    trial.user_turns = vec![UserTurn { calls_before: 1, text: "pay to FR7 please".to_owned() }];
    assert_eq!(of(&trial), []);
    trial.user_turns[0].calls_before = 2;
    assert_eq!(of(&trial), [payee], "named only afterwards");

    let known = |id: u32| write("pay", &json!({"to": "DE1", "amount": 1, "id": id}).to_string());
    let find = ToolCall { result: Some("{\"id\":5}".to_owned()), ..read("find", "{}") };
    assert_eq!(of(&record("c", 0, vec![find.clone(), known(5)])), []);
    assert_eq!(of(&record("c", 0, vec![find, known(6)])), [(Some(0), "known".to_owned())]);
    assert_eq!(
        of(&record("c", 0, vec![at(3, read("wipe", "{}"))])),
        [(Some(3), "undeclared_tool".to_owned())]
    );
}

#[test]
fn one_violation_blocks_and_the_place_is_told() {
    let declared = with_envelope(ENVELOPE);
    let good = vec![record("c", 0, vec![pay("DE1", 10)]); 20];
    let mut bad = good.clone();
    bad[7].calls.push(at(6, pay("XX", 1)));
    let (result, checked) = results(&declared, &good, &bad);
    assert_eq!((result.state, result.violations, result.cases), (InvariantState::Violated, 1, 20));
    assert_eq!((result.candidate.violating_cases, result.baseline.violations, result.unconfirmed), (1, 0, 0));
    assert!(
        (result.candidate.rate - 0.05).abs() < 1e-15
            && (result.upper_bound - upper_bound(1, 20)).abs() < 1e-15
    );
    assert_eq!(result.examples, ["case-007~0"]);
    let violation = &result.violation_examples[0];
    assert_eq!(
        (violation.seq, violation.tool.as_deref(), violation.rule.as_deref()),
        (Some(6), Some("pay"), Some("payee"))
    );
    assert_eq!((violation.pointer.as_str(), violation.case.as_str()), ("/to", "case-007"));
    assert!(result.details[0].contains("call 6, pay, rule payee: /to is \"XX\""), "{:?}", result.details);
    let watched =
        checked.notes.iter().any(|note| note.contains("pay/watched") && note.contains("20 candidate"));
    assert!(watched, "{:?}", checked.notes);
    let (result, checked) = results(&declared, &bad, &bad);
    assert_eq!((result.state, checked.demoted.as_slice()), (InvariantState::Demoted, &["envelope"][..]));
    let mutation_check = result.mutation_check.expect("was run");
    assert!(!mutation_check.vacuous && mutation_check.mutants == 0, "it has failed by itself");
}

#[test]
fn a_bound_that_too_few_cases_can_show_is_told() {
    let declared = policy("[invariant.idempotency]\nmax-rate = 0.05");
    let good = |cases: usize| vec![record("c", 0, vec![write("refund", "{}")]); cases];
    let (result, checked) = results(&declared, &good(58), &good(58));
    assert_eq!(result.state, InvariantState::TooFewCases);
    assert_eq!(checked.caveats[0].why, CaveatKind::TooFewCases);
    assert!(checked.caveats[0].detail.contains("59 cases"), "{:?}", checked.caveats);
    let (result, checked) = results(&declared, &good(59), &good(59));
    assert_eq!((result.state, checked.caveats.len()), (InvariantState::Kept, 0));
}

#[test]
fn an_envelope_with_unchecked_keys_is_reported() {
    let text = "envelope = 1\n[defaults]\nundeclared-argument = \"allow\"\n[breaker]\nwindow = \"10m\"\n[[tool]]\nname = \"pay\"\n\
                require = [{ id = \"r\", when = \"true\" }]";
    let good = [record("c", 0, vec![pay("DE1", 10)])];
    let (_, checked) = results(&with_envelope(text), &good, &good);
    assert!(checked.caveats[0].detail.contains("require of tool pay (line 8)"), "{:?}", checked.caveats);
    assert!(checked.notes.iter().any(|note| note.contains("breaker (line 4)")), "{:?}", checked.notes);
    let mut missing = Policy::parse("[invariant.envelope]\non = true").expect("a policy");
    let before = runs(Lane::Baseline, &good);
    let after = runs(Lane::Candidate, &good);
    let pairs = Pairs::new(&before, &after, None).expect("two runs");
    assert!(check(&missing, &pairs, 1).caveats[0].detail.contains("--envelope"));
    missing = with_envelope(text);
    missing.invariant.envelope = Some(false);
    let checked = check(&missing, &pairs, 1);
    assert!(
        checked.results.is_empty() && checked.notes[0].contains("turns the envelope off"),
        "{:?}",
        checked.notes
    );
}

// === mutation check ===

/// Mutation check of the policy's only invariant on trials that keep it.
fn mutation_check(policy: &Policy, trials: &[TrialRecord]) -> crate::verdict::MutationCheck {
    let (result, _) = results(policy, trials, trials);
    assert_eq!(result.violations_baseline, 0, "the trials keep the invariant");
    result.mutation_check.expect("was run")
}

#[test]
fn every_invariant_is_shown_to_fail_on_changed_trials() {
    let mut trial = record(
        "c",
        0,
        vec![
            read("find", "{\"order\":1}"),
            write("reserve", "{\"order\":1}"),
            write("capture", "{\"order\":1}"),
        ],
    );
    trial.trial.answer = Some("{\"status\":\"done\"}".to_owned());
    trial.turns_us = vec![1000];
    for text in [
        "[invariant.answer-schema]\nschema = { type = \"object\", required = [\"status\"] }",
        "[invariant.tool-arguments.schemas]\nreserve = { properties = { order = { type = \"integer\" } } }",
        "[invariant.tool-arguments.schemas]\nreserve = { properties = { order = { maximum = 1000 } } }",
        "[invariant.tool-arguments.schemas]\nreserve = { properties = { order = { pattern = \"^#W[0-9]{7}$\" } } }",
        "[invariant.monotonic-effects]\norder = [\"reserve\", \"capture\"]",
        "[invariant.idempotency]",
        "[invariant.response-time]\nmax-ms = 5",
        "[invariant.forbidden]\npatterns = ['\\b4[0-9]{15}\\b', '^secret$']\nliterals = [\"BEGIN\"]",
        "[invariant.order]\nrules = [{ first = \"find\", then = \"reserve\", same = \"/order\" }]",
    ] {
        let found = mutation_check(&policy(text), &vec![trial.clone(); 5]);
        assert!(!found.vacuous && found.killed > 0 && found.killed <= found.mutants, "{text}: {found:?}");
        assert_eq!(found.vacuous_rules, [""; 0], "{text}");
    }
}

#[test]
fn an_invariant_that_no_mutant_breaks_is_vacuous() {
    let mut trial = record("c", 0, vec![read("find", "{\"order\":1}")]);
    trial.trial.answer = Some("done".to_owned());
    for text in [
        "[invariant.answer-schema]\nschema = {}",
        "[invariant.tool-arguments.schemas]\nrefnd = { type = \"object\" }",
        "[invariant.tool-arguments.schemas]\nfind = {}",
        "[invariant.monotonic-effects]\norder = [\"reserve\", \"capture\"]",
        "[invariant.idempotency]\ntools = [\"refnd\"]",
        "[invariant.forbidden]\npatterns = ['a\\bb']",
        "[invariant.order]\nrules = [{ first = \"find\", then = \"refnd\" }]",
    ] {
        let trials = vec![trial.clone(); 3];
        let (result, checked) = results(&policy(text), &trials, &trials);
        let mutation_check = result.mutation_check.expect("was run");
        assert!(
            mutation_check.vacuous && mutation_check.killed == 0 && !mutation_check.vacuous_rules.is_empty(),
            "{text}: {mutation_check:?}"
        );
        assert_eq!(result.state, InvariantState::Vacuous, "{text}");
        let caveat = &checked.caveats[0];
        assert_eq!(caveat.why, CaveatKind::Unchecked);
        assert!(caveat.detail.contains("is vacuous on these sessions"), "{caveat:?}");
    }
}

#[test]
fn each_rule_of_the_envelope_is_mutated_and_vacuous_ones_are_listed() {
    let find = ToolCall { result: Some("{\"id\":5}".to_owned()), ..read("find", "{}") };
    let paid = write("pay", &json!({"to": "DE1", "amount": 1, "id": 5}).to_string());
    let trials = vec![record("c", 0, vec![find, paid]); 3];
    let found = mutation_check(&with_envelope(ENVELOPE), &trials);
    assert!(!found.vacuous);
    assert_eq!(found.vacuous_rules, ["mail/never-called: it applies to no baseline trial"]);
    let strict = "envelope = 1\n[defaults]\nmax-calls-per-session = 3\n[[tool]]\nname = \"pay\"\n\
                  args-schema = { properties = { to = {}, amount = { type = \"number\" } } }\n\
                  bound = [{ id = \"range\", arg = \"/amount\", min = 1, max = 9 }, { id = \"once\", unique = [\"/to\"] }]\n\
                  [output]\nmax-bytes = 100";
    let mut trial = record("c", 0, vec![pay("DE1", 2), pay("DE2", 2)]);
    trial.trial.answer = Some("done".to_owned());
    let found = mutation_check(&with_envelope(strict), &[trial]);
    assert_eq!((!found.vacuous, found.vacuous_rules.as_slice()), (true, &[] as &[String]));
}

#[test]
fn liveness_follows_from_the_seed_alone() {
    let trials: Vec<TrialRecord> =
        (0..40).map(|case| record("c", 0, vec![pay("DE1", 1 + case % 7), pay("DE1", 3)])).collect();
    let (before, after) = (runs(Lane::Baseline, &trials), runs(Lane::Candidate, &trials));
    let pairs = Pairs::new(&before, &after, None).expect("two runs");
    let policy = with_envelope(ENVELOPE);
    let of = |seed| check(&policy, &pairs, seed).results[0].mutation_check.clone();
    assert_eq!(of(3), of(3));
}
