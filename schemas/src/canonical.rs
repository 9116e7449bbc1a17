//! Canonical JSON: equal values have equal text, by which tool calls are matched and counted.
//!
//! RFC 8785 (sorted object keys, no white space) with two differences. Numbers keep all digits: RFC 8785 rounds them to a
//! double, which would make two long order numbers equal. Of several equal keys all are kept, because parsers disagree on
//! which one counts.

use serde_json::Value;

use crate::json::Json;

/// Formats the value with sorted keys, without white space, and `1.0` as `1`.
///
/// A [`Value`] has already rounded a long number; [`canonical_text`] and [`canonical_at`] read the digits from the text.
#[must_use]
pub fn canonical(value: &Value) -> String {
    Json::from(value).to_string()
}

/// Parses the text as JSON and formats it canonically; `None` if it is not JSON.
///
/// An empty text becomes `{}`: providers send it for a tool call without arguments.
#[must_use]
pub fn canonical_text(text: &str) -> Option<String> {
    if text.trim().is_empty() {
        return Some("{}".to_owned());
    }
    Json::parse(text).map(|value| value.to_string())
}

/// Canonical text of the value at an RFC 6901 pointer of a JSON body; `None` if the body is not JSON or has no such value.
#[must_use]
pub fn canonical_at(body: &[u8], pointer: &str) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    Json::parse(text)?.at(pointer).map(ToString::to_string)
}

/// Normalises a canonical text, so that arguments that differ only in form become equal; `None` if it is not JSON.
///
/// Only the look-up of recorded reads and of model conversations uses it, never the comparison of writes. Strings are
/// trimmed, white space is folded and letters become lower case. A string that is the canonical text of a number becomes the
/// number. Nulls, empty strings, empty objects and empty arrays inside an object are dropped. Arrays keep their order.
#[must_use]
pub fn normalised_text(text: &str) -> Option<String> {
    Json::parse(text).map(|value| normalise(value).to_string())
}

/// Normalises a value as [`normalised_text`] does.
#[must_use]
pub fn normalised(value: &Value) -> Json {
    normalise(Json::from(value))
}

fn normalise(value: Json) -> Json {
    match value {
        Json::Null | Json::Bool(_) | Json::Number(_) => value,
        Json::Text(text) => normalise_string(&text),
        Json::Array(items) => Json::Array(items.into_iter().map(normalise).collect()),
        Json::Object(entries) => {
            let kept = entries.into_iter().map(|(key, item)| (key, normalise(item)));
            Json::Object(kept.filter(|(_, item)| !is_empty(item)).collect())
        }
    }
}

fn is_empty(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::Bool(_) | Json::Number(_) => false,
        Json::Text(text) => text.is_empty(),
        Json::Array(items) => items.is_empty(),
        Json::Object(entries) => entries.is_empty(),
    }
}

fn normalise_string(text: &str) -> Json {
    let folded = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    // Leading zeros are part of an identifier ("007"), so only a canonical number becomes one.
    match Json::parse(&folded) {
        Some(Json::Number(number)) if number == folded => Json::Number(number),
        Some(_) | None => Json::Text(folded),
    }
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
    fn equality_keeps_type_case_null_and_every_digit() {
        let different = [
            r#"{"a":"GNy"}"#,
            r#"{"a":"GNY"}"#,
            r#"{"a":" GNy"}"#,
            r#"{"a":null}"#,
            r#"{"a":""}"#,
            r#"{"a":[]}"#,
            r#"{"a":{}}"#,
            "{}",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":true}"#,
            r#"{"a":18446744073709551616}"#,
            r#"{"a":18446744073709551617}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":2}"#,
        ];
        let texts: std::collections::BTreeSet<_> =
            different.iter().map(|text| canonical_text(text)).collect();
        assert_eq!(texts.len(), different.len());
        let body = br#"{"params":{"arguments":{"n":18446744073709551617}}}"#;
        let found = canonical_at(body, "/params/arguments");
        assert_eq!(found.as_deref(), Some(r#"{"n":18446744073709551617}"#));
        assert_eq!(canonical_at(body, "/params/none"), None);
    }

    #[test]
    fn arguments_that_differ_in_form_become_equal() {
        let value = json!({"id": " W12 ", "n": "5", "zip": "007", "note": null});
        assert_eq!(normalised(&value).to_string(), r#"{"id":"w12","n":5,"zip":"007"}"#);
        let long = normalised_text(r#"{"n":"18446744073709551616"}"#);
        assert_eq!(long.as_deref(), Some(r#"{"n":18446744073709551616}"#));
    }
}
