//! Hides what `forbidden` finds: every output names the place, the rule and a keyed token, and never the text.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::forbidden::ForbiddenPatterns;
use super::redacted;
use crate::policy::{InvariantPolicy, TokenKey};

/// A JSON string with its quotes.
static LITERAL: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"(?s)"(?:[^"\\]|\\.)*""#).expect("well-formed"));

/// Replaces forbidden texts by tokens.
#[derive(Debug)]
pub(crate) struct Hider {
    rules: Vec<Regex>,
    key: Option<TokenKey>,
}

impl Hider {
    /// Hides what the policy forbids; absent if it forbids no text.
    pub(crate) fn new(policy: &InvariantPolicy) -> Option<Self> {
        let patterns = ForbiddenPatterns::new(policy.forbidden.as_ref()?, policy.token_key.as_ref());
        Some(Self {
            rules: patterns.rules.into_iter().map(|rule| rule.regex).collect(),
            key: policy.token_key.clone(),
        })
    }

    /// Hides the forbidden texts of an output in place.
    pub(crate) fn hide(&self, text: &mut String) {
        if let Cow::Owned(hidden) = self.hidden(text) {
            *text = hidden;
        }
    }

    /// The text without forbidden texts, also where JSON escapes disguise them.
    pub(crate) fn hidden<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let plain = self.plain(text);
        if !plain.contains('\\') {
            return plain;
        }
        let unescaped = |captures: &Captures<'_>| {
            let literal = &captures[0];
            let inner: Option<String> =
                literal.contains('\\').then(|| serde_json::from_str(literal).ok()).flatten();
            // Each level removes one layer of escapes, so the recursion ends.
            match inner.as_deref().map(|inner| self.hidden(inner)) {
                Some(Cow::Owned(safe)) => serde_json::Value::String(safe).to_string(),
                Some(Cow::Borrowed(_)) | None => literal.to_owned(),
            }
        };
        match LITERAL.replace_all(&plain, unescaped) {
            Cow::Owned(replaced) if replaced != *plain => Cow::Owned(replaced),
            Cow::Owned(_) | Cow::Borrowed(_) => plain,
        }
    }

    fn plain<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut current = Cow::Borrowed(text);
        for rule in &self.rules {
            let tokens = redacted::token_spans(&current);
            let replaced = rule.replace_all(&current, |captures: &Captures<'_>| {
                let Some(found) = captures.get(0) else { return String::new() };
                let inside =
                    |token: &std::ops::Range<usize>| token.start <= found.start() && found.end() <= token.end;
                if tokens.iter().any(inside) {
                    found.as_str().to_owned()
                } else {
                    redacted::forbidden_token(self.key.as_ref(), found.as_str())
                }
            });
            if let Cow::Owned(replaced) = replaced
                && replaced != *current
            {
                current = Cow::Owned(replaced);
            }
        }
        current
    }
}

#[cfg(test)]
mod tests {
    use schemas::keys::RootKey;

    use super::*;
    use crate::policy::Policy;

    fn hider() -> Hider {
        let text =
            "[invariant.forbidden]\nliterals = ['pass\"word']\npatterns = ['\\b4[0-9]{15}\\b', '⟦aws']";
        let mut policy = Policy::parse(text).expect("a policy");
        policy.invariant.token_key = Some(TokenKey::new(&RootKey::new([7; 32])));
        Hider::new(&policy.invariant).expect("the policy forbids texts")
    }

    #[test]
    fn forbidden_texts_become_tokens_also_behind_escapes() {
        let hidden = |text: &str| hider().hidden(text).into_owned();
        let card = hidden("card 4111111111111111.");
        assert!(
            card.starts_with("card ⟦forbidden:") && card.ends_with("⟧.") && !card.contains("4111"),
            "{card}"
        );
        assert_eq!(card, hidden("card 4111111111111111."), "equal texts have equal tokens");
        assert_eq!(hidden(&card), card, "a token is not hidden again");
        let inner = serde_json::json!({"a": "x pass\"word y"}).to_string();
        let outer = serde_json::json!({"arguments": inner}).to_string();
        for text in [inner, outer] {
            assert!(!hidden(&text).contains("word"), "{}", hidden(&text));
            assert!(serde_json::from_str::<serde_json::Value>(&hidden(&text)).is_ok());
        }
        let token = "see ⟦aws_key:0123456789abcdef⟧ and C:\\temp \"a\\\\b\"";
        assert_eq!(hidden(token), token, "a redacted value hides itself");
    }
}
