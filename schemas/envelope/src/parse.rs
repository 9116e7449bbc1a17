//! Reading an envelope: every wrong key is named with its line, what was found, what was expected and what to do.

use std::cell::RefCell;
use std::collections::BTreeMap;

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value as Json;
use toml::{Spanned, Value};

use crate::file::{EffectFile, EnvelopeFile, OutputFile, ToolFile, UndeclaredFile};
use crate::rules::{self, Place};
use crate::{ArgsSchema, Envelope, NotChecked, OutputRules, Tool, Undeclared};
use schemas::canonical::canonical;
use schemas::exchange::Effect;

/// An envelope that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not TOML, or a key that no envelope has, or a value of another type.
    #[error("line {line}: {message}; correct it there")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What was found and expected.
        message: String,
    },
    /// A value that makes no sense there.
    #[error("line {line}: `{key}` is {found}, expected {expected}")]
    BadValue {
        /// The line, from 1.
        line: usize,
        /// The key with its path.
        key: String,
        /// What was found.
        found: String,
        /// What is allowed, and what to do.
        expected: String,
    },
}

/// The text and the files that it names.
pub(super) struct Reading<'a> {
    text: &'a str,
    schema_file: &'a dyn Fn(&str) -> Result<String, String>,
    /// Schemas that came from files, by path: part of what the digest names.
    read: RefCell<BTreeMap<String, Json>>,
}

impl Envelope {
    /// Reads an envelope. `schema_file` gives the text of a file that the envelope names, or says why it cannot be read.
    ///
    /// # Errors
    /// Names the line, the key, what was found and what was expected.
    pub fn parse(
        text: &str,
        schema_file: &dyn Fn(&str) -> Result<String, String>,
    ) -> Result<Self, EnvelopeError> {
        let reading = Reading { text, schema_file, read: RefCell::default() };
        let file: EnvelopeFile = toml::from_str(text).map_err(|error| reading.syntax(&error))?;
        let whole: toml::Table = toml::from_str(text).map_err(|error| reading.syntax(&error))?;
        if *file.envelope.get_ref() != 1 {
            let found = file.envelope.get_ref().to_string();
            let expected = "1, the version that this build reads; use a build that reads this one";
            return Err(reading.bad(file.envelope.span().start, "envelope", found, expected));
        }
        let undeclared_tool = undeclared(file.defaults.undeclared_tool);
        let max_calls =
            reading.count(file.defaults.max_calls_per_session, "defaults.max_calls_per_session")?;
        let mut not_checked = Vec::new();
        let fixed = [
            (file.identity, "identity", false),
            (file.data, "data", true),
            (file.breaker, "breaker", false),
            (file.classify, "classify", false),
        ];
        for (key, name, restricts) in fixed {
            reading.not_checked(key, name.to_owned(), restricts, &mut not_checked);
        }
        let declared: Vec<&str> = file.tool.iter().map(|tool| tool.name.get_ref().as_str()).collect();
        let sets = rules::sets(&reading, &file.session, &declared, undeclared_tool)?;
        let mut tools = BTreeMap::new();
        for tool in file.tool {
            let (name, at) = (tool.name.get_ref().clone(), tool.name.span().start);
            let default = undeclared(file.defaults.undeclared_argument);
            let tool = reading.tool(tool, default, &sets, &mut not_checked)?;
            if tools.insert(name.clone(), tool).is_some() {
                let expected = "every tool declared once; merge the two";
                return Err(reading.bad(at, "tool.name", format!("{name:?} again"), expected));
            }
        }
        let output = match file.output {
            Some(output) => reading.output(output, &mut not_checked)?,
            None => OutputRules::default(),
        };
        not_checked.sort_by(|a, b| (a.line, &a.key).cmp(&(b.line, &b.key)));
        let digest = reading.digest(&whole);
        let (agent, version) = (file.agent, file.version);
        Ok(Self { agent, version, digest, undeclared_tool, max_calls, tools, sets, output, not_checked })
    }
}

impl Reading<'_> {
    fn syntax(&self, error: &toml::de::Error) -> EnvelopeError {
        let line = error.span().map_or(1, |span| self.line(span.start));
        let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        EnvelopeError::Syntax { line, message }
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    pub(super) fn bad(
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

    fn count(&self, value: Option<Spanned<i64>>, key: &str) -> Result<Option<u64>, EnvelopeError> {
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

    fn not_checked(
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

    fn tool(
        &self,
        tool: ToolFile,
        default: Undeclared,
        sets: &BTreeMap<String, Vec<super::Source>>,
        not_checked: &mut Vec<NotChecked>,
    ) -> Result<Tool, EnvelopeError> {
        let (name, at) = (tool.name.get_ref().clone(), tool.name.span().start);
        if name.is_empty() {
            return Err(self.bad(at, "tool.name", "empty", "the tool's name as it is on the wire"));
        }
        let undeclared_argument = tool.undeclared_argument.map_or(default, |value| undeclared(Some(value)));
        let args = match tool.args_schema {
            Some(value) => Some(self.args_schema(&name, &value, undeclared_argument)?),
            None if undeclared_argument == Undeclared::Deny => {
                let expected = "args_schema, since undeclared arguments are denied; give the JSON Schema of its arguments, or \
                                undeclared_argument = \"allow\" in the tool or in [defaults]";
                return Err(self.bad(at, &format!("tool {name}"), "without a schema", expected));
            }
            None => None,
        };
        let keys = [
            (tool.require, "require", true),
            (tool.approve, "approve", false),
            (tool.approval, "approval", false),
            (tool.result_schema, "result_schema", false),
        ];
        for (key, word, restricts) in keys {
            self.not_checked(key, format!("{word} of tool {name}"), restricts, not_checked);
        }
        let mut bounds: Vec<super::Bound> = Vec::with_capacity(tool.bound.len());
        for bound in tool.bound {
            let place = Place { reading: self, at: bound.span().start, tool: &name };
            let bound = rules::bound(&place, bound.into_inner(), sets)?;
            if bounds.iter().any(|other| other.id == bound.id) {
                return Err(place.bad(
                    "id",
                    format!("{:?} again", bound.id),
                    "an id of its own for every bound",
                ));
            }
            bounds.push(bound);
        }
        let effect = match tool.effect {
            Some(EffectFile::Read) => Effect::Read,
            Some(EffectFile::Write) => Effect::Write,
            None => Effect::Unknown,
        };
        Ok(Tool { effect, reversible: tool.reversible, args, bounds })
    }

    fn args_schema(
        &self,
        tool: &str,
        value: &Spanned<Value>,
        undeclared: Undeclared,
    ) -> Result<ArgsSchema, EnvelopeError> {
        let key = format!("args_schema of tool {tool}");
        let schema = self.schema(&key, value)?;
        let mut strict = schema.clone();
        if undeclared == Undeclared::Deny {
            close(&mut strict);
        }
        let validator = self.validator(&key, value.span().start, &strict)?;
        Ok(ArgsSchema { schema, validator })
    }

    fn output(
        &self,
        output: OutputFile,
        not_checked: &mut Vec<NotChecked>,
    ) -> Result<OutputRules, EnvelopeError> {
        self.not_checked(output.forbid_detectors, "output.forbid_detectors".to_owned(), true, not_checked);
        let validator = match &output.schema {
            Some(value) => {
                let schema = self.schema("output.schema", value)?;
                Some(self.validator("output.schema", value.span().start, &schema)?)
            }
            None => None,
        };
        Ok(OutputRules { validator, max_bytes: self.count(output.max_bytes, "output.max_bytes")? })
    }

    /// A schema written as a table, as JSON in a text, or in a file that the text names.
    fn schema(&self, key: &str, value: &Spanned<Value>) -> Result<Json, EnvelopeError> {
        const EXPECTED: &str =
            "a JSON Schema: a table, JSON in a text, or the path of a file beside the envelope";
        let at = value.span().start;
        let parsed = |text: &str, what: &str| {
            let json = serde_json::from_str(text);
            json.map_err(|error| self.bad(at, key, format!("{what}, which is no JSON ({error})"), EXPECTED))
        };
        match value.get_ref() {
            Value::Table(_) => serde_json::to_value(value.get_ref())
                .map_err(|error| self.bad(at, key, error.to_string(), EXPECTED)),
            Value::String(text) if text.trim_start().starts_with('{') => parsed(text, "a text"),
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

    fn validator(&self, key: &str, at: usize, schema: &Json) -> Result<Validator, EnvelopeError> {
        // The linear engine: a pattern of a schema meets text that an attacker writes.
        let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
        options.build(schema).map_err(|error| {
            let expected =
                "a JSON Schema without look-around in patterns and without references to other files";
            self.bad(at, key, format!("no JSON Schema that can be used ({error})"), expected)
        })
    }

    fn digest(&self, whole: &toml::Table) -> String {
        let whole = serde_json::to_value(whole).unwrap_or(Json::Null);
        let files = serde_json::to_value(&*self.read.borrow()).unwrap_or(Json::Null);
        let text = canonical(&serde_json::json!({"envelope": whole, "files": files}));
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }
}

fn undeclared(value: Option<UndeclaredFile>) -> Undeclared {
    match value {
        None | Some(UndeclaredFile::Deny) => Undeclared::Deny,
        Some(UndeclaredFile::Allow) => Undeclared::Allow,
    }
}

/// Lets a schema of an object refuse what it does not name, unless it says itself what becomes of it.
fn close(schema: &mut Json) {
    let draft = Draft::default().detect(schema);
    let Some(map) = schema.as_object_mut() else { return };
    if map.contains_key("additionalProperties") || map.contains_key("unevaluatedProperties") {
        return;
    }
    let word = match draft {
        Draft::Draft4 | Draft::Draft6 | Draft::Draft7 => "additionalProperties",
        _ => "unevaluatedProperties",
    };
    map.insert(word.to_owned(), Json::Bool(false));
}
