//! Replaces secrets with keyed tokens before the recorder writes anything.
//!
//! Redaction works on complete bodies, never on frames, so that it finds a secret that is split over several deltas of
//! a stream. The forwarded bytes stay as they are.

use std::borrow::Cow;

use regex::bytes::{Captures, Regex};
use schemas::exchange::Header;
use schemas::keys::TenantKeys;

use self::counts::RedactionCounts;
use self::detect::Detector;
use crate::config::SECRET_HEADERS;

pub(crate) mod counts;
mod detect;
mod headers;
mod stream;
mod strings;

/// Finds and replaces the secrets of one tenant. Equal secrets of a tenant get equal tokens.
#[derive(Debug)]
pub(crate) struct Redactor {
    keys: TenantKeys,
    detector: Detector,
    escaped_literal: Regex,
    secret_parameter: Regex,
    keep_headers: Vec<String>,
}

/// Levels of JSON within strings that are searched. A text that is nested more deeply becomes a token: each level takes a copy
/// of the body.
const MAX_NESTING: usize = 8;

impl Redactor {
    /// `keep_headers` are lower-case header names that are kept in addition to the built-in list.
    pub(crate) fn new(keys: TenantKeys, keep_headers: Vec<String>) -> Self {
        let escaped_literal = Regex::new(r#"(?s-u)"(?:[^"\\]|\\.)*""#).expect("well-formed");
        let parameter =
            r"(?i-u)([?&](?:[a-z0-9_\-]*(?:key|token|secret|password|signature)|sig|code|auth)=)([^&#]+)";
        let secret_parameter = Regex::new(parameter).expect("well-formed");
        Self { keys, detector: Detector::new(), escaped_literal, secret_parameter, keep_headers }
    }

    /// Replaces the secrets of a decompressed body; `is_event_stream` says that it holds server-sent events.
    pub(crate) fn body(
        &self,
        body: Vec<u8>,
        is_event_stream: bool,
        location: &'static str,
        counts: &mut RedactionCounts,
    ) -> Vec<u8> {
        // Assembled texts come first: a replaced fragment that looks like a complete secret would hide the rest of it.
        let body = if is_event_stream {
            stream::redact(&self.detector, &self.keys, body, location, counts)
        } else {
            body
        };
        // Escaped strings come before plain bytes for the same reason: `\/` splits a key in two.
        let body = match self.escaped(&body, location, counts, 0) {
            Cow::Borrowed(_) => body,
            Cow::Owned(replaced) => replaced,
        };
        match self.bytes(&body, location, counts) {
            Cow::Borrowed(_) => body,
            Cow::Owned(replaced) => replaced,
        }
    }

    /// Replaces the secrets of a text.
    pub(crate) fn text(&self, text: &str, location: &'static str, counts: &mut RedactionCounts) -> String {
        match self.bytes(text.as_bytes(), location, counts) {
            Cow::Borrowed(_) => text.to_owned(),
            Cow::Owned(replaced) => String::from_utf8_lossy(&replaced).into_owned(),
        }
    }

    /// Replaces the secrets of a text that repeats a counted part of the exchange, such as a session hint.
    pub(crate) fn redact_uncounted(&self, text: &str) -> String {
        self.text(text, "identifier", &mut RedactionCounts::default())
    }

    /// Replaces the secrets of a path with its query: known shapes, and values of parameters with the name of a secret.
    pub(crate) fn path(&self, path: &str, counts: &mut RedactionCounts) -> String {
        let replaced = self.secret_parameter.replace_all(path.as_bytes(), |captures: &Captures<'_>| {
            counts.add("query_parameter", "path");
            let mut out = captures[1].to_vec();
            out.extend_from_slice(self.keys.token("query_parameter", &captures[2]).as_bytes());
            out
        });
        self.text(&String::from_utf8_lossy(&replaced), "path", counts)
    }

    /// Keeps the allowed headers and redacts their values. Drops the others, and counts those that carry credentials.
    pub(crate) fn headers(
        &self,
        map: &hyper::HeaderMap,
        location: &'static str,
        counts: &mut RedactionCounts,
    ) -> Vec<Header> {
        let mut kept = Vec::new();
        for (name, value) in map {
            let name = name.as_str();
            let allowed = headers::KEPT.contains(&name) || self.keep_headers.iter().any(|keep| keep == name);
            if SECRET_HEADERS.contains(&name) {
                counts.add(&format!("header:{name}"), location);
            } else if allowed {
                let value = self.text(&String::from_utf8_lossy(value.as_bytes()), location, counts);
                kept.push(Header { name: name.into(), value: value.into() });
            }
        }
        kept
    }

    /// A token in location of a value that is not a valid identifier.
    pub(crate) fn token(&self, kind: &str, value: &str) -> String {
        self.keys.token(kind, value.as_bytes())
    }

    fn bytes<'a>(
        &self,
        bytes: &'a [u8],
        location: &'static str,
        counts: &mut RedactionCounts,
    ) -> Cow<'a, [u8]> {
        let findings = self.detector.find(bytes);
        if findings.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let mut out = Vec::with_capacity(bytes.len());
        let mut copied = 0;
        for finding in findings {
            out.extend_from_slice(&bytes[copied..finding.span.start]);
            copied = finding.span.end;
            out.extend_from_slice(self.keys.token(finding.kind, &bytes[finding.span]).as_bytes());
            counts.add(finding.kind, location);
        }
        out.extend_from_slice(&bytes[copied..]);
        Cow::Owned(out)
    }

    /// Replaces secrets inside JSON strings that have escapes.
    fn escaped<'a>(
        &self,
        body: &'a [u8],
        location: &'static str,
        counts: &mut RedactionCounts,
        level: usize,
    ) -> Cow<'a, [u8]> {
        if !body.contains(&b'\\') {
            return Cow::Borrowed(body);
        }
        let mut changed = false;
        let replaced = self.escaped_literal.replace_all(body, |captures: &Captures<'_>| {
            let literal = &captures[0];
            let text =
                literal.contains(&b'\\').then(|| serde_json::from_slice::<String>(literal).ok()).flatten();
            let Some(text) = text else { return literal.to_vec() };
            let Some(safe) = self.unescaped(&text, location, counts, level) else { return literal.to_vec() };
            changed = true;
            serde_json::to_vec(&safe).unwrap_or_else(|_| b"\"\"".to_vec())
        });
        if changed { Cow::Owned(replaced.into_owned()) } else { Cow::Borrowed(body) }
    }

    /// The text with its secrets replaced; absent if it has none. Searches JSON within the string (tool arguments) too.
    fn unescaped(
        &self,
        text: &str,
        location: &'static str,
        counts: &mut RedactionCounts,
        level: usize,
    ) -> Option<String> {
        if level == MAX_NESTING {
            counts.add("deeply_nested", location);
            return Some(self.keys.token("deeply_nested", text.as_bytes()));
        }
        let Cow::Owned(once) = self.bytes(text.as_bytes(), location, counts) else {
            return match self.nested(text, location, counts, level) {
                Cow::Owned(inner) => Some(String::from_utf8_lossy(&inner).into_owned()),
                Cow::Borrowed(_) => None,
            };
        };
        let once = String::from_utf8_lossy(&once).into_owned();
        Some(match self.nested(&once, location, counts, level) {
            Cow::Owned(inner) => String::from_utf8_lossy(&inner).into_owned(),
            Cow::Borrowed(_) => once.clone(),
        })
    }

    fn nested<'a>(
        &self,
        text: &'a str,
        location: &'static str,
        counts: &mut RedactionCounts,
        level: usize,
    ) -> Cow<'a, [u8]> {
        // Each level removes one layer of escapes, so the recursion ends.
        if text.contains('\\') {
            self.escaped(text.as_bytes(), location, counts, level + 1)
        } else {
            Cow::Borrowed(text.as_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::exchange::Redaction;
    use schemas::id::TenantId;
    use schemas::keys::RootKey;

    use super::*;

    const KEY: &str = "sk-proj-Abcdefgh12345678ijkl";

    fn redactor() -> Redactor {
        Redactor::new(
            RootKey::new([3; 32]).tenant(&TenantId::parse("t").expect("id")),
            vec!["x-shop".to_owned()],
        )
    }

    fn redact(body: &str, stream: bool) -> (String, Vec<Redaction>) {
        let mut counts = RedactionCounts::default();
        let out = redactor().body(body.as_bytes().to_vec(), stream, "response body", &mut counts);
        (String::from_utf8(out).expect("text stays text"), counts.into_rows())
    }

    #[test]
    fn equal_secrets_get_equal_tokens_and_nothing_else_changes() {
        let (out, rows) = redact(&format!(r#"{{"a": "{KEY}",  "b":"x {KEY}"}}"#), false);
        let token = redactor().token("openai_key", KEY);
        assert_eq!(out, format!(r#"{{"a": "{token}",  "b":"x {token}"}}"#));
        assert_eq!(
            rows,
            [Redaction { kind: "openai_key".into(), location: "response body".into(), count: 2 }]
        );
    }

    #[test]
    fn sees_through_escapes_at_every_depth() {
        let escaped = KEY.replace('s', "\\u0073");
        let (out, _) = redact(&format!(r#"{{"a":"{escaped}"}}"#), false);
        assert_eq!(out, format!(r#"{{"a":"{}"}}"#, redactor().token("openai_key", KEY)));
        let inner = serde_json::to_string(&format!(r#"{{"k":"{escaped}"}}"#)).expect("a string");
        let (out, rows) = redact(&format!(r#"{{"arguments":{inner}}}"#), false);
        assert!(out.contains("openai_key") && !rows.is_empty(), "{out}");
    }

    #[test]
    fn an_escape_cuts_no_secret_in_two() {
        let (out, _) = redact(r#"{"a":"x\nBearer abcdefghijklmnop\/qrstuv \u00e9"}"#, false);
        assert!(!out.contains("abcdefghijklmnop") && !out.contains("qrstuv"), "{out}");
        let plain = r#"{"a":"caf\u00e9 \/ \n \"q\"", "b":"{\"c\":\"\\n\"}"}"#;
        assert_eq!(redact(plain, false), (plain.to_owned(), vec![]), "nothing else changes");
    }

    #[test]
    fn headers_are_dropped_unless_allowed() {
        let mut map = hyper::HeaderMap::new();
        map.insert("authorization", "Bearer abc".parse().expect("value"));
        map.insert("x-other", "1".parse().expect("value"));
        map.insert("x-shop", KEY.parse().expect("value"));
        map.insert("content-type", "a/b".parse().expect("value"));
        let mut counts = RedactionCounts::default();
        let kept = redactor().headers(&map, "request header", &mut counts);
        assert_eq!(kept.iter().map(|h| h.name.as_str()).collect::<Vec<_>>(), ["x-shop", "content-type"]);
        assert!(!kept[0].value.contains(KEY));
        assert_eq!(counts.into_rows()[0].kind, "header:authorization");
    }

    #[test]
    fn paths_lose_secret_parameters() {
        let path = redactor().path("/v1/x?api_key=hunter2&q=monkey&alt=sse", &mut RedactionCounts::default());
        assert!(!path.contains("hunter2") && path.contains("q=monkey&alt=sse"), "{path}");
    }

    proptest! {
        #[test]
        fn a_secret_split_over_deltas_is_found(cuts in proptest::collection::btree_set(1..KEY.len(), 0..6), before in "[a-z ]{0,8}", gap in "[ \n\t]") {
            let text = format!("{before}{gap}{KEY} after");
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.iter().map(|cut| cut + before.len() + 1).chain([text.len()]) {
                pieces.push(&text[from..cut]);
                from = cut;
            }
            let body: String = pieces.iter().map(|piece| format!(
                "data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{}}}}}]}}\n\n",
                serde_json::to_string(piece).expect("a string"))).collect();
            let (out, rows) = redact(&body, true);
            let mut assembled = String::new();
            for event in wire::sse::events(out.as_bytes()) {
                let value: serde_json::Value = serde_json::from_str(&event.text(out.as_bytes())).expect("still JSON");
                assembled.push_str(value["choices"][0]["delta"]["content"].as_str().expect("still text"));
            }
            prop_assert_eq!(&assembled, &format!("{before}{gap}{} after", redactor().token("openai_key", KEY)));
            prop_assert!(!rows.is_empty());
        }

        #[test]
        fn a_secret_after_any_text_is_found_at_every_depth(before in "[a-z\\\\\"/\n\r\t\u{8}\u{c}é]{0,8}", depth in 1..4_usize) {
            let mut body = format!("{before}{}{KEY} after", if before.ends_with(|last: char| last.is_ascii_lowercase()) { "\n" } else { "" });
            for _ in 0..depth {
                body = serde_json::json!({ "a": body }).to_string();
            }
            let (out, rows) = redact(&body, false);
            prop_assert!(!out.contains(KEY), "{}", out);
            prop_assert_eq!(rows.len(), 1);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok());
        }

        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..300), stream in any::<bool>()) {
            let mut counts = RedactionCounts::default();
            let _ = redactor().body(body, stream, "response body", &mut counts);
        }
    }
}
