//! Redacts secrets that are split over the events of a stream.
//!
//! Strings at the same place of successive events form one text: a model's answer arrives a few characters at a time.
//! Redaction searches the assembled text. Where a secret spans events, its first fragment becomes the token and the
//! other fragments lose their part. The search knows no protocol: it takes every string of every JSON event.
//!
//! Time and memory are linear in the body, whatever its events hold: a place is a hash, not a path of names.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher as _;
use std::ops::Range;

use schemas::keys::TenantKeys;
use serde_json::Value;
use wire::sse::{self, Event};

use super::counts::RedactionCounts;
use super::detect::Detector;
use super::strings::StringFinder;

/// A string in one event.
struct Fragment {
    /// Index of the event.
    event: usize,
    /// Bytes of the literal, with its quotes, in the event's data. Absent if the event is not JSON: the fragment is then
    /// its complete data.
    literal: Option<Range<usize>>,
    text: String,
}

/// A new text for a literal of an event, or for its complete data.
type Change = (Option<Range<usize>>, String);

/// Replaces the secrets of the assembled texts; all other bytes stay as they are.
pub(super) fn redact(
    detector: &Detector,
    keys: &TenantKeys,
    body: Vec<u8>,
    location: &'static str,
    counts: &mut RedactionCounts,
) -> Vec<u8> {
    let events = sse::events(&body);
    let texts = assemble(&body, &events);
    let mut changes: BTreeMap<usize, Vec<Change>> = BTreeMap::new();
    for fragments in texts {
        for (fragment, text) in replace_across(detector, keys, fragments, location, counts) {
            changes.entry(fragment.event).or_default().push((fragment.literal, text));
        }
    }
    if changes.is_empty() { body } else { rewrite(&body, &events, changes) }
}

/// The fragments of each text, in the order of the events.
fn assemble(body: &[u8], events: &[Event]) -> Vec<Vec<Fragment>> {
    let mut finder = StringFinder::default();
    let not_json = finder.hasher().hash_one("an event that is not JSON");
    let mut texts: HashMap<u64, Vec<Fragment>> = HashMap::new();
    for (event, ranges) in events.iter().enumerate() {
        let data = ranges.text(body);
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&data).is_ok();
        if !is_json {
            texts.entry(not_json).or_default().push(Fragment { event, literal: None, text: data });
            continue;
        }
        for found in finder.find(&data) {
            // A lone surrogate has no text in Rust: the literal is searched as it is, escapes and all.
            let text = serde_json::from_str(&data[found.literal.clone()])
                .unwrap_or_else(|_| data[found.literal.clone()].trim_matches('"').to_owned());
            let fragment = Fragment { event, literal: Some(found.literal), text };
            texts.entry(found.place).or_default().push(fragment);
        }
    }
    texts.into_values().collect()
}

/// The fragments that change, each with its new text.
fn replace_across(
    detector: &Detector,
    keys: &TenantKeys,
    fragments: Vec<Fragment>,
    location: &'static str,
    counts: &mut RedactionCounts,
) -> Vec<(Fragment, String)> {
    let assembled: String = fragments.iter().map(|fragment| fragment.text.as_str()).collect();
    let findings = detector.find(assembled.as_bytes());
    for finding in &findings {
        counts.add(finding.kind, location);
    }
    let mut changed = Vec::new();
    // Fragments and findings are both in the order of the text, so each is passed once.
    let (mut start, mut next) = (0, 0);
    for fragment in fragments {
        let end = start + fragment.text.len();
        let mut text = String::new();
        let mut copied = start;
        while let Some(finding) = findings.get(next).filter(|finding| finding.span.start < end) {
            // Secrets are ASCII, so the ends of a finding are character boundaries.
            text.push_str(assembled.get(copied..finding.span.start.max(start)).unwrap_or_default());
            if finding.span.start >= start {
                text.push_str(&keys.token(finding.kind, &assembled.as_bytes()[finding.span.clone()]));
            }
            copied = finding.span.end.min(end);
            if finding.span.end > end {
                break;
            }
            next += 1;
        }
        if copied > start || !text.is_empty() {
            text.push_str(assembled.get(copied..end).unwrap_or_default());
            if text != fragment.text {
                changed.push((fragment, text));
            }
        }
        start = end;
    }
    changed
}

fn rewrite(body: &[u8], events: &[Event], changes: BTreeMap<usize, Vec<Change>>) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut copied = 0;
    for (number, replaced) in changes {
        let event = &events[number];
        let (Some(first), Some(last)) = (event.data.first(), event.data.last()) else { continue };
        let data = replace_strings(&event.text(body), replaced);
        out.extend_from_slice(&body[copied..first.start]);
        out.extend_from_slice(data.replace('\n', "\ndata: ").as_bytes());
        copied = last.end;
    }
    out.extend_from_slice(&body[copied..]);
    out
}

/// Replaces strings in the data of an event; the bytes between them stay as they are.
fn replace_strings(data: &str, replaced: Vec<Change>) -> String {
    let mut spans = Vec::with_capacity(replaced.len());
    for (literal, text) in replaced {
        let Some(literal) = literal else { return text };
        spans.push((literal, Value::from(text).to_string()));
    }
    spans.sort_by_key(|(literal, _)| literal.start);
    let mut out = String::with_capacity(data.len());
    let mut copied = 0;
    for (literal, text) in spans {
        out.push_str(&data[copied..literal.start]);
        out.push_str(&text);
        copied = literal.end;
    }
    out.push_str(&data[copied..]);
    out
}

#[cfg(test)]
mod tests {
    use schemas::id::TenantId;
    use schemas::keys::RootKey;

    use super::*;

    fn redacted(body: &str) -> String {
        let keys = RootKey::new([3; 32]).tenant(&TenantId::parse("t").expect("id"));
        let mut counts = RedactionCounts::default();
        let out = redact(&Detector::new(), &keys, body.as_bytes().to_vec(), "response body", &mut counts);
        String::from_utf8(out).expect("text stays text")
    }

    #[test]
    fn repeated_names_hide_no_secret() {
        let out = redacted(
            "data: {\"a\":\"sk-proj-Abcdefgh12345678ijkl\",\"a\":\"sk-proj-Zbcdefgh12345678ijkl\"}\n\n",
        );
        assert!(!out.contains("Abcdefgh") && !out.contains("Zbcdefgh"), "{out}");
        let data = out.trim_start_matches("data: ").trim_end();
        serde_json::from_str::<Value>(data).expect("still JSON");
    }

    #[test]
    fn choices_are_told_apart_by_their_index() {
        let event = |index: usize, text: &str| {
            format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}},\"index\":{index}}}]}}\n\n")
        };
        // Two answers in turns: each alone holds a key, and the mixture of both does not.
        let body = [
            event(0, "sk-proj-Abcd"),
            event(1, "sk-proj-Zyxw"),
            event(0, "efgh12345678ijkl"),
            event(1, "vuts12345678rqpo"),
        ];
        let out = redacted(&body.concat());
        assert!(!out.contains("Abcd") && !out.contains("Zyxw") && !out.contains("12345678"), "{out}");
    }

    #[test]
    fn many_secrets_in_many_strings_and_long_names_need_linear_time_and_memory() {
        // Time and memory of a quadratic pass would end the test run: 40,000 strings with a secret each in one event,
        // and as many strings below a name of a megabyte.
        let secrets =
            (0..40_000).map(|n| format!("\"sk-proj-Abcdefgh{n:08}\"")).collect::<Vec<_>>().join(",");
        let out = redacted(&format!("data: [{secrets}]\n\n"));
        assert!(!out.contains("Abcdefgh"));
        let strings = vec!["\"a\""; 40_000].join(",");
        let body = format!("data: {{\"{}\":[{strings}]}}\n\n", "n".repeat(1 << 20));
        assert_eq!(redacted(&body), body);
    }
}
