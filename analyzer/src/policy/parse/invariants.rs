//! MissingDataScenario `[invariant.*]`.

use std::collections::BTreeMap;

use envelope::Pointer;
use regex::RegexBuilder;
use toml::{Table, Value};

use super::{PolicyError, bad, flag, integer, known, number, table_at, texts, texts_or_none, unknown};
use crate::policy::{Forbidden, INVARIANTS, Idempotency, InvariantPolicy, MonotonicEffects, OrderRule};

/// Largest compiled pattern, bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

pub(super) fn invariants(table: &Table) -> Result<InvariantPolicy, PolicyError> {
    known(table, "invariant", &INVARIANTS)?;
    let mut policy = InvariantPolicy::default();
    for (name, value) in table {
        let path = format!("invariant.{name}");
        let inner = table_at(value, &path)?;
        let mut allowed = vec!["on", "max_rate"];
        allowed.extend_from_slice(keys(name));
        known(inner, &path, &allowed)?;
        let on = inner.get("on").map_or(Ok(true), |value| flag(value, &format!("{path}.on")))?;
        if name == "envelope" {
            policy.envelope = Some(on);
        }
        if !on {
            continue;
        }
        if let Some(value) = inner.get("max_rate") {
            let rate = number(value, &format!("{path}.max_rate"), 0.000_001, 0.9999)?;
            policy.max_rate.insert(name.clone(), rate);
        }
        declare(&mut policy, name, inner, &path)?;
    }
    Ok(policy)
}

/// The keys of an invariant beside `on` and `max_rate`.
fn keys(name: &str) -> &'static [&'static str] {
    match name {
        "answer_schema" => &["schema"],
        "tool_arguments" => &["schemas"],
        "monotonic_effects" => &["order"],
        "idempotency" => &["tools"],
        "response_time" => &["max_ms"],
        "forbidden" => &["literals", "patterns", "ignore_case", "within"],
        "order" => &["rules"],
        _ => &[],
    }
}

fn declare(policy: &mut InvariantPolicy, name: &str, inner: &Table, path: &str) -> Result<(), PolicyError> {
    match name {
        "answer_schema" => {
            let at = format!("{path}.schema");
            let value = inner.get("schema").ok_or_else(|| missing(&at, SCHEMA_EXPECTED))?;
            policy.answer_schema = Some(schema(value, &at)?);
        }
        "tool_arguments" => {
            let at = format!("{path}.schemas");
            let expected = "a table of tools, each with the JSON Schema of its arguments";
            let table = table_at(inner.get("schemas").ok_or_else(|| missing(&at, expected))?, &at)?;
            let mut schemas = BTreeMap::new();
            for (tool, value) in table {
                schemas.insert(tool.clone(), schema(value, &format!("{at}.{tool}"))?);
            }
            policy.tool_arguments = Some(schemas);
        }
        "monotonic_effects" => {
            policy.monotonic_effects = Some(MonotonicEffects { order: texts_or_none(inner, path, "order")? });
        }
        "idempotency" => {
            policy.idempotency = Some(Idempotency { tools: texts_or_none(inner, path, "tools")? });
        }
        "response_time" => {
            let at = format!("{path}.max_ms");
            let value = inner.get("max_ms").ok_or_else(|| missing(&at, "a number of milliseconds"))?;
            policy.response_time_max_ms = Some(integer(value, &at, 1, 86_400_000)?);
        }
        "forbidden" => policy.forbidden = Some(forbidden(inner, path)?),
        "order" => policy.order = Some(order(inner, path)?),
        _ => {}
    }
    Ok(())
}

fn missing(key: &str, expected: &str) -> PolicyError {
    PolicyError::Missing { key: key.to_owned(), expected: expected.to_owned() }
}

const SCHEMA_EXPECTED: &str = "a JSON Schema, as a table or as JSON in a string";

fn schema(value: &Value, at: &str) -> Result<serde_json::Value, PolicyError> {
    let wrong = |found: String| PolicyError::BadValue {
        key: at.to_owned(),
        found,
        expected: SCHEMA_EXPECTED.to_owned(),
    };
    let schema = match value {
        Value::String(text) => {
            serde_json::from_str(text).map_err(|error| wrong(format!("not JSON ({error})")))?
        }
        Value::Table(_) => serde_json::to_value(value).map_err(|error| wrong(error.to_string()))?,
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) => {
            return Err(bad(at, value, SCHEMA_EXPECTED));
        }
    };
    match jsonschema::validator_for(&schema) {
        Ok(_) => Ok(schema),
        Err(error) => Err(wrong(format!("not a JSON Schema ({error})"))),
    }
}

fn forbidden(table: &Table, path: &str) -> Result<Forbidden, PolicyError> {
    let mut forbidden = Forbidden {
        literals: texts_or_none(table, path, "literals")?,
        patterns: texts_or_none(table, path, "patterns")?,
        ignore_case: false,
        answer: true,
        arguments: true,
    };
    if let Some(value) = table.get("ignore_case") {
        forbidden.ignore_case = flag(value, &format!("{path}.ignore_case"))?;
    }
    if let Some(value) = table.get("within") {
        let at = format!("{path}.within");
        let within = texts(value, &at)?;
        if let Some(wrong) = within.iter().find(|name| !["answer", "arguments"].contains(&name.as_str())) {
            return Err(unknown(&format!("{at}: {wrong}"), wrong, &["answer", "arguments"]));
        }
        let names = |name: &str| within.iter().any(|named| named == name);
        (forbidden.answer, forbidden.arguments) = (names("answer"), names("arguments"));
    }
    if forbidden.literals.is_empty() && forbidden.patterns.is_empty() {
        return Err(missing(
            &format!("{path}.literals"),
            "texts in `literals`, or regular expressions in `patterns`",
        ));
    }
    for literal in &forbidden.literals {
        if literal.is_empty() {
            let value = Value::String(String::new());
            return Err(bad(
                &format!("{path}.literals"),
                &value,
                "a text that is not empty: an empty one is everywhere",
            ));
        }
    }
    for pattern in &forbidden.patterns {
        let at = format!("{path}.patterns");
        match RegexBuilder::new(pattern).size_limit(MAX_PATTERN_BYTES).build() {
            Ok(regex) if regex.is_match("") => {
                let value = Value::String(pattern.clone());
                return Err(bad(
                    &at,
                    &value,
                    "a regular expression that does not match an empty text: such a one is everywhere",
                ));
            }
            Ok(_) => {}
            Err(error) => {
                let why = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
                return Err(PolicyError::BadValue {
                    key: at,
                    found: format!("{pattern:?} ({why})"),
                    expected: "a regular expression without look-around".to_owned(),
                });
            }
        }
    }
    Ok(forbidden)
}

fn order(table: &Table, path: &str) -> Result<Vec<OrderRule>, PolicyError> {
    let at = format!("{path}.rules");
    let expected = "a list of rules, such as { first = \"find_order\", then = \"refund\" }";
    let value = table.get("rules").ok_or_else(|| missing(&at, expected))?;
    let list = value.as_array().filter(|list| !list.is_empty()).ok_or_else(|| bad(&at, value, expected))?;
    let mut rules = Vec::with_capacity(list.len());
    for (place, value) in list.iter().enumerate() {
        let at = format!("{at}[{place}]");
        let rule = table_at(value, &at)?;
        known(rule, &at, &["first", "then", "same"])?;
        let same = rule.get("same").map(|value| same(value, &format!("{at}.same"))).transpose()?;
        rules.push(OrderRule { first: tools(rule, &at, "first")?, then: tools(rule, &at, "then")?, same });
    }
    Ok(rules)
}

/// One tool, or a list of them.
fn tools(rule: &Table, path: &str, key: &str) -> Result<Vec<String>, PolicyError> {
    let at = format!("{path}.{key}");
    let value = rule.get(key).ok_or_else(|| missing(&at, "a tool, or a list of tools"))?;
    let list = match value {
        Value::String(tool) => vec![tool.clone()],
        other => texts(other, &at)?,
    };
    if list.is_empty() { Err(bad(&at, value, "at least one tool")) } else { Ok(list) }
}

/// One place for both, or one for each.
fn same(value: &Value, at: &str) -> Result<(String, String), PolicyError> {
    let expected = "a JSON pointer such as \"/order_id\", or two: of `first`, then of `then`";
    let places = match value {
        Value::String(place) => vec![place.clone(), place.clone()],
        other => texts(other, at)?,
    };
    match &places[..] {
        [first, then] if [first, then].iter().all(|place| Pointer::parse(place).is_some()) => {
            Ok((first.clone(), then.clone()))
        }
        _ => Err(bad(at, value, expected)),
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::Policy;

    #[test]
    fn every_invariant_is_read() {
        let text = r#"
            [invariant.answer_schema]
            schema = { type = "object" }
            max_rate = 0.01
            [invariant.tool_arguments.schemas]
            refund = { type = "object" }
            mail = '{"type": "object"}'
            [invariant.monotonic_effects]
            order = ["reserve", "capture"]
            [invariant.idempotency]
            tools = ["refund"]
            [invariant.response_time]
            max_ms = 30000
            [invariant.forbidden]
            literals = ["PRIVATE KEY"]
            patterns = ['\b4[0-9]{15}\b']
            within = ["arguments"]
            [invariant.order]
            rules = [{ first = ["a", "b"], then = "c", same = ["/x", "/y"] }, { first = "a", then = "d", same = "/x" }]
            [invariant.envelope]
            on = false
        "#;
        let policy = Policy::parse(text).expect("a policy").invariant;
        assert_eq!(policy.max_rate.get("answer_schema"), Some(&0.01));
        assert_eq!(policy.tool_arguments.as_ref().map(std::collections::BTreeMap::len), Some(2));
        let forbidden = policy.forbidden.expect("declared");
        assert!(forbidden.arguments && !forbidden.answer && !forbidden.ignore_case);
        let order = policy.order.expect("declared");
        assert_eq!(order[0].name(), "a or b before c");
        assert_eq!(order[1].same, Some(("/x".to_owned(), "/x".to_owned())));
        assert_eq!(policy.envelope, Some(false));
        assert!(
            Policy::parse("[invariant.forbidden]\non = false").expect("off").invariant.forbidden.is_none()
        );
    }

    #[test]
    fn a_wrong_invariant_is_named() {
        for (text, words) in [
            ("[invariant.idempotent]\non = true", ["idempotent", "did you mean `idempotency`"]),
            ("[invariant.forbidden]\non = true", ["forbidden.literals", "missing"]),
            ("[invariant.forbidden]\nliterals = [\"\"]", ["forbidden.literals", "everywhere"]),
            ("[invariant.forbidden]\npatterns = [\"a*\"]", ["forbidden.patterns", "everywhere"]),
            ("[invariant.forbidden]\npatterns = [\"(\"]", ["forbidden.patterns", "unclosed"]),
            (
                "[invariant.forbidden]\npatterns = [\"a\"]\nwithin = [\"anser\"]",
                ["within: anser", "`answer`"],
            ),
            ("[invariant.order]\nrules = []", ["order.rules", "a list of rules"]),
            ("[invariant.order]\nrules = [{ first = \"a\" }]", ["order.rules[0].then", "missing"]),
            (
                "[invariant.order]\nrules = [{ first = \"a\", then = \"b\", same = \"x\" }]",
                ["rules[0].same", "JSON pointer"],
            ),
            ("[invariant.tool_arguments]\non = true", ["tool_arguments.schemas", "missing"]),
            ("[invariant.tool_arguments.schemas]\na = { type = 1 }", ["schemas.a", "not a JSON Schema"]),
            ("[invariant.response_time]\nmax_ms = 10\nmax_rate = 1.5", ["response_time.max_rate", "0.9999"]),
            ("[invariant.response_time]\non = true", ["response_time.max_ms", "missing"]),
            ("[invariant.answer_schema]\non = true", ["answer_schema.schema", "missing"]),
        ] {
            let error = Policy::parse(text).expect_err(text).to_string();
            for word in words {
                assert!(error.contains(word), "{word:?} is not in {error:?}");
            }
        }
    }
}
