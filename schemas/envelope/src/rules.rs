//! Parses the rules of an envelope: bounds of tools, and sources of session sets.

use std::collections::{BTreeMap, BTreeSet};

use regex::{Regex, RegexBuilder};
use schemas::canonical::canonical;
use toml::{Spanned, Value};

use crate::decimal::Decimal;
use crate::document::Document;
use crate::error::EnvelopeError;
use crate::file::{BoundFile, ModeFile, SetFile, SourceFile};
use crate::pointer::Pointer;
use crate::policy::{AllowedValues, Bound, Condition, DefaultAction, SetSource, Window};

/// Prefix of a session set in a list of allowed values.
const SESSION_PREFIX: &str = "session.";

/// Largest compiled pattern, bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// Location of a bound in the file, for error messages.
pub(super) struct BoundContext<'a> {
    pub(super) document: &'a Document<'a>,
    pub(super) at: usize,
    pub(super) tool: &'a str,
}

impl BoundContext<'_> {
    pub(super) fn bad(&self, key: &str, found: impl Into<String>, expected: &str) -> EnvelopeError {
        self.document.bad(self.at, &format!("bound.{key} of tool {}", self.tool), found, expected)
    }

    fn pointer(&self, key: &str, text: &str) -> Result<Pointer, EnvelopeError> {
        let expected = "a JSON pointer that begins with `/`, such as \"/order_id\" or \"/to/*\"";
        Pointer::parse(text).ok_or_else(|| self.bad(key, format!("{text:?}"), expected))
    }

    fn number(&self, key: &str, value: &Value) -> Result<Decimal, EnvelopeError> {
        let text = match value {
            Value::Integer(number) => Some(number.to_string()),
            Value::Float(number) => Some(number.to_string()),
            Value::String(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
                None
            }
        };
        let number = text.and_then(|text| Decimal::parse(&text));
        number.ok_or_else(|| self.bad(key, shown(value), "a number whose absolute value is below 10^24"))
    }
}

fn shown(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| value.type_str().to_owned())
}

/// Parses a bound, which has exactly one condition.
pub(super) fn bound(
    place: &BoundContext<'_>,
    file: BoundFile,
    sets: &BTreeMap<String, Vec<SetSource>>,
) -> Result<Bound, EnvelopeError> {
    if file.id.is_empty() {
        return Err(place.bad("id", "empty", "an id, which violations name"));
    }
    let id = file.id.clone();
    let given = [
        ("in", file.within.is_some()),
        ("sum", file.sum.is_some()),
        ("unique", file.unique.is_some()),
        ("min or max", file.sum.is_none() && (file.min.is_some() || file.max.is_some())),
    ];
    let given: Vec<&str> = given.iter().filter(|(_, is_given)| *is_given).map(|(name, _)| *name).collect();
    let [kind] = given[..] else {
        let found = if given.is_empty() { "without a condition".to_owned() } else { given.join(" and ") };
        let expected = "exactly one of `in`, `min`/`max`, `sum`, `unique`; write one bound for each";
        return Err(place.bad(&id, found, expected));
    };
    let needs = |key: &str, why: &str| place.bad(&format!("{id}.{key}"), "missing", why);
    let refuse = |key: &str, is_given: bool| {
        let expected = format!("no such key with `{kind}`; remove it");
        if is_given { Err(place.bad(&format!("{id}.{key}"), "given", &expected)) } else { Ok(()) }
    };
    let (optional, enforced) = (file.optional, file.mode != Some(ModeFile::Observe));
    let condition = match kind {
        "unique" => {
            refuse("arg", file.arg.is_some())?;
            let list = file.unique.unwrap_or_default();
            if list.is_empty() {
                return Err(place.bad(&format!("{id}.unique"), "empty", "a list of JSON pointers"));
            }
            let args = list.iter().map(|text| place.pointer(&format!("{id}.unique"), text));
            Condition::Unique { args: args.collect::<Result<_, _>>()?, window: window(place, &id, file.per)? }
        }
        "sum" => {
            refuse("arg", file.arg.is_some())?;
            refuse("min", file.min.is_some())?;
            let max = file.max.ok_or_else(|| needs("max", "the maximum of the sum"))?;
            let arg = place.pointer(&format!("{id}.sum"), &file.sum.unwrap_or_default())?;
            let max = place.number(&format!("{id}.max"), &max)?;
            Condition::Sum { arg, max, window: window(place, &id, file.per)? }
        }
        _ => {
            refuse("per", file.per.is_some())?;
            let arg = file
                .arg
                .ok_or_else(|| needs("arg", "a JSON pointer into the arguments, such as \"/order_id\""))?;
            let arg = place.pointer(&format!("{id}.arg"), &arg)?;
            match file.within {
                Some(value) => Condition::In { arg, allowed: allowed(place, &id, &value, sets)? },
                None => {
                    let min = file.min.map(|value| place.number(&format!("{id}.min"), &value)).transpose()?;
                    let max = file.max.map(|value| place.number(&format!("{id}.max"), &value)).transpose()?;
                    Condition::Range { arg, min, max }
                }
            }
        }
    };
    Ok(Bound { id, condition, optional, enforced })
}

fn allowed(
    place: &BoundContext<'_>,
    id: &str,
    value: &Value,
    sets: &BTreeMap<String, Vec<SetSource>>,
) -> Result<AllowedValues, EnvelopeError> {
    let key = format!("{id}.in");
    let expected = "a list of strings, numbers and booleans, or \"session.NAME\"";
    let items: Vec<&Value> = match value {
        Value::String(text) if text.starts_with(SESSION_PREFIX) => vec![value],
        Value::Array(items) if !items.is_empty() => items.iter().collect(),
        other => return Err(place.bad(&key, shown(other), expected)),
    };
    let mut allowed = AllowedValues { values: BTreeSet::new(), sets: Vec::new() };
    for item in items {
        match item {
            Value::String(text) if text.starts_with(SESSION_PREFIX) => {
                let name = text.trim_start_matches(SESSION_PREFIX);
                if !sets.contains_key(name) {
                    let known: Vec<&str> = sets.keys().map(String::as_str).collect();
                    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                    let expected = format!(
                        "a declared set (declared: {known}); add [session.{name}] with `from`, the source of its values"
                    );
                    return Err(place.bad(&key, format!("{text:?}"), &expected));
                }
                allowed.sets.push(name.to_owned());
            }
            Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {
                let json = serde_json::to_value(item).unwrap_or_default();
                allowed.values.insert(canonical(&json));
            }
            Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
                return Err(place.bad(&key, shown(item), expected));
            }
        }
    }
    Ok(allowed)
}

fn window(place: &BoundContext<'_>, id: &str, per: Option<String>) -> Result<Window, EnvelopeError> {
    let Some(text) = per else { return Ok(Window::Session) };
    if text == "session" {
        return Ok(Window::Session);
    }
    let unit = |suffix: char| match suffix {
        's' => Some(1_000_000_i64),
        'm' => Some(60_000_000),
        'h' => Some(3_600_000_000),
        'd' => Some(86_400_000_000),
        _ => None,
    };
    let micros = text.char_indices().next_back().and_then(|(last, suffix)| {
        let count: u32 = text[..last].parse().ok().filter(|count| *count > 0)?;
        unit(suffix)?.checked_mul(i64::from(count))
    });
    let expected = "\"session\", or a time such as \"90s\", \"10m\", \"24h\" or \"7d\"";
    micros.map(Window::Rolling).ok_or_else(|| place.bad(&format!("{id}.per"), format!("{text:?}"), expected))
}

/// Parses the session sets.
pub(super) fn sets(
    document: &Document<'_>,
    files: &BTreeMap<String, Spanned<SetFile>>,
    declared: &[&str],
    undeclared_tool: DefaultAction,
) -> Result<BTreeMap<String, Vec<SetSource>>, EnvelopeError> {
    let mut sets = BTreeMap::new();
    for (name, file) in files {
        let key = format!("session.{name}.from");
        let list = &file.get_ref().from;
        if list.is_empty() {
            let expected = "at least one source, such as { tool = \"find_order\", arg = \"/order_id\" }";
            return Err(document.bad(file.span().start, &key, "empty", expected));
        }
        let mut sources = Vec::with_capacity(list.len());
        for source in list {
            let at = source.span().start;
            let source = self::source(document, at, &key, source.get_ref())?;
            match tool_of(&source) {
                Some(tool) if undeclared_tool == DefaultAction::Deny && !declared.contains(&tool) => {
                    let expected = "a tool that a [[tool]] of this envelope declares";
                    return Err(document.bad(at, &key, format!("tool {tool:?}"), expected));
                }
                Some(_) | None => sources.push(source),
            }
        }
        sets.insert(name.clone(), sources);
    }
    Ok(sets)
}

fn tool_of(source: &SetSource) -> Option<&str> {
    match source {
        SetSource::Argument { tool, .. }
        | SetSource::Result { tool, .. }
        | SetSource::ResultText { tool, .. } => Some(tool),
        SetSource::Turn { .. } => None,
    }
}

fn source(
    document: &Document<'_>,
    at: usize,
    key: &str,
    file: &SourceFile,
) -> Result<SetSource, EnvelopeError> {
    let pointer = |text: &str| {
        let expected = "a JSON pointer that begins with `/`";
        Pointer::parse(text).ok_or_else(|| document.bad(at, key, format!("{text:?}"), expected))
    };
    let regex = |text: &str| {
        pattern(text).map_err(|why| document.bad(at, key, why, "a regular expression without look-around"))
    };
    match (&file.tool, &file.arg, &file.result, &file.result_pattern, &file.turn) {
        (Some(tool), Some(arg), None, None, None) => {
            Ok(SetSource::Argument { tool: tool.clone(), arg: pointer(arg)? })
        }
        (Some(tool), None, Some(result), None, None) => {
            Ok(SetSource::Result { tool: tool.clone(), result: pointer(result)? })
        }
        (Some(tool), None, None, Some(text), None) => {
            Ok(SetSource::ResultText { tool: tool.clone(), pattern: regex(text)? })
        }
        (None, None, None, None, Some(text)) => Ok(SetSource::Turn { pattern: regex(text)? }),
        _ => {
            let expected = "{ tool, arg }, { tool, result }, { tool, result-pattern } or { turn }";
            Err(document.bad(at, key, "another combination of keys", expected))
        }
    }
}

fn pattern(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).size_limit(MAX_PATTERN_BYTES).build();
    built.map_err(|error| {
        format!("{text:?} ({})", error.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
    })
}
