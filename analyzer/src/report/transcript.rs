//! Transcripts of trials: for the page only, the decision never reads them.

use std::collections::BTreeMap;

use schemas::trial::Lane;

use crate::run::{ToolCall, TrialRecord};

/// Transcripts by lane and session.
pub type Transcripts = BTreeMap<(Lane, String), Transcript>;

/// The messages and tool results of one trial.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transcript {
    /// Turns in order.
    pub turns: Vec<TranscriptTurn>,
    /// Results of the tool calls by [`ToolCall::seq`].
    pub results: BTreeMap<u32, String>,
}

/// One turn: a message of the user and the agent's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranscriptTurn {
    /// Number of the turn's exchange within its session.
    pub seq: u32,
    /// The user's message, if it is stored.
    pub input: Option<String>,
    /// The agent's answer, if it is stored.
    pub output: Option<String>,
}

/// One event of a trial, as the page aligns it with the events of other trials.
#[derive(Debug, Clone, Copy)]
pub(super) enum TrialEvent<'a> {
    /// The number of the turn and the user's message.
    User(usize, &'a str),
    /// The number of the turn and the agent's answer.
    Agent(usize, &'a str),
    /// A tool call and its result, if it is stored.
    Call(&'a ToolCall, Option<&'a str>),
}

/// The events of a trial in order. An answer follows the tool calls that the agent made for it.
pub(super) fn events<'a>(record: &'a TrialRecord, transcript: Option<&'a Transcript>) -> Vec<TrialEvent<'a>> {
    let turns = transcript.map_or(&[][..], |transcript| &transcript.turns);
    let result = |call: &ToolCall| {
        transcript.and_then(|transcript| transcript.results.get(&call.seq)).map(String::as_str)
    };
    let mut calls = record.calls.iter().peekable();
    let mut events = Vec::with_capacity(record.calls.len() + 2 * turns.len());
    let first = turns.first().map_or(u32::MAX, |turn| turn.seq);
    while let Some(call) = calls.next_if(|call| call.seq < first) {
        events.push(TrialEvent::Call(call, result(call)));
    }
    for (number, turn) in turns.iter().enumerate() {
        let next = turns.get(number + 1).map_or(u32::MAX, |next| next.seq);
        events.extend(turn.input.as_deref().map(|text| TrialEvent::User(number, text)));
        while let Some(call) = calls.next_if(|call| call.seq < next) {
            events.push(TrialEvent::Call(call, result(call)));
        }
        events.extend(turn.output.as_deref().map(|text| TrialEvent::Agent(number, text)));
    }
    events.extend(calls.map(|call| TrialEvent::Call(call, result(call))));
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn an_answer_follows_its_tool_calls() {
        let record = fixture::record("c", 0, true, &[("look", "{}"), ("refund", "{}"), ("mail", "{}")]);
        let turn = |seq, input: &str, output: &str| TranscriptTurn {
            seq,
            input: Some(input.to_owned()),
            output: Some(output.to_owned()),
        };
        let transcript = Transcript {
            // The calls have the numbers 0, 1 and 2: the second turn begins after the first two.
            turns: vec![turn(0, "hello", "done"), turn(2, "thanks", "bye")],
            results: BTreeMap::from([(1, "refunded".to_owned())]),
        };
        let lines: Vec<String> = events(&record, Some(&transcript))
            .into_iter()
            .map(|event| match event {
                TrialEvent::User(number, text) => format!("{number}< {text}"),
                TrialEvent::Agent(number, text) => format!("{number}> {text}"),
                TrialEvent::Call(call, result) => format!("{} {}", call.tool, result.unwrap_or("-")),
            })
            .collect();
        assert_eq!(
            lines,
            ["0< hello", "look -", "refund refunded", "0> done", "1< thanks", "mail -", "1> bye"]
        );
        assert_eq!(events(&record, None).len(), 3);
    }
}
