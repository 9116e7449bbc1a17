//! Canonical JSON: equal values have equal text, by which tool calls are matched and counted.
//!
//! RFC 8785 (sorted object keys, no white space) with one difference: integers keep all digits. RFC 8785 rounds them to a
//! double, which would make two long order numbers equal.

use std::fmt::Write as _;

use serde_json::Value;

/// Formats the value with sorted keys, without white space, and `1.0` as `1`.
#[must_use]
pub fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write_value(value, &mut out);
    out
}

/// Parses the text as JSON and formats it canonically; `None` if it is not JSON.
///
/// An empty text becomes `{}`: providers send it for a tool call without arguments.
#[must_use]
pub fn canonical_text(text: &str) -> Option<String> {
    if text.trim().is_empty() {
        return Some("{}".to_owned());
    }
    serde_json::from_str::<Value>(text).ok().map(|value| canonical(&value))
}

/// Normalises a value, so that arguments that differ only in form become equal.
///
/// Strings are trimmed, white space is folded and letters become lower case. A string that is the canonical text of a number
/// becomes the number. Nulls, empty strings, empty objects and empty arrays inside an object are dropped. Arrays keep their
/// order.
#[must_use]
pub fn normalised(value: &Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        Value::String(text) => normalised_text(text),
        Value::Array(items) => Value::Array(items.iter().map(normalised).collect()),
        Value::Object(map) => {
            let kept = map.iter().map(|(key, item)| (key.clone(), normalised(item)));
            Value::Object(kept.filter(|(_, item)| !is_empty(item)).collect())
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn normalised_text(text: &str) -> Value {
    let folded = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    // Leading zeros are part of an identifier ("007"), so only a canonical number becomes one.
    let number = serde_json::from_str::<Value>(&folded).ok().filter(Value::is_number);
    match number {
        Some(number) if canonical(&number) == folded => number,
        Some(_) | None => Value::String(folded),
    }
}

fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => write_number(number, out),
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            // RFC 8785 section 3.2.3 sorts by UTF-16 code units.
            entries.sort_by(|a, b| a.0.encode_utf16().cmp(b.0.encode_utf16()));
            out.push('{');
            for (index, (key, item)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_text(key, out);
                out.push(':');
                write_value(item, out);
            }
            out.push('}');
        }
    }
}

fn write_number(number: &serde_json::Number, out: &mut String) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < EXACT => {
            let _ = write!(out, "{float:.0}");
        }
        Some(_) | None => {
            let _ = write!(out, "{number}");
        }
    }
}

fn write_text(text: &str, out: &mut String) {
    let quoted = serde_json::to_string(text).expect("a string always serialises");
    out.push_str(&quoted);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equal_values_have_equal_text() {
        let a = canonical_text(r#"{ "b": 1.0, "a": [true, null, "x"] }"#);
        assert_eq!(a.as_deref(), Some(r#"{"a":[true,null,"x"],"b":1}"#));
        assert_eq!(canonical_text("  "), Some("{}".to_owned()));
        assert_eq!(canonical_text("{'a': 1}"), None);
    }

    #[test]
    fn long_integers_stay_distinct() {
        assert_ne!(
            canonical(&json!(9_007_199_254_740_993_u64)),
            canonical(&json!(9_007_199_254_740_992_u64))
        );
    }

    #[test]
    fn arguments_that_differ_in_form_become_equal() {
        let a = normalised(&json!({"id": " W12 ", "n": "5", "zip": "007", "note": null}));
        assert_eq!(a, json!({"id": "w12", "n": 5, "zip": "007"}));
    }
}
