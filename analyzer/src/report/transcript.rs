//! What was said in a trial, for the page alone: the decision never sees it.

use std::collections::BTreeMap;

use schemas::trial::Lane;

use crate::run::{ToolCall, TrialRecord};

/// What was said in the trials that the page shows, by lane and session; a trial that is not there is shown by its tool
/// calls alone.
pub type Transcripts = BTreeMap<(Lane, String), Transcript>;

/// What was said in one trial.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transcript {
    /// Its turns, in order.
    pub turns: Vec<TranscriptTurn>,
    /// The results of its tool calls, by [`ToolCall::seq`].
    pub results: BTreeMap<u32, String>,
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranscriptTurn {
    /// The exchange's number within its session.
    pub seq: u32,
    /// What the caller said.
    pub input: Option<String>,
    /// What the agent answered.
    pub output: Option<String>,
}

/// Something that happened in a trial, as it is lined up with what happened in others.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event<'a> {
    /// The caller said this in its turn of this number.
    Caller(usize, &'a str),
    /// The agent answered the turn of this number.
    Agent(usize, &'a str),
    /// A tool call, and its result where it is known.
    Call(&'a ToolCall, Option<&'a str>),
}

/// What happened in a trial, in order: an answer stands behind the calls that the agent made for it.
pub(super) fn events<'a>(record: &'a TrialRecord, transcript: Option<&'a Transcript>) -> Vec<Event<'a>> {
    let turns = transcript.map_or(&[][..], |transcript| &transcript.turns);
    let result = |call: &ToolCall| {
        transcript.and_then(|transcript| transcript.results.get(&call.seq)).map(String::as_str)
    };
    let mut calls = record.calls.iter().peekable();
    let mut events = Vec::with_capacity(record.calls.len() + 2 * turns.len());
    let first = turns.first().map_or(u32::MAX, |turn| turn.seq);
    while let Some(call) = calls.next_if(|call| call.seq < first) {
        events.push(Event::Call(call, result(call)));
    }
    for (place, turn) in turns.iter().enumerate() {
        let next = turns.get(place + 1).map_or(u32::MAX, |next| next.seq);
        events.extend(turn.input.as_deref().map(|text| Event::Caller(place, text)));
        while let Some(call) = calls.next_if(|call| call.seq < next) {
            events.push(Event::Call(call, result(call)));
        }
        events.extend(turn.output.as_deref().map(|text| Event::Agent(place, text)));
    }
    events.extend(calls.map(|call| Event::Call(call, result(call))));
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn an_answer_stands_behind_the_calls_made_for_it() {
        let record = fixture::record("c", 0, true, &[("look", "{}"), ("refund", "{}"), ("mail", "{}")]);
        let said = |seq, input: &str, output: &str| TranscriptTurn {
            seq,
            input: Some(input.to_owned()),
            output: Some(output.to_owned()),
        };
        let transcript = Transcript {
            // The calls have the numbers 0, 1 and 2: the second turn begins after the first two.
            turns: vec![said(0, "hello", "done"), said(2, "thanks", "bye")],
            results: BTreeMap::from([(1, "refunded".to_owned())]),
        };
        let told: Vec<String> = events(&record, Some(&transcript))
            .into_iter()
            .map(|event| match event {
                Event::Caller(turn, text) => format!("{turn}< {text}"),
                Event::Agent(turn, text) => format!("{turn}> {text}"),
                Event::Call(call, result) => format!("{} {}", call.tool, result.unwrap_or("-")),
            })
            .collect();
        assert_eq!(
            told,
            ["0< hello", "look -", "refund refunded", "0> done", "1< thanks", "mail -", "1> bye"]
        );
        assert_eq!(events(&record, None).len(), 3);
    }
}
