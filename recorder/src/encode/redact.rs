//! Replaces secrets by keyed tokens before anything is written.
//!
//! Works on assembled bodies, never on frames: a secret split over several deltas of a stream is whole again here.
//! It does not decide which bodies are kept, and it does not touch what is forwarded.

use std::borrow::Cow;
use std::collections::BTreeMap;

use regex::bytes::{Captures, Regex};
use schemas::exchange::{Header, Redaction};
use schemas::keys::TenantKeys;

use self::detect::Detector;
use crate::config::SECRET_HEADERS;

mod detect;
mod headers;
mod stream;

/// Counts what was replaced, by kind and place.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<(String, &'static str), u32>);

impl Tally {
    pub(crate) fn add(&mut self, kind: &str, place: &'static str) {
        *self.0.entry((kind.to_owned(), place)).or_default() += 1;
    }

    pub(crate) fn into_rows(self) -> Vec<Redaction> {
        let row = |((kind, place), count): ((String, &str), u32)| Redaction {
            kind: kind.into(),
            place: place.into(),
            count,
        };
        self.0.into_iter().map(row).collect()
    }
}

/// Finds and replaces secrets of one tenant.
#[derive(Debug)]
pub(crate) struct Redactor {
    keys: TenantKeys,
    detector: Detector,
    escaped_literal: Regex,
    secret_parameter: Regex,
    keep_headers: Vec<String>,
}

impl Redactor {
    /// `keep_headers` are lower-case names beside the built-in list.
    pub(crate) fn new(keys: TenantKeys, keep_headers: Vec<String>) -> Self {
        let escaped_literal = Regex::new(r#"(?s-u)"(?:[^"\\]|\\.)*""#).expect("well-formed");
        let parameter =
            r"(?i-u)([?&](?:[a-z0-9_\-]*(?:key|token|secret|password|signature)|sig|code|auth)=)([^&#]+)";
        let secret_parameter = Regex::new(parameter).expect("well-formed");
        Self { keys, detector: Detector::new(), escaped_literal, secret_parameter, keep_headers }
    }

    /// Replaces the secrets of a body; `stream` says that it is a stream of events.
    pub(crate) fn body(
        &self,
        body: Vec<u8>,
        stream: bool,
        place: &'static str,
        tally: &mut Tally,
    ) -> Vec<u8> {
        // The assembled texts first: a fragment that looks like a whole secret would hide the rest of it.
        let body = if stream { stream::redact(self, body, place, tally) } else { body };
        // What is written with escapes before what is not, for the same reason: `\/` cuts a key in two.
        let body = match self.escaped(&body, place, tally) {
            Cow::Borrowed(_) => body,
            Cow::Owned(replaced) => replaced,
        };
        match self.bytes(&body, place, tally) {
            Cow::Borrowed(_) => body,
            Cow::Owned(replaced) => replaced,
        }
    }

    /// Replaces the secrets of a text.
    pub(crate) fn text(&self, text: &str, place: &'static str, tally: &mut Tally) -> String {
        match self.bytes(text.as_bytes(), place, tally) {
            Cow::Borrowed(_) => text.to_owned(),
            Cow::Owned(replaced) => String::from_utf8_lossy(&replaced).into_owned(),
        }
    }

    /// Replaces the secrets of an identifier that nobody counts again.
    pub(crate) fn quiet(&self, text: &str) -> String {
        self.text(text, "identifier", &mut Tally::default())
    }

    /// Replaces the secrets of a path with its query: known shapes, and the values of parameters named like secrets.
    pub(crate) fn path(&self, path: &str, tally: &mut Tally) -> String {
        let replaced = self.secret_parameter.replace_all(path.as_bytes(), |captures: &Captures<'_>| {
            tally.add("query_parameter", "path");
            let mut out = captures[1].to_vec();
            out.extend_from_slice(self.keys.token("query_parameter", &captures[2]).as_bytes());
            out
        });
        self.text(&String::from_utf8_lossy(&replaced), "path", tally)
    }

    /// Keeps the allowed headers with their values redacted; the others are dropped, those that carry credentials counted.
    pub(crate) fn headers(
        &self,
        map: &hyper::HeaderMap,
        place: &'static str,
        tally: &mut Tally,
    ) -> Vec<Header> {
        let mut kept = Vec::new();
        for (name, value) in map {
            let name = name.as_str();
            let allowed = headers::KEPT.contains(&name) || self.keep_headers.iter().any(|keep| keep == name);
            if SECRET_HEADERS.contains(&name) {
                tally.add(&format!("header:{name}"), place);
            } else if allowed {
                let value = self.text(&String::from_utf8_lossy(value.as_bytes()), place, tally);
                kept.push(Header { name: name.into(), value: value.into() });
            }
        }
        kept
    }

    /// A value that is no fit identifier, as a token.
    pub(crate) fn token(&self, kind: &str, value: &str) -> String {
        self.keys.token(kind, value.as_bytes())
    }

    fn bytes<'a>(&self, bytes: &'a [u8], place: &'static str, tally: &mut Tally) -> Cow<'a, [u8]> {
        let findings = self.detector.find(bytes);
        if findings.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let mut out = Vec::with_capacity(bytes.len());
        let mut done = 0;
        for finding in findings {
            out.extend_from_slice(&bytes[done..finding.span.start]);
            done = finding.span.end;
            out.extend_from_slice(self.keys.token(finding.kind, &bytes[finding.span]).as_bytes());
            tally.add(finding.kind, place);
        }
        out.extend_from_slice(&bytes[done..]);
        Cow::Owned(out)
    }

    /// Replaces secrets inside JSON strings that are written with escapes.
    fn escaped<'a>(&self, body: &'a [u8], place: &'static str, tally: &mut Tally) -> Cow<'a, [u8]> {
        if !body.contains(&b'\\') {
            return Cow::Borrowed(body);
        }
        let mut changed = false;
        let replaced = self.escaped_literal.replace_all(body, |captures: &Captures<'_>| {
            let literal = &captures[0];
            let text =
                literal.contains(&b'\\').then(|| serde_json::from_slice::<String>(literal).ok()).flatten();
            let Some(text) = text else { return literal.to_vec() };
            let Some(safe) = self.unescaped(&text, place, tally) else { return literal.to_vec() };
            changed = true;
            serde_json::to_vec(&safe).unwrap_or_else(|_| b"\"\"".to_vec())
        });
        if changed { Cow::Owned(replaced.into_owned()) } else { Cow::Borrowed(body) }
    }

    /// The text with its secrets replaced, where it has any; looks into JSON within the string (tool arguments) too.
    fn unescaped(&self, text: &str, place: &'static str, tally: &mut Tally) -> Option<String> {
        let Cow::Owned(once) = self.bytes(text.as_bytes(), place, tally) else {
            return match self.nested(text, place, tally) {
                Cow::Owned(inner) => Some(String::from_utf8_lossy(&inner).into_owned()),
                Cow::Borrowed(_) => None,
            };
        };
        let once = String::from_utf8_lossy(&once).into_owned();
        Some(match self.nested(&once, place, tally) {
            Cow::Owned(inner) => String::from_utf8_lossy(&inner).into_owned(),
            Cow::Borrowed(_) => once.clone(),
        })
    }

    fn nested<'a>(&self, text: &'a str, place: &'static str, tally: &mut Tally) -> Cow<'a, [u8]> {
        // Each level of nesting takes off one layer of escapes, so this ends when none is left.
        if text.contains('\\') {
            self.escaped(text.as_bytes(), place, tally)
        } else {
            Cow::Borrowed(text.as_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
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
        let mut tally = Tally::default();
        let out = redactor().body(body.as_bytes().to_vec(), stream, "response body", &mut tally);
        (String::from_utf8(out).expect("text stays text"), tally.into_rows())
    }

    #[test]
    fn equal_secrets_get_equal_tokens_and_nothing_else_changes() {
        let (out, rows) = redact(&format!(r#"{{"a": "{KEY}",  "b":"x {KEY}"}}"#), false);
        let token = redactor().token("openai_key", KEY);
        assert_eq!(out, format!(r#"{{"a": "{token}",  "b":"x {token}"}}"#));
        assert_eq!(rows, [Redaction { kind: "openai_key".into(), place: "response body".into(), count: 2 }]);
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
        let mut tally = Tally::default();
        let kept = redactor().headers(&map, "request header", &mut tally);
        assert_eq!(kept.iter().map(|h| h.name.as_str()).collect::<Vec<_>>(), ["x-shop", "content-type"]);
        assert!(!kept[0].value.contains(KEY));
        assert_eq!(tally.into_rows()[0].kind, "header:authorization");
    }

    #[test]
    fn paths_lose_secret_parameters() {
        let path = redactor().path("/v1/x?api_key=hunter2&q=monkey&alt=sse", &mut Tally::default());
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
            for event in crate::encode::sse::events(out.as_bytes()) {
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
            let mut tally = Tally::default();
            let _ = redactor().body(body, stream, "response body", &mut tally);
        }
    }
}
