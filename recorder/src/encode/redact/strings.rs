//! Finds the string values of a JSON text, each with its bytes and a hash of its place.
//!
//! Builds no tree, so memory is a few words for each string and container.

use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;

/// A string value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundString {
    /// Bytes of the literal with its quotes.
    pub(super) literal: Range<usize>,
    /// Hash of the names and positions that lead to the string. Objects with a member whose name ends in `index`
    /// (choices, tool calls) count as different places by its value.
    pub(super) place: u64,
}

/// Finds strings; the hashes of one finder can be compared.
#[derive(Debug, Default)]
pub(super) struct StringFinder {
    hasher: RandomState,
}

/// An array or object that is not closed yet, or is closed and named by strings.
#[derive(Debug, Clone, Copy)]
struct Container {
    parent: usize,
    /// Hash of the name or position within the parent.
    step: u64,
    /// Hash of the members whose names end in `index`.
    index: u64,
    is_object: bool,
}

/// State of the search.
#[derive(Debug)]
struct Search<'a> {
    hasher: &'a RandomState,
    containers: Vec<Container>,
    /// The innermost open container.
    current: usize,
    /// Hash of the name or position of the next value.
    step: u64,
    /// Name of the next value, if it is the member of an object.
    name: Option<Range<usize>>,
    /// Position of the next value of each open array.
    positions: Vec<u64>,
    /// Strings by container and step.
    strings: Vec<(usize, u64, Range<usize>)>,
}

impl StringFinder {
    pub(super) fn hasher(&self) -> &RandomState {
        &self.hasher
    }

    /// Finds the string values of a valid JSON text; names of members are not among them.
    pub(super) fn find(&mut self, json: &str) -> Vec<FoundString> {
        let mut search = Search {
            hasher: &self.hasher,
            containers: vec![Container { parent: 0, step: 0, index: 0, is_object: false }],
            current: 0,
            step: 0,
            name: None,
            positions: vec![0],
            strings: Vec::new(),
        };
        search.run(json.as_bytes());
        search.found()
    }
}

impl Search<'_> {
    fn run(&mut self, json: &[u8]) {
        let mut at = 0;
        while let Some(byte) = json.get(at) {
            match byte {
                b'"' => {
                    let end = literal_end(json, at);
                    self.string(json, at..end);
                    at = end;
                    continue;
                }
                b'{' | b'[' => self.open(*byte == b'{'),
                b'}' | b']' => self.close(),
                b',' => self.next_value(),
                b'0'..=b'9' | b'-' => {
                    let length = json[at..].iter().take_while(|byte| is_scalar(**byte)).count().max(1);
                    self.scalar(json, at..at + length);
                    at += length;
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
    }

    fn string(&mut self, json: &[u8], literal: Range<usize>) {
        let is_name = self.containers[self.current].is_object && self.name.is_none();
        if is_name {
            self.step = self.hasher.hash_one(&json[literal.clone()]);
            self.name = Some(literal);
        } else {
            self.scalar(json, literal.clone());
            self.strings.push((self.current, self.step, literal));
        }
    }

    /// Adds the value of a member whose name ends in `index` to the place of its object.
    fn scalar(&mut self, json: &[u8], value: Range<usize>) {
        if let Some(name) = &self.name
            && json[name.clone()].ends_with(b"index\"")
        {
            let own = self.hasher.hash_one((self.step, &json[value]));
            let container = &mut self.containers[self.current];
            container.index = container.index.wrapping_add(own);
        }
    }

    fn open(&mut self, is_object: bool) {
        self.containers.push(Container { parent: self.current, step: self.step, index: 0, is_object });
        self.current = self.containers.len() - 1;
        self.positions.push(0);
        (self.step, self.name) = (0, None);
    }

    fn close(&mut self) {
        self.current = self.containers[self.current].parent;
        self.positions.pop();
        self.name = None;
    }

    fn next_value(&mut self) {
        self.name = None;
        if let Some(position) = self.positions.last_mut()
            && !self.containers[self.current].is_object
        {
            *position += 1;
            self.step = *position;
        }
    }

    /// Hashes the places. A container comes after its parent, so one pass suffices.
    fn found(self) -> Vec<FoundString> {
        let mut places: Vec<u64> = Vec::with_capacity(self.containers.len());
        for container in &self.containers {
            let parent = places.get(container.parent).copied().unwrap_or_default();
            places.push(self.hasher.hash_one((parent, container.step, container.index)));
        }
        let place = |container: usize, step: u64| self.hasher.hash_one((places[container], step));
        let strings = self.strings.iter();
        strings
            .map(|(container, step, literal)| FoundString {
                literal: literal.clone(),
                place: place(*container, *step),
            })
            .collect()
    }
}

/// The end of the literal that begins at `start`: after its closing quote, or the end of the text.
fn literal_end(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', json.get(at..).unwrap_or_default()) {
        at += found;
        if json[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    json.len()
}

fn is_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn texts(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
            Value::String(text) => out.push(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| texts(item, out)),
            Value::Object(map) => map.values().for_each(|item| texts(item, out)),
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-z\"\\\\\n,\\[{]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec(("[a-z\"\\\\]{0,4}(index)?", inner), 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn finds_the_strings_of_the_tree_in_order(value in any_json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.expect("a tree is JSON");
            let found = StringFinder::default().find(&text);
            let read = |found: &FoundString| serde_json::from_str::<String>(&text[found.literal.clone()]).expect("a string");
            let mut expected = Vec::new();
            texts(&value, &mut expected);
            prop_assert_eq!(found.iter().map(read).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn equal_places_have_equal_hashes() {
        let mut finder = StringFinder::default();
        let mut places = |value: &Value| -> Vec<u64> {
            finder.find(&value.to_string()).into_iter().map(|found| found.place).collect()
        };
        let one = places(&json!({"a": [{"text": "x", "index": 0}, "y"], "b": "z"}));
        let other = places(&json!({"a": [{"text": "longer", "index": 0}, "?"], "b": ""}));
        assert_eq!(one, other);
        let second = places(&json!({"a": [{"text": "x", "index": 1}, "y"], "b": "z"}));
        assert_ne!(one[0], second[0], "another choice");
        assert_eq!(one[1..], second[1..]);
        assert!(one[0] != one[1] && one[1] != one[2] && one[0] != one[2]);
    }
}
