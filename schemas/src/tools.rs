//! The catalog of an agent's tools: schemas and declared effects.
//!
//! The owner declares effects. An MCP hint (`readOnlyHint`) comes from the tool server and is untrusted, so it never makes a
//! tool `read`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::exchange::Effect;

/// A tool and its declared effect.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tool {
    /// Effect of a call.
    pub effect: Effect,
    /// Whether the effect can be undone; absent if undeclared.
    pub reversible: Option<bool>,
    /// Whether a repeated call changes nothing more; absent if undeclared.
    pub idempotent: Option<bool>,
    /// JSON Schema of the arguments.
    pub args_schema: Option<Value>,
    /// JSON Schema of the result.
    pub result_schema: Option<Value>,
}

/// The tools of an agent, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolCatalog(pub BTreeMap<String, Tool>);

/// A tool list that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolsError {
    /// Not JSON, or not a tool list.
    #[error("{0}; expected a JSON array of tools, or an object with a `tools` array")]
    NotAList(String),
    /// An entry without a name.
    #[error("entry {index} has no `name` and no `function.name`")]
    NoName {
        /// Index in the list, from 0.
        index: usize,
    },
    /// An unknown effect.
    #[error("tool {tool}: effect is {found:?}, expected \"read\" or \"write\"")]
    BadEffect {
        /// Name of the tool.
        tool: String,
        /// The value found.
        found: String,
    },
    /// Two entries with one name.
    #[error("tool {tool} is listed twice")]
    Twice {
        /// Name of the tool.
        tool: String,
    },
}

impl ToolCatalog {
    /// Parses a tool list of a provider or a tool server: an array of OpenAI tools
    /// (`{"type":"function","function":{name,parameters}}`), of plain functions (`{name,parameters}`) or of MCP tools
    /// (`{name,inputSchema,outputSchema}`), or an object with such an array under `tools`.
    ///
    /// The owner may add to each entry `"effect": "read"|"write"`, `"reversible"` and
    /// `"idempotent"`.
    ///
    /// # Errors
    /// The error names the entry and the field.
    pub fn parse_json(text: &str) -> Result<Self, ToolsError> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| ToolsError::NotAList(error.to_string()))?;
        let list = value.as_array().or_else(|| value.get("tools").and_then(Value::as_array));
        let list = list.ok_or_else(|| ToolsError::NotAList("no tool list found".to_owned()))?;
        let mut tools = BTreeMap::new();
        for (index, entry) in list.iter().enumerate() {
            let (name, tool) = parse_entry(index, entry)?;
            if tools.insert(name.clone(), tool).is_some() {
                return Err(ToolsError::Twice { tool: name });
            }
        }
        Ok(Self(tools))
    }

    /// The declared tool with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Tool> {
        self.0.get(name)
    }

    /// Effect of the tool; `unknown` if it is not declared.
    #[must_use]
    pub fn effect(&self, name: &str) -> Effect {
        self.find(name).map_or(Effect::Unknown, |tool| tool.effect)
    }
}

fn parse_entry(index: usize, entry: &Value) -> Result<(String, Tool), ToolsError> {
    let function = entry.get("function").unwrap_or(entry);
    let name = function.get("name").and_then(Value::as_str).ok_or(ToolsError::NoName { index })?.to_owned();
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
    fn openai_and_mcp_lists_are_parsed() {
        let openai =
            r#"[{"type":"function","effect":"read","function":{"name":"a","parameters":{"type":"object"}}}]"#;
        let tools = ToolCatalog::parse_json(openai).expect("an OpenAI list");
        assert_eq!(tools.effect("a"), Effect::Read);
        assert!(tools.find("a").is_some_and(|tool| tool.args_schema.is_some()));
        let mcp = r#"{"tools":[{"name":"b","inputSchema":{},"annotations":{"readOnlyHint":true}}]}"#;
        assert_eq!(ToolCatalog::parse_json(mcp).expect("an MCP list").effect("b"), Effect::Unknown);
    }

    #[test]
    fn an_error_names_entry_and_value() {
        assert_eq!(ToolCatalog::parse_json("[{}]"), Err(ToolsError::NoName { index: 0 }));
        let error = ToolCatalog::parse_json(r#"[{"name":"a","effect":"reed"}]"#).expect_err("a typo");
        assert!(error.to_string().contains("reed"));
    }
}
