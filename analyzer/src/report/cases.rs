//! The cases behind the verdict, the worst first, as the page's script shows them.
//!
//! Every text is made visible here; the script only ever sets it as text.

use std::collections::{BTreeMap, BTreeSet};

use schemas::trial::TrialEnding;
use serde::Serialize;

use super::trace::{self, LANES, Step};
use super::{Evidence, phrases, text};
use crate::analysis::{AnalyseError, Analysis};
use crate::finding::Finding;
use crate::metrics::{self, Setting};
use crate::pairs::Pairs;
use crate::run::{ToolCall, TrialRecord};
use crate::verdict::{MetricResult, Unit};
use crate::words;

/// Cases listed on the page.
const CASES_LISTED: usize = 2000;

/// Cases whose trials are shown call by call.
const CASES_TRACED: usize = 50;

/// Arguments of a call shown, characters.
const ARGUMENTS_SHOWN: usize = 300;

/// Text of an answer or a note shown, characters.
const TEXT_SHOWN: usize = 1200;

/// Findings shown per case.
const FINDINGS_SHOWN: usize = 12;

/// Trials of a lane marked with how they ended.
const MARKS_SHOWN: usize = 50;

/// A trial and what is known of its outcome.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) record: &'a TrialRecord,
    /// Whether it did the work, as `success` counts it.
    success: Option<bool>,
}

/// The trials of one case.
#[derive(Default)]
pub(super) struct Sides<'a> {
    /// What production did.
    recorded: Option<Shown<'a>>,
    /// The same, where it did not fail: what writes are compared with.
    pub(super) reference: Option<&'a TrialRecord>,
    pub(super) baseline: Vec<Shown<'a>>,
    pub(super) candidate: Vec<Shown<'a>>,
}

impl Sides<'_> {
    pub(super) fn is_paired(&self) -> bool {
        !self.baseline.is_empty() && !self.candidate.is_empty()
    }
}

/// Sorts the trials of the runs by case, the trials of a case by number, torn ones included.
///
/// # Errors
/// The runs cannot be paired; what was analyzed can.
pub(super) fn by_case<'a>(
    evidence: &Evidence<'a>,
    seed: u64,
) -> Result<BTreeMap<&'a str, Sides<'a>>, AnalyseError> {
    let Evidence { baseline, candidate, recorded, policy } = *evidence;
    let pairs = Pairs::new(baseline, candidate, recorded)?;
    let succeeded = metrics::succeeded(Setting { policy, pairs: &pairs, seed });
    let mut cases: BTreeMap<&str, Sides<'_>> = BTreeMap::new();
    for record in baseline.own() {
        let sides = cases.entry(record.trial.case.as_str()).or_default();
        sides.baseline.push(Shown { record, success: None });
    }
    for record in candidate.own() {
        let sides = cases.entry(record.trial.case.as_str()).or_default();
        sides.candidate.push(Shown { record, success: None });
    }
    for case in &pairs.cases {
        let Some(sides) = cases.get_mut(case.case.as_str()) else { continue };
        let known = |record| Shown { record, success: record.trial.success };
        sides.recorded = case.recorded_any.map(known);
        sides.reference = case.recorded;
        for shown in sides.baseline.iter_mut().chain(&mut sides.candidate) {
            shown.success = if shown.record.is_torn() { None } else { succeeded(case, shown.record) };
        }
        sides.baseline.sort_by_key(|shown| shown.record.trial.trial);
        sides.candidate.sort_by_key(|shown| shown.record.trial.trial);
    }
    Ok(cases)
}

/// The list of cases, as it lies in the page.
#[derive(Debug, Serialize)]
pub(super) struct Cases {
    pub(super) cases: Vec<CaseView>,
    /// Metrics and invariants that cases can be filtered by.
    subjects: Vec<String>,
    /// Cases that are not listed.
    pub(super) left_out: usize,
    /// Cases that are shown call by call.
    pub(super) traced: usize,
}

/// One case.
#[derive(Debug, Serialize)]
pub(super) struct CaseView {
    pub(super) case: String,
    pub(super) anchor: String,
    slices: Vec<String>,
    metrics: Vec<MetricView>,
    pub(super) findings: Vec<FindingView>,
    /// Absent where the case is not among those shown call by call.
    trace: Option<TraceView>,
}

/// What a metric says of one case.
#[derive(Debug, Serialize)]
struct MetricView {
    name: String,
    baseline: String,
    candidate: String,
    effect: String,
    tone: &'static str,
    order: f64,
}

/// What a finding says of one case.
#[derive(Debug, Serialize)]
pub(super) struct FindingView {
    pub(super) subject: String,
    pub(super) detail: String,
}

/// Trials side by side.
#[derive(Debug, Serialize)]
struct TraceView {
    lanes: Vec<LaneView>,
    lines: Vec<LineView>,
    /// The line at which the candidate first goes another way.
    first: Option<usize>,
    /// Whether there is a candidate and something to compare it with.
    compared: bool,
}

/// One lane of a case.
#[derive(Debug, Serialize)]
struct LaneView {
    lane: &'static str,
    marks: Vec<Mark>,
    marks_left_out: usize,
    trial: u32,
    session: String,
    notes: Vec<String>,
    answer: String,
    calls: usize,
    calls_left_out: usize,
}

/// How one trial of a lane ended.
#[derive(Debug, Serialize)]
struct Mark {
    trial: u32,
    tone: &'static str,
    word: &'static str,
}

/// Calls beside each other.
#[derive(Debug, Serialize)]
struct LineView {
    step: Step,
    cells: Vec<Option<CallView>>,
}

/// One call.
#[derive(Debug, Serialize)]
struct CallView {
    tool: String,
    arguments: String,
    effect: &'static str,
    flags: Vec<String>,
    time: String,
}

/// What is put together for a case before it is shown.
struct Case<'a> {
    name: &'a str,
    contrasts: Vec<(&'a MetricResult, f64, f64, f64)>,
    findings: Vec<&'a Finding>,
}

/// Lists the cases, the worst first.
pub(super) fn cases(analysis: &Analysis, trials: &BTreeMap<&str, Sides<'_>>) -> Cases {
    let mut gathered: BTreeMap<&str, Case<'_>> = BTreeMap::new();
    let empty = |name| Case { name, contrasts: Vec::new(), findings: Vec::new() };
    for name in trials.iter().filter(|(_, sides)| sides.is_paired()).map(|(name, _)| *name) {
        gathered.entry(name).or_insert_with(|| empty(name));
    }
    for finding in &analysis.findings {
        gathered.entry(&finding.case).or_insert_with(|| empty(&finding.case)).findings.push(finding);
    }
    for (metric, detail) in analysis.verdict.metrics.iter().zip(&analysis.details) {
        for contrast in &detail.contrasts {
            let case = gathered.entry(&contrast.case).or_insert_with(|| empty(&contrast.case));
            case.contrasts.push((metric, contrast.baseline, contrast.candidate, contrast.effect));
        }
    }
    let mut ranked: Vec<Case<'_>> = gathered.into_values().collect();
    ranked.sort_by(|a, b| a.rank().0.cmp(&b.rank().0).then(a.rank().1.total_cmp(&b.rank().1)));
    let left_out = ranked.len().saturating_sub(CASES_LISTED);
    ranked.truncate(CASES_LISTED);
    let views: Vec<CaseView> = ranked
        .iter()
        .enumerate()
        .map(|(place, case)| case.view(trials.get(case.name), place < CASES_TRACED))
        .collect();
    Cases {
        traced: views.iter().filter(|case| case.trace.is_some()).count(),
        cases: views,
        subjects: subjects(analysis),
        left_out,
    }
}

/// Invariants that are broken, and the metrics, in the verdict's order.
fn subjects(analysis: &Analysis) -> Vec<String> {
    let verdict = &analysis.verdict;
    let broken = verdict.invariants.iter().filter(|invariant| invariant.violations > 0);
    let mut names: Vec<String> = broken.map(|invariant| text::name(&invariant.name)).collect();
    names.extend(verdict.metrics.iter().map(|metric| text::name(&metric.name)));
    names
}

/// The name under which a case can be linked to: `case-` and the name, all but plain characters as hexadecimal bytes.
pub(super) fn anchor(case: &str) -> String {
    let mut anchor = String::from("case-");
    for byte in case.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.') {
            anchor.push(char::from(byte));
        } else {
            anchor.push_str(&format!("_{byte:02x}"));
        }
    }
    anchor
}

impl Case<'_> {
    /// Broken invariants first, then the largest loss, summed over the deciding metrics.
    fn rank(&self) -> (bool, f64) {
        let breaks = self.findings.iter().any(|finding| finding.effect.is_none());
        let deciding = self.contrasts.iter().filter(|(metric, ..)| metric.decides || metric.required);
        (!breaks, deciding.map(|(.., effect)| effect.min(0.0)).sum())
    }

    /// What is told of the case, each thing once.
    fn findings(&self) -> Vec<FindingView> {
        let mut seen = BTreeSet::new();
        let fresh = self.findings.iter().filter(|finding| seen.insert((&finding.subject, &finding.detail)));
        fresh.take(FINDINGS_SHOWN).map(|finding| finding_view(finding)).collect()
    }

    fn view(&self, sides: Option<&Sides<'_>>, traced: bool) -> CaseView {
        let trace = sides.filter(|_| traced).and_then(|sides| trace_of(sides, &self.findings));
        let records = sides.into_iter().flat_map(|sides| sides.candidate.iter().chain(&sides.baseline));
        let slices = records.take(1).flat_map(|shown| &shown.record.trial.slices);
        CaseView {
            case: text::name(self.name),
            anchor: anchor(self.name),
            slices: slices.map(|(name, value)| text::name(&format!("{name}={value}"))).collect(),
            metrics: self.contrasts.iter().filter_map(metric_view).collect(),
            findings: self.findings(),
            trace,
        }
    }
}

fn finding_view(finding: &Finding) -> FindingView {
    FindingView {
        subject: text::name(&finding.subject),
        detail: text::visible(&text::shortened(&finding.detail, TEXT_SHOWN)),
    }
}

/// A metric is told of a case where the case differs by more than the metric's margin, or, for shares, at all.
fn metric_view(contrast: &(&MetricResult, f64, f64, f64)) -> Option<MetricView> {
    let (metric, baseline, candidate, effect) = *contrast;
    let told = match metric.unit {
        Unit::Share => effect != 0.0,
        Unit::Distance | Unit::Seconds | Unit::Tokens | Unit::Usd => effect.abs() > metric.margin,
    };
    told.then(|| MetricView {
        name: text::name(&metric.name),
        baseline: words::value(metric.unit, baseline),
        candidate: words::value(metric.unit, candidate),
        effect: words::effect(metric.unit, effect),
        tone: if effect < 0.0 { phrases::BAD } else { phrases::GOOD },
        order: effect,
    })
}

fn trace_of(sides: &Sides<'_>, findings: &[&Finding]) -> Option<TraceView> {
    let recorded: Vec<Shown<'_>> = sides.recorded.into_iter().collect();
    let chosen: [Option<&TrialRecord>; LANES] = [
        sides.recorded.map(|shown| shown.record),
        choose(&sides.baseline, findings, "baseline", true),
        choose(&sides.candidate, findings, "candidate", false),
    ];
    let sides = [&recorded, &sides.baseline, &sides.candidate];
    let lines = trace::line_up(&chosen);
    let steps = trace::steps(&lines, &chosen);
    let lanes: Vec<LaneView> = ["recorded", "baseline", "candidate"]
        .into_iter()
        .zip(chosen)
        .zip(sides)
        .filter_map(|((lane, record), all)| record.map(|record| lane_view(lane, record, all)))
        .collect();
    let shown: Vec<LineView> = (lines.iter().zip(&steps))
        .map(|(places, step)| LineView {
            step: *step,
            cells: (0..LANES)
                .filter(|lane| chosen[*lane].is_some())
                .map(|lane| {
                    let call = trace::call(&chosen, places, lane)?;
                    Some(call_view(call, chosen[lane].map_or(&[][..], |record| &record.calls)))
                })
                .collect(),
        })
        .collect();
    (!lanes.is_empty()).then(|| TraceView {
        first: steps.iter().position(|step| *step != Step::Same),
        compared: chosen[2].is_some() && chosen[..2].iter().any(Option::is_some),
        lanes,
        lines: shown,
    })
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

fn lane_view(lane: &'static str, record: &TrialRecord, all: &[Shown<'_>]) -> LaneView {
    let trial = &record.trial;
    let mut notes = Vec::new();
    if trial.ending != TrialEnding::Complete {
        let why = trial.ending_detail.as_deref().unwrap_or_default();
        notes.push(format!("{}: {why}", phrases::ending(trial.ending)));
    }
    notes.extend(
        trial
            .divergences
            .iter()
            .take(5)
            .map(|left| format!("left the recording ({}): {}", left.kind, left.detail)),
    );
    let planned = trial.fault_plan.iter().filter(|plan| plan.trim() != "[]");
    notes.extend(planned.map(|plan| format!("faults: {plan}")));
    if !trial.has_transcript {
        notes.push("no transcript was stored with this trial".to_owned());
    }
    LaneView {
        lane,
        marks: all.iter().take(MARKS_SHOWN).map(mark).collect(),
        marks_left_out: all.len().saturating_sub(MARKS_SHOWN),
        trial: trial.trial,
        session: text::name(trial.session.as_str()),
        notes: notes.iter().map(|note| text::visible(&text::shortened(note, TEXT_SHOWN))).collect(),
        answer: trial
            .answer
            .as_deref()
            .map(|answer| text::visible_lines(&text::shortened(answer, TEXT_SHOWN)))
            .unwrap_or_default(),
        calls: record.calls.len(),
        calls_left_out: record.calls.len().saturating_sub(trace::CALLS_SHOWN),
    }
}

fn mark(shown: &Shown<'_>) -> Mark {
    let record = shown.record;
    let (tone, word) = match (record.is_torn(), record.trial.ending, shown.success) {
        (true, _, _) => (phrases::OPEN, "torn"),
        (false, TrialEnding::Truncated, _) => (phrases::WARN, "left the recording"),
        (false, TrialEnding::Infrastructure, _) => (phrases::OPEN, "harness failed"),
        (false, TrialEnding::Failed | TrialEnding::TimedOut, _) => {
            (phrases::BAD, phrases::ending(record.trial.ending))
        }
        (false, TrialEnding::Complete, Some(true)) => (phrases::GOOD, "success"),
        (false, TrialEnding::Complete, Some(false)) => (phrases::BAD, "failure"),
        (false, TrialEnding::Complete, None) => (phrases::OPEN, "complete"),
    };
    Mark { trial: record.trial.trial, tone, word }
}

fn call_view(call: &ToolCall, all: &[ToolCall]) -> CallView {
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
        schemas::exchange::Ending::Complete => {}
        schemas::exchange::Ending::Failed => flags.push("no answer".to_owned()),
        schemas::exchange::Ending::Truncated => flags.push("answer broken off".to_owned()),
        schemas::exchange::Ending::Cancelled => flags.push("cancelled".to_owned()),
    }
    CallView {
        tool: text::name(&call.tool),
        arguments: text::visible(&text::shortened(call.arguments_text(), ARGUMENTS_SHOWN)),
        effect: phrases::effect(call.effect),
        flags,
        time: call.duration_us.map(text::duration).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use crate::verdict::Answer;

    #[test]
    fn the_worst_case_comes_first_with_its_first_divergence() {
        let runs = sample::runs();
        let analysis = sample::analysis(Answer::Block);
        let listed = cases(&analysis, &by_case(&runs.evidence(), 7).unwrap());
        assert_eq!((listed.cases.len(), listed.left_out, listed.traced), (3, 0, 3));
        let worst = &listed.cases[0];
        assert_eq!(worst.case, sample::HOSTILE_CASE);
        assert_eq!(worst.findings.len(), 2);
        let trace = worst.trace.as_ref().unwrap();
        assert_eq!(trace.lanes.len(), 3);
        assert_eq!(trace.first, Some(0));
        let flags: Vec<_> =
            trace.lines.iter().filter_map(|line| line.cells[2].as_ref()).map(|call| &call.flags).collect();
        assert_eq!(
            flags.iter().flat_map(|flags| flags.iter()).filter(|flag| *flag == "repeated write").count(),
            1
        );
        let same = listed.cases[1].trace.as_ref().unwrap();
        assert_eq!((same.first, same.compared), (None, true));
    }

    #[test]
    fn an_anchor_is_plain_and_unique() {
        assert_eq!(anchor("retail-12"), "case-retail-12");
        assert_eq!(anchor("a_b c"), "case-a_5fb_20c");
        assert_ne!(anchor("a b"), anchor("a_20b"));
    }
}
