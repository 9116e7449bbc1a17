//! What happened in the trials of one case, lined up, as it lies compressed in the page.

use std::collections::HashMap;

use schemas::exchange::Ending;
use schemas::trial::{Lane, TrialEnding};
use serde::Serialize;

use super::{Shown, Sides, TEXT_SHOWN};
use crate::finding::Finding;
use crate::report::alignment::{self, LANES, Step};
use crate::report::transcript::{self, Event, Transcripts};
use crate::report::{escape, number, wording};
use crate::run::{ToolCall, TrialRecord};

/// Events of one trial that are lined up; what comes after is counted, not shown.
const EVENTS_SHOWN: usize = 120;

/// Trials of the candidate that can be looked at.
const CANDIDATES_SHOWN: usize = 10;

/// Arguments and the result of a call shown, characters.
const ARGUMENTS_SHOWN: usize = 600;

/// Trials of a lane marked with how they ended.
const MARKS_SHOWN: usize = 50;

/// Trials side by side.
#[derive(Debug, Serialize)]
pub(super) struct TraceView {
    /// Every distinct event of the case once; trials name them by their place.
    events: Vec<EventView>,
    lanes: Vec<LaneView>,
    /// One for each trial of the candidate that can be looked at, the one to look at first first.
    views: Vec<View>,
}

/// One lane of a case.
#[derive(Debug, Serialize)]
struct LaneView {
    lane: &'static str,
    marks: Vec<Mark>,
    marks_left_out: usize,
    trials: Vec<TrialView>,
}

/// One trial.
#[derive(Debug, Serialize)]
struct TrialView {
    trial: u32,
    session: String,
    notes: Vec<String>,
    /// The last answer, where it is not among the events.
    answer: String,
    /// For each event its place among the distinct ones, and how long it took, in words.
    events: Vec<(usize, String)>,
    calls: usize,
    events_left_out: usize,
}

/// How one trial of a lane ended.
#[derive(Debug, Serialize)]
struct Mark {
    trial: u32,
    tone: &'static str,
    word: &'static str,
}

/// One trial of the candidate beside the others: lines of a step and, for each lane that is there, the place of its event.
#[derive(Debug, Serialize)]
struct View {
    trial: u32,
    /// Whether the candidate's trial has a transcript, and something to compare it with has one.
    compared: bool,
    first: Option<usize>,
    lines: Vec<(Step, Vec<Option<usize>>)>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
enum EventView {
    /// Somebody said something.
    Said { who: &'static str, text: String },
    /// A tool was called.
    Called {
        tool: String,
        arguments: String,
        effect: &'static str,
        flags: Vec<String>,
        result: Option<String>,
    },
}

impl TraceView {
    /// The line at which the trial that is shown first goes another way.
    pub(super) fn first(&self) -> Option<usize> {
        self.views.first()?.first
    }
}

/// The sessions that are shown of a case.
pub(super) fn sessions<'a>(sides: &Sides<'a>, findings: &[&Finding]) -> Vec<(Lane, String)> {
    let chosen = Chosen::of(sides, findings);
    let name = |record: &TrialRecord| record.trial.session.to_string();
    let recorded = chosen.recorded.map(|record| (Lane::Recorded, name(record)));
    let baseline = chosen.baseline.map(|record| (Lane::Baseline, name(record)));
    let candidates = chosen.candidates.iter().map(|record| (Lane::Candidate, name(record)));
    recorded.into_iter().chain(baseline).chain(candidates).collect()
}

/// The trials that are shown.
struct Chosen<'a> {
    recorded: Option<&'a TrialRecord>,
    baseline: Option<&'a TrialRecord>,
    /// The one to look at first first.
    candidates: Vec<&'a TrialRecord>,
}

impl<'a> Chosen<'a> {
    fn of(sides: &Sides<'a>, findings: &[&Finding]) -> Self {
        let first = choose(&sides.candidate, findings, "candidate", false);
        let others = sides.candidate.iter().map(|shown| shown.record);
        let others = others.filter(|record| first.is_none_or(|first| !std::ptr::eq(first, *record)));
        Self {
            recorded: sides.recorded.map(|shown| shown.record),
            baseline: choose(&sides.baseline, findings, "baseline", true),
            candidates: first.into_iter().chain(others).take(CANDIDATES_SHOWN).collect(),
        }
    }
}

/// Lines up the trials of a case; nothing where there is no trial.
pub(super) fn trace(
    sides: &Sides<'_>,
    findings: &[&Finding],
    transcripts: &Transcripts,
) -> Option<TraceView> {
    let chosen = Chosen::of(sides, findings);
    let all = [&sides.recorded.into_iter().collect::<Vec<_>>(), &sides.baseline, &sides.candidate];
    let lanes = [
        (Lane::Recorded, chosen.recorded.into_iter().collect::<Vec<_>>()),
        (Lane::Baseline, chosen.baseline.into_iter().collect()),
        (Lane::Candidate, chosen.candidates),
    ];
    let told: Vec<Vec<Vec<Event<'_>>>> = (lanes.iter())
        .map(|(lane, records)| records.iter().map(|record| events(record, *lane, transcripts)).collect())
        .collect();
    let mut distinct = Distinct::default();
    let views: Vec<View> = candidate_views(&lanes, &told);
    let mut shown = Vec::new();
    for (((lane, records), told), all) in lanes.iter().zip(&told).zip(all) {
        if records.is_empty() {
            continue;
        }
        let trials = records.iter().zip(told).map(|(record, events)| {
            trial_view(record, events, transcripts.contains_key(&key(record, *lane)), &mut distinct)
        });
        shown.push(LaneView {
            lane: lane.as_str(),
            trials: trials.collect(),
            marks: all.iter().take(MARKS_SHOWN).map(mark).collect(),
            marks_left_out: all.len().saturating_sub(MARKS_SHOWN),
        });
    }
    if shown.is_empty() {
        return None;
    }
    Some(TraceView { events: distinct.events, lanes: shown, views })
}

fn key(record: &TrialRecord, lane: Lane) -> (Lane, String) {
    (lane, record.trial.session.to_string())
}

fn events<'a>(record: &'a TrialRecord, lane: Lane, transcripts: &'a Transcripts) -> Vec<Event<'a>> {
    let mut events = transcript::events(record, transcripts.get(&key(record, lane)));
    events.truncate(EVENTS_SHOWN);
    events
}

/// Each candidate's trial beside the recording and the baseline.
fn candidate_views(lanes: &[(Lane, Vec<&TrialRecord>); LANES], told: &[Vec<Vec<Event<'_>>>]) -> Vec<View> {
    let is_there: Vec<usize> = (0..LANES).filter(|lane| !lanes[*lane].1.is_empty()).collect();
    // Nothing is known of the calls of a trial without a transcript: it is no reference, and differs in nothing.
    let side = |lane: usize, place: usize| {
        let record = lanes[lane].1.get(place)?;
        record.trial.has_transcript.then(|| told[lane][place].as_slice())
    };
    let view = |place: usize| {
        let sides = [side(0, 0), side(1, 0), side(2, place)];
        let lines = alignment::line_up(&sides);
        let steps = alignment::steps(&lines, &sides);
        let places = |line: &alignment::Places| is_there.iter().map(|lane| line[*lane]).collect();
        View {
            trial: lanes[2].1.get(place).map_or(0, |record| record.trial.trial),
            compared: sides[2].is_some() && sides[..2].iter().any(Option::is_some),
            first: steps.iter().position(|step| *step != Step::Same),
            lines: lines.iter().zip(&steps).map(|(line, step)| (*step, places(line))).collect(),
        }
    };
    // Without a candidate the other two stand alone.
    (0..lanes[2].1.len().max(1)).map(view).collect()
}

/// Every event once.
#[derive(Default)]
struct Distinct {
    events: Vec<EventView>,
    places: HashMap<EventView, usize>,
}

impl Distinct {
    fn place(&mut self, event: EventView) -> usize {
        if let Some(place) = self.places.get(&event) {
            return *place;
        }
        self.events.push(event.clone());
        self.places.insert(event, self.events.len() - 1);
        self.events.len() - 1
    }
}

/// The trial that a finding names, else the one that shows the difference: a good baseline, a bad candidate.
fn choose<'a>(
    trials: &[Shown<'a>],
    findings: &[&Finding],
    lane: &str,
    good: bool,
) -> Option<&'a TrialRecord> {
    let named = findings.iter().flat_map(|finding| &finding.examples).find(|example| example.lane == lane);
    let by_name = named.and_then(|example| {
        trials.iter().find(|shown| {
            let trial = &shown.record.trial;
            trial.trial == example.trial && trial.session.as_str() == example.session
        })
    });
    let telling = || trials.iter().find(|shown| shown.success == Some(good));
    by_name.or_else(telling).or(trials.first()).map(|shown| shown.record)
}

fn trial_view(
    record: &TrialRecord,
    events: &[Event<'_>],
    has_texts: bool,
    distinct: &mut Distinct,
) -> TrialView {
    let trial = &record.trial;
    let answer = trial.answer.as_deref().filter(|_| !has_texts).unwrap_or_default();
    let shown = events.iter().map(|event| (distinct.place(event_view(event, &record.calls)), took(event)));
    let turns = events.iter().filter(|event| !matches!(event, Event::Call(..))).count();
    TrialView {
        trial: trial.trial,
        session: escape::name(trial.session.as_str()),
        notes: notes(record),
        answer: escape::visible_lines(&escape::shortened(answer, TEXT_SHOWN)),
        events: shown.collect(),
        calls: record.calls.len(),
        events_left_out: record.calls.len().saturating_sub(events.len() - turns),
    }
}

fn took(event: &Event<'_>) -> String {
    match event {
        Event::Call(call, _) => call.duration_us.map(number::duration).unwrap_or_default(),
        Event::Caller(..) | Event::Agent(..) => String::new(),
    }
}

fn notes(record: &TrialRecord) -> Vec<String> {
    let trial = &record.trial;
    let mut notes = Vec::new();
    if trial.ending != TrialEnding::Complete {
        let why = trial.ending_detail.as_deref().unwrap_or_default();
        notes.push(format!("{}: {why}", wording::ending(trial.ending)));
    }
    let left = trial.divergences.iter().take(5);
    notes.extend(left.map(|left| format!("left the recording ({}): {}", left.kind, left.detail)));
    let planned = trial.fault_plan.iter().filter(|plan| plan.trim() != "[]");
    notes.extend(planned.map(|plan| format!("faults: {plan}")));
    if !trial.has_transcript {
        notes.push("no transcript was stored with this trial".to_owned());
    }
    notes.iter().map(|note| escape::visible(&escape::shortened(note, TEXT_SHOWN))).collect()
}

fn mark(shown: &Shown<'_>) -> Mark {
    let record = shown.record;
    let (tone, word) = match (record.is_torn(), record.trial.ending, shown.success) {
        (true, _, _) => (wording::OPEN, "torn"),
        (false, TrialEnding::Truncated, _) => (wording::WARN, "left the recording"),
        (false, TrialEnding::Infrastructure, _) => (wording::OPEN, "harness failed"),
        (false, TrialEnding::Failed | TrialEnding::TimedOut, _) => {
            (wording::BAD, wording::ending(record.trial.ending))
        }
        (false, TrialEnding::Complete, Some(true)) => (wording::GOOD, "success"),
        (false, TrialEnding::Complete, Some(false)) => (wording::BAD, "failure"),
        (false, TrialEnding::Complete, None) => (wording::OPEN, "complete"),
    };
    Mark { trial: record.trial.trial, tone, word }
}

fn event_view(event: &Event<'_>, all: &[ToolCall]) -> EventView {
    let said = |who, said: &str| EventView::Said {
        who,
        text: escape::visible_lines(&escape::shortened(said, TEXT_SHOWN)),
    };
    match event {
        Event::Caller(_, words) => said("caller", words),
        Event::Agent(_, words) => said("agent", words),
        Event::Call(call, result) => EventView::Called {
            tool: escape::name(&call.tool),
            arguments: escape::visible(&escape::shortened(call.arguments_text(), ARGUMENTS_SHOWN)),
            effect: wording::effect(call.effect),
            flags: flags(call, all),
            result: result.map(|result| escape::visible_lines(&escape::shortened(result, ARGUMENTS_SHOWN))),
        },
    }
}

fn flags(call: &ToolCall, all: &[ToolCall]) -> Vec<String> {
    let mut flags = Vec::new();
    let same = |other: &&ToolCall| {
        other.seq < call.seq && other.tool == call.tool && other.arguments_text() == call.arguments_text()
    };
    if call.wrote() && call.idempotent != Some(true) && all.iter().filter(same).any(ToolCall::wrote) {
        flags.push("repeated write".to_owned());
    }
    if call.is_error == Some(true) {
        flags.push("tool error".to_owned());
    }
    if let Some(status) = call.status.filter(|status| *status >= 400) {
        flags.push(format!("HTTP {status}"));
    }
    if call.arguments.is_none() && call.arguments_verbatim.is_some() {
        flags.push("arguments are not JSON".to_owned());
    }
    match call.ending {
        Ending::Complete => {}
        Ending::Failed => flags.push("no answer".to_owned()),
        Ending::Truncated => flags.push("answer broken off".to_owned()),
        Ending::Cancelled => flags.push("cancelled".to_owned()),
    }
    flags
}
