//! Texts and patterns that must not occur in an answer or in the arguments of a call.
//!
//! Arguments are searched value by value, so that JSON escapes hide nothing; keys are searched too. Where redaction
//! replaced a value by a token, the kind in the token is searched instead. What is found is never repeated.

use std::collections::BTreeSet;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::redacted::{self, KindRelation};
use super::{Check, InvariantViolation, calls};
use crate::policy::{Forbidden, TokenKey};
use crate::run::TrialRecord;

/// Compiled texts and patterns.
#[derive(Debug)]
pub(crate) struct ForbiddenPatterns {
    /// Rules with the names that violations report.
    pub(super) rules: Vec<Rule>,
    pub(super) answer: bool,
    pub(super) arguments: bool,
    key: Option<TokenKey>,
}

/// A compiled text or pattern.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) regex: Regex,
    kinds: KindRelation,
}

/// What a rule finds in a text.
#[derive(Debug)]
enum Found {
    /// A forbidden text, as its token.
    Text(String),
    /// A redacted value of a forbidden kind, as its token.
    Token(String),
}

impl Found {
    fn words(&self) -> String {
        match self {
            Self::Text(token) => token.clone(),
            Self::Token(token) => format!("{token}, a redacted value of a kind that the rule forbids"),
        }
    }
}

impl ForbiddenPatterns {
    pub(super) fn new(forbidden: &Forbidden, key: Option<&TokenKey>) -> Self {
        let build = |pattern: &str| {
            // The policy accepts only patterns that compile.
            RegexBuilder::new(pattern).case_insensitive(forbidden.ignore_case).build().ok()
        };
        let mut rules = Vec::new();
        // A literal is the forbidden text itself, so its name is its place in the list.
        for (place, text) in forbidden.literals.iter().enumerate() {
            rules.extend(build(&regex::escape(text)).map(|regex| (format!("literal {}", place + 1), regex)));
        }
        for (place, pattern) in forbidden.patterns.iter().enumerate() {
            let Some(regex) = build(pattern) else { continue };
            let shows = regex.is_match(pattern)
                || rules.iter().any(|(_, other): &(_, Regex)| other.is_match(pattern));
            let name = if shows { format!("pattern {}", place + 1) } else { format!("pattern {pattern:?}") };
            rules.push((name, regex));
        }
        let rule = |(name, regex): (String, Regex)| Rule { name, kinds: KindRelation::new(&regex), regex };
        Self {
            rules: rules.into_iter().map(rule).collect(),
            answer: forbidden.answer,
            arguments: forbidden.arguments,
            key: key.cloned(),
        }
    }

    pub(super) fn check(&self, record: &TrialRecord) -> Check {
        let answer = record.trial.answer.as_deref().filter(|_| self.answer);
        let has_calls = self.arguments && record.trial.has_transcript;
        if answer.is_none() && !has_calls {
            return Check::Unchecked;
        }
        let mut violations = Vec::new();
        let mut unreadable = BTreeSet::new();
        for rule in &self.rules {
            let search = Search { rule, key: self.key.as_ref() };
            if let Some(answer) = answer {
                search.note_unreadable(answer, &mut unreadable);
                if let Some(found) = search.find(answer) {
                    let violation =
                        InvariantViolation::of_trial(format!("the answer says {}", found.words()));
                    violations.push(InvariantViolation { rule: Some(rule.name.clone()), ..violation });
                }
            }
            for call in record.calls.iter().filter(|_| has_calls) {
                search.note_unreadable(call.arguments_text(), &mut unreadable);
                let found = match calls::arguments(call) {
                    Some(value) => in_value(&search, &value, ""),
                    None => search.find(call.arguments_text()).map(|found| (String::new(), found)),
                };
                if let Some((pointer, found)) = found {
                    let detail = format!("arguments at `{pointer}` say {}", found.words());
                    violations.push(InvariantViolation {
                        pointer,
                        rule: Some(rule.name.clone()),
                        ..InvariantViolation::of_call(call, detail)
                    });
                }
            }
        }
        match (violations.is_empty(), unreadable.is_empty()) {
            (true, false) => Check::Redacted(unreadable.into_iter().collect()),
            (true, true) | (false, _) => Check::of(violations),
        }
    }
}

/// A rule with the key of its tokens.
struct Search<'r> {
    rule: &'r Rule,
    key: Option<&'r TokenKey>,
}

impl Search<'_> {
    fn find(&self, text: &str) -> Option<Found> {
        if let Some(found) = self.rule.regex.find(text) {
            return Some(Found::Text(redacted::forbidden_token(self.key, found.as_str())));
        }
        let mut tokens = redacted::tokens(text);
        let (token, _) = tokens.find(|(_, kind)| self.rule.kinds.forbids(kind))?;
        Some(Found::Token(token.to_owned()))
    }

    /// Adds the kinds of redacted values that the rule can no longer be checked against.
    fn note_unreadable(&self, text: &str, kinds: &mut BTreeSet<String>) {
        let unreadable = redacted::tokens(text).filter(|(_, kind)| self.rule.kinds.could_match(kind));
        kinds.extend(unreadable.map(|(_, kind)| kind.to_owned()));
    }
}

fn in_value(search: &Search<'_>, value: &Value, at: &str) -> Option<(String, Found)> {
    match value {
        Value::Null => None,
        Value::Bool(_) | Value::Number(_) => {
            search.find(&value.to_string()).map(|found| (at.to_owned(), found))
        }
        Value::String(text) => search.find(text).map(|found| (at.to_owned(), found)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(place, item)| in_value(search, item, &format!("{at}/{place}"))),
        Value::Object(map) => map.iter().find_map(|(key, item)| {
            let inner = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
            // A key that is itself forbidden is left out of the pointer.
            match search.find(key) {
                Some(found) => Some((at.to_owned(), found)),
                None => in_value(search, item, &inner),
            }
        }),
    }
}
