//! Redacts secrets that are split over the events of a stream.
//!
//! Strings at the same JSON pointer of successive events form one text: a model's answer arrives a few characters at a
//! time. Redaction searches the assembled text. Where a secret spans events, its first fragment becomes the token and
//! the other fragments lose their part. The search knows no protocol: it takes every string of every JSON event.

use std::collections::{BTreeMap, HashMap};

use schemas::keys::TenantKeys;
use serde_json::Value;
use serde_json::value::RawValue;
use wire::sse::{self, Event};

use super::counts::RedactionCounts;
use super::detect::Detector;

/// A string in one event.
struct Fragment {
    /// Index of the event.
    event: usize,
    /// JSON pointer in the event. Absent if the event is not JSON: the fragment is then its complete data.
    pointer: Option<String>,
    text: String,
}

/// Replaces the secrets of the assembled texts; all other bytes stay as they are.
pub(super) fn redact(
    detector: &Detector,
    keys: &TenantKeys,
    body: Vec<u8>,
    location: &'static str,
    counts: &mut RedactionCounts,
) -> Vec<u8> {
    let events = sse::events(&body);
    let mut texts: BTreeMap<String, Vec<Fragment>> = BTreeMap::new();
    for (number, event) in events.iter().enumerate() {
        let data = event.text(&body);
        match serde_json::from_str::<Value>(&data) {
            Ok(value) => collect(&value, number, &mut String::new(), &mut String::new(), &mut texts),
            Err(_) => {
                let fragment = Fragment { event: number, pointer: None, text: data };
                texts.entry(String::new()).or_default().push(fragment);
            }
        }
    }
    let mut changes: BTreeMap<usize, Vec<(Option<String>, String)>> = BTreeMap::new();
    for fragments in texts.into_values() {
        for (fragment, text) in replace_across(detector, keys, fragments, location, counts) {
            changes.entry(fragment.event).or_default().push((fragment.pointer, text));
        }
    }
    if changes.is_empty() { body } else { rewrite(&body, &events, &changes) }
}

/// Collects the strings of an event by their pointer. Objects with an `index` field (choices, tool calls) count as
/// different ones by its value.
fn collect(
    value: &Value,
    event: usize,
    pointer: &mut String,
    key: &mut String,
    texts: &mut BTreeMap<String, Vec<Fragment>>,
) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(text) => {
            let fragment = Fragment { event, pointer: Some(pointer.clone()), text: text.clone() };
            texts.entry(key.clone()).or_default().push(fragment);
        }
        Value::Array(items) => {
            for (position, item) in items.iter().enumerate() {
                descend(item, &position.to_string(), event, pointer, key, texts);
            }
        }
        Value::Object(map) => {
            let index =
                map.iter().filter(|(name, _)| name.ends_with("index")).map(|(_, index)| index.to_string());
            let by_index = format!("#{}", index.collect::<Vec<_>>().join(","));
            let length = key.len();
            key.push_str(&by_index);
            for (name, item) in map {
                descend(item, &name.replace('~', "~0").replace('/', "~1"), event, pointer, key, texts);
            }
            key.truncate(length);
        }
    }
}

fn descend(
    item: &Value,
    step: &str,
    event: usize,
    pointer: &mut String,
    key: &mut String,
    texts: &mut BTreeMap<String, Vec<Fragment>>,
) {
    let (pointer_length, key_length) = (pointer.len(), key.len());
    for path in [&mut *pointer, &mut *key] {
        path.push('/');
        path.push_str(step);
    }
    collect(item, event, pointer, key, texts);
    pointer.truncate(pointer_length);
    key.truncate(key_length);
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
    if findings.is_empty() {
        return Vec::new();
    }
    for finding in &findings {
        counts.add(finding.kind, location);
    }
    let mut changed = Vec::new();
    let mut start = 0;
    for fragment in fragments {
        let end = start + fragment.text.len();
        let mut text = String::new();
        let mut copied = start;
        for finding in findings.iter().filter(|finding| finding.span.start < end && finding.span.end > start)
        {
            // Secrets are ASCII, so the ends of a finding are character boundaries.
            text.push_str(assembled.get(copied..finding.span.start.max(start)).unwrap_or_default());
            if finding.span.start >= start {
                text.push_str(&keys.token(finding.kind, &assembled.as_bytes()[finding.span.clone()]));
            }
            copied = finding.span.end.min(end);
        }
        text.push_str(assembled.get(copied..end).unwrap_or_default());
        start = end;
        if text != fragment.text {
            changed.push((fragment, text));
        }
    }
    changed
}

fn rewrite(
    body: &[u8],
    events: &[Event],
    changes: &BTreeMap<usize, Vec<(Option<String>, String)>>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut copied = 0;
    for (number, replaced) in changes {
        let event = &events[*number];
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
fn replace_strings(data: &str, replaced: &[(Option<String>, String)]) -> String {
    let mut spans = Vec::new();
    for (pointer, text) in replaced {
        let Some(pointer) = pointer else { return text.clone() };
        match literal(data, pointer) {
            Some(span) => spans.push((span, Value::from(text.as_str()).to_string())),
            // A repeated key hides the literal. An event without data is better than one with a secret.
            None => return "{}".to_owned(),
        }
    }
    spans.sort_by_key(|(span, _)| span.start);
    let mut out = String::with_capacity(data.len());
    let mut copied = 0;
    for (span, text) in spans {
        out.push_str(&data[copied..span.start]);
        out.push_str(&text);
        copied = span.end;
    }
    out.push_str(&data[copied..]);
    out
}

/// Byte range of the value at a JSON pointer.
fn literal(data: &str, pointer: &str) -> Option<std::ops::Range<usize>> {
    let mut current: &RawValue = serde_json::from_str(data).ok()?;
    for step in pointer.split('/').skip(1) {
        current = if current.get().starts_with('[') {
            let items: Vec<&RawValue> = serde_json::from_str(current.get()).ok()?;
            items.get(step.parse::<usize>().ok()?).copied()?
        } else {
            let map: HashMap<std::borrow::Cow<'_, str>, &RawValue> =
                serde_json::from_str(current.get()).ok()?;
            let name = step.replace("~1", "/").replace("~0", "~");
            map.get(name.as_str()).copied()?
        };
    }
    // A raw value borrows from `data`, so its address gives its offset.
    let start = (current.get().as_ptr() as usize).checked_sub(data.as_ptr() as usize)?;
    Some(start..start + current.get().len())
}
