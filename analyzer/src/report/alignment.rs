//! What happened in several trials of one case side by side, and the first place where the candidate goes another way.
//!
//! Turns are lined up by their number, calls by tool and arguments, nothing by time. Only calls can differ: two builds
//! never say the same words. Nothing here decides: it is for a person to read.

use serde::Serialize;

use super::transcript::Event;
use crate::run::ToolCall;

/// Columns: recorded, baseline, candidate.
pub(super) const LANES: usize = 3;

/// What happened in each lane; nothing for a lane that is not there.
pub(super) type Side<'a> = Option<&'a [Event<'a>]>;

/// Events that stand beside each other: for each lane the place of its event.
pub(super) type Places = [Option<usize>; LANES];

/// How the candidate's event of a line compares with the reference's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    /// The same tool with the same arguments, or something said, or neither has a call here.
    Same,
    /// The same tool with other arguments.
    Arguments,
    /// The candidate does not make this call.
    Missing,
    /// Only the candidate makes this call.
    Extra,
}

/// Lines up the events of each lane that is there.
pub(super) fn line_up(sides: &[Side<'_>; LANES]) -> Vec<Places> {
    let mut lines: Vec<Places> = Vec::new();
    for (lane, side) in sides.iter().enumerate() {
        let Some(events) = side else { continue };
        lines = merge(&lines, events, lane, sides);
    }
    lines
}

/// Compares the candidate with the reference: the baseline where it is there, else the recording.
pub(super) fn steps(lines: &[Places], sides: &[Side<'_>; LANES]) -> Vec<Step> {
    let reference = usize::from(sides[1].is_some());
    if sides[reference].is_none() || sides[2].is_none() {
        return vec![Step::Same; lines.len()];
    }
    lines.iter().map(|places| step(call(sides, places, reference), call(sides, places, 2))).collect()
}

fn step(reference: Option<&ToolCall>, candidate: Option<&ToolCall>) -> Step {
    match (reference, candidate) {
        (None, None) => Step::Same,
        (Some(_), None) => Step::Missing,
        (None, Some(_)) => Step::Extra,
        (Some(before), Some(after)) if before.arguments_text() == after.arguments_text() => Step::Same,
        (Some(_), Some(_)) => Step::Arguments,
    }
}

fn event<'a>(sides: &[Side<'a>; LANES], places: &Places, lane: usize) -> Option<Event<'a>> {
    sides[lane].and_then(|events| events.get(places[lane]?).copied())
}

/// The call of a lane on a line.
fn call<'a>(sides: &[Side<'a>; LANES], places: &Places, lane: usize) -> Option<&'a ToolCall> {
    match event(sides, places, lane)? {
        Event::Call(call, _) => Some(call),
        Event::Caller(..) | Event::Agent(..) => None,
    }
}

/// How well two events fit: a turn's beginning must meet its like, then the same arguments, then the same tool.
fn likeness(one: Event<'_>, other: Event<'_>) -> Option<u32> {
    match (one, other) {
        (Event::Caller(a, _), Event::Caller(b, _)) => (a == b).then_some(1000),
        (Event::Agent(a, _), Event::Agent(b, _)) => (a == b).then_some(1),
        (Event::Call(a, _), Event::Call(b, _)) if a.tool == b.tool => {
            Some(if a.arguments_text() == b.arguments_text() { 3 } else { 1 })
        }
        (Event::Caller(..) | Event::Agent(..) | Event::Call(..), _) => None,
    }
}

/// How well an event fits a line.
fn fit(line: &Places, of: Event<'_>, sides: &[Side<'_>; LANES]) -> Option<u32> {
    (0..LANES).filter_map(|lane| likeness(event(sides, line, lane)?, of)).max()
}

/// Needleman and Wunsch without a price for gaps; ties go to the match, then to the line already there.
fn merge(lines: &[Places], events: &[Event<'_>], lane: usize, sides: &[Side<'_>; LANES]) -> Vec<Places> {
    let fits: Vec<Vec<Option<u32>>> =
        lines.iter().map(|line| events.iter().map(|of| fit(line, *of, sides)).collect()).collect();
    // best[i][j]: the score of lining up everything from line i and event j on.
    let mut best = vec![vec![0_u32; events.len() + 1]; lines.len() + 1];
    for i in (0..lines.len()).rev() {
        for j in (0..events.len()).rev() {
            let matched = fits[i][j].map_or(0, |points| points + best[i + 1][j + 1]);
            best[i][j] = matched.max(best[i + 1][j]).max(best[i][j + 1]);
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut merged = Vec::with_capacity(lines.len() + events.len());
    while i < lines.len() || j < events.len() {
        let mut line = if i < lines.len() { lines[i] } else { [None; LANES] };
        let fits_here = i < lines.len()
            && j < events.len()
            && fits[i][j].is_some_and(|points| points + best[i + 1][j + 1] == best[i][j]);
        let takes_line = j == events.len() || (i < lines.len() && best[i + 1][j] >= best[i][j + 1]);
        if fits_here {
            line[lane] = Some(j);
            (i, j) = (i + 1, j + 1);
        } else if takes_line {
            i += 1;
        } else {
            line = [None; LANES];
            line[lane] = Some(j);
            j += 1;
        }
        merged.push(line);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;
    use crate::report::transcript::events;
    use crate::run::TrialRecord;

    fn compared(records: &[Option<TrialRecord>; LANES]) -> (Vec<Places>, Vec<Step>) {
        let told = [0, 1, 2].map(|lane: usize| records[lane].as_ref().map(|record| events(record, None)));
        let sides = [0, 1, 2].map(|lane: usize| told[lane].as_deref());
        let lines = line_up(&sides);
        let steps = steps(&lines, &sides);
        (lines, steps)
    }

    fn lines(lanes: [&[(&str, &str)]; LANES]) -> (Vec<Places>, Vec<Step>) {
        compared(&lanes.map(|calls| Some(fixture::record("c", 0, true, calls))))
    }

    #[test]
    fn a_left_out_call_and_a_repeated_one_are_seen() {
        let look = ("look", "{}");
        let refund = ("refund", "{\"id\":1}");
        let (lines, steps) = lines([&[look, refund], &[look, refund], &[refund, refund]]);
        assert_eq!(lines, [[Some(0), Some(0), None], [Some(1), Some(1), Some(0)], [None, None, Some(1)]]);
        assert_eq!(steps, [Step::Missing, Step::Same, Step::Extra]);
    }

    #[test]
    fn other_arguments_stay_beside_each_other() {
        let (lines, steps) =
            lines([&[], &[("look", "1"), ("refund", "1")], &[("look", "2"), ("mail", "x"), ("refund", "1")]]);
        assert_eq!(lines.len(), 3);
        assert_eq!(steps, [Step::Arguments, Step::Extra, Step::Same]);
    }

    #[test]
    fn turns_meet_by_number_and_words_never_differ() {
        let call = fixture::record("c", 0, true, &[("look", "1"), ("look", "2")]);
        let (first, second) = (&call.calls[0], &call.calls[1]);
        let before = [
            Event::Caller(0, "hi"),
            Event::Call(first, None),
            Event::Agent(0, "done"),
            Event::Caller(1, "bye"),
        ];
        let after = [
            Event::Caller(0, "hi"),
            Event::Agent(0, "well"),
            Event::Caller(1, "bye"),
            Event::Call(second, None),
        ];
        let sides = [None, Some(&before[..]), Some(&after[..])];
        let lines = line_up(&sides);
        let at = |lane: usize| lines.iter().map(|line| line[lane]).collect::<Vec<_>>();
        assert_eq!(at(1), [Some(0), Some(1), Some(2), Some(3), None]);
        assert_eq!(at(2), [Some(0), None, Some(1), Some(2), Some(3)]);
        assert_eq!(steps(&lines, &sides), [Step::Same, Step::Missing, Step::Same, Step::Same, Step::Extra]);
    }

    #[test]
    fn without_a_reference_nothing_is_marked() {
        let record = fixture::record("c", 0, true, &[("look", "1")]);
        assert_eq!(compared(&[None, None, Some(record)]).1, [Step::Same]);
    }
}
