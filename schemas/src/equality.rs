//! Equality of tool calls: canonical JSON, and what the owner declares to be equal besides.
//!
//! Two writes are equal if they do the same: same tool, same canonical arguments. Every looseness is declared for one
//! argument of one tool. The analyzer compares writes by these rules, and the replay finds recorded answers by them.

use std::collections::BTreeMap;

use serde::Serialize;
use strum::VariantArray;

use crate::json::Json;

/// How one argument of a tool is compared.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    strum::IntoStaticStr,
    strum::EnumString,
    strum::VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum ArgumentRule {
    /// By canonical JSON; the default. Declared, it forbids that a looser rule is learned.
    Exact,
    /// Not at all, present or absent.
    Ignore,
    /// Strings without upper and lower case.
    CaseInsensitive,
    /// Arrays without the order of their items.
    Unordered,
    /// The agent draws a new value each time. Two trials are equal if values that are equal within the one are equal within
    /// the other.
    Generated,
    /// Free text: only whether there is one.
    Text,
}

impl ArgumentRule {
    /// Name in the policy.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Names of all rules.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        Self::VARIANTS.iter().map(|rule| rule.as_str()).collect()
    }
}

/// Declared rules by tool and argument.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ArgumentRules(BTreeMap<String, BTreeMap<String, ArgumentRule>>);

impl ArgumentRules {
    /// Whether nothing is declared.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Declares a rule; returns `false` if the pointer does not begin with `/`. The segment `*` stands for every item of an
    /// array and every value of an object.
    pub fn declare(&mut self, tool: &str, pointer: &str, rule: ArgumentRule) -> bool {
        if !pointer.starts_with('/') {
            return false;
        }
        self.0.entry(tool.to_owned()).or_default().insert(pointer.to_owned(), rule);
        true
    }

    /// Rules of a tool by pointer; absent if none is declared.
    #[must_use]
    pub fn of(&self, tool: &str) -> Option<&BTreeMap<String, ArgumentRule>> {
        self.0.get(tool)
    }

    /// Every rule with its tool and pointer.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, ArgumentRule)> {
        self.0.iter().flat_map(|(tool, rules)| {
            rules.iter().map(move |(pointer, rule)| (tool.as_str(), pointer.as_str(), *rule))
        })
    }

    /// Comparison text of one call without the other calls of its trial: a generated argument is compared as present.
    /// Absent if no rule is declared for the tool, or the arguments are not JSON.
    #[must_use]
    pub fn compared(&self, tool: &str, arguments: &str) -> Option<String> {
        let rules = self.of(tool)?;
        let mut value = Json::parse(arguments)?;
        loosen(&mut value, rules, &mut |_, _| "⟨generated⟩".to_owned());
        Some(value.to_string())
    }
}

/// Changes arguments so that those which the rules call equal become equal. `alias` names a generated value, given its
/// pointer.
pub fn loosen(
    value: &mut Json,
    rules: &BTreeMap<String, ArgumentRule>,
    alias: &mut dyn FnMut(&str, &Json) -> String,
) {
    // The order of items is settled last, when the items have their final form.
    let (unordered, others): (Vec<_>, Vec<_>) =
        rules.iter().partition(|(_, rule)| **rule == ArgumentRule::Unordered);
    for (pointer, rule) in others.into_iter().chain(unordered) {
        let segments: Vec<&str> = pointer.split('/').skip(1).collect();
        edit(value, &segments, &mut |found| match rule {
            ArgumentRule::Exact => true,
            ArgumentRule::Ignore => false,
            ArgumentRule::CaseInsensitive => {
                lower(found);
                true
            }
            ArgumentRule::Unordered => {
                if let Json::Array(items) = found {
                    items.sort_by_cached_key(ToString::to_string);
                }
                true
            }
            ArgumentRule::Generated => {
                if *found != Json::Null {
                    *found = Json::Text(alias(pointer, found));
                }
                true
            }
            ArgumentRule::Text => {
                if matches!(found, Json::Text(text) if !text.trim().is_empty()) {
                    *found = Json::Text("⟨text⟩".to_owned());
                }
                true
            }
        });
    }
}

/// Changes the values at a pointer in place, and removes those for which `change` returns `false`. An item of an array
/// becomes null instead, so that the others keep their places.
fn edit(value: &mut Json, segments: &[&str], change: &mut dyn FnMut(&mut Json) -> bool) {
    let Some((first, rest)) = segments.split_first() else { return };
    let key = first.replace("~1", "/").replace("~0", "~");
    let matches = |name: &str| *first == "*" || name == key;
    match value {
        Json::Object(entries) => entries.retain_mut(|(name, item)| {
            if !matches(name) {
                return true;
            }
            if rest.is_empty() {
                return change(item);
            }
            edit(item, rest, change);
            true
        }),
        Json::Array(items) => {
            for (place, item) in items.iter_mut().enumerate() {
                if !matches(&place.to_string()) {
                    continue;
                }
                if !rest.is_empty() {
                    edit(item, rest, change);
                } else if !change(item) {
                    *item = Json::Null;
                }
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) => {}
    }
}

fn lower(value: &mut Json) {
    match value {
        Json::Text(text) => *text = text.to_lowercase(),
        Json::Array(items) => items.iter_mut().for_each(lower),
        Json::Object(entries) => entries.iter_mut().for_each(|(_, item)| lower(item)),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(pointer: &str, rule: ArgumentRule, arguments: &str) -> String {
        let mut rules = ArgumentRules::default();
        assert!(rules.declare("t", pointer, rule));
        rules.compared("t", arguments).expect("JSON")
    }

    #[test]
    fn each_rule_makes_equal_what_it_names_and_nothing_else() {
        use ArgumentRule::{CaseInsensitive, Exact, Generated, Ignore, Text, Unordered};
        let equal = |pointer, rule, a, b| compared(pointer, rule, a) == compared(pointer, rule, b);
        assert!(equal("/id", Ignore, r#"{"id":1,"n":2}"#, r#"{"n":2}"#));
        assert!(!equal("/id", Ignore, r#"{"id":1,"n":2}"#, r#"{"n":3}"#));
        assert!(equal("/m", CaseInsensitive, r#"{"m":"A@x.De"}"#, r#"{"m":"a@X.de"}"#));
        assert!(!equal("/m", CaseInsensitive, r#"{"m":"a","n":"B"}"#, r#"{"m":"a","n":"b"}"#));
        assert!(equal("/l", Unordered, r#"{"l":[2,1,1]}"#, r#"{"l":[1,2,1]}"#));
        assert!(!equal("/l", Unordered, r#"{"l":[2,1,1]}"#, r#"{"l":[1,2]}"#));
        assert!(equal("/r", Generated, r#"{"r":"x1"}"#, r#"{"r":"x2"}"#));
        assert!(!equal("/r", Generated, r#"{"r":"x1"}"#, "{}"));
        assert!(!equal("/r", Generated, r#"{"r":"x1"}"#, r#"{"r":null}"#));
        assert!(equal("/t", Text, r#"{"t":"Hello"}"#, r#"{"t":"Dear"}"#));
        assert!(!equal("/t", Text, r#"{"t":"Hello"}"#, r#"{"t":" "}"#));
        assert!(!equal("/t", Exact, r#"{"t":"Hello"}"#, r#"{"t":"Dear"}"#));
        assert!(equal(
            "/items/*/key",
            Ignore,
            r#"{"items":[{"key":1},{"key":2}]}"#,
            r#"{"items":[{},{"key":5}]}"#
        ));
        assert!(!ArgumentRules::default().declare("t", "id", Ignore));
        assert_eq!(ArgumentRules::default().compared("t", "{}"), None);
    }

    #[test]
    fn rules_have_kebab_case_names() {
        let names = ["exact", "ignore", "case-insensitive", "unordered", "generated", "text"];
        assert_eq!(ArgumentRule::names(), names);
        assert!(
            names.iter().all(|name| name.parse::<ArgumentRule>().is_ok_and(|rule| rule.as_str() == *name))
        );
    }
}
