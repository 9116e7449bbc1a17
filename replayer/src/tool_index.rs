//! Finds the recorded answer of a tool call: by exact canonical arguments, then by arguments that the policy declares to be
//! equal, then, for a read only, by normalised arguments; else a miss.
//!
//! Normalisation guesses which arguments mean the same, so it never answers a write, nor a read where the recording itself
//! tells two such calls apart. A tool of unknown effect counts as a write.
//!
//! Pure. An answer is never found by order alone, so calls may come in any order and concurrently. Identical calls are
//! told apart by count: the n-th call gets the n-th recorded answer, and the last answer repeats.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use schemas::canonical::{normalised, normalised_text};
use schemas::equality::ArgumentRules;
use schemas::exchange::Effect;
use schemas::json::Json;
use serde_json::Value;

use crate::case_recording::{Arguments, RecordedToolCall, ToolEffects};
use crate::shorten::shorten;

/// The recorded calls of a case, indexed by tool and arguments. All trials of the case share it.
#[derive(Debug, Default)]
pub(crate) struct ToolIndex {
    calls: Vec<RecordedToolCall>,
    by_exact: HashMap<Key, Vec<usize>>,
    by_declared: HashMap<Key, Vec<usize>>,
    /// Reads only, and only where all calls of an entry are equal as declared.
    by_normalised: HashMap<Key, Vec<usize>>,
    /// Tools that only read.
    reads: BTreeSet<String>,
    rules: ArgumentRules,
}

/// Tool and arguments: exact, as declared, or normalised.
type Key = (String, String);

/// Matches the calls of one trial against the index and counts them.
#[derive(Debug, Default)]
pub(crate) struct ToolMatcher {
    /// Calls so far with the same exact arguments.
    exact: HashMap<Key, usize>,
    /// Calls so far that are equal as declared.
    declared: HashMap<Key, usize>,
    /// Calls so far with the same normalised arguments.
    normalised: HashMap<Key, usize>,
    /// Of those, the calls whose exact arguments the recording does not contain.
    unmatched: HashMap<Key, usize>,
}

/// Equality by which a recorded call was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MatchKind {
    /// The same canonical arguments.
    Exact,
    /// Arguments that are declared to be equal, or the same after normalisation.
    Normalised,
}

/// Result of matching one call.
#[derive(Debug, PartialEq)]
pub(crate) struct ToolMatch<'index> {
    /// Identical calls (tool and canonical arguments) that the trial made before this one.
    pub(crate) earlier_identical: usize,
    pub(crate) result: MatchResult<'index>,
}

/// A recorded call, or the reason for a miss.
#[derive(Debug, PartialEq)]
pub(crate) enum MatchResult<'index> {
    Matched {
        call: &'index RecordedToolCall,
        kind: MatchKind,
    },
    Missed {
        /// Describes the most similar recorded call.
        nearest: String,
        /// JSON pointer of the first argument that differs from that call's.
        argument: Option<String>,
    },
}

impl ToolIndex {
    /// Indexes recorded calls in their recorded order.
    pub(crate) fn new(
        calls: Vec<RecordedToolCall>,
        effects: &BTreeMap<String, ToolEffects>,
        rules: ArgumentRules,
    ) -> Self {
        let reads = effects.iter().filter(|(_, tool)| tool.effect == Effect::Read);
        let reads = reads.map(|(name, _)| name.clone()).collect();
        let mut index = Self { reads, rules, ..Self::default() };
        let mut distinct: HashMap<Key, BTreeSet<String>> = HashMap::new();
        for (position, call) in calls.iter().enumerate() {
            let key = |text: String| (call.tool.clone(), text);
            let declared = index.declared_key(&call.tool, &call.arguments);
            let normalised = index.normalised_key(&call.tool, &declared);
            index.by_exact.entry(key(exact_key(&call.arguments))).or_default().push(position);
            index.by_declared.entry(key(declared.clone())).or_default().push(position);
            if let Some(normalised) = normalised.map(key) {
                distinct.entry(normalised.clone()).or_default().insert(declared);
                index.by_normalised.entry(normalised).or_default().push(position);
            }
        }
        index.by_normalised.retain(|key, _| distinct[key].len() == 1);
        Self { calls, ..index }
    }

    /// Arguments without what the policy declares to make no difference.
    fn declared_key(&self, tool: &str, arguments: &Arguments) -> String {
        let declared = match arguments {
            Arguments::Canonical(text) => self.rules.compared(tool, text),
            Arguments::Verbatim(_) => None,
        };
        declared.unwrap_or_else(|| exact_key(arguments))
    }

    /// Normalised arguments of a read; `None` for another tool.
    fn normalised_key(&self, tool: &str, declared: &str) -> Option<String> {
        self.reads.contains(tool).then(|| {
            normalised_text(declared).unwrap_or_else(|| {
                let text = Value::String(declared.trim_start_matches('\u{0}').to_owned());
                format!("\u{0}{}", normalised(&text))
            })
        })
    }

    /// Whether the recording contains a call with exactly these arguments.
    pub(crate) fn contains_exactly(&self, tool: &str, arguments: &Arguments) -> bool {
        self.by_exact.contains_key(&(tool.to_owned(), exact_key(arguments)))
    }

    /// Describes the recorded call that shares the most argument values with a call, and names the first argument that
    /// differs.
    fn nearest(&self, tool: &str, arguments: &Arguments) -> (String, Option<String>) {
        let wanted = leaves(arguments);
        let mut best: Option<(usize, &RecordedToolCall)> = None;
        for call in self.calls.iter().filter(|call| call.tool == tool) {
            let shared = leaves(&call.arguments).iter().filter(|leaf| wanted.contains(leaf)).count();
            if best.is_none_or(|(most, _)| shared > most) {
                best = Some((shared, call));
            }
        }
        if let Some((_, call)) = best {
            let text = format!("nearest recorded arguments: {}", shorten(call.arguments.as_str()));
            return (text, first_difference(arguments, &call.arguments));
        }
        let mut tools: Vec<&str> = self.calls.iter().map(|call| call.tool.as_str()).collect();
        tools.sort_unstable();
        tools.dedup();
        if tools.is_empty() {
            return ("the recording contains no tool call".to_owned(), None);
        }
        let tools = shorten(&tools.join(", "));
        (format!("the recording contains no call of this tool, only of {tools}"), None)
    }
}

impl ToolMatcher {
    /// Finds the recorded call for the trial's next call, and counts the call.
    pub(crate) fn find<'index>(
        &mut self,
        index: &'index ToolIndex,
        tool: &str,
        arguments: &Arguments,
    ) -> ToolMatch<'index> {
        let exact = (tool.to_owned(), exact_key(arguments));
        let declared = (tool.to_owned(), index.declared_key(tool, arguments));
        let normalised = index.normalised_key(tool, &declared.1).map(|text| (tool.to_owned(), text));
        // Calls that can get the same recorded answers share one count.
        let shared = normalised.clone().unwrap_or_else(|| declared.clone());
        let earlier_identical = count(&mut self.exact, &exact);
        let earlier_equal = count(&mut self.declared, &declared);
        let earlier_similar = count(&mut self.normalised, &shared);
        let earlier_unmatched = self.unmatched.get(&shared).copied().unwrap_or(0);
        let (positions, occurrence, kind) = if let Some(positions) = index.by_exact.get(&exact) {
            (positions, earlier_identical + earlier_unmatched, MatchKind::Exact)
        } else if let Some(positions) = index.by_declared.get(&declared) {
            count(&mut self.unmatched, &shared);
            (positions, earlier_equal, MatchKind::Normalised)
        } else if let Some(positions) = index.by_normalised.get(&shared) {
            count(&mut self.unmatched, &shared);
            (positions, earlier_similar, MatchKind::Normalised)
        } else {
            let (nearest, argument) = index.nearest(tool, arguments);
            let result = MatchResult::Missed { nearest, argument };
            return ToolMatch { earlier_identical, result };
        };
        let position = positions[occurrence.min(positions.len() - 1)];
        ToolMatch { earlier_identical, result: MatchResult::Matched { call: &index.calls[position], kind } }
    }
}

/// Counts one more and returns the count before.
fn count(counts: &mut HashMap<Key, usize>, key: &Key) -> usize {
    let count = counts.entry(key.clone()).or_insert(0);
    *count += 1;
    *count - 1
}

fn exact_key(arguments: &Arguments) -> String {
    match arguments {
        Arguments::Canonical(text) => text.clone(),
        // No JSON starts with NUL, so verbatim text never equals canonical arguments.
        Arguments::Verbatim(text) => format!("\u{0}{text}"),
    }
}

/// JSON pointer of the first argument that differs, in the order of canonical JSON. `None` if one side is no JSON, or the
/// arguments as a whole differ.
fn first_difference(asked: &Arguments, recorded: &Arguments) -> Option<String> {
    fn walk(asked: Option<&Json>, recorded: Option<&Json>, pointer: &str) -> Option<String> {
        let at = |key: &str| format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
        match (asked, recorded) {
            (Some(one @ Json::Object(asked)), Some(other @ Json::Object(recorded))) => {
                let keys: BTreeSet<&String> = asked.iter().chain(recorded).map(|(key, _)| key).collect();
                let inside = |key: &String| at(key)[pointer.len()..].to_owned();
                keys.into_iter().find_map(|key| walk(one.at(&inside(key)), other.at(&inside(key)), &at(key)))
            }
            (Some(Json::Array(asked)), Some(Json::Array(recorded))) => (0..asked.len().max(recorded.len()))
                .find_map(|index| walk(asked.get(index), recorded.get(index), &at(&index.to_string()))),
            (Some(asked), Some(recorded)) if asked == recorded => None,
            (None, None) => None,
            (Some(_), Some(_)) | (Some(_), None) | (None, Some(_)) => Some(pointer.to_owned()),
        }
    }
    let (Arguments::Canonical(asked), Arguments::Canonical(recorded)) = (asked, recorded) else {
        return None;
    };
    let (asked, recorded) = (Json::parse(asked)?, Json::parse(recorded)?);
    walk(Some(&asked), Some(&recorded), "").filter(|pointer| !pointer.is_empty())
}

/// The values of the normalised arguments with their paths.
fn leaves(arguments: &Arguments) -> Vec<String> {
    fn walk(value: &Json, path: &str, out: &mut Vec<String>) {
        match value {
            Json::Object(entries) => {
                entries.iter().for_each(|(key, item)| walk(item, &format!("{path}/{key}"), out))
            }
            Json::Array(items) => items.iter().for_each(|item| walk(item, &format!("{path}/-"), out)),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) => {
                out.push(format!("{path}={value}"))
            }
        }
    }
    let mut out = Vec::new();
    if let Some(value) = normalised_text(arguments.as_str()).as_deref().and_then(Json::parse) {
        walk(&value, "", &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tool_answer::ToolAnswer;

    fn recording(tool: &str, arguments: &str, text: &str) -> RecordedToolCall {
        RecordedToolCall {
            tool: tool.to_owned(),
            arguments: Arguments::parse(arguments),
            answer: ToolAnswer::Text { text: text.to_owned(), is_error: false },
            duration: None,
        }
    }

    fn ask(
        index: &ToolIndex,
        matcher: &mut ToolMatcher,
        tool: &str,
        arguments: &str,
    ) -> (String, Option<MatchKind>, usize) {
        let found = matcher.find(index, tool, &Arguments::parse(arguments));
        match found.result {
            MatchResult::Matched { call, kind } => (call.answer.text(), Some(kind), found.earlier_identical),
            MatchResult::Missed { nearest, .. } => (nearest, None, found.earlier_identical),
        }
    }

    fn effects() -> BTreeMap<String, ToolEffects> {
        let tool = |effect| ToolEffects { effect, ..ToolEffects::default() };
        BTreeMap::from([("read".to_owned(), tool(Effect::Read)), ("write".to_owned(), tool(Effect::Write))])
    }

    fn reading(calls: Vec<RecordedToolCall>) -> ToolIndex {
        ToolIndex::new(calls, &effects(), ArgumentRules::default())
    }

    #[test]
    fn recorded_reads_that_would_collide_are_told_apart_exactly() {
        let index = reading(vec![
            recording("read", r#"{"path":"/Etc"}"#, "upper"),
            recording("read", r#"{"path":"/etc"}"#, "lower"),
            recording("read", r#"{"n":18446744073709551616}"#, "long"),
        ]);
        let kind = |arguments: &str| ask(&index, &mut ToolMatcher::default(), "read", arguments).1;
        let text = |arguments: &str| ask(&index, &mut ToolMatcher::default(), "read", arguments).0;
        assert_eq!(
            (text(r#"{"path":"/Etc"}"#), text(r#"{"path":"/etc"}"#)),
            ("upper".into(), "lower".into())
        );
        assert_eq!(kind(r#"{"path":"/ETC"}"#), None, "two recorded calls differ in case alone");
        assert_eq!(kind(r#"{"n":18446744073709551617}"#), None, "a double would make them equal");
        assert_eq!(kind(r#"{"n":"18446744073709551616","limit":null}"#), Some(MatchKind::Normalised));
    }

    #[test]
    fn a_write_or_a_tool_of_unknown_effect_never_matches_by_normalisation() {
        let calls = ["write", "other"].map(|tool| recording(tool, r#"{"to":"GNy","limit":null}"#, "done"));
        let index = reading(calls.to_vec());
        for tool in ["write", "other"] {
            let kind = |arguments: &str| ask(&index, &mut ToolMatcher::default(), tool, arguments).1;
            assert_eq!(kind(r#"{"limit":null,"to":"GNy"}"#), Some(MatchKind::Exact));
            for other in [r#"{"limit":null,"to":"GNY"}"#, r#"{"to":"GNy"}"#, r#"{"limit":"","to":"GNy"}"#] {
                assert_eq!(kind(other), None, "{tool} {other}");
            }
        }
    }

    #[test]
    fn a_declared_rule_finds_the_answer_of_a_write() {
        let mut rules = ArgumentRules::default();
        assert!(rules.declare("write", "/request_id", schemas::equality::ArgumentRule::Generated));
        let calls = vec![
            recording("write", r#"{"id":"W1","request_id":"r1"}"#, "first"),
            recording("write", r#"{"id":"W1","request_id":"r2"}"#, "second"),
        ];
        let index = ToolIndex::new(calls, &effects(), rules);
        let mut matcher = ToolMatcher::default();
        let answers = ["x1", "x2"].map(|id| {
            ask(&index, &mut matcher, "write", &format!("{{\"id\":\"W1\",\"request_id\":\"{id}\"}}"))
        });
        assert_eq!(answers[0], ("first".into(), Some(MatchKind::Normalised), 0));
        assert_eq!(answers[1], ("second".into(), Some(MatchKind::Normalised), 0));
        assert_eq!(ask(&index, &mut matcher, "write", r#"{"id":"W2","request_id":"r1"}"#).1, None);
        assert_eq!(ask(&index, &mut matcher, "write", r#"{"id":"W1"}"#).1, None);
    }

    fn index() -> ToolIndex {
        reading(vec![
            recording("read", r#"{"id":"W1"}"#, "before"),
            recording("write", r#"{"id":"W1","to":"x"}"#, "done"),
            recording("read", r#"{"id":"W1"}"#, "after"),
            recording("read", r#"{"id":"W2"}"#, "other"),
            recording("say", "not json", "verbatim"),
        ])
    }

    #[test]
    fn answers_are_found_by_arguments_not_by_order() {
        let (index, mut matcher) = (index(), ToolMatcher::default());
        assert_eq!(ask(&index, &mut matcher, "read", r#"{"id":"W2"}"#).0, "other");
        assert_eq!(
            ask(&index, &mut matcher, "read", r#"{ "id" : "W1" }"#),
            ("before".into(), Some(MatchKind::Exact), 0)
        );
        assert_eq!(
            ask(&index, &mut matcher, "read", r#"{"id":"W1"}"#),
            ("after".into(), Some(MatchKind::Exact), 1)
        );
        assert_eq!(
            ask(&index, &mut matcher, "read", r#"{"id":"W1"}"#),
            ("after".into(), Some(MatchKind::Exact), 2)
        );
    }

    #[test]
    fn normalised_and_exact_calls_share_one_count() {
        let (index, mut matcher) = (index(), ToolMatcher::default());
        assert_eq!(
            ask(&index, &mut matcher, "read", r#"{"id":" w1 "}"#),
            ("before".into(), Some(MatchKind::Normalised), 0)
        );
        assert_eq!(
            ask(&index, &mut matcher, "read", r#"{"id":"W1"}"#),
            ("after".into(), Some(MatchKind::Exact), 0)
        );
    }

    #[test]
    fn a_repeated_write_gets_the_same_answer() {
        let (index, mut matcher) = (index(), ToolMatcher::default());
        let call = r#"{"to":"x","id":"W1"}"#;
        assert_eq!(ask(&index, &mut matcher, "write", call).2, 0);
        assert_eq!(ask(&index, &mut matcher, "write", call), ("done".into(), Some(MatchKind::Exact), 1));
    }

    #[test]
    fn a_miss_names_the_nearest_recorded_call() {
        let (index, mut matcher) = (index(), ToolMatcher::default());
        let (detail, kind, _) = ask(&index, &mut matcher, "write", r#"{"id":"W1","to":"y"}"#);
        assert_eq!(kind, None);
        assert!(detail.contains(r#"{"id":"W1","to":"x"}"#), "{detail}");
        let difference = |asked: &str| {
            first_difference(
                &Arguments::parse(asked),
                &Arguments::parse(r#"{"id":"W1","to":["x",{"a/b":1}]}"#),
            )
        };
        assert_eq!(
            difference(r#"{"id":"W1","request_id":1,"to":["x",{"a/b":1}]}"#).as_deref(),
            Some("/request_id")
        );
        assert_eq!(difference(r#"{"id":"W1","to":["x",{"a/b":"1"}]}"#).as_deref(), Some("/to/1/a~1b"));
        assert_eq!(difference(r#"{"id":"W1"}"#).as_deref(), Some("/to"));
        assert_eq!(difference("[]"), None);
        assert!(ask(&index, &mut matcher, "drop", "{}").0.contains("only of read, say, write"));
        assert_eq!(ask(&index, &mut matcher, "say", "not json").0, "verbatim");
        assert_eq!(ask(&index, &mut matcher, "say", r#""not json""#).1, None);
    }

    fn call() -> impl Strategy<Value = (String, String)> {
        (0..3_u8, 0..4_u8).prop_map(|(tool, id)| (format!("t{tool}"), format!("{{\"id\":\"a{id}\"}}")))
    }

    proptest! {
        /// In any order, each call finds an answer of its own tool and arguments, or misses.
        #[test]
        fn a_call_never_gets_the_answer_of_another_call(recorded in proptest::collection::vec(call(), 0..20), asked in proptest::collection::vec(call(), 0..20)) {
            let recordings = recorded.iter().enumerate().map(|(n, (tool, args))| recording(tool, args, &format!("{tool}{args}#{n}")));
            let index = reading(recordings.collect());
            let mut matcher = ToolMatcher::default();
            for (tool, args) in &asked {
                let (text, kind, _) = ask(&index, &mut matcher, tool, args);
                prop_assert_eq!(kind.is_some(), recorded.contains(&(tool.clone(), args.clone())));
                if kind.is_some() {
                    let prefix = format!("{tool}{args}#");
                    prop_assert!(text.starts_with(&prefix), "{} for {}", text, prefix);
                }
            }
        }

        /// A trial that makes the recorded calls in any order gets every recorded answer.
        #[test]
        fn the_recorded_calls_get_the_recorded_answers(recorded in proptest::collection::vec(call(), 0..20), seed in any::<u64>()) {
            let recordings: Vec<_> = recorded.iter().enumerate().map(|(n, (tool, args))| recording(tool, args, &n.to_string())).collect();
            let index = reading(recordings);
            let mut matcher = ToolMatcher::default();
            let mut order: Vec<usize> = (0..recorded.len()).collect();
            order.sort_by_key(|n| seeded::Key::derive("order", &[&seed.to_le_bytes(), &n.to_le_bytes()]));
            let mut answers: Vec<String> = order.iter().map(|n| ask(&index, &mut matcher, &recorded[*n].0, &recorded[*n].1).0).collect();
            answers.sort();
            let mut expected: Vec<String> = (0..recorded.len()).map(|n| n.to_string()).collect();
            expected.sort();
            prop_assert_eq!(answers, expected);
        }

        /// No text makes the matcher panic.
        #[test]
        fn any_text_is_matched_or_missed(tool in ".{0,8}", args in ".{0,40}") {
            let index = index();
            let found = ToolMatcher::default().find(&index, &tool, &Arguments::parse(&args));
            prop_assert_eq!(found.earlier_identical, 0);
        }
    }
}
