//! The text of an envelope with the schema files that it names: lines for error messages, schemas, and the digest.

use std::cell::RefCell;
use std::collections::BTreeMap;

use jsonschema::{PatternOptions, Validator};
use schemas::canonical::canonical;
use serde_json::Value as Json;
use toml::{Spanned, Value};

use crate::error::EnvelopeError;
use crate::policy::NotChecked;

/// The text of an envelope and the schema files that it names.
pub(crate) struct Document<'a> {
    text: &'a str,
    schema_file: &'a dyn Fn(&str) -> Result<String, String>,
    /// Schemas read from files, by path; the digest covers them.
    read: RefCell<BTreeMap<String, Json>>,
}

impl<'a> Document<'a> {
    /// Starts with no schema file read.
    pub(crate) fn new(text: &'a str, schema_file: &'a dyn Fn(&str) -> Result<String, String>) -> Self {
        Self { text, schema_file, read: RefCell::default() }
    }

    pub(crate) fn syntax(&self, error: &toml::de::Error) -> EnvelopeError {
        let line = error.span().map_or(1, |span| self.line(span.start));
        let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        EnvelopeError::Syntax { line, message }
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    pub(crate) fn bad(
        &self,
        offset: usize,
        key: &str,
        found: impl Into<String>,
        expected: &str,
    ) -> EnvelopeError {
        EnvelopeError::BadValue {
            line: self.line(offset),
            key: key.to_owned(),
            found: found.into(),
            expected: expected.to_owned(),
        }
    }

    pub(crate) fn count(&self, value: Option<Spanned<i64>>, key: &str) -> Result<Option<u64>, EnvelopeError> {
        let Some(value) = value else { return Ok(None) };
        match u64::try_from(*value.get_ref()) {
            Ok(count) if count > 0 => Ok(Some(count)),
            Ok(_) | Err(_) => Err(self.bad(
                value.span().start,
                key,
                value.get_ref().to_string(),
                "a whole number of 1 or more; leave it out for no limit",
            )),
        }
    }

    pub(crate) fn not_checked(
        &self,
        key: Option<Spanned<Value>>,
        name: String,
        restricts: bool,
        list: &mut Vec<NotChecked>,
    ) {
        if let Some(value) = key {
            list.push(NotChecked { line: self.line(value.span().start), key: name, restricts });
        }
    }

    /// Reads a schema: a table, JSON in a string, or the path of a file.
    pub(crate) fn schema(&self, key: &str, value: &Spanned<Value>) -> Result<Json, EnvelopeError> {
        const EXPECTED: &str =
            "a JSON Schema: a table, JSON in a string, or the path of a file relative to the envelope";
        let at = value.span().start;
        let parsed = |text: &str, what: &str| {
            let json = serde_json::from_str(text);
            json.map_err(|error| self.bad(at, key, format!("{what} that is not JSON ({error})"), EXPECTED))
        };
        match value.get_ref() {
            Value::Table(_) => serde_json::to_value(value.get_ref())
                .map_err(|error| self.bad(at, key, error.to_string(), EXPECTED)),
            Value::String(text) if text.trim_start().starts_with('{') => parsed(text, "a string"),
            Value::String(path) => {
                let text = (self.schema_file)(path).map_err(|why| {
                    self.bad(at, key, format!("file {path:?}, which cannot be read ({why})"), EXPECTED)
                })?;
                let schema: Json = parsed(&text, &format!("file {path:?}"))?;
                self.read.borrow_mut().insert(path.clone(), schema.clone());
                Ok(schema)
            }
            other @ (Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_)) => Err(self.bad(at, key, format!("of type {}", other.type_str()), EXPECTED)),
        }
    }

    pub(crate) fn validator(&self, key: &str, at: usize, schema: &Json) -> Result<Validator, EnvelopeError> {
        // The linear-time engine: patterns of a schema match text that an attacker may write.
        let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
        options.build(schema).map_err(|error| {
            let expected =
                "a JSON Schema without look-around in patterns and without references to other files";
            self.bad(at, key, format!("not a usable JSON Schema ({error})"), expected)
        })
    }

    pub(crate) fn digest(&self, whole: &toml::Table) -> String {
        let whole = serde_json::to_value(whole).unwrap_or(Json::Null);
        let files = serde_json::to_value(&*self.read.borrow()).unwrap_or(Json::Null);
        let text = canonical(&serde_json::json!({"envelope": whole, "files": files}));
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }
}
