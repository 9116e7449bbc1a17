//! What a forbidden pattern can still say about a value that redaction replaced by a token.
//!
//! The value is gone, its kind is in the token. A pattern that matches an example of the kind from end to end forbids that
//! kind. A pattern that could match only some values of the kind cannot be checked any more.

use std::sync::LazyLock;

use regex::Regex;
use schemas::secrets::{SHAPES, SecretShape};

use super::sample;
use crate::policy::TokenKey;

/// Shortest text without white space that can be a secret without a known beginning.
const LEAST_SECRET: usize = 8;

/// A token, `⟦kind:digest⟧`. Hidden texts without a key have no digest.
static TOKEN: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("⟦([a-z0-9_:\\-]+?)(?::[0-9a-f]{16})?⟧").expect("well-formed"));

/// The shapes, compiled.
static COMPILED: LazyLock<Vec<(SecretShape, Regex)>> = LazyLock::new(|| {
    SHAPES.iter().filter_map(|shape| Some((*shape, Regex::new(shape.expression).ok()?))).collect()
});

/// Tokens in a text: the complete token and its kind.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let all = if text.contains('⟦') { Some(TOKEN.captures_iter(text)) } else { None };
    all.into_iter().flatten().map(|captures| {
        let (token, [kind]) = captures.extract();
        (token, kind)
    })
}

/// Byte ranges of the tokens in a text.
pub(super) fn token_spans(text: &str) -> Vec<std::ops::Range<usize>> {
    if text.contains('⟦') { TOKEN.find_iter(text).map(|found| found.range()).collect() } else { Vec::new() }
}

/// The token of a forbidden text.
pub(super) fn forbidden_token(key: Option<&TokenKey>, text: &str) -> String {
    key.map_or_else(|| format!("⟦{}⟧", TokenKey::KIND), |key| key.token(text))
}

/// Kinds of secrets by what a pattern says of their tokens.
#[derive(Debug, Default)]
pub(super) struct KindRelation {
    /// The pattern forbids the kind.
    forbids: Vec<&'static str>,
    /// The pattern could match some values of the kind.
    could_match: Vec<&'static str>,
}

impl KindRelation {
    /// Relates a pattern to every kind that redaction knows.
    pub(super) fn new(pattern: &Regex) -> Self {
        let mut relation = Self { forbids: vec![TokenKey::KIND], could_match: Vec::new() };
        let sample = sample::matching(pattern).unwrap_or_default();
        let sample = sample.trim();
        for (shape, detector) in COMPILED.iter() {
            let complete =
                |example: &&str| pattern.find(example).is_some_and(|found| found.len() == example.len());
            if shape.examples.iter().any(complete) {
                relation.forbids.push(shape.kind);
            } else if could_match(pattern, sample, shape, detector) {
                relation.could_match.push(shape.kind);
            }
        }
        if is_value(sample) {
            relation.could_match.push("query_parameter");
        }
        relation
    }

    pub(super) fn forbids(&self, kind: &str) -> bool {
        self.forbids.contains(&kind)
    }

    pub(super) fn could_match(&self, kind: &str) -> bool {
        self.could_match.contains(&kind)
    }
}

fn could_match(pattern: &Regex, sample: &str, shape: &SecretShape, detector: &Regex) -> bool {
    let inside = || shape.examples.iter().any(|example| pattern.is_match(example));
    let is_kind = || detector.is_match(sample) || detector.is_match(&format!("{}{sample}", shape.lead));
    let begins = || shape.prefixes.iter().any(|prefix| sample.starts_with(prefix));
    // A secret without a known beginning can be any text.
    let any = || shape.prefixes.is_empty() && is_value(sample);
    inside() || is_kind() || begins() || any()
}

fn is_value(sample: &str) -> bool {
    sample.len() >= LEAST_SECRET && !sample.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(pattern: &str, kind: &str) -> &'static str {
        let relation = KindRelation::new(&Regex::new(pattern).expect("a pattern"));
        match (relation.forbids(kind), relation.could_match(kind)) {
            (true, _) => "forbids",
            (false, true) => "could match",
            (false, false) => "unrelated",
        }
    }

    #[test]
    fn patterns_are_related_to_the_kinds_of_redaction() {
        for (pattern, kind, expected) in [
            ("AKIA[0-9A-Z]{16}", "aws_key", "forbids"),
            (r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b", "aws_key", "forbids"),
            (r"sk-[A-Za-z0-9]{20,}", "openai_key", "forbids"),
            (r"sk-[A-Za-z0-9]{33}", "openai_key", "could match"),
            ("AKIA1234567890123456", "aws_key", "could match"),
            ("AKIA", "aws_key", "could match"),
            ("sk-abc", "openai_key", "could match"),
            ("BEGIN PRIVATE KEY", "private_key", "could match"),
            ("hunter2secret", "bearer", "could match"),
            ("[0-9]{7}", "aws_key", "unrelated"),
            ("(?i)as an ai", "aws_key", "unrelated"),
            ("(?i)as an ai", "bearer", "unrelated"),
            ("AKIA[0-9A-Z]{16}", "openai_key", "unrelated"),
            ("anything", "forbidden", "forbids"),
        ] {
            assert_eq!(relation(pattern, kind), expected, "{pattern} on {kind}");
        }
    }

    #[test]
    fn tokens_are_read_with_and_without_a_digest() {
        let text =
            "a ⟦aws_key:0123456789abcdef⟧ b ⟦forbidden⟧ ⟦header:cookie:0123456789abcdef⟧ ⟦not a token⟧";
        let found: Vec<_> = tokens(text).map(|(_, kind)| kind).collect();
        assert_eq!(found, ["aws_key", "forbidden", "header:cookie"]);
    }
}
