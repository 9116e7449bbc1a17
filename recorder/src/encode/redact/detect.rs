//! Finds secrets by their shape: keys, tokens and private keys.
//!
//! A secret without a known shape, such as a password in prose, stays undetected.

use std::ops::Range;

use regex::bytes::Regex;
use schemas::secrets::{SHAPES, SecretShape};

/// One detected secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Kind of its shape, as in [`schemas::secrets::SHAPES`].
    pub(crate) kind: &'static str,
    /// Byte range in the searched bytes.
    pub(crate) span: Range<usize>,
}

/// Required before a shape that begins a word: a word boundary, or an escape whose last letter runs into the shape
/// (`\n`, `\u000a` in a JSON string at any depth, `%20` in a URL).
const EDGE: &str = r"(?:\b|\\(?:[nrtbf]|u[0-9A-Fa-f]{4})|%[0-9A-Fa-f]{2})";

/// All shapes in one expression, so that one scan of a body finds them all.
#[derive(Debug)]
pub(crate) struct Detector {
    shapes: Regex,
    /// For each group of `shapes`: the kind, and whether the group is an inner one.
    groups: Vec<Option<(&'static str, bool)>>,
}

impl Detector {
    pub(crate) fn new() -> Self {
        let part = |(position, shape): (usize, &SecretShape)| match shape.expression.strip_prefix(r"\b") {
            Some(word) => format!("(?P<s{position}>{EDGE}({word}))"),
            None => format!("(?P<s{position}>{})", shape.expression),
        };
        let parts: Vec<String> = SHAPES.iter().enumerate().map(part).collect();
        let shapes =
            Regex::new(&format!("(?-u){}", parts.join("|"))).expect("the expressions above are well-formed");
        let mut groups = Vec::new();
        let mut current = "";
        for name in shapes.capture_names() {
            let outer = name.and_then(|name| name.strip_prefix('s')?.parse::<usize>().ok());
            if let Some(position) = outer {
                current = SHAPES[position].kind;
            }
            groups.push((!current.is_empty()).then_some((current, outer.is_none())));
        }
        Self { shapes, groups }
    }

    /// The secrets in the bytes, in order and without overlap.
    pub(crate) fn find(&self, bytes: &[u8]) -> Vec<Finding> {
        if !self.shapes.is_match(bytes) {
            return Vec::new();
        }
        self.shapes
            .captures_iter(bytes)
            .filter_map(|captures| {
                let mut found = None;
                for (position, group) in captures.iter().enumerate() {
                    let (Some((kind, inner)), Some(group)) = (self.groups[position], group) else { continue };
                    if inner || found.is_none() {
                        found = Some(Finding { kind, span: group.range() });
                    }
                }
                found
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_of_a_shape_is_found_as_a_secret() {
        let detector = Detector::new();
        for shape in &SHAPES {
            for example in shape.examples {
                let text = format!("say {}{example} now", shape.lead);
                let found = detector.find(text.as_bytes());
                assert_eq!(found.len(), 1, "{text}");
                assert_eq!((found[0].kind, &text[found[0].span.clone()]), (shape.kind, *example));
            }
        }
    }

    #[test]
    fn finds_every_shape_and_nothing_in_prose() {
        let detector = Detector::new();
        let kinds = |text: &str| {
            detector
                .find(text.as_bytes())
                .into_iter()
                .map(|f| (f.kind, text[f.span].to_owned()))
                .collect::<Vec<_>>()
        };
        let key = "sk-proj-abcdEFGH12345678";
        assert_eq!(kinds(&format!("my {key}, yes")), [("openai_key", key.to_owned())]);
        assert_eq!(kinds("sk-ant-api03-abcdefgh1234")[0].0, "anthropic_key");
        assert_eq!(kinds("AKIAIOSFODNN7EXAMPLE")[0].0, "aws_key");
        assert_eq!(kinds("x=ghp_0123456789abcdefghijABCDEFGHIJ012345")[0].0, "github_token");
        assert_eq!(
            kinds("authorization: Bearer abcdefgh.ijklmnop-1234"),
            [("bearer", "abcdefgh.ijklmnop-1234".to_owned())]
        );
        assert_eq!(
            kinds("-----BEGIN RSA PRIVATE KEY-----\\nMIIE\\n-----END RSA PRIVATE KEY----- tail")[0].1.len(),
            68
        );
        assert_eq!(kinds("-----BEGIN PRIVATE KEY-----\nMIIE cut off")[0].0, "private_key");
        for before in ["\\n", "\\t", "\\\\r", "\\u000A", "?q=%20"] {
            assert_eq!(kinds(&format!("x{before}{key}")), [("openai_key", key.to_owned())], "{before}");
            assert_eq!(kinds(&format!("x{before}bearer abcdefghijklmnop"))[0].1, "abcdefghijklmnop");
        }
        assert!(kinds("task-management-and-risk-assessment, bearer of bad news, the basics").is_empty());
    }
}
