//! The check of one call, and of one answer, against an envelope: pure, and every violation is told, not the first.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

use crate::{
    ARGS_SCHEMA, Allowed, Bound, Condition, Decimal, Envelope, MAX_CALLS, OUTPUT_MAX_BYTES, OUTPUT_SCHEMA,
    Pointer, Session, Tool, UNDECLARED_ARGUMENT, UNDECLARED_TOOL, Undeclared,
};
use schemas::canonical::canonical;

/// Violations of one schema that are told.
const MAX_SCHEMA_VIOLATIONS: usize = 8;

/// Characters of an observed value that are told.
const MAX_OBSERVED: usize = 120;

/// A call as the agent wants it made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call<'a> {
    /// The tool's name.
    pub tool: &'a str,
    /// Its arguments.
    pub arguments: Arguments<'a>,
    /// When it was made, UTC, microseconds since 1970.
    pub at: i64,
}

/// The arguments of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arguments<'a> {
    /// As JSON.
    Json(&'a Value),
    /// A text that is no JSON: nothing can be shown to hold of it.
    Unparseable(&'a str),
}

/// What kind of rule was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Which tools may be called.
    Tool,
    /// What they may be called with.
    Argument,
    /// How much or how often.
    Rate,
    /// What must not come again.
    Sequence,
    /// What the caller may be answered.
    Output,
}

impl Kind {
    /// The word as it is stored and printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Argument => "argument",
            Self::Rate => "rate",
            Self::Sequence => "sequence",
            Self::Output => "output",
        }
    }
}

/// One rule that a call or an answer broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule: the id of a bound, or one of the fixed ids.
    pub rule: String,
    /// Its kind.
    pub kind: Kind,
    /// Where in the arguments or the answer; empty for the whole.
    pub pointer: String,
    /// What the rule demands.
    pub expected: String,
    /// What was found, shortened.
    pub observed: String,
    /// Whether it counts; a rule in observe mode is only reported.
    pub enforced: bool,
}

impl Violation {
    /// The violation in one phrase: where, what was found, what is allowed.
    #[must_use]
    pub fn detail(&self) -> String {
        let place = if self.pointer.is_empty() { String::new() } else { format!("{} is ", self.pointer) };
        format!("{place}{}, allowed: {}", self.observed, self.expected)
    }
}

impl Envelope {
    /// Checks a call of a session; empty where it is allowed.
    ///
    /// In the order of the rules: declared, schema, bounds, number of calls. What cannot be evaluated is a violation.
    #[must_use]
    pub fn check(&self, session: &Session, call: &Call<'_>) -> Vec<Violation> {
        let mut found = Vec::new();
        match self.tools.get(call.tool) {
            Some(tool) => check_tool(tool, session, call, &mut found),
            None if self.undeclared_tool == Undeclared::Deny => found.push(violation(
                UNDECLARED_TOOL,
                Kind::Tool,
                "",
                "a tool that the envelope declares",
                format!("tool {}", short(call.tool)),
            )),
            None => {}
        }
        if let Some(most) = self.max_calls
            && session.calls() >= most
        {
            let observed = format!("call {} of the session", session.calls() + 1);
            found.push(violation(MAX_CALLS, Kind::Rate, "", &format!("at most {most} calls"), observed));
        }
        found
    }

    /// Checks what the caller is answered; empty where it is allowed.
    #[must_use]
    pub fn check_output(&self, answer: &str) -> Vec<Violation> {
        let mut found = Vec::new();
        if let Some(validator) = &self.output.validator {
            // An answer that is not JSON is a text, which a schema may well allow.
            let value = serde_json::from_str(answer).unwrap_or_else(|_| Value::String(answer.to_owned()));
            for error in validator.iter_errors(&value).take(MAX_SCHEMA_VIOLATIONS) {
                let at = error.instance_path().to_string();
                found.push(of_schema(OUTPUT_SCHEMA, Kind::Output, at, &error));
            }
        }
        if let Some(most) = self.output.max_bytes
            && answer.len() as u64 > most
        {
            let observed = format!("{} bytes", answer.len());
            found.push(violation(
                OUTPUT_MAX_BYTES,
                Kind::Output,
                "",
                &format!("at most {most} bytes"),
                observed,
            ));
        }
        found
    }
}

fn check_tool(tool: &Tool, session: &Session, call: &Call<'_>, found: &mut Vec<Violation>) {
    let arguments = match call.arguments {
        Arguments::Json(value) => value,
        Arguments::Unparseable(text) => {
            if tool.args.is_some() || !tool.bounds.is_empty() {
                let observed = format!("no JSON: {}", short(text));
                found.push(violation(ARGS_SCHEMA, Kind::Argument, "", "arguments in JSON", observed));
            }
            return;
        }
    };
    if let Some(args) = &tool.args {
        for error in args.validator.iter_errors(arguments).take(MAX_SCHEMA_VIOLATIONS) {
            schema_violation(&error, &args.schema, found);
        }
    }
    for bound in &tool.bounds {
        if let Some(broken) = check_bound(bound, session, call, arguments) {
            found.push(Violation { enforced: bound.enforced, ..broken });
        }
    }
}

/// An argument that nobody declared is told by its name.
fn schema_violation(error: &ValidationError<'_>, schema: &Value, found: &mut Vec<Violation>) {
    let at = error.instance_path().to_string();
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected }
            if at.is_empty() =>
        {
            let expected = "no argument that the tool's schema does not name";
            // A declared argument with a wrong value counts as not evaluated too; that is told as what it is.
            let declared = |name: &&String| schema.get("properties").and_then(|all| all.get(name)).is_some();
            for name in unexpected.iter().filter(|name| !declared(name)).take(MAX_SCHEMA_VIOLATIONS) {
                let observed = format!("argument {}", short(name));
                found.push(violation(UNDECLARED_ARGUMENT, Kind::Argument, "", expected, observed));
            }
        }
        _ => found.push(of_schema(ARGS_SCHEMA, Kind::Argument, at, error)),
    }
}

fn of_schema(rule: &str, kind: Kind, at: String, error: &ValidationError<'_>) -> Violation {
    let expected = format!("what the schema demands ({})", short(&error.to_string()));
    let observed = short(&canonical(error.instance()));
    Violation { pointer: at, ..violation(rule, kind, "", &expected, observed) }
}

fn check_bound(bound: &Bound, session: &Session, call: &Call<'_>, arguments: &Value) -> Option<Violation> {
    let id = bound.id.as_str();
    match &bound.condition {
        Condition::In { arg, allowed } => {
            let values = match resolve(bound, arg, arguments, Kind::Argument) {
                Ok(values) => values,
                Err(missing) => return missing,
            };
            let outside = |(_, value): &&(String, &Value)| !is_allowed(allowed, session, value);
            let (at, value) = values.iter().find(outside)?;
            Some(violation(id, Kind::Argument, at, &words(allowed), short(&canonical(value))))
        }
        Condition::Range { arg, min, max } => {
            let values = match numbers(bound, arg, arguments, Kind::Argument) {
                Ok(values) => values,
                Err(missing) => return missing,
            };
            let outside = |(_, number): &&(String, Decimal)| {
                min.is_some_and(|min| *number < min) || max.is_some_and(|max| *number > max)
            };
            let (at, number) = values.iter().find(outside)?;
            Some(violation(id, Kind::Argument, at, &range(*min, *max), number.to_string()))
        }
        Condition::Sum { arg, max, window } => {
            let values = match numbers(bound, arg, arguments, Kind::Rate) {
                Ok(values) => values,
                Err(missing) => return missing,
            };
            let expected = format!("a sum of at most {max}");
            let before = session.sum(call.tool, id, *window, call.at);
            let sum = before.and_then(|before| added(before, &values));
            match sum {
                // What takes nothing is no step over a bound that others have passed.
                Some(sum) if sum <= *max || Some(sum) == before => None,
                Some(sum) => {
                    let observed = format!("a sum of {sum}");
                    Some(violation(id, Kind::Rate, "", &format!("{expected} of {arg}"), observed))
                }
                None => Some(violation(
                    id,
                    Kind::Rate,
                    arg.as_str(),
                    &expected,
                    "too large to be summed".to_owned(),
                )),
            }
        }
        Condition::Unique { args, window } => {
            let key = match key(bound, args, arguments) {
                Ok(key) => key?,
                Err(missing) => return Some(missing),
            };
            session.has_seen(call.tool, id, &key, *window, call.at).then(|| {
                let places: Vec<&str> = args.iter().map(Pointer::as_str).collect();
                let expected = format!("{} not made before", places.join(" with "));
                violation(id, Kind::Sequence, args[0].as_str(), &expected, format!("{} again", short(&key)))
            })
        }
    }
}

/// Adds what the values take: never less than nothing, so that a negative one makes no room.
pub(super) fn added(sum: Decimal, values: &[(String, Decimal)]) -> Option<Decimal> {
    let taken = values.iter().map(|(_, number)| *number).filter(|number| !number.is_negative());
    let mut sum = sum;
    for number in taken {
        sum = sum.plus(number)?;
    }
    Some(sum)
}

/// What a uniqueness compares; nothing where an optional argument is absent.
pub(super) fn key(bound: &Bound, args: &[Pointer], arguments: &Value) -> Result<Option<String>, Violation> {
    let mut parts = Vec::with_capacity(args.len());
    for arg in args {
        match resolve(bound, arg, arguments, Kind::Sequence) {
            Ok(values) => parts.extend(values.into_iter().map(|(_, value)| canonical(value))),
            Err(Some(missing)) => return Err(missing),
            Err(None) => return Ok(None),
        }
    }
    Ok(Some(parts.join(",")))
}

/// The values at a place; `Err(None)` where an optional one is absent, `Err(Some)` where another is.
pub(super) fn resolve<'v>(
    bound: &Bound,
    arg: &Pointer,
    arguments: &'v Value,
    kind: Kind,
) -> Result<Vec<(String, &'v Value)>, Option<Violation>> {
    arg.resolve(arguments).map_err(|absent| {
        let broken = || violation(&bound.id, kind, &absent.pointer, "a value", "absent".to_owned());
        (!bound.optional).then(broken)
    })
}

/// The numbers at a place.
pub(super) fn numbers(
    bound: &Bound,
    arg: &Pointer,
    arguments: &Value,
    kind: Kind,
) -> Result<Vec<(String, Decimal)>, Option<Violation>> {
    let mut numbers = Vec::new();
    for (at, value) in resolve(bound, arg, arguments, kind)? {
        match value.as_number().and_then(Decimal::of) {
            Some(number) => numbers.push((at, number)),
            None => {
                let expected = "a number below 10^24 in size";
                return Err(Some(violation(&bound.id, kind, &at, expected, short(&canonical(value)))));
            }
        }
    }
    Ok(numbers)
}

fn is_allowed(allowed: &Allowed, session: &Session, value: &Value) -> bool {
    let value = canonical(value);
    allowed.values.contains(&value) || allowed.sets.iter().any(|name| session.holds(name, &value))
}

fn words(allowed: &Allowed) -> String {
    let mut parts = Vec::new();
    if !allowed.values.is_empty() {
        let values: Vec<&str> = allowed.values.iter().map(String::as_str).collect();
        parts.push(format!("one of {}", short(&values.join(", "))));
    }
    parts.extend(allowed.sets.iter().map(|name| format!("one of session.{name}")));
    parts.join(", or ")
}

fn range(min: Option<Decimal>, max: Option<Decimal>) -> String {
    match (min, max) {
        (Some(min), Some(max)) => format!("{min} to {max}"),
        (Some(min), None) => format!("at least {min}"),
        (None, Some(max)) => format!("at most {max}"),
        (None, None) => "a number".to_owned(),
    }
}

fn violation(rule: &str, kind: Kind, pointer: &str, expected: &str, observed: String) -> Violation {
    Violation {
        rule: rule.to_owned(),
        kind,
        pointer: pointer.to_owned(),
        expected: expected.to_owned(),
        observed,
        enforced: true,
    }
}

fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_OBSERVED).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
