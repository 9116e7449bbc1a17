//! Reading `[invariant.*]`.

use std::collections::BTreeMap;

use ::envelope::Pointer;
use regex::RegexBuilder;
use toml::{Table, Value};

use super::section::{Result, Section, bad, check_keys, missing, table_at, texts, unknown};
use crate::policy::error::PolicyErrorKind;
use crate::policy::invariants::{
    Forbidden, INVARIANTS, Idempotency, InvariantPolicy, MonotonicEffects, OrderRule,
};

/// Size limit of a compiled pattern, bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// Tables of the invariants in [`crate::policy::POLICY_KEYS`], in the order of [`INVARIANTS`].
const TABLES: [&str; 8] = [
    "invariant.answer-schema",
    "invariant.tool-arguments",
    "invariant.monotonic-effects",
    "invariant.idempotency",
    "invariant.response-time",
    "invariant.forbidden",
    "invariant.order",
    "invariant.envelope",
];

pub(super) fn read(table: &Table) -> Result<InvariantPolicy> {
    check_keys(table, "invariant", &INVARIANTS)?;
    let mut policy = InvariantPolicy::default();
    for path in TABLES {
        let name = path.trim_start_matches("invariant.");
        let Some(value) = table.get(name) else { continue };
        let section = Section::new(value, path, path)?;
        let on = section.flag("on")?.unwrap_or(true);
        if name == "envelope" {
            policy.envelope = Some(on);
        }
        if !on {
            continue;
        }
        if let Some(rate) = section.number("max-rate")? {
            policy.max_rate.insert(name.to_owned(), rate);
        }
        declare(&mut policy, name, &section)?;
    }
    Ok(policy)
}

fn declare(policy: &mut InvariantPolicy, name: &str, section: &Section<'_>) -> Result<()> {
    match name {
        "answer-schema" => {
            let value = section.required("schema", SCHEMA_EXPECTED)?;
            policy.answer_schema = Some(schema(value, &section.at("schema"))?);
        }
        "tool-arguments" => {
            let at = section.at("schemas");
            let expected = "a table of tools, each with the JSON Schema of its arguments";
            let mut schemas = BTreeMap::new();
            for (tool, value) in table_at(section.required("schemas", expected)?, &at)? {
                schemas.insert(tool.clone(), schema(value, &format!("{at}.{tool}"))?);
            }
            policy.tool_arguments = Some(schemas);
        }
        "monotonic-effects" => {
            let order = section.texts("order")?.unwrap_or_default();
            policy.monotonic_effects = Some(MonotonicEffects { order });
        }
        "idempotency" => {
            policy.idempotency = Some(Idempotency { tools: section.texts("tools")?.unwrap_or_default() });
        }
        "response-time" => {
            section.required("max-ms", "a number of milliseconds")?;
            policy.response_time_max_ms = section.integer("max-ms")?;
        }
        "forbidden" => policy.forbidden = Some(forbidden(section)?),
        "order" => policy.order = Some(order(section)?),
        _ => {}
    }
    Ok(())
}

const SCHEMA_EXPECTED: &str = "a JSON Schema, as a table or as JSON in a string";

fn schema(value: &Value, at: &str) -> Result<serde_json::Value> {
    let wrong = |found: String| PolicyErrorKind::BadValue {
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

fn forbidden(section: &Section<'_>) -> Result<Forbidden> {
    let mut forbidden = Forbidden {
        literals: section.texts("literals")?.unwrap_or_default(),
        patterns: section.texts("patterns")?.unwrap_or_default(),
        ignore_case: section.flag("ignore-case")?.unwrap_or(false),
        answer: true,
        arguments: true,
    };
    let path = section.path;
    if let Some(within) = section.texts("within")? {
        let at = section.at("within");
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
                "a text that is not empty, because an empty text matches everywhere",
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
                    "a regular expression that does not match the empty text, because such a pattern matches everywhere",
                ));
            }
            Ok(_) => {}
            Err(error) => {
                let why = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
                return Err(PolicyErrorKind::BadValue {
                    key: at,
                    found: format!("{pattern:?} ({why})"),
                    expected: "a regular expression without look-around".to_owned(),
                });
            }
        }
    }
    Ok(forbidden)
}

fn order(section: &Section<'_>) -> Result<Vec<OrderRule>> {
    let at = section.at("rules");
    let expected = "a list of rules, such as { first = \"find_order\", then = \"refund\" }";
    let value = section.required("rules", expected)?;
    let list = value.as_array().filter(|list| !list.is_empty()).ok_or_else(|| bad(&at, value, expected))?;
    let mut rules = Vec::with_capacity(list.len());
    for (place, value) in list.iter().enumerate() {
        let at = format!("{at}[{place}]");
        let rule = table_at(value, &at)?;
        check_keys(rule, &at, &["first", "then", "same"])?;
        let same = rule.get("same").map(|value| same(value, &format!("{at}.same"))).transpose()?;
        rules.push(OrderRule { first: tools(rule, &at, "first")?, then: tools(rule, &at, "then")?, same });
    }
    Ok(rules)
}

/// One tool, or a list of them.
fn tools(rule: &Table, path: &str, key: &str) -> Result<Vec<String>> {
    let at = format!("{path}.{key}");
    let value = rule.get(key).ok_or_else(|| missing(&at, "a tool, or a list of tools"))?;
    let list = match value {
        Value::String(tool) => vec![tool.clone()],
        other => texts(other, &at)?,
    };
    if list.is_empty() { Err(bad(&at, value, "at least one tool")) } else { Ok(list) }
}

/// One place for both, or one for each.
fn same(value: &Value, at: &str) -> Result<(String, String)> {
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
            [invariant.answer-schema]
            schema = { type = "object" }
            max-rate = 0.01
            [invariant.tool-arguments.schemas]
            refund = { type = "object" }
            mail = '{"type": "object"}'
            [invariant.monotonic-effects]
            order = ["reserve", "capture"]
            [invariant.idempotency]
            tools = ["refund"]
            [invariant.response-time]
            max-ms = 30000
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
        assert_eq!(policy.max_rate.get("answer-schema"), Some(&0.01));
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
            ("[invariant.tool-arguments]\non = true", ["tool-arguments.schemas", "missing"]),
            ("[invariant.tool-arguments.schemas]\na = { type = 1 }", ["schemas.a", "not a JSON Schema"]),
            ("[invariant.response-time]\nmax-ms = 10\nmax-rate = 1.5", ["response-time.max-rate", "0.9999"]),
            ("[invariant.response-time]\non = true", ["response-time.max-ms", "missing"]),
            ("[invariant.answer-schema]\non = true", ["answer-schema.schema", "missing"]),
        ] {
            let error = Policy::parse(text).expect_err(text).to_string();
            for word in words {
                assert!(error.contains(word), "{word:?} is not in {error:?}");
            }
        }
    }
}
