//! Traces of one case: the events of its trials, aligned, as compressed into the page.

use std::collections::HashMap;

use schemas::exchange::Ending;
use schemas::trial::{Lane, TrialEnding};
use serde::Serialize;

use crate::finding::Finding;
use crate::report::alignment::{self, AlignedRow, CallDifference, LANES};
use crate::report::severity::Severity;
use crate::report::transcript::{self, Transcripts, TrialEvent};
use crate::report::trials::{CaseTrials, LabelledTrial};
use crate::report::{escape, number, wording};
use crate::run::{ToolCall, TrialRecord};

/// Events of one trial that are aligned and shown; further events are counted only.
const EVENTS_SHOWN: usize = 120;

/// Trials of the candidate that the reader can choose from.
const CANDIDATES_SHOWN: usize = 10;

/// Arguments or result of a tool call shown, characters.
const ARGUMENTS_SHOWN: usize = 600;

/// Trials of a lane listed with their ending.
const ENDINGS_SHOWN: usize = 50;

/// Differences from the recording listed per trial.
const DIVERGENCES_SHOWN: usize = 5;

/// The traces of one case.
#[derive(Debug, Serialize)]
pub(super) struct CaseTraces {
    /// The distinct events of the case; trials refer to them by index.
    events: Vec<EventView>,
    lanes: Vec<LaneView>,
    /// One for each shown trial of the candidate, in the order of that lane's trials.
    comparisons: Vec<Comparison>,
}

/// The trials of one lane.
#[derive(Debug, Serialize)]
struct LaneView {
    lane: &'static str,
    endings: Vec<EndingView>,
    endings_left_out: usize,
    /// Shown trials; the one shown first is first.
    trials: Vec<TrialView>,
}

/// One trial.
#[derive(Debug, Serialize)]
struct TrialView {
    trial: u32,
    session: String,
    notes: Vec<String>,
    /// The last answer; empty if the transcript is among the events.
    answer: String,
    /// For each event its index among the distinct ones and its duration as text.
    events: Vec<(usize, String)>,
    calls: usize,
    calls_left_out: usize,
}

/// The ending of one trial.
#[derive(Debug, Serialize)]
struct EndingView {
    trial: u32,
    severity: Severity,
    label: &'static str,
}

/// One trial of the candidate, aligned with the shown trials of the other lanes.
#[derive(Debug, Serialize)]
struct Comparison {
    trial: u32,
    /// Whether the candidate's trial and a trial to compare it with have transcripts.
    is_compared: bool,
    /// Index of the first row with a difference.
    first_difference: Option<usize>,
    /// For each row its difference and the event index of each lane that has trials.
    rows: Vec<(CallDifference, Vec<Option<usize>>)>,
}

/// An event as text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
enum EventView {
    Message {
        /// `user` or `agent`.
        from: &'static str,
        text: String,
    },
    ToolCall {
        tool: String,
        arguments: String,
        effect: &'static str,
        flags: Vec<String>,
        result: Option<String>,
    },
}

impl CaseTraces {
    /// Index of the first row with a difference, for the trial that is shown first.
    pub(super) fn first_difference(&self) -> Option<usize> {
        self.comparisons.first()?.first_difference
    }
}

/// The sessions of the shown trials of a case.
pub(super) fn sessions<'a>(trials: &CaseTrials<'a>, findings: &[&Finding]) -> Vec<(Lane, String)> {
    let shown = ShownTrials::new(trials, findings);
    let session = |record: &TrialRecord| record.trial.session.to_string();
    let recorded = shown.recorded.map(|record| (Lane::Recorded, session(record)));
    let baseline = shown.baseline.map(|record| (Lane::Baseline, session(record)));
    let candidates = shown.candidates.iter().map(|record| (Lane::Candidate, session(record)));
    recorded.into_iter().chain(baseline).chain(candidates).collect()
}

/// The trials of a case that the page shows.
struct ShownTrials<'a> {
    recorded: Option<&'a TrialRecord>,
    baseline: Option<&'a TrialRecord>,
    /// The one shown first is first.
    candidates: Vec<&'a TrialRecord>,
}

impl<'a> ShownTrials<'a> {
    fn new(trials: &CaseTrials<'a>, findings: &[&Finding]) -> Self {
        let first = choose(&trials.candidate, findings, "candidate", false);
        let others = trials.candidate.iter().map(|trial| trial.record);
        let others = others.filter(|record| first.is_none_or(|first| !std::ptr::eq(first, *record)));
        Self {
            recorded: trials.recorded.map(|trial| trial.record),
            baseline: choose(&trials.baseline, findings, "baseline", true),
            candidates: first.into_iter().chain(others).take(CANDIDATES_SHOWN).collect(),
        }
    }
}

/// The trial that a finding names, else one with the outcome that shows the difference: a successful baseline, a failing
/// candidate.
fn choose<'a>(
    trials: &[LabelledTrial<'a>],
    findings: &[&Finding],
    lane: &str,
    success: bool,
) -> Option<&'a TrialRecord> {
    let example = findings.iter().flat_map(|finding| &finding.examples).find(|example| example.lane == lane);
    let named = example.and_then(|example| {
        trials.iter().find(|one| {
            let trial = &one.record.trial;
            trial.trial == example.trial && trial.session.as_str() == example.session
        })
    });
    let with_outcome = || trials.iter().find(|trial| trial.success == Some(success));
    named.or_else(with_outcome).or(trials.first()).map(|trial| trial.record)
}

/// Aligns the trials of a case; `None` for a case without trials.
pub(super) fn case_traces(
    trials: &CaseTrials<'_>,
    findings: &[&Finding],
    transcripts: &Transcripts,
) -> Option<CaseTraces> {
    let shown = ShownTrials::new(trials, findings);
    let all = [&trials.recorded.into_iter().collect::<Vec<_>>(), &trials.baseline, &trials.candidate];
    let lanes = [
        (Lane::Recorded, shown.recorded.into_iter().collect::<Vec<_>>()),
        (Lane::Baseline, shown.baseline.into_iter().collect()),
        (Lane::Candidate, shown.candidates),
    ];
    let events: Vec<Vec<Vec<TrialEvent<'_>>>> = (lanes.iter())
        .map(|(lane, records)| records.iter().map(|record| events(record, *lane, transcripts)).collect())
        .collect();
    let comparisons = comparisons(&lanes, &events);
    let mut distinct = DistinctEvents::default();
    let mut views = Vec::new();
    for (((lane, records), events), all) in lanes.iter().zip(&events).zip(all) {
        if records.is_empty() {
            continue;
        }
        let trials = records.iter().zip(events).map(|(record, events)| {
            trial_view(record, events, transcripts.contains_key(&key(record, *lane)), &mut distinct)
        });
        views.push(LaneView {
            lane: lane.as_str(),
            trials: trials.collect(),
            endings: all.iter().take(ENDINGS_SHOWN).map(ending_view).collect(),
            endings_left_out: all.len().saturating_sub(ENDINGS_SHOWN),
        });
    }
    (!views.is_empty()).then_some(CaseTraces { events: distinct.events, lanes: views, comparisons })
}

fn key(record: &TrialRecord, lane: Lane) -> (Lane, String) {
    (lane, record.trial.session.to_string())
}

fn events<'a>(record: &'a TrialRecord, lane: Lane, transcripts: &'a Transcripts) -> Vec<TrialEvent<'a>> {
    let mut events = transcript::events(record, transcripts.get(&key(record, lane)));
    events.truncate(EVENTS_SHOWN);
    events
}

/// Aligns each shown trial of the candidate with the recording and the baseline.
fn comparisons(
    lanes: &[(Lane, Vec<&TrialRecord>); LANES],
    events: &[Vec<Vec<TrialEvent<'_>>>],
) -> Vec<Comparison> {
    let with_trials: Vec<usize> = (0..LANES).filter(|lane| !lanes[*lane].1.is_empty()).collect();
    // The calls of a trial without a transcript are unknown: it is no reference, and it differs in nothing.
    let known = |lane: usize, trial: usize| {
        let record = lanes[lane].1.get(trial)?;
        record.trial.has_transcript.then(|| events[lane][trial].as_slice())
    };
    let comparison = |trial: usize| {
        let known = [known(0, 0), known(1, 0), known(2, trial)];
        let rows = alignment::align(&known);
        let differences = alignment::differences(&rows, &known);
        let indexes = |row: &AlignedRow| with_trials.iter().map(|lane| row[*lane]).collect();
        Comparison {
            trial: lanes[2].1.get(trial).map_or(0, |record| record.trial.trial),
            is_compared: known[2].is_some() && known[..2].iter().any(Option::is_some),
            first_difference: differences.iter().position(|one| *one != CallDifference::Same),
            rows: rows.iter().zip(&differences).map(|(row, one)| (*one, indexes(row))).collect(),
        }
    };
    // Without trials of the candidate, recording and baseline are aligned with each other.
    (0..lanes[2].1.len().max(1)).map(comparison).collect()
}

/// Events without repetitions: trials of one case share most of theirs.
#[derive(Default)]
struct DistinctEvents {
    events: Vec<EventView>,
    indexes: HashMap<EventView, usize>,
}

impl DistinctEvents {
    fn index(&mut self, event: EventView) -> usize {
        if let Some(index) = self.indexes.get(&event) {
            return *index;
        }
        self.events.push(event.clone());
        self.indexes.insert(event, self.events.len() - 1);
        self.events.len() - 1
    }
}

fn trial_view(
    record: &TrialRecord,
    events: &[TrialEvent<'_>],
    has_transcript: bool,
    distinct: &mut DistinctEvents,
) -> TrialView {
    let trial = &record.trial;
    let answer = trial.answer.as_deref().filter(|_| !has_transcript).unwrap_or_default();
    let indexed =
        events.iter().map(|event| (distinct.index(event_view(event, &record.calls)), duration(event)));
    let messages = events.iter().filter(|event| !matches!(event, TrialEvent::Call(..))).count();
    TrialView {
        trial: trial.trial,
        session: escape::name(trial.session.as_str()),
        notes: notes(record),
        answer: escape::visible_lines(&escape::shortened(answer, escape::MAX_TEXT_CHARS)),
        events: indexed.collect(),
        calls: record.calls.len(),
        calls_left_out: record.calls.len().saturating_sub(events.len() - messages),
    }
}

fn duration(event: &TrialEvent<'_>) -> String {
    match event {
        TrialEvent::Call(call, _) => call.duration_us.map(number::duration).unwrap_or_default(),
        TrialEvent::User(..) | TrialEvent::Agent(..) => String::new(),
    }
}

fn notes(record: &TrialRecord) -> Vec<String> {
    let trial = &record.trial;
    let mut notes = Vec::new();
    if trial.ending != TrialEnding::Complete {
        let why = trial.ending_detail.as_deref().unwrap_or_default();
        notes.push(format!("{}: {why}", wording::ending(trial.ending)));
    }
    let divergences = trial.divergences.iter().take(DIVERGENCES_SHOWN);
    notes.extend(divergences.map(|one| format!("left the recording ({}): {}", one.kind, one.detail)));
    let faults = trial.fault_plan.iter().filter(|plan| plan.trim() != "[]");
    notes.extend(faults.map(|plan| format!("injected faults: {plan}")));
    if !trial.has_transcript {
        notes.push("no transcript is stored with this trial".to_owned());
    }
    notes.iter().map(|note| escape::visible(&escape::shortened(note, escape::MAX_TEXT_CHARS))).collect()
}

fn ending_view(trial: &LabelledTrial<'_>) -> EndingView {
    let record = trial.record;
    let (severity, label) = match (record.is_incomplete(), record.trial.ending, trial.success) {
        (true, _, _) => (Severity::Neutral, "incomplete session"),
        (false, TrialEnding::Truncated, _) => (Severity::Warning, wording::ending(TrialEnding::Truncated)),
        (false, TrialEnding::Infrastructure, _) => {
            (Severity::Neutral, wording::ending(TrialEnding::Infrastructure))
        }
        (false, TrialEnding::Failed | TrialEnding::TimedOut, _) => {
            (Severity::Bad, wording::ending(record.trial.ending))
        }
        (false, TrialEnding::Complete, Some(true)) => (Severity::Good, "success"),
        (false, TrialEnding::Complete, Some(false)) => (Severity::Bad, "failure"),
        (false, TrialEnding::Complete, None) => (Severity::Neutral, "complete"),
    };
    EndingView { trial: record.trial.trial, severity, label }
}

fn event_view(event: &TrialEvent<'_>, all: &[ToolCall]) -> EventView {
    let message = |from, text: &str| EventView::Message {
        from,
        text: escape::visible_lines(&escape::shortened(text, escape::MAX_TEXT_CHARS)),
    };
    match event {
        TrialEvent::User(_, text) => message("user", text),
        TrialEvent::Agent(_, text) => message("agent", text),
        TrialEvent::Call(call, result) => EventView::ToolCall {
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
    let is_earlier_copy = |other: &&ToolCall| {
        other.seq < call.seq && other.tool == call.tool && other.compared_text() == call.compared_text()
    };
    if call.wrote()
        && call.idempotent != Some(true)
        && all.iter().filter(is_earlier_copy).any(ToolCall::wrote)
    {
        flags.push("duplicated write".to_owned());
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
        Ending::Failed => flags.push("no response".to_owned()),
        Ending::Truncated => flags.push("response truncated".to_owned()),
        Ending::Cancelled => flags.push("cancelled".to_owned()),
    }
    flags
}
