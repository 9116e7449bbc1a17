//! Tool calls of several trials of one case side by side, and the first place where the candidate goes another way.
//!
//! Calls are lined up by tool and arguments, never by time. Nothing here decides: it is for a person to read.

use serde::Serialize;

use crate::run::{ToolCall, TrialRecord};

/// Calls of one trial that are lined up; what comes after is counted, not shown.
pub(super) const CALLS_SHOWN: usize = 60;

/// Columns: recorded, baseline, candidate.
pub(super) const LANES: usize = 3;

/// Calls that stand beside each other: for each lane the place of its call.
pub(super) type Places = [Option<usize>; LANES];

/// How the candidate's call of a line compares with the reference's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    /// The same tool with the same arguments, or neither has a call here.
    Same,
    /// The same tool with other arguments.
    Arguments,
    /// The candidate does not make this call.
    Missing,
    /// Only the candidate makes this call.
    Extra,
}

/// Lines up the first [`CALLS_SHOWN`] calls of each lane that is there.
pub(super) fn line_up(lanes: &[Option<&TrialRecord>; LANES]) -> Vec<Places> {
    let mut lines: Vec<Places> = Vec::new();
    for lane in 0..LANES {
        let Some(record) = lanes[lane] else { continue };
        let calls = &record.calls[..record.calls.len().min(CALLS_SHOWN)];
        lines = merge(&lines, calls, lane, lanes);
    }
    lines
}

/// Compares the candidate with the reference: the baseline where it is there, else the recording.
pub(super) fn steps(lines: &[Places], lanes: &[Option<&TrialRecord>; LANES]) -> Vec<Step> {
    let reference = usize::from(lanes[1].is_some());
    if lanes[reference].is_none() || lanes[2].is_none() {
        return vec![Step::Same; lines.len()];
    }
    lines.iter().map(|places| step(call(lanes, places, reference), call(lanes, places, 2))).collect()
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

/// The call of a lane on a line.
pub(super) fn call<'a>(
    lanes: &[Option<&'a TrialRecord>; LANES],
    places: &Places,
    lane: usize,
) -> Option<&'a ToolCall> {
    lanes[lane].and_then(|record| record.calls.get(places[lane]?))
}

/// How well a call fits a line: 3 for the same arguments, 1 for the same tool, nothing for another tool.
fn fit(line: &Places, call_of: &ToolCall, lanes: &[Option<&TrialRecord>; LANES]) -> Option<u32> {
    let present = (0..LANES).filter_map(|lane| call(lanes, line, lane));
    present
        .filter(|other| other.tool == call_of.tool)
        .map(|other| if other.arguments_text() == call_of.arguments_text() { 3 } else { 1 })
        .max()
}

/// Needleman and Wunsch without a price for gaps; ties go to the match, then to the line already there.
fn merge(
    lines: &[Places],
    calls: &[ToolCall],
    lane: usize,
    lanes: &[Option<&TrialRecord>; LANES],
) -> Vec<Places> {
    let fits: Vec<Vec<Option<u32>>> =
        lines.iter().map(|line| calls.iter().map(|of| fit(line, of, lanes)).collect()).collect();
    // best[i][j]: the score of lining up everything from line i and call j on.
    let mut best = vec![vec![0_u32; calls.len() + 1]; lines.len() + 1];
    for i in (0..lines.len()).rev() {
        for j in (0..calls.len()).rev() {
            let matched = fits[i][j].map_or(0, |points| points + best[i + 1][j + 1]);
            best[i][j] = matched.max(best[i + 1][j]).max(best[i][j + 1]);
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut merged = Vec::with_capacity(lines.len() + calls.len());
    while i < lines.len() || j < calls.len() {
        let mut line = if i < lines.len() { lines[i] } else { [None; LANES] };
        let fits_here = i < lines.len()
            && j < calls.len()
            && fits[i][j].is_some_and(|points| points + best[i + 1][j + 1] == best[i][j]);
        let takes_line = j == calls.len() || (i < lines.len() && best[i + 1][j] >= best[i][j + 1]);
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
    use crate::report::sample;

    fn lines(lanes: [&[(&str, &str)]; LANES]) -> (Vec<Places>, Vec<Step>) {
        let records = lanes.map(|calls| sample::record("c", 0, true, calls));
        let lanes = [0, 1, 2].map(|lane: usize| Some(&records[lane]));
        let lines = line_up(&lanes);
        let steps = steps(&lines, &lanes);
        (lines, steps)
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
    fn without_a_reference_nothing_is_marked() {
        let record = sample::record("c", 0, true, &[("look", "1")]);
        let lanes = [None, None, Some(&record)];
        assert_eq!(steps(&line_up(&lanes), &lanes), [Step::Same]);
    }
}
