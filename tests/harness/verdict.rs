//! Validates written verdicts against the published JSON Schema.

use std::path::Path;

use serde_json::Value;

/// The published schema.
const SCHEMA: &str = include_str!("../../schemas/verdict.schema.json");

/// Reads `verdict.json` of a folder. It must be valid and must have no undeclared property.
///
/// # Panics
/// The file is missing, is not JSON, or does not conform.
pub fn read(folder: &Path) -> Value {
    let path = folder.join("verdict.json");
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let verdict: Value = serde_json::from_slice(&text).expect("verdict.json is JSON");
    assert_conforms(&verdict);
    verdict
}

/// Validates a verdict.
///
/// # Panics
/// The verdict does not conform, or has an undeclared property.
pub fn assert_conforms(verdict: &Value) {
    let mut schema: Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    close(&mut schema);
    let validator = jsonschema::validator_for(&schema).expect("the schema is a schema");
    let errors: Vec<String> =
        validator.iter_errors(verdict).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "the verdict does not conform to schemas/verdict.schema.json: {errors:#?}");
}

/// The published schema is open, because readers ignore unknown fields. A writer must declare every field, so this copy is
/// closed.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.contains_key("properties") {
                object.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            object.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
