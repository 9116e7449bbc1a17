//! Templates of request bodies: JSON with `{{name}}` placeholders inside its strings.
//!
//! Values are inserted into parsed JSON strings, so no input can break out of its string.

use serde_json::Value;

use super::turn::Turn;

/// Names of placeholders.
const PLACEHOLDERS: [&str; 7] = ["input", "session", "seed", "turn", "model_url", "mcp_url", "tools_url"];

/// Placeholder for the array of earlier messages; it must be the whole string.
const HISTORY: &str = "{{history}}";

/// A JSON body whose placeholders are all known.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template(Value);

impl Template {
    /// Parses a template: a TOML table, or a string of JSON.
    pub(crate) fn parse(value: Value) -> Result<Self, String> {
        let value = match value {
            Value::String(text) => serde_json::from_str(&text).map_err(|error| {
                format!("is a string but not JSON ({error}); write a table or valid JSON")
            })?,
            other => other,
        };
        check_value(&value)?;
        Ok(Self(value))
    }

    /// Fills the template for a turn.
    pub(crate) fn fill(&self, turn: &Turn<'_>) -> Value {
        fill_value(&self.0, turn)
    }
}

fn check_value(value: &Value) -> Result<(), String> {
    match value {
        Value::String(text) if text == HISTORY => Ok(()),
        Value::String(text) => check(text),
        Value::Array(items) => items.iter().try_for_each(check_value),
        Value::Object(map) => map.values().try_for_each(check_value),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// Checks that every placeholder of a text is known.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("{{") {
        let (name, tail) =
            after.split_once("}}").ok_or_else(|| format!("`{{{{` is not closed in {text:?}"))?;
        if !PLACEHOLDERS.contains(&name.trim()) {
            let known = PLACEHOLDERS.map(|name| format!("{{{{{name}}}}}")).join(", ");
            return Err(format!(
                "{{{{{name}}}}} is no placeholder; write one of {known}, or {HISTORY} as a whole string"
            ));
        }
        rest = tail;
    }
    Ok(())
}

fn fill_value(value: &Value, turn: &Turn<'_>) -> Value {
    match value {
        Value::String(text) if text == HISTORY => turn.history_json(),
        Value::String(text) => Value::String(fill_text(text, turn)),
        Value::Array(items) => Value::Array(items.iter().map(|item| fill_value(item, turn)).collect()),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, item)| (key.clone(), fill_value(item, turn))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// Replaces the placeholders of a text. Inserted values are not scanned for placeholders.
pub(crate) fn fill_text(text: &str, turn: &Turn<'_>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, tail)) = after.split_once("}}") else { break };
        out.push_str(before);
        match name.trim() {
            "input" => out.push_str(turn.input),
            "session" => out.push_str(turn.endpoint.token.as_str()),
            "seed" => out.push_str(&turn.endpoint.seed.to_string()),
            "turn" => out.push_str(&turn.number.to_string()),
            "model_url" => out.push_str(&turn.endpoint.model_url()),
            "mcp_url" => out.push_str(&turn.endpoint.mcp_url()),
            "tools_url" => out.push_str(&turn.endpoint.tools_url()),
            _ => {}
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::candidate::endpoint::TrialEndpoint;
    use crate::candidate::turn::{Message, Role};

    fn endpoint() -> TrialEndpoint {
        TrialEndpoint { token: "tok".to_owned(), seed: 9, base: "http://h/t/tok".to_owned() }
    }

    #[test]
    fn fills_strings_and_the_history() {
        let template =
            Template::parse(json!({"m": "say {{input}}!", "h": "{{history}}", "n": [1, "{{ seed }}"]}));
        let endpoint = endpoint();
        let history = [Message { role: Role::User, content: "a".to_owned() }];
        let turn = Turn { input: "\"}{{seed}}", number: 1, history: &history, endpoint: &endpoint };
        let filled = template.expect("a template").fill(&turn);
        assert_eq!(
            filled,
            json!({"m": "say \"}{{seed}}!", "h": [{"role": "user", "content": "a"}], "n": [1, "9"]})
        );
    }

    #[test]
    fn a_string_is_parsed_as_json() {
        assert_eq!(Template::parse(json!("{\"a\": 1}")), Ok(Template(json!({"a": 1}))));
        assert!(Template::parse(json!("{a")).is_err());
        assert!(check("{{inptu}}").is_err_and(|text| text.contains("{{input}}")));
        assert!(check("{{input").is_err());
    }
}
