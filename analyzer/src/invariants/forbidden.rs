//! Texts and patterns that must not occur in an answer or in the arguments of a call.
//!
//! Arguments are searched value by value, so that JSON escapes hide nothing; keys are searched too.

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::{Check, InvariantViolation, calls};
use crate::policy::Forbidden;
use crate::run::TrialRecord;

/// Largest number of characters of a match that is reported.
const SHOWN: usize = 60;

/// Compiled texts and patterns.
#[derive(Debug)]
pub(crate) struct ForbiddenPatterns {
    /// Rules with the names that violations report.
    pub(super) rules: Vec<Rule>,
    pub(super) answer: bool,
    pub(super) arguments: bool,
}

/// A compiled text or pattern.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) regex: Regex,
}

impl ForbiddenPatterns {
    pub(super) fn new(forbidden: &Forbidden) -> Self {
        let literals =
            forbidden.literals.iter().map(|text| (format!("literal {text:?}"), regex::escape(text)));
        let patterns = forbidden.patterns.iter().map(|text| (format!("pattern {text:?}"), text.clone()));
        let rule = |(name, pattern): (String, String)| {
            // The policy accepts only patterns that compile.
            let built = RegexBuilder::new(&pattern).case_insensitive(forbidden.ignore_case).build();
            built.ok().map(|regex| Rule { name, regex })
        };
        Self {
            rules: literals.chain(patterns).filter_map(rule).collect(),
            answer: forbidden.answer,
            arguments: forbidden.arguments,
        }
    }

    pub(super) fn check(&self, record: &TrialRecord) -> Check {
        let answer = record.trial.answer.as_deref().filter(|_| self.answer);
        let has_calls = self.arguments && record.trial.has_transcript;
        if answer.is_none() && !has_calls {
            return Check::Unchecked;
        }
        let mut violations = Vec::new();
        for rule in &self.rules {
            if let Some(found) = answer.and_then(|answer| rule.find(answer)) {
                let violation = InvariantViolation::of_trial(format!("the answer says {found:?}"));
                violations.push(InvariantViolation { rule: Some(rule.name.clone()), ..violation });
            }
            for call in record.calls.iter().filter(|_| has_calls) {
                let found = match calls::arguments(call) {
                    Some(value) => in_value(rule, &value, ""),
                    None => rule.find(call.arguments_text()).map(|found| (String::new(), found)),
                };
                if let Some((pointer, found)) = found {
                    let violation =
                        InvariantViolation::of_call(call, format!("arguments at `{pointer}` say {found:?}"));
                    violations.push(InvariantViolation {
                        pointer,
                        rule: Some(rule.name.clone()),
                        ..violation
                    });
                }
            }
        }
        Check::of(violations)
    }
}

impl Rule {
    fn find(&self, text: &str) -> Option<String> {
        let found = self.regex.find(text)?;
        Some(found.as_str().chars().take(SHOWN).collect())
    }
}

fn in_value(rule: &Rule, value: &Value, at: &str) -> Option<(String, String)> {
    match value {
        Value::Null => None,
        Value::Bool(_) | Value::Number(_) => {
            rule.find(&value.to_string()).map(|found| (at.to_owned(), found))
        }
        Value::String(text) => rule.find(text).map(|found| (at.to_owned(), found)),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(place, item)| in_value(rule, item, &format!("{at}/{place}")))
        }
        Value::Object(map) => map.iter().find_map(|(key, item)| {
            let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
            rule.find(key).map(|found| (at.clone(), found)).or_else(|| in_value(rule, item, &at))
        }),
    }
}
