//! The check of one call, or of one answer, against an envelope. It reports every violation, not only the first.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use schemas::canonical::canonical;
use serde_json::Value;

use crate::call::{Arguments, Call, Violation, ViolationKind, short, violation};
use crate::decimal::Decimal;
use crate::pointer::Pointer;
use crate::policy::{AllowedValues, Bound, Condition, DefaultAction, Envelope, ToolPolicy};
use crate::rule_id::{
    ARGS_SCHEMA, MAX_CALLS, OUTPUT_MAX_BYTES, OUTPUT_SCHEMA, UNDECLARED_ARGUMENT, UNDECLARED_TOOL,
};
use crate::session::SessionState;
use crate::values::{added, key, numbers, resolve};

/// Reported violations of one schema.
const MAX_SCHEMA_VIOLATIONS: usize = 8;

impl Envelope {
    /// Checks a call of a session; returns no violation for an allowed call.
    ///
    /// Order: declared tool, schema, bounds, number of calls. A rule that cannot be evaluated is violated.
    #[must_use]
    pub fn check(&self, session: &SessionState, call: &Call<'_>) -> Vec<Violation> {
        let mut found = Vec::new();
        match self.tools.get(call.tool) {
            Some(tool) => check_tool(tool, session, call, &mut found),
            None if self.undeclared_tool == DefaultAction::Deny => found.push(violation(
                UNDECLARED_TOOL,
                ViolationKind::Tool,
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
            found.push(violation(
                MAX_CALLS,
                ViolationKind::Rate,
                "",
                &format!("at most {most} calls"),
                observed,
            ));
        }
        found
    }

    /// Checks an answer to the caller; returns no violation for an allowed answer.
    #[must_use]
    pub fn check_output(&self, answer: &str) -> Vec<Violation> {
        let mut found = Vec::new();
        if let Some(validator) = &self.output.validator {
            // The schema checks an answer that is not JSON as a JSON string.
            let value = serde_json::from_str(answer).unwrap_or_else(|_| Value::String(answer.to_owned()));
            for error in validator.iter_errors(&value).take(MAX_SCHEMA_VIOLATIONS) {
                let at = error.instance_path().to_string();
                found.push(of_schema(OUTPUT_SCHEMA, ViolationKind::Output, at, &error));
            }
        }
        if let Some(most) = self.output.max_bytes
            && answer.len() as u64 > most
        {
            let observed = format!("{} bytes", answer.len());
            found.push(violation(
                OUTPUT_MAX_BYTES,
                ViolationKind::Output,
                "",
                &format!("at most {most} bytes"),
                observed,
            ));
        }
        found
    }
}

fn check_tool(tool: &ToolPolicy, session: &SessionState, call: &Call<'_>, found: &mut Vec<Violation>) {
    let arguments = match call.arguments {
        Arguments::Json(value) => value,
        Arguments::Unparseable(text) => {
            if tool.args.is_some() || !tool.bounds.is_empty() {
                let observed = format!("not JSON: {}", short(text));
                found.push(violation(
                    ARGS_SCHEMA,
                    ViolationKind::Argument,
                    "",
                    "arguments in JSON",
                    observed,
                ));
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

/// Reports an undeclared argument by its name, other errors as the validator does.
fn schema_violation(error: &ValidationError<'_>, schema: &Value, found: &mut Vec<Violation>) {
    let at = error.instance_path().to_string();
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected }
            if at.is_empty() =>
        {
            let expected = "no argument that the tool's schema does not name";
            // The validator also lists a declared argument with a wrong value as unevaluated; its own error reports it.
            let declared = |name: &&String| schema.get("properties").and_then(|all| all.get(name)).is_some();
            for name in unexpected.iter().filter(|name| !declared(name)).take(MAX_SCHEMA_VIOLATIONS) {
                let observed = format!("argument {}", short(name));
                found.push(violation(UNDECLARED_ARGUMENT, ViolationKind::Argument, "", expected, observed));
            }
        }
        _ => found.push(of_schema(ARGS_SCHEMA, ViolationKind::Argument, at, error)),
    }
}

fn of_schema(rule: &str, kind: ViolationKind, at: String, error: &ValidationError<'_>) -> Violation {
    let expected = format!("a value that the schema allows ({})", short(&error.to_string()));
    let observed = short(&canonical(error.instance()));
    Violation { pointer: at, ..violation(rule, kind, "", &expected, observed) }
}

fn check_bound(
    bound: &Bound,
    session: &SessionState,
    call: &Call<'_>,
    arguments: &Value,
) -> Option<Violation> {
    let id = bound.id.as_str();
    match &bound.condition {
        Condition::In { arg, allowed } => {
            let values = match resolve(bound, arg, arguments, ViolationKind::Argument) {
                Ok(values) => values,
                Err(missing) => return missing,
            };
            let outside = |(_, value): &&(String, &Value)| !is_allowed(allowed, session, value);
            let (at, value) = values.iter().find(outside)?;
            Some(violation(id, ViolationKind::Argument, at, &words(allowed), short(&canonical(value))))
        }
        Condition::Range { arg, min, max } => {
            let values = match numbers(bound, arg, arguments, ViolationKind::Argument) {
                Ok(values) => values,
                Err(missing) => return missing,
            };
            let outside = |(_, number): &&(String, Decimal)| {
                min.is_some_and(|min| *number < min) || max.is_some_and(|max| *number > max)
            };
            let (at, number) = values.iter().find(outside)?;
            Some(violation(id, ViolationKind::Argument, at, &range(*min, *max), number.to_string()))
        }
        Condition::Sum { arg, max, window } => {
            let values = match numbers(bound, arg, arguments, ViolationKind::Rate) {
                Ok(values) => values,
                Err(missing) => return missing,
            };
            let expected = format!("a sum of at most {max}");
            let before = session.sum(call.tool, id, *window, call.at);
            let sum = before.and_then(|before| added(before, &values));
            match sum {
                // A call that adds nothing does not violate a limit that earlier calls exceeded.
                Some(sum) if sum <= *max || Some(sum) == before => None,
                Some(sum) => {
                    let observed = format!("a sum of {sum}");
                    Some(violation(id, ViolationKind::Rate, "", &format!("{expected} of {arg}"), observed))
                }
                None => Some(violation(
                    id,
                    ViolationKind::Rate,
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
                violation(
                    id,
                    ViolationKind::Sequence,
                    args[0].as_str(),
                    &expected,
                    format!("{} again", short(&key)),
                )
            })
        }
    }
}

fn is_allowed(allowed: &AllowedValues, session: &SessionState, value: &Value) -> bool {
    let value = canonical(value);
    allowed.values.contains(&value) || allowed.sets.iter().any(|name| session.holds(name, &value))
}

fn words(allowed: &AllowedValues) -> String {
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
