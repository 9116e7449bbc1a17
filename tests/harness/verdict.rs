//! Verdicts as they are written, held against their published JSON Schema.

use std::path::Path;

use serde_json::Value;

/// The schema as it is published.
const SCHEMA: &str = include_str!("../../schemas/verdict.schema.json");

/// Reads `verdict.json` of a folder; it must be valid, and say nothing that the schema does not declare.
///
/// # Panics
/// It is not there, is no JSON, or does not conform.
pub fn read(folder: &Path) -> Value {
    let path = folder.join("verdict.json");
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let verdict: Value = serde_json::from_slice(&text).expect("verdict.json is JSON");
    assert_conforms(&verdict);
    verdict
}

/// Holds a verdict against the schema.
///
/// # Panics
/// It does not conform, or has a property that the schema does not declare.
pub fn assert_conforms(verdict: &Value) {
    let mut schema: Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    close(&mut schema);
    let validator = jsonschema::validator_for(&schema).expect("the schema is a schema");
    let errors: Vec<String> =
        validator.iter_errors(verdict).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "the verdict does not conform to schemas/verdict.schema.json: {errors:#?}");
}

/// Readers ignore what they do not know, so the published schema is open; what is written here must all be declared.
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
