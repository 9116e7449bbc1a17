use proptest::prelude::*;
use serde_json::{Value, json};

use crate::*;

const REFUNDS: &str = r#"
envelope = 1
agent = "refund-support"
version = "2026-11-20.1"
owner = { sre = "team-support-platform", security = "appsec" }
mode = "enforce"
on-internal-error = "deny"
[identity]
match = { mtls_san = "spiffe://shop/ns/agents/sa/refund-support" }
[defaults]
undeclared-tool = "deny"
undeclared-argument = "deny"
max-calls-per-session = 4
[session.orders]
from = [{ tool = "find_order", arg = "/order_id" }]
[session.emails]
from = [{ tool = "find_order", result = "/customers/*/email" }, { turn = '\S+@\S+' }]
[[tool]]
name = "find_order"
effect = "read"
args-schema = "order.json"
result-schema = "schemas/order.json"
[[tool]]
name = "refund"
effect = "write"
reversible = false
args-schema = { type = "object", properties = { order_id = { type = "string" }, amount = { type = "number" }, note = {} }, required = ["order_id"] }
bound = [
  { id = "own-order", arg = "/order_id", in = "session.orders" },
  { id = "cap-call", arg = "/amount", min = 0, max = 200 },
  { id = "cap-session", sum = "/amount", per = "session", max = 300.5 },
  { id = "once", unique = ["/order_id", "/amount"], per = "24h" },
  { id = "canary", arg = "/note", in = ["a", 7, true], optional = true, mode = "observe" },
]
require = [{ id = "cur", when = "args.currency == session.order_currency" }]
approve = [{ id = "large", when = "args.amount > 50" }]
approval = { role = "refund-approver", ttl = "10m" }
[[tool]]
name = "send"
undeclared-argument = "allow"
bound = [{ id = "to-customer", arg = "/to/*", in = "session.emails" }]
[data]
tables = ["orders"]
[output]
schema = { type = "string" }
max-bytes = 10
forbid-detectors = ["pan"]
[breaker]
window = "10m"
[classify]
change_window = "60m"
"#;

fn parse(text: &str) -> Result<Envelope, EnvelopeError> {
    Envelope::parse(text, &|path| match path {
        "order.json" => {
            Ok(r#"{"type":"object","properties":{"order_id":{"type":"string","pattern":"^W[0-9]+$"}}}"#
                .to_owned())
        }
        other => Err(format!("there is no {other}")),
    })
}

fn refunds() -> Envelope {
    parse(REFUNDS).expect("an envelope")
}

fn call<'a>(tool: &'a str, arguments: &'a Value) -> Call<'a> {
    Call { tool, arguments: Arguments::Json(arguments), at: 0 }
}

/// Checks a call, makes it in any case, and returns the violated rules.
fn make(
    envelope: &Envelope,
    session: &mut SessionState,
    tool: &str,
    arguments: &Value,
    outcome: CallOutcome<'_>,
) -> Vec<String> {
    let call = call(tool, arguments);
    let rules = envelope.check(session, &call).into_iter().map(|violation| violation.rule).collect();
    let reserved = session.reserve(envelope, &call);
    session.settle(envelope, &call, reserved, outcome);
    rules
}

const DONE: CallOutcome<'static> = CallOutcome::Done(None);

#[test]
fn every_rule_of_the_example_passes_and_fails() {
    let envelope = refunds();
    let mut session = SessionState::default();
    let refund = |order: &str, amount: f64| json!({"order_id": order, "amount": amount});
    let mut step =
        |tool: &str, arguments: &Value, outcome| make(&envelope, &mut session, tool, arguments, outcome);
    assert_eq!(step("refund", &refund("W1", 10.0), CallOutcome::Refused), ["own-order"], "not looked up");
    assert_eq!(step("find_order", &json!({"order_id": "W1"}), DONE), [""; 0]);
    assert_eq!(step("refund", &refund("W1", 200.0), DONE), [""; 0]);
    assert_eq!(step("refund", &refund("W1", 200.0), DONE), ["cap-session", "once"]);
    let too_much = step("refund", &refund("W1", 201.0), DONE);
    assert_eq!(too_much, ["cap-call", "cap-session", MAX_CALLS]);

    let mut session = SessionState::default();
    let mut step =
        |tool: &str, arguments: &Value, outcome| make(&envelope, &mut session, tool, arguments, outcome);
    assert_eq!(step("wipe", &json!({}), DONE), [UNDECLARED_TOOL]);
    let mut both = step("find_order", &json!({"order_id": "1", "all": true}), DONE);
    both.sort();
    assert_eq!(both, [ARGS_SCHEMA, UNDECLARED_ARGUMENT]);
    assert_eq!(
        step("refund", &json!({"order_id": "1", "amount": "9"}), DONE),
        [ARGS_SCHEMA, "cap-call", "cap-session"]
    );
}

#[test]
fn sets_contain_values_of_successful_calls_and_of_the_caller() {
    let envelope = refunds();
    let mut session = SessionState::default();
    let to = |who: &str| json!({"to": [who]});
    let result = r#"{"customers": {"x": {"email": "a@shop"}, "y": {"email": 7}}}"#;
    let found = json!({"order_id": "W1"});
    make(&envelope, &mut session, "find_order", &found, CallOutcome::Refused);
    assert_eq!(make(&envelope, &mut session, "send", &to("a@shop"), DONE), ["to-customer"]);
    make(&envelope, &mut session, "find_order", &found, CallOutcome::Done(Some(result)));
    assert_eq!(make(&envelope, &mut session, "send", &to("a@shop"), DONE), [""; 0]);
    let mut session = SessionState::default();
    session.observe_turn(&envelope, "please write to b@home today");
    assert_eq!(make(&envelope, &mut session, "send", &to("b@home"), DONE), [""; 0]);
    assert_eq!(make(&envelope, &mut session, "send", &to("a@shop"), DONE), ["to-customer"]);
    assert_eq!(
        make(&envelope, &mut session, "send", &json!({"to": "b@home"}), DONE),
        ["to-customer"],
        "no list"
    );
}

#[test]
fn a_rule_in_observe_mode_is_not_enforced() {
    let envelope = refunds();
    let mut session = SessionState::default();
    session.observe_turn(&envelope, "");
    let arguments = json!({"order_id": "W1", "amount": 1, "note": "b"});
    let found = envelope.check(&session, &call("refund", &arguments));
    let told: Vec<_> = found.iter().map(|one| (one.rule.as_str(), one.enforced)).collect();
    assert_eq!(told, [("own-order", true), ("canary", false)]);
    let arguments = json!({"order_id": "W1", "amount": 1, "note": 7.0});
    assert!(envelope.check(&session, &call("refund", &arguments)).iter().all(|one| one.rule != "canary"));
}

#[test]
fn a_window_includes_calls_of_its_length() {
    let text = "envelope = 1\n[defaults]\nundeclared-argument = \"allow\"\n[[tool]]\nname = \"pay\"\nbound = [\n\
                {id = \"once\", unique = [\"/to\"], per = \"10m\"}, {id = \"cap\", sum = \"/n\", max = 5, per = \"10m\"}]";
    let envelope = parse(text).expect("an envelope");
    let mut session = SessionState::default();
    let arguments = json!({"to": "a", "n": 3});
    let at = |minutes: i64| Call { at: minutes * 60_000_000, ..call("pay", &arguments) };
    let reserved = session.reserve(&envelope, &at(0));
    session.settle(&envelope, &at(0), reserved, DONE);
    let rules = |session: &SessionState, minutes| {
        envelope.check(session, &at(minutes)).into_iter().map(|one| one.rule).collect::<Vec<_>>()
    };
    assert_eq!(rules(&session, 10), ["once", "cap"]);
    assert_eq!(rules(&session, 11), [""; 0]);
}

#[test]
fn answers_are_limited() {
    let envelope = refunds();
    assert_eq!(envelope.check_output("done"), []);
    let rules =
        |answer: &str| envelope.check_output(answer).into_iter().map(|one| one.rule).collect::<Vec<_>>();
    assert_eq!(rules("a long answer"), [OUTPUT_MAX_BYTES]);
    assert_eq!(rules("[1]"), [OUTPUT_SCHEMA]);
}

#[test]
fn keys_that_are_not_checked_are_listed() {
    let envelope = refunds();
    let told: Vec<_> = envelope.not_checked().iter().map(|one| (one.key.as_str(), one.restricts)).collect();
    let expected = [
        ("identity", false),
        ("result-schema of tool find_order", false),
        ("require of tool refund", true),
        ("approve of tool refund", false),
        ("approval of tool refund", false),
        ("data", true),
        ("output.forbid-detectors", true),
        ("breaker", false),
        ("classify", false),
    ];
    assert_eq!(told, expected);
    let lines: Vec<&str> = REFUNDS.lines().collect();
    for one in envelope.not_checked() {
        let word = one.key.split([' ', '.']).next_back().expect("a word");
        let first = one.key.split([' ', '.']).next().expect("a word");
        let line = lines[one.line - 1];
        assert!(line.contains(first) || line.contains(word), "{one:?}: {line}");
    }
}

#[test]
fn the_digest_depends_on_content_and_not_on_formatting() {
    let envelope = refunds();
    let respelled = REFUNDS.replace("mode = \"enforce\"\n", "mode='enforce' # as ever\n");
    assert_eq!(parse(&respelled).expect("an envelope"), envelope);
    let changed = parse(&REFUNDS.replace("max = 200", "max = 201")).expect("an envelope");
    assert_ne!(changed.digest(), envelope.digest());
    let other_file = Envelope::parse(REFUNDS, &|_| Ok("{}".to_owned())).expect("an envelope");
    assert_ne!(other_file.digest(), envelope.digest());
    assert_eq!((envelope.digest().len(), envelope.agent()), (64, Some("refund-support")));
}

#[test]
fn an_error_names_line_and_allowed_values() {
    let tool = |bound: &str| {
        format!(
            "envelope = 1\n[session.ids]\nfrom = [{{ tool = \"t\", arg = \"/id\" }}]\n[[tool]]\nname = \"t\"\n\
                 undeclared-argument = \"allow\"\nbound = [\n  {bound},\n]\n"
        )
    };
    let cases: [(String, &[&str]); 19] = [
        (String::new(), &["line 1", "envelope"]),
        ("envelope = 2".to_owned(), &["line 1", "`envelope` is 2", "expected 1"]),
        ("envelope = 1\ntol = []".to_owned(), &["line 2", "unknown field `tol`", "`tool`"]),
        ("envelope = 1\nagent = ".to_owned(), &["line 2"]),
        ("envelope = 1\n[defaults]\nundeclared-tool = \"deni\"".to_owned(), &["line 3", "`deni`", "`deny`"]),
        ("envelope = 1\n[defaults]\nmax-calls-per-session = 0".to_owned(), &["line 3", "is 0", "1 or more"]),
        ("envelope = 1\n[[tool]]\nname = \"t\"".to_owned(), &["line 3", "tool t", "args-schema", "allow"]),
        (
            format!(
                "{}[[tool]]\nname = \"t\"\nundeclared-argument = \"allow\"",
                tool("{ id = \"a\", arg = \"/a\", max = 1 }")
            ),
            &["line 11", "\"t\" again"],
        ),
        (
            "envelope = 1\n[[tool]]\nname = \"t\"\nargs-schema = \"no.json\"".to_owned(),
            &["line 4", "no.json", "cannot be read"],
        ),
        (
            "envelope = 1\n[[tool]]\nname = \"t\"\nargs-schema = { type = \"objekt\" }".to_owned(),
            &["line 4", "args-schema of tool t", "not a usable JSON Schema"],
        ),
        (
            "envelope = 1\n[[tool]]\nname = \"t\"\nargs-schema = 3".to_owned(),
            &["line 4", "of type integer", "a table"],
        ),
        (tool("{ id = \"a\", arg = \"a\", max = 1 }"), &["line 8", "bound.a.arg of tool t", "\"a\"", "`/`"]),
        (tool("{ id = \"a\", arg = \"/a\" }"), &["line 8", "without a condition", "exactly one"]),
        (tool("{ id = \"a\", arg = \"/a\", in = [1], max = 1 }"), &["line 8", "in and min or max"]),
        (tool("{ id = \"a\", sum = \"/a\" }"), &["line 8", "bound.a.max", "missing"]),
        (
            tool("{ id = \"a\", arg = \"/a\", in = \"session.idz\" }"),
            &["line 8", "session.idz", "declared: ids"],
        ),
        (tool("{ id = \"a\", unique = [\"/a\"], per = \"1week\" }"), &["line 8", "1week", "24h"]),
        (tool("{ id = \"a\", arg = \"/a\", max = \"1\" }"), &["line 8", "bound.a.max", "a number"]),
        (
            tool("{ id = \"a\", arg = \"/a\", max = 1 },\n  { id = \"a\", arg = \"/a\", max = 1 }"),
            &["line 9", "\"a\" again"],
        ),
    ];
    for (text, words) in cases {
        let error = parse(&text).expect_err(&text).to_string();
        for word in words {
            assert!(error.contains(word), "{word:?} is not in {error:?} for\n{text}");
        }
    }
    let unknown = "envelope = 1\n[session.ids]\nfrom = [{ tool = \"x\", arg = \"/id\" }]";
    assert!(parse(unknown).expect_err("not declared").to_string().contains("line 3"));
    let mixed = "envelope = 1\n[session.ids]\nfrom = [{ tool = \"x\", turn = \"a\" }]";
    assert!(parse(mixed).expect_err("two sources").to_string().contains("another combination"));
}

/// Any JSON, with the names that the rules ask for.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z]{0,4}".prop_map(Value::from),
        Just(json!("W1")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let key = prop_oneof![Just("order_id"), Just("amount"), Just("note"), Just("to"), Just("x/~")];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..4)
                .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn a_rule_that_cannot_be_evaluated_is_violated(arguments in json_value()) {
        let envelope = refunds();
        let found = envelope.check(&SessionState::default(), &call("refund", &arguments));
        let broke = |rule: &str| found.iter().any(|one| one.rule == rule);
        let number = arguments.get("amount").and_then(Value::as_number).and_then(Decimal::of);
        prop_assert_eq!(broke("cap-session"), number.is_none_or(|sum| sum > Decimal::parse("300.5").expect("a number")));
        let inside = number.is_some_and(|number| !number.is_negative() && number <= Decimal::parse("200").expect("a number"));
        prop_assert_eq!(broke("cap-call"), !inside);
        prop_assert!(broke("own-order"), "nothing was looked up");
        let key = ["order_id", "amount"].map(|name| arguments.get(name).is_none_or(Value::is_null));
        prop_assert_eq!(broke("once"), key.contains(&true), "a key that is not there");
    }

    #[test]
    fn a_refused_call_changes_no_sum_or_key(before in json_value(), refused in json_value(), after in json_value()) {
        let envelope = refunds();
        let mut session = SessionState::default();
        make(&envelope, &mut session, "refund", &before, DONE);
        let mut other = session.clone();
        make(&envelope, &mut session, "refund", &refused, CallOutcome::Refused);
        make(&envelope, &mut other, "find_order", &json!({}), CallOutcome::Refused);
        let left = make(&envelope, &mut session, "refund", &after, DONE);
        prop_assert_eq!(left, make(&envelope, &mut other, "refund", &after, DONE));
        prop_assert_eq!(session, other);
    }

    #[test]
    fn allowed_calls_never_exceed_the_limit(amounts in prop::collection::vec(-5_000i32..20_100, 0..12)) {
        let envelope = refunds();
        let mut session = SessionState::default();
        let looked_up = json!({"order_id": "W1"});
        let call_of = call("find_order", &looked_up);
        let reserved = session.reserve(&envelope, &call_of);
        session.settle(&envelope, &call_of, reserved, DONE);
        let mut sum = 0;
        for cents in amounts {
            let arguments = json!({"order_id": "W1", "amount": f64::from(cents) / 100.0});
            let call = call("refund", &arguments);
            if envelope.check(&session, &call).is_empty() {
                sum += cents;
                let reserved = session.reserve(&envelope, &call);
                session.settle(&envelope, &call, reserved, if cents % 2 == 0 { DONE } else { CallOutcome::Unknown });
            }
        }
        prop_assert!(sum <= 30_050, "{}", sum);
    }

    #[test]
    fn any_text_is_an_envelope_or_an_error_with_a_line(noise in "[ -~\n]{0,60}", cut in 0usize..2_000) {
        let texts = [noise.clone(), REFUNDS.chars().take(cut).collect(), REFUNDS.chars().take(cut).chain(noise.chars()).collect()];
        for text in texts {
            if let Err(error) = parse(&text) {
                let (EnvelopeError::Syntax { line, .. } | EnvelopeError::BadValue { line, .. }) = error;
                prop_assert!((1..=text.lines().count() + 1).contains(&line), "line {}", line);
            }
        }
    }
}
