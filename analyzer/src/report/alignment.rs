//! Alignment of the trials of a case, and the differences of the candidate's tool calls.
//!
//! User messages align by turn number, tool calls by tool and arguments, nothing by time. Only tool calls can differ:
//! two trials never answer in the same words. The result is for reading and decides nothing.

use serde::Serialize;

use super::transcript::TrialEvent;
use crate::run::ToolCall;

/// Lanes: recorded, baseline, candidate.
pub(super) const LANES: usize = 3;

/// Index of the baseline among the lanes.
const BASELINE: usize = 1;

/// Index of the candidate among the lanes.
const CANDIDATE: usize = 2;

/// The events of each lane; `None` for a lane without a transcript.
pub(super) type Lanes<'a> = [Option<&'a [TrialEvent<'a>]>; LANES];

/// Aligned events: for each lane the index of its event.
pub(super) type AlignedRow = [Option<usize>; LANES];

/// The candidate's event of a row compared with the reference's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CallDifference {
    /// Same tool and arguments, or no tool call in either.
    Same,
    /// Same tool, other arguments.
    Arguments,
    /// Only the reference makes this call.
    Missing,
    /// Only the candidate makes this call.
    Extra,
}

/// Aligns the events of all lanes.
pub(super) fn align(lanes: &Lanes<'_>) -> Vec<AlignedRow> {
    let mut rows: Vec<AlignedRow> = Vec::new();
    for (lane, events) in lanes.iter().enumerate() {
        let Some(events) = events else { continue };
        rows = merge(&rows, events, lane, lanes);
    }
    rows
}

/// Compares the candidate with the baseline, or with the recording if the baseline has no transcript.
pub(super) fn differences(rows: &[AlignedRow], lanes: &Lanes<'_>) -> Vec<CallDifference> {
    let reference = if lanes[BASELINE].is_some() { BASELINE } else { 0 };
    if lanes[reference].is_none() || lanes[CANDIDATE].is_none() {
        return vec![CallDifference::Same; rows.len()];
    }
    rows.iter().map(|row| difference(call(lanes, row, reference), call(lanes, row, CANDIDATE))).collect()
}

fn difference(reference: Option<&ToolCall>, candidate: Option<&ToolCall>) -> CallDifference {
    match (reference, candidate) {
        (None, None) => CallDifference::Same,
        (Some(_), None) => CallDifference::Missing,
        (None, Some(_)) => CallDifference::Extra,
        (Some(before), Some(after)) if before.compared_text() == after.compared_text() => {
            CallDifference::Same
        }
        (Some(_), Some(_)) => CallDifference::Arguments,
    }
}

fn event<'a>(lanes: &Lanes<'a>, row: &AlignedRow, lane: usize) -> Option<TrialEvent<'a>> {
    lanes[lane].and_then(|events| events.get(row[lane]?).copied())
}

/// The tool call of a lane in a row.
fn call<'a>(lanes: &Lanes<'a>, row: &AlignedRow, lane: usize) -> Option<&'a ToolCall> {
    match event(lanes, row, lane)? {
        TrialEvent::Call(call, _) => Some(call),
        TrialEvent::User(..) | TrialEvent::Agent(..) => None,
    }
}

/// The score for aligning two events; `None` if they may not share a row. A user message of the same turn outweighs
/// everything, so that turns stay together.
fn event_score(one: TrialEvent<'_>, other: TrialEvent<'_>) -> Option<u32> {
    match (one, other) {
        (TrialEvent::User(a, _), TrialEvent::User(b, _)) => (a == b).then_some(1000),
        (TrialEvent::Agent(a, _), TrialEvent::Agent(b, _)) => (a == b).then_some(1),
        (TrialEvent::Call(a, _), TrialEvent::Call(b, _)) if a.tool == b.tool => {
            Some(if a.compared_text() == b.compared_text() { 3 } else { 1 })
        }
        (TrialEvent::User(..) | TrialEvent::Agent(..) | TrialEvent::Call(..), _) => None,
    }
}

/// The best score of an event with the events of a row.
fn row_score(row: &AlignedRow, of: TrialEvent<'_>, lanes: &Lanes<'_>) -> Option<u32> {
    (0..LANES).filter_map(|lane| event_score(event(lanes, row, lane)?, of)).max()
}

/// Adds a lane's events to the rows: global alignment (Needleman and Wunsch 1970) without a gap penalty. On equal scores
/// a match goes before a gap, and an existing row before a new one.
fn merge(rows: &[AlignedRow], events: &[TrialEvent<'_>], lane: usize, lanes: &Lanes<'_>) -> Vec<AlignedRow> {
    let scores: Vec<Vec<Option<u32>>> =
        rows.iter().map(|row| events.iter().map(|of| row_score(row, *of, lanes)).collect()).collect();
    // best[i][j]: the score of aligning everything from row i and event j on.
    let mut best = vec![vec![0_u32; events.len() + 1]; rows.len() + 1];
    for i in (0..rows.len()).rev() {
        for j in (0..events.len()).rev() {
            let matched = scores[i][j].map_or(0, |score| score + best[i + 1][j + 1]);
            best[i][j] = matched.max(best[i + 1][j]).max(best[i][j + 1]);
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut merged = Vec::with_capacity(rows.len() + events.len());
    while i < rows.len() || j < events.len() {
        let mut row = if i < rows.len() { rows[i] } else { [None; LANES] };
        let is_match = i < rows.len()
            && j < events.len()
            && scores[i][j].is_some_and(|score| score + best[i + 1][j + 1] == best[i][j]);
        let keeps_row = j == events.len() || (i < rows.len() && best[i + 1][j] >= best[i][j + 1]);
        if is_match {
            row[lane] = Some(j);
            (i, j) = (i + 1, j + 1);
        } else if keeps_row {
            i += 1;
        } else {
            row = [None; LANES];
            row[lane] = Some(j);
            j += 1;
        }
        merged.push(row);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;
    use crate::report::transcript;
    use crate::run::TrialRecord;

    fn compared(records: &[Option<TrialRecord>; LANES]) -> (Vec<AlignedRow>, Vec<CallDifference>) {
        let events = [0, 1, 2]
            .map(|lane: usize| records[lane].as_ref().map(|record| transcript::events(record, None)));
        let lanes = [0, 1, 2].map(|lane: usize| events[lane].as_deref());
        let rows = align(&lanes);
        let differences = differences(&rows, &lanes);
        (rows, differences)
    }

    fn aligned(lanes: [&[(&str, &str)]; LANES]) -> (Vec<AlignedRow>, Vec<CallDifference>) {
        compared(&lanes.map(|calls| Some(fixture::record("c", 0, true, calls))))
    }

    #[test]
    fn a_missing_call_and_a_repeated_one_differ() {
        let look = ("look", "{}");
        let refund = ("refund", "{\"id\":1}");
        let (rows, differences) = aligned([&[look, refund], &[look, refund], &[refund, refund]]);
        assert_eq!(rows, [[Some(0), Some(0), None], [Some(1), Some(1), Some(0)], [None, None, Some(1)]]);
        assert_eq!(differences, [CallDifference::Missing, CallDifference::Same, CallDifference::Extra]);
    }

    #[test]
    fn calls_of_one_tool_with_other_arguments_align() {
        let (rows, differences) = aligned([
            &[],
            &[("look", "1"), ("refund", "1")],
            &[("look", "2"), ("mail", "x"), ("refund", "1")],
        ]);
        assert_eq!(rows.len(), 3);
        assert_eq!(differences, [CallDifference::Arguments, CallDifference::Extra, CallDifference::Same]);
    }

    #[test]
    fn turns_align_by_number_and_answers_never_differ() {
        let call = fixture::record("c", 0, true, &[("look", "1"), ("look", "2")]);
        let (first, second) = (&call.calls[0], &call.calls[1]);
        let before = [
            TrialEvent::User(0, "hi"),
            TrialEvent::Call(first, None),
            TrialEvent::Agent(0, "done"),
            TrialEvent::User(1, "bye"),
        ];
        let after = [
            TrialEvent::User(0, "hi"),
            TrialEvent::Agent(0, "well"),
            TrialEvent::User(1, "bye"),
            TrialEvent::Call(second, None),
        ];
        let lanes = [None, Some(&before[..]), Some(&after[..])];
        let rows = align(&lanes);
        let at = |lane: usize| rows.iter().map(|row| row[lane]).collect::<Vec<_>>();
        assert_eq!(at(1), [Some(0), Some(1), Some(2), Some(3), None]);
        assert_eq!(at(2), [Some(0), None, Some(1), Some(2), Some(3)]);
        assert_eq!(
            differences(&rows, &lanes),
            [
                CallDifference::Same,
                CallDifference::Missing,
                CallDifference::Same,
                CallDifference::Same,
                CallDifference::Extra
            ]
        );
    }

    #[test]
    fn without_a_reference_nothing_differs() {
        let record = fixture::record("c", 0, true, &[("look", "1")]);
        assert_eq!(compared(&[None, None, Some(record)]).1, [CallDifference::Same]);
    }
}
