//! What is known of an agent's tools: their schemas and what they do outside.
//!
//! Effects are the owner's to declare. An MCP hint (`readOnlyHint`) comes from the tool server and is untrusted, so it
//! never makes a tool `read`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::exchange::Effect;

/// One tool.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tool {
    /// What a call does outside.
    pub effect: Effect,
    /// The effect can be undone.
    pub reversible: Option<bool>,
    /// Repeating the call changes nothing more.
    pub idempotent: Option<bool>,
    /// JSON Schema of its arguments.
    pub args_schema: Option<Value>,
    /// JSON Schema of its result.
    pub result_schema: Option<Value>,
}

/// The tools of an agent by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolCatalog(pub BTreeMap<String, Tool>);

/// A tool list that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolsError {
    /// Neither JSON nor what a tool list looks like.
    #[error("{0}; expected a JSON array of tools, or an object with a `tools` array")]
    NotAList(String),
    /// An entry without a name.
    #[error("entry {place} has no `name` and no `function.name`")]
    NoName {
        /// Its place in the list, from 0.
        place: usize,
    },
    /// An effect that is none.
    #[error("tool {tool}: effect is {found:?}, expected \"read\" or \"write\"")]
    BadEffect {
        /// The tool.
        tool: String,
        /// What was found.
        found: String,
    },
    /// The same name twice.
    #[error("tool {tool} is listed twice")]
    Twice {
        /// The tool.
        tool: String,
    },
}

impl ToolCatalog {
    /// Parses a tool list as providers and tool servers write it: an array of OpenAI tools
    /// (`{"type":"function","function":{name,parameters}}`), of plain functions (`{name,parameters}`) or of MCP tools
    /// (`{name,inputSchema,outputSchema}`), or an object with such an array under `tools`.
    ///
    /// Beside each entry's own fields the owner may write `"effect": "read"|"write"`, `"reversible"` and
    /// `"idempotent"`.
    ///
    /// # Errors
    /// Names the entry and the field.
    pub fn parse_json(text: &str) -> Result<Self, ToolsError> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| ToolsError::NotAList(error.to_string()))?;
        let list = value.as_array().or_else(|| value.get("tools").and_then(Value::as_array));
        let list = list.ok_or_else(|| ToolsError::NotAList("no tool list found".to_owned()))?;
        let mut tools = BTreeMap::new();
        for (place, entry) in list.iter().enumerate() {
            let (name, tool) = parse_entry(place, entry)?;
            if tools.insert(name.clone(), tool).is_some() {
                return Err(ToolsError::Twice { tool: name });
            }
        }
        Ok(Self(tools))
    }

    /// The tool of this name, where it is declared.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Tool> {
        self.0.get(name)
    }

    /// What a call of this tool does outside; unknown where it is not declared.
    #[must_use]
    pub fn effect(&self, name: &str) -> Effect {
        self.find(name).map_or(Effect::Unknown, |tool| tool.effect)
    }
}

fn parse_entry(place: usize, entry: &Value) -> Result<(String, Tool), ToolsError> {
    let function = entry.get("function").unwrap_or(entry);
    let name = function.get("name").and_then(Value::as_str).ok_or(ToolsError::NoName { place })?.to_owned();
    let declared = |key: &str| entry.get(key).or_else(|| function.get(key));
    let effect = match declared("effect") {
        None => Effect::Unknown,
        Some(Value::String(text)) if text == "read" => Effect::Read,
        Some(Value::String(text)) if text == "write" => Effect::Write,
        Some(found) => return Err(ToolsError::BadEffect { tool: name, found: found.to_string() }),
    };
    let schema =
        |keys: [&str; 2]| keys.iter().find_map(|key| function.get(*key)).filter(|v| v.is_object()).cloned();
    let tool = Tool {
        effect,
        reversible: declared("reversible").and_then(Value::as_bool),
        idempotent: declared("idempotent").and_then(Value::as_bool),
        args_schema: schema(["parameters", "inputSchema"]),
        result_schema: schema(["outputSchema", "result_schema"]),
    };
    Ok((name, tool))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_openai_and_mcp_lists() {
        let openai =
            r#"[{"type":"function","effect":"read","function":{"name":"a","parameters":{"type":"object"}}}]"#;
        let tools = ToolCatalog::parse_json(openai).expect("an OpenAI list");
        assert_eq!(tools.effect("a"), Effect::Read);
        assert!(tools.find("a").is_some_and(|tool| tool.args_schema.is_some()));
        let mcp = r#"{"tools":[{"name":"b","inputSchema":{},"annotations":{"readOnlyHint":true}}]}"#;
        assert_eq!(ToolCatalog::parse_json(mcp).expect("an MCP list").effect("b"), Effect::Unknown);
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(ToolCatalog::parse_json("[{}]"), Err(ToolsError::NoName { place: 0 }));
        let error = ToolCatalog::parse_json(r#"[{"name":"a","effect":"reed"}]"#).expect_err("a typo");
        assert!(error.to_string().contains("reed"));
    }
}
