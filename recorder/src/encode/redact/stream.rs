//! Secrets that are split over the events of a stream.
//!
//! Strings at the same place of successive events are one text (a model's answer arrives a few letters at a time).
//! The assembled text is searched; where a secret lies across events, its first fragment becomes the token and the
//! others lose theirs. Protocols are not known here: any string of any JSON event takes part.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use serde_json::value::RawValue;

use super::{Redactor, Tally};
use crate::encode::sse::{self, Event};

/// A string in one event.
struct Fragment {
    /// Which event.
    event: usize,
    /// Its JSON pointer in the event; absent where the event is not JSON and the fragment is its whole data.
    pointer: Option<String>,
    /// Its text.
    text: String,
}

/// Replaces what is split; everything else stays byte for byte.
pub(super) fn redact(redactor: &Redactor, body: Vec<u8>, place: &'static str, tally: &mut Tally) -> Vec<u8> {
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
        for (fragment, text) in replace_across(redactor, fragments, place, tally) {
            changes.entry(fragment.event).or_default().push((fragment.pointer, text));
        }
    }
    if changes.is_empty() { body } else { rewrite(&body, &events, &changes) }
}

/// Gathers the strings of an event by their place; elements that carry an `index` are told apart by it.
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
            for (place, item) in items.iter().enumerate() {
                descend(item, &place.to_string(), event, pointer, key, texts);
            }
        }
        Value::Object(map) => {
            let index =
                map.iter().filter(|(name, _)| name.ends_with("index")).map(|(_, index)| index.to_string());
            let mark = format!("#{}", index.collect::<Vec<_>>().join(","));
            let length = key.len();
            key.push_str(&mark);
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

/// The fragments that change, with their new text.
fn replace_across(
    redactor: &Redactor,
    fragments: Vec<Fragment>,
    place: &'static str,
    tally: &mut Tally,
) -> Vec<(Fragment, String)> {
    let whole: String = fragments.iter().map(|fragment| fragment.text.as_str()).collect();
    let findings = redactor.detector.find(whole.as_bytes());
    if findings.is_empty() {
        return Vec::new();
    }
    for finding in &findings {
        tally.add(finding.kind, place);
    }
    let mut changed = Vec::new();
    let mut start = 0;
    for fragment in fragments {
        let end = start + fragment.text.len();
        let mut text = String::new();
        let mut done = start;
        for finding in findings.iter().filter(|finding| finding.span.start < end && finding.span.end > start)
        {
            // The shapes are of ASCII letters, so a finding's ends are at character boundaries.
            text.push_str(whole.get(done..finding.span.start.max(start)).unwrap_or_default());
            if finding.span.start >= start {
                text.push_str(&redactor.keys.token(finding.kind, &whole.as_bytes()[finding.span.clone()]));
            }
            done = finding.span.end.min(end);
        }
        text.push_str(whole.get(done..end).unwrap_or_default());
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
    let mut done = 0;
    for (number, replaced) in changes {
        let event = &events[*number];
        let (Some(first), Some(last)) = (event.data.first(), event.data.last()) else { continue };
        let data = replace_strings(&event.text(body), replaced);
        out.extend_from_slice(&body[done..first.start]);
        out.extend_from_slice(data.replace('\n', "\ndata: ").as_bytes());
        done = last.end;
    }
    out.extend_from_slice(&body[done..]);
    out
}

/// Puts new texts into an event's data, leaving the bytes between them as they are.
fn replace_strings(data: &str, replaced: &[(Option<String>, String)]) -> String {
    let mut spans = Vec::new();
    for (pointer, text) in replaced {
        let Some(pointer) = pointer else { return text.clone() };
        match literal(data, pointer) {
            Some(span) => spans.push((span, Value::from(text.as_str()).to_string())),
            // A repeated key hides the literal: better an event without data than one with a secret.
            None => return "{}".to_owned(),
        }
    }
    spans.sort_by_key(|(span, _)| span.start);
    let mut out = String::with_capacity(data.len());
    let mut done = 0;
    for (span, text) in spans {
        out.push_str(&data[done..span.start]);
        out.push_str(&text);
        done = span.end;
    }
    out.push_str(&data[done..]);
    out
}

/// Where the value at a JSON pointer lies in the text.
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
    // A raw value borrows from `data`, so its address gives its place.
    let start = (current.get().as_ptr() as usize).checked_sub(data.as_ptr() as usize)?;
    Some(start..start + current.get().len())
}
