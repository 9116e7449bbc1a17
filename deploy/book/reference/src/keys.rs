//! The page of a configuration file, from its JSON Schema: every table and every key with type, default and meaning.

use serde_json::{Map, Value};

use crate::table;

/// A complete file, shown at the top of a page.
#[derive(Debug, Clone, Copy)]
pub struct Example<'a> {
    /// The name of the file.
    pub file: &'a str,
    /// Its text. Every key of the page must occur in it.
    pub text: &'a str,
}

/// Renders a page of TOML keys. `schema` is the JSON Schema of the file's type, or of its table `prefix`.
///
/// # Panics
/// A key has no description, or does not occur in the example.
#[must_use]
pub fn keys(title: &str, introduction: &str, schema: &Value, prefix: &str, example: Example<'_>) -> String {
    let mut page =
        Page { schema, style: Style::Toml, text: String::new(), names: Vec::new(), open: Vec::new() };
    if !prefix.is_empty() {
        page.text.push_str(&format!("\n## [{prefix}]\n"));
    }
    page.object(schema, prefix);
    for name in &page.names {
        assert!(example.text.contains(name.as_str()), "{}: the example lacks the key `{name}`", example.file);
    }
    format!(
        "# {title}\n\n{introduction}\n\n## Example\n\n```toml\n{}\n```\n{}",
        example.text.trim_end(),
        page.text
    )
}

/// Renders a page of JSON fields, for a file that Foreshadow writes.
///
/// # Panics
/// A field has no description.
#[must_use]
pub fn keys_of_json(title: &str, introduction: &str, schema: &Value) -> String {
    let mut page =
        Page { schema, style: Style::Json, text: String::new(), names: Vec::new(), open: Vec::new() };
    page.object(schema, "");
    format!("# {title}\n\n{introduction}\n{}", page.text)
}

/// The variants of an enum's schema with their descriptions.
///
/// # Panics
/// A variant has no description.
#[must_use]
pub fn variants(schema: &Value) -> Vec<(String, String)> {
    let listed = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array);
    let mut found = Vec::new();
    for variant in listed.into_iter().flatten() {
        let description = variant.get("description").and_then(Value::as_str).unwrap_or_default();
        let one = variant.get("const").into_iter();
        let names = variant.get("enum").and_then(Value::as_array).into_iter().flatten().chain(one);
        for name in names.filter_map(Value::as_str) {
            assert!(!description.is_empty(), "variant `{name}` has no description");
            found.push((name.to_owned(), one_line(description)));
        }
    }
    let plain = schema.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    found.extend(plain.map(|name| (name.to_owned(), String::new())));
    found
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Toml,
    Json,
}

/// An object below a key.
struct Section<'a> {
    path: String,
    schema: &'a Value,
    definition: Option<String>,
    is_list: bool,
    description: String,
}

struct Page<'a> {
    schema: &'a Value,
    style: Style,
    text: String,
    /// Names of all keys.
    names: Vec<String>,
    /// Definitions that enclose the one at hand: a type that holds itself is listed once.
    open: Vec<String>,
}

/// The text in one line, with links to Rust items as plain code.
fn one_line(text: &str) -> String {
    let text = text.replace("[`", "`").replace("`]", "`");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl<'a> Page<'a> {
    fn resolve(&self, mut schema: &'a Value) -> (&'a Value, Option<String>) {
        let mut name = None;
        for _ in 0..16 {
            if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
                name = Some(reference.to_owned());
                schema = self.schema.pointer(reference.trim_start_matches('#')).unwrap_or(schema);
                continue;
            }
            // Option<T> is anyOf [T, null].
            let listed = schema.get("anyOf").or_else(|| schema.get("allOf")).and_then(Value::as_array);
            let present: Vec<&Value> = listed
                .into_iter()
                .flatten()
                .filter(|one| one.get("type") != Some(&Value::from("null")))
                .collect();
            if let [one] = present.as_slice() {
                schema = one;
                continue;
            }
            break;
        }
        (schema, name)
    }

    /// Renders the keys of an object, then the objects below it.
    fn object(&mut self, schema: &'a Value, path: &str) {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let (mut rows, mut inner) = (Vec::new(), Vec::new());
        for (name, property) in properties {
            self.names.push(name.clone());
            let (resolved, definition) = self.resolve(property);
            let description = description(property, resolved);
            assert!(!description.is_empty(), "key `{path}.{name}` has no description");
            let is_required = required.contains(&name.as_str());
            let (kind, nested) = self.nested(name, path, resolved, definition, &description);
            if nested.is_none() || self.style == Style::Json || is_required {
                let mut row = vec![format!("`{name}`"), kind];
                if self.style == Style::Toml {
                    row.push(if is_required {
                        "required".to_owned()
                    } else {
                        default_of(property, resolved)
                    });
                }
                row.push(description);
                rows.push(row);
            }
            inner.extend(nested);
        }
        self.rows(path, &rows);
        for section in inner {
            self.section(section);
        }
    }

    /// The type of a key, and the section of its object, list of objects or map of objects.
    fn nested(
        &self,
        name: &str,
        path: &str,
        resolved: &'a Value,
        definition: Option<String>,
        description: &str,
    ) -> (String, Option<Section<'a>>) {
        let child = |suffix: &str| {
            if path.is_empty() { format!("{name}{suffix}") } else { format!("{path}.{name}{suffix}") }
        };
        let section = |path, schema, definition, is_list| {
            Some(Section { path, schema, definition, is_list, description: description.to_owned() })
        };
        if is_object(resolved) {
            return (type_text(resolved), section(child(""), resolved, definition, false));
        }
        if let Some((items, definition)) = resolved.get("items").map(|items| self.resolve(items))
            && is_object(items)
        {
            return ("list of tables".to_owned(), section(child(""), items, definition, true));
        }
        let values = resolved.get("additionalProperties").filter(|values| values.is_object());
        if let Some((values, definition)) = values.map(|values| self.resolve(values))
            && is_object(values)
        {
            return ("tables by name".to_owned(), section(child(".NAME"), values, definition, false));
        }
        (type_text(resolved), None)
    }

    fn rows(&mut self, path: &str, rows: &[Vec<String>]) {
        if rows.is_empty() {
            return;
        }
        if path.is_empty() && self.style == Style::Toml {
            self.text.push_str("\n## Keys at the top of the file\n");
        }
        let head: &[&str] = match self.style {
            Style::Toml => &["key", "type", "default", "meaning"],
            Style::Json => &["field", "type", "meaning"],
        };
        self.text.push_str(&format!("\n{}", table(head, rows)));
    }

    fn section(&mut self, section: Section<'a>) {
        let Section { path, schema, definition, is_list, description } = section;
        if definition.as_ref().is_some_and(|name| self.open.contains(name)) {
            return;
        }
        let heading = match (self.style, is_list) {
            (Style::Toml, true) => format!("[[{path}]]"),
            (Style::Toml, false) => format!("[{path}]"),
            (Style::Json, true) => format!("{path}[]"),
            (Style::Json, false) => path.clone(),
        };
        self.text.push_str(&format!("\n## {heading}\n\n{description}\n"));
        let depth = self.open.len();
        self.open.extend(definition);
        self.object(schema, &path);
        self.open.truncate(depth);
    }
}

fn default_of(property: &Value, resolved: &Value) -> String {
    property.get("default").or_else(|| resolved.get("default")).map_or_else(String::new, default_text)
}

fn is_object(schema: &Value) -> bool {
    schema.get("properties").and_then(Value::as_object).is_some_and(|properties| !properties.is_empty())
}

fn description(property: &Value, resolved: &Value) -> String {
    let own = property.get("description").or_else(|| resolved.get("description")).and_then(Value::as_str);
    let mut text = one_line(own.unwrap_or_default());
    let variants = variants(resolved);
    if !variants.is_empty() {
        let listed = variants.iter().map(|(name, meaning)| {
            if meaning.is_empty() {
                format!("`{name}`")
            } else {
                format!("`{name}` ({})", meaning.trim_end_matches('.'))
            }
        });
        text = format!("{text} One of {}.", listed.collect::<Vec<_>>().join(", "));
    }
    text
}

fn type_text(schema: &Value) -> String {
    if let Some(name) = schema.get("format").and_then(Value::as_str)
        && schema.get("type") != Some(&Value::from("integer"))
        && schema.get("type") != Some(&Value::from("number"))
    {
        return name.replace('-', " ");
    }
    if !variants(schema).is_empty() {
        return "text".to_owned();
    }
    let one = |name: &str| match name {
        "string" => "text",
        "boolean" => "true or false",
        "object" => "table",
        "integer" => "integer",
        "number" => "number",
        "array" => "list",
        "null" => "nothing",
        _ => "value",
    };
    match schema.get("type") {
        Some(Value::String(name)) if name == "array" => {
            let items = schema.get("items").map(type_text).unwrap_or_default();
            if items.is_empty() || items == "value" { "list".to_owned() } else { format!("list of {items}") }
        }
        Some(Value::String(name)) => one(name).to_owned(),
        Some(Value::Array(names)) => {
            let names = names.iter().filter_map(Value::as_str).filter(|name| *name != "null").map(one);
            names.collect::<Vec<_>>().join(" or ")
        }
        _ => "value".to_owned(),
    }
}

fn default_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Object(map) if map.is_empty() => String::new(),
        Value::Object(map) => format!("`{}`", inline(map)),
        other => format!("`{other}`"),
    }
}

fn inline(map: &Map<String, Value>) -> String {
    let pairs = map.iter().map(|(name, value)| format!("{name} = {value}"));
    format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn page() -> Value {
        json!({"properties": {
            "name": {"type": "string", "description": "A name."},
            "limits": {"$ref": "#/$defs/Limits", "description": "Bounds."},
            "route": {"type": "array", "description": "Routes.", "items": {"$ref": "#/$defs/Route"}},
        }, "required": ["name"], "$defs": {
            "Limits": {"properties": {"queue": {"type": "integer", "format": "uint", "default": 4096, "description": "Exchanges."}}},
            "Route": {"properties": {"edge": {"description": "Edge.", "oneOf": [{"const": "turn", "description": "Caller to agent."}]}}},
        }})
    }

    #[test]
    fn tables_and_keys_are_listed_with_defaults() {
        let text =
            keys("file", "A file.", &page(), "", Example { file: "f", text: "name limits queue route edge" });
        assert!(text.contains("| `name` | text | required | A name. |"), "{text}");
        assert!(
            text.contains("## [limits]") && text.contains("| `queue` | integer | `4096` | Exchanges. |"),
            "{text}"
        );
        assert!(
            text.contains("## [[route]]") && text.contains("Edge. One of `turn` (Caller to agent)."),
            "{text}"
        );
    }

    #[test]
    #[should_panic(expected = "the example lacks the key `queue`")]
    fn a_key_that_the_example_lacks_is_an_error() {
        let _ = keys("file", "A file.", &page(), "", Example { file: "f", text: "name limits route edge" });
    }
}
