//! Parses an envelope. Every error names the line, the key, the value found and the value expected.

use std::collections::BTreeMap;

use jsonschema::Draft;
use schemas::exchange::Effect;
use serde_json::Value as Json;
use toml::{Spanned, Value};

use crate::document::Document;
use crate::error::EnvelopeError;
use crate::file::{EffectFile, EnvelopeFile, OutputFile, ToolFile, UndeclaredFile};
use crate::policy::{
    ArgsSchema, Bound, DefaultAction, Envelope, NotChecked, OutputRules, SetSource, ToolPolicy,
};
use crate::rules::{self, BoundContext};

impl Envelope {
    /// Parses an envelope. `schema_file` returns the text of a file that the envelope names, or the reason why it is not
    /// readable.
    ///
    /// # Errors
    /// The error names the line, the key, the value found and the value expected.
    pub fn parse(
        text: &str,
        schema_file: &dyn Fn(&str) -> Result<String, String>,
    ) -> Result<Self, EnvelopeError> {
        let document = Document::new(text, schema_file);
        let file: EnvelopeFile = toml::from_str(text).map_err(|error| document.syntax(&error))?;
        let whole: toml::Table = toml::from_str(text).map_err(|error| document.syntax(&error))?;
        if *file.envelope.get_ref() != 1 {
            let found = file.envelope.get_ref().to_string();
            let expected =
                "1, the only version that this build reads; use a build that reads the other version";
            return Err(document.bad(file.envelope.span().start, "envelope", found, expected));
        }
        let undeclared_tool = undeclared(file.defaults.undeclared_tool);
        let max_calls =
            document.count(file.defaults.max_calls_per_session, "defaults.max-calls-per-session")?;
        let mut not_checked = Vec::new();
        let fixed = [
            (file.identity, "identity", false),
            (file.data, "data", true),
            (file.breaker, "breaker", false),
            (file.classify, "classify", false),
        ];
        for (key, name, restricts) in fixed {
            document.not_checked(key, name.to_owned(), restricts, &mut not_checked);
        }
        let declared: Vec<&str> = file.tool.iter().map(|tool| tool.name.get_ref().as_str()).collect();
        let sets = rules::sets(&document, &file.session, &declared, undeclared_tool)?;
        let mut tools = BTreeMap::new();
        for tool in file.tool {
            let (name, at) = (tool.name.get_ref().clone(), tool.name.span().start);
            let default = undeclared(file.defaults.undeclared_argument);
            let tool = self::tool(&document, tool, default, &sets, &mut not_checked)?;
            if tools.insert(name.clone(), tool).is_some() {
                let expected = "every tool declared once; merge the two";
                return Err(document.bad(at, "tool.name", format!("{name:?} again"), expected));
            }
        }
        let output = match file.output {
            Some(file) => output(&document, file, &mut not_checked)?,
            None => OutputRules::default(),
        };
        not_checked.sort_by(|a, b| (a.line, &a.key).cmp(&(b.line, &b.key)));
        let digest = document.digest(&whole);
        let (agent, version) = (file.agent, file.version);
        Ok(Self { agent, version, digest, undeclared_tool, max_calls, tools, sets, output, not_checked })
    }
}

fn tool(
    document: &Document<'_>,
    tool: ToolFile,
    default: DefaultAction,
    sets: &BTreeMap<String, Vec<SetSource>>,
    not_checked: &mut Vec<NotChecked>,
) -> Result<ToolPolicy, EnvelopeError> {
    let (name, at) = (tool.name.get_ref().clone(), tool.name.span().start);
    if name.is_empty() {
        return Err(document.bad(at, "tool.name", "empty", "the name of the tool on the wire"));
    }
    let undeclared_argument = tool.undeclared_argument.map_or(default, |value| undeclared(Some(value)));
    let args = match tool.args_schema {
        Some(value) => Some(args_schema(document, &name, &value, undeclared_argument)?),
        None if undeclared_argument == DefaultAction::Deny => {
            let expected = "args-schema, because undeclared arguments are denied; give the JSON Schema of its arguments, or \
                            undeclared-argument = \"allow\" in the tool or in [defaults]";
            return Err(document.bad(at, &format!("tool {name}"), "without a schema", expected));
        }
        None => None,
    };
    let keys = [
        (tool.require, "require", true),
        (tool.approve, "approve", false),
        (tool.approval, "approval", false),
        (tool.result_schema, "result-schema", false),
    ];
    for (key, word, restricts) in keys {
        document.not_checked(key, format!("{word} of tool {name}"), restricts, not_checked);
    }
    let mut bounds: Vec<Bound> = Vec::with_capacity(tool.bound.len());
    for bound in tool.bound {
        let place = BoundContext { document, at: bound.span().start, tool: &name };
        let bound = rules::bound(&place, bound.into_inner(), sets)?;
        if bounds.iter().any(|other| other.id == bound.id) {
            return Err(place.bad("id", format!("{:?} again", bound.id), "an id of its own for every bound"));
        }
        bounds.push(bound);
    }
    let effect = match tool.effect {
        Some(EffectFile::Read) => Effect::Read,
        Some(EffectFile::Write) => Effect::Write,
        None => Effect::Unknown,
    };
    Ok(ToolPolicy { effect, reversible: tool.reversible, args, bounds })
}

fn args_schema(
    document: &Document<'_>,
    tool: &str,
    value: &Spanned<Value>,
    undeclared: DefaultAction,
) -> Result<ArgsSchema, EnvelopeError> {
    let key = format!("args-schema of tool {tool}");
    let schema = document.schema(&key, value)?;
    let mut strict = schema.clone();
    if undeclared == DefaultAction::Deny {
        close(&mut strict);
    }
    let validator = document.validator(&key, value.span().start, &strict)?;
    Ok(ArgsSchema { schema, validator })
}

fn output(
    document: &Document<'_>,
    output: OutputFile,
    not_checked: &mut Vec<NotChecked>,
) -> Result<OutputRules, EnvelopeError> {
    document.not_checked(output.forbid_detectors, "output.forbid-detectors".to_owned(), true, not_checked);
    let validator = match &output.schema {
        Some(value) => {
            let schema = document.schema("output.schema", value)?;
            Some(document.validator("output.schema", value.span().start, &schema)?)
        }
        None => None,
    };
    Ok(OutputRules { validator, max_bytes: document.count(output.max_bytes, "output.max-bytes")? })
}

fn undeclared(value: Option<UndeclaredFile>) -> DefaultAction {
    match value {
        None | Some(UndeclaredFile::Deny) => DefaultAction::Deny,
        Some(UndeclaredFile::Allow) => DefaultAction::Allow,
    }
}

/// Makes an object schema refuse undeclared properties, unless the schema decides that itself.
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
