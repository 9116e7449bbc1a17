//! The ladder by which a tool call finds its recorded answer: exact canonical arguments, then normalised ones, else a miss.
//!
//! Pure. Never first-in-first-out: an answer is found by what was asked, so calls may come in any order and at once.
//! Identical calls are told apart by how many of them came before: the n-th gets the n-th recorded answer, and the last
//! one repeats.

use std::collections::HashMap;

use schemas::canonical::{canonical, normalised};
use serde_json::Value;

use crate::case_recording::{Arguments, ToolRecording};

/// The recorded calls of a case, by what they asked.
#[derive(Debug, Default)]
pub(crate) struct Tape {
    recordings: Vec<ToolRecording>,
    exact: HashMap<Key, Vec<usize>>,
    normal: HashMap<Key, Vec<usize>>,
}

/// Tool and arguments, in one spelling or another.
type Key = (String, String);

/// How far one trial has got; the tape itself is shared.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    /// Calls of this very spelling.
    exact: HashMap<Key, usize>,
    /// Calls of this normal spelling, of any spelling.
    normal: HashMap<Key, usize>,
    /// Of those, the ones in a spelling that the recording does not hold.
    foreign: HashMap<Key, usize>,
}

/// On which rung an answer was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rung {
    /// The same canonical arguments.
    Exact,
    /// The same arguments after normalisation.
    Normalised,
}

/// What the ladder says of a call.
#[derive(Debug, PartialEq)]
pub(crate) struct Found<'a> {
    /// How many identical calls (tool, canonical arguments) this trial made before.
    pub(crate) earlier: usize,
    /// The answer, or why there is none.
    pub(crate) outcome: Outcome<'a>,
}

/// An answer, or why there is none.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome<'a> {
    /// Found.
    Recorded {
        /// The recorded call.
        recording: &'a ToolRecording,
        /// On which rung.
        rung: Rung,
    },
    /// The recording cannot answer it.
    Missed {
        /// What the recording holds nearest to it, in words.
        nearest: String,
    },
}

impl Tape {
    /// Indexes the recorded calls.
    pub(crate) fn new(recordings: Vec<ToolRecording>) -> Self {
        let mut tape = Self { recordings, ..Self::default() };
        for (place, recording) in tape.recordings.iter().enumerate() {
            let tool = recording.tool.clone();
            tape.exact.entry((tool.clone(), exact_spelling(&recording.arguments))).or_default().push(place);
            tape.normal.entry((tool, normal_spelling(&recording.arguments))).or_default().push(place);
        }
        tape
    }

    /// Whether the recording holds these very arguments; moves nothing.
    pub(crate) fn holds_exactly(&self, tool: &str, arguments: &Arguments) -> bool {
        self.exact.contains_key(&(tool.to_owned(), exact_spelling(arguments)))
    }

    /// Finds the answer to a call and moves the cursor past it.
    pub(crate) fn answer(&self, cursor: &mut Cursor, tool: &str, arguments: &Arguments) -> Found<'_> {
        let exact = (tool.to_owned(), exact_spelling(arguments));
        let normal = (tool.to_owned(), normal_spelling(arguments));
        let same_before = next(&mut cursor.exact, &exact);
        let alike_before = next(&mut cursor.normal, &normal);
        let foreign_before = cursor.foreign.get(&normal).copied().unwrap_or(0);
        let (places, occurrence, rung) = if let Some(places) = self.exact.get(&exact) {
            (places, same_before + foreign_before, Rung::Exact)
        } else if let Some(places) = self.normal.get(&normal) {
            next(&mut cursor.foreign, &normal);
            (places, alike_before, Rung::Normalised)
        } else {
            let outcome = Outcome::Missed { nearest: self.nearest(tool, arguments) };
            return Found { earlier: same_before, outcome };
        };
        let place = places[occurrence.min(places.len() - 1)];
        let outcome = Outcome::Recorded { recording: &self.recordings[place], rung };
        Found { earlier: same_before, outcome }
    }

    /// Says what the recording holds nearest to a call.
    fn nearest(&self, tool: &str, arguments: &Arguments) -> String {
        let asked = leaves(arguments);
        let mut best: Option<(usize, &ToolRecording)> = None;
        for recording in self.recordings.iter().filter(|recording| recording.tool == tool) {
            let held = leaves(&recording.arguments);
            let shared = held.iter().filter(|leaf| asked.contains(leaf)).count();
            if best.is_none_or(|(most, _)| shared > most) {
                best = Some((shared, recording));
            }
        }
        if let Some((_, recording)) = best {
            return format!("nearest recorded arguments: {}", shorten(recording.arguments.as_str()));
        }
        let mut tools: Vec<&str> = self.recordings.iter().map(|recording| recording.tool.as_str()).collect();
        tools.sort_unstable();
        tools.dedup();
        if tools.is_empty() {
            return "the recording holds no tool call".to_owned();
        }
        format!("the recording holds no call of this tool, only of {}", shorten(&tools.join(", ")))
    }
}

/// Counts one more and says how many there were before.
fn next(counts: &mut HashMap<Key, usize>, key: &Key) -> usize {
    let count = counts.entry(key.clone()).or_insert(0);
    *count += 1;
    *count - 1
}

fn exact_spelling(arguments: &Arguments) -> String {
    match arguments {
        Arguments::Canonical(text) => text.clone(),
        // A mark that no JSON begins with keeps a verbatim text apart from canonical arguments.
        Arguments::Verbatim(text) => format!("\u{0}{text}"),
    }
}

fn normal_spelling(arguments: &Arguments) -> String {
    match arguments {
        Arguments::Canonical(text) => match serde_json::from_str::<Value>(text) {
            Ok(value) => canonical(&normalised(&value)),
            Err(_) => text.clone(),
        },
        Arguments::Verbatim(text) => format!("\u{0}{}", canonical(&normalised(&Value::String(text.clone())))),
    }
}

/// The leaves of the normalised arguments with their paths.
fn leaves(arguments: &Arguments) -> Vec<String> {
    fn walk(value: &Value, path: &str, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                map.iter().for_each(|(key, item)| walk(item, &format!("{path}/{key}"), out))
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, &format!("{path}/-"), out)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                out.push(format!("{path}={value}"))
            }
        }
    }
    let mut out = Vec::new();
    if let Ok(value) = serde_json::from_str::<Value>(arguments.as_str()) {
        walk(&normalised(&value), "", &mut out);
    }
    out
}

/// The longest piece of recorded text that goes into a message, in characters.
const MAX_SHOWN: usize = 300;

/// Cuts a text to what a message can carry.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tool_answer::ToolAnswer;

    fn recording(tool: &str, arguments: &str, text: &str) -> ToolRecording {
        ToolRecording {
            tool: tool.to_owned(),
            arguments: Arguments::parse(arguments),
            answer: ToolAnswer::Text { text: text.to_owned(), is_error: false },
            duration: None,
        }
    }

    fn ask(tape: &Tape, cursor: &mut Cursor, tool: &str, arguments: &str) -> (String, Option<Rung>, usize) {
        let found = tape.answer(cursor, tool, &Arguments::parse(arguments));
        match found.outcome {
            Outcome::Recorded { recording, rung } => (recording.answer.text(), Some(rung), found.earlier),
            Outcome::Missed { nearest } => (nearest, None, found.earlier),
        }
    }

    fn tape() -> Tape {
        Tape::new(vec![
            recording("read", r#"{"id":"W1"}"#, "before"),
            recording("write", r#"{"id":"W1","to":"x"}"#, "done"),
            recording("read", r#"{"id":"W1"}"#, "after"),
            recording("read", r#"{"id":"W2"}"#, "other"),
            recording("say", "not json", "verbatim"),
        ])
    }

    #[test]
    fn answers_by_what_was_asked_not_by_order() {
        let (tape, mut cursor) = (tape(), Cursor::default());
        assert_eq!(ask(&tape, &mut cursor, "read", r#"{"id":"W2"}"#).0, "other");
        assert_eq!(
            ask(&tape, &mut cursor, "read", r#"{ "id" : "W1" }"#),
            ("before".into(), Some(Rung::Exact), 0)
        );
        assert_eq!(ask(&tape, &mut cursor, "read", r#"{"id":"W1"}"#), ("after".into(), Some(Rung::Exact), 1));
        assert_eq!(ask(&tape, &mut cursor, "read", r#"{"id":"W1"}"#), ("after".into(), Some(Rung::Exact), 2));
    }

    #[test]
    fn normalised_calls_move_the_same_state() {
        let (tape, mut cursor) = (tape(), Cursor::default());
        assert_eq!(
            ask(&tape, &mut cursor, "read", r#"{"id":" w1 "}"#),
            ("before".into(), Some(Rung::Normalised), 0)
        );
        assert_eq!(ask(&tape, &mut cursor, "read", r#"{"id":"W1"}"#), ("after".into(), Some(Rung::Exact), 0));
    }

    #[test]
    fn a_write_made_again_gets_its_answer_again() {
        let (tape, mut cursor) = (tape(), Cursor::default());
        let call = r#"{"to":"x","id":"W1"}"#;
        assert_eq!(ask(&tape, &mut cursor, "write", call).2, 0);
        assert_eq!(ask(&tape, &mut cursor, "write", call), ("done".into(), Some(Rung::Exact), 1));
    }

    #[test]
    fn a_miss_names_what_is_nearest() {
        let (tape, mut cursor) = (tape(), Cursor::default());
        let (detail, rung, _) = ask(&tape, &mut cursor, "write", r#"{"id":"W1","to":"y"}"#);
        assert_eq!(rung, None);
        assert!(detail.contains(r#"{"id":"W1","to":"x"}"#), "{detail}");
        assert!(ask(&tape, &mut cursor, "drop", "{}").0.contains("only of read, say, write"));
        assert_eq!(ask(&tape, &mut cursor, "say", "not json").0, "verbatim");
        assert_eq!(ask(&tape, &mut cursor, "say", r#""not json""#).1, None);
    }

    fn call() -> impl Strategy<Value = (String, String)> {
        (0..3_u8, 0..4_u8).prop_map(|(tool, id)| (format!("t{tool}"), format!("{{\"id\":\"a{id}\"}}")))
    }

    proptest! {
        /// Whatever the order, each call finds an answer of its own tool and arguments, or misses.
        #[test]
        fn never_the_answer_of_another_call(recorded in proptest::collection::vec(call(), 0..20), asked in proptest::collection::vec(call(), 0..20)) {
            let recordings = recorded.iter().enumerate().map(|(n, (tool, args))| recording(tool, args, &format!("{tool}{args}#{n}")));
            let tape = Tape::new(recordings.collect());
            let mut cursor = Cursor::default();
            for (tool, args) in &asked {
                let (text, rung, _) = ask(&tape, &mut cursor, tool, args);
                prop_assert_eq!(rung.is_some(), recorded.contains(&(tool.clone(), args.clone())));
                if rung.is_some() {
                    let prefix = format!("{tool}{args}#");
                    prop_assert!(text.starts_with(&prefix), "{} for {}", text, prefix);
                }
            }
        }

        /// A trial that asks what the recording asked, in any order that keeps identical calls apart, hears all of it.
        #[test]
        fn the_same_calls_hear_the_same_answers(recorded in proptest::collection::vec(call(), 0..20), seed in any::<u64>()) {
            let recordings: Vec<_> = recorded.iter().enumerate().map(|(n, (tool, args))| recording(tool, args, &n.to_string())).collect();
            let tape = Tape::new(recordings);
            let mut cursor = Cursor::default();
            let mut order: Vec<usize> = (0..recorded.len()).collect();
            order.sort_by_key(|n| crate::seed::digest("order", &[&seed.to_le_bytes(), &n.to_le_bytes()]));
            let mut heard: Vec<String> = order.iter().map(|n| ask(&tape, &mut cursor, &recorded[*n].0, &recorded[*n].1).0).collect();
            heard.sort();
            let mut expected: Vec<String> = (0..recorded.len()).map(|n| n.to_string()).collect();
            expected.sort();
            prop_assert_eq!(heard, expected);
        }

        /// No text makes the ladder panic.
        #[test]
        fn any_text_is_answered(tool in ".{0,8}", args in ".{0,40}") {
            let tape = tape();
            let found = tape.answer(&mut Cursor::default(), &tool, &Arguments::parse(&args));
            prop_assert_eq!(found.earlier, 0);
        }
    }
}
