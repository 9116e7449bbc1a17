//! The cases behind the verdict, the worst first, as the page's script shows them.
//!
//! Every text is made visible here; the script only ever sets it as text. The list lies in the page whole; what happened
//! in the trials lies beside it in compressed blocks, each inflated when one of its cases is opened.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use schemas::trial::Lane;
use serde::Serialize;

use super::transcript::Transcripts;
use super::write_changes::{self, CaseEffect, Kind};
use super::{ReportInput, anchor, embed_data, escape, wording};
use crate::analysis::{AnalyseError, Analysis};
use crate::finding::Finding;
use crate::format;
use crate::metrics::{self, Setting};
use crate::pairs::Pairs;
use crate::run::TrialRecord;
use crate::verdict::{MetricResult, Unit};

mod traces;

use traces::TraceView;

/// Cases listed on the page.
const CASES_LISTED: usize = 5000;

/// Cases of which one block holds what happened.
const CASES_PER_BLOCK: usize = 16;

/// Bytes of all blocks in base64; cases that no longer fit are listed without what happened in their trials.
const BLOCKS_BYTES: usize = 6 << 20;

/// Cases that are shown with what was said in them, not only with their tool calls.
const CASES_WITH_TEXTS: usize = 60;

/// Text of an answer or a note shown, characters.
const TEXT_SHOWN: usize = 1200;

/// Findings shown per case.
const FINDINGS_SHOWN: usize = 12;

/// Ways in which writes differ shown per case.
const EFFECTS_SHOWN: usize = 8;

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
    input: &ReportInput<'a>,
    seed: u64,
) -> Result<BTreeMap<&'a str, Sides<'a>>, AnalyseError> {
    let ReportInput { baseline, candidate, recorded, policy, transcripts: _ } = *input;
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

/// The sessions whose texts the page shows beside their tool calls: those of the worst cases.
///
/// # Errors
/// The runs cannot be paired; what was analyzed can.
pub fn transcript_sessions(
    analysis: &Analysis,
    input: &ReportInput<'_>,
) -> Result<BTreeSet<(Lane, String)>, AnalyseError> {
    let by_case = by_case(input, analysis.verdict.seed)?;
    let ranked = ranked(analysis, &by_case);
    let worst = ranked.iter().take(CASES_WITH_TEXTS);
    let sides = worst.filter_map(|case| Some((case, by_case.get(case.name)?)));
    Ok(sides.flat_map(|(case, sides)| traces::sessions(sides, &case.findings)).collect())
}

/// The list of cases, as it lies in the page.
#[derive(Debug, Serialize)]
pub(super) struct Cases {
    pub(super) cases: Vec<CaseView>,
    /// Metrics and invariants that cases can be filtered by.
    subjects: Vec<String>,
    /// Tools whose writes differ in some case.
    tools: Vec<String>,
    /// Cases that are not listed.
    pub(super) left_out: usize,
    /// Cases whose trials are in the page.
    pub(super) traced: usize,
    /// Cases whose trials have something to show.
    pub(super) traceable: usize,
    /// What happened in the trials, compressed.
    #[serde(skip)]
    pub(super) blocks: Vec<String>,
}

/// One case.
#[derive(Debug, Serialize)]
pub(super) struct CaseView {
    pub(super) case: String,
    pub(super) anchor: String,
    slices: Vec<String>,
    metrics: Vec<MetricView>,
    pub(super) findings: Vec<FindingView>,
    effects: Vec<EffectView>,
    /// Trials that did the work of those with an outcome: baseline, candidate.
    tally: Option<[String; 2]>,
    /// The line at which the candidate first goes another way in the trial that is shown first.
    first: Option<usize>,
    /// The block that holds what happened, and the place in it; absent where it is not in the page.
    block: Option<[usize; 2]>,
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

/// In how many of the candidate's trials the writes of a tool differ.
#[derive(Debug, Serialize)]
struct EffectView {
    tool: String,
    kind: Kind,
    trials: String,
}

/// What is put together for a case before it is shown.
struct Case<'a> {
    name: &'a str,
    contrasts: Vec<(&'a MetricResult, f64, f64, f64)>,
    findings: Vec<&'a Finding>,
}

/// Lists the cases, the worst first.
pub(super) fn cases(
    analysis: &Analysis,
    trials: &BTreeMap<&str, Sides<'_>>,
    transcripts: &Transcripts,
) -> Cases {
    let mut ranked = ranked(analysis, trials);
    let left_out = ranked.len().saturating_sub(CASES_LISTED);
    ranked.truncate(CASES_LISTED);
    let shown: Vec<(CaseView, Option<TraceView>)> =
        ranked.par_iter().map(|case| case.view(trials.get(case.name), transcripts)).collect();
    let traceable = shown.iter().filter(|(_, trace)| trace.is_some()).count();
    let (mut views, traces): (Vec<CaseView>, Vec<Option<TraceView>>) = shown.into_iter().unzip();
    let blocks = blocks(&mut views, &traces);
    let tools: BTreeSet<&str> =
        views.iter().flat_map(|case| &case.effects).map(|effect| effect.tool.as_str()).collect();
    Cases {
        tools: tools.into_iter().map(str::to_owned).collect(),
        traced: views.iter().filter(|case| case.block.is_some()).count(),
        traceable,
        cases: views,
        subjects: subjects(analysis),
        left_out,
        blocks,
    }
}

/// Packs what happened, worst case first, until the page has had enough, and tells each case where its own lies.
fn blocks(views: &mut [CaseView], traces: &[Option<TraceView>]) -> Vec<String> {
    let there: Vec<usize> = (0..traces.len()).filter(|place| traces[*place].is_some()).collect();
    let groups: Vec<&[usize]> = there.chunks(CASES_PER_BLOCK).collect();
    let packed: Vec<String> = (groups.par_iter())
        .map(|group| {
            let group: Vec<&Option<TraceView>> = group.iter().map(|place| &traces[*place]).collect();
            embed_data::packed(
                &serde_json::to_string(&group).expect("traces hold only text keys and finite numbers"),
            )
        })
        .collect();
    let mut bytes = 0;
    let mut kept = Vec::new();
    for (number, (group, block)) in groups.into_iter().zip(packed).enumerate() {
        bytes += block.len();
        if bytes > BLOCKS_BYTES {
            break;
        }
        for (place, case) in group.iter().enumerate() {
            views[*case].block = Some([number, place]);
        }
        kept.push(block);
    }
    kept
}

/// All cases, those that broke an invariant first, then by the largest loss.
fn ranked<'a>(analysis: &'a Analysis, trials: &BTreeMap<&'a str, Sides<'_>>) -> Vec<Case<'a>> {
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
    ranked
}

/// Invariants that are broken, and the metrics, in the verdict's order.
fn subjects(analysis: &Analysis) -> Vec<String> {
    let verdict = &analysis.verdict;
    let broken = verdict.invariants.iter().filter(|invariant| invariant.violations > 0);
    let mut names: Vec<String> = broken.map(|invariant| escape::name(&invariant.name)).collect();
    names.extend(verdict.metrics.iter().map(|metric| escape::name(&metric.name)));
    names
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

    fn view(&self, sides: Option<&Sides<'_>>, transcripts: &Transcripts) -> (CaseView, Option<TraceView>) {
        let trace = sides.and_then(|sides| traces::trace(sides, &self.findings, transcripts));
        let records = sides.into_iter().flat_map(|sides| sides.candidate.iter().chain(&sides.baseline));
        let slices = records.take(1).flat_map(|shown| &shown.record.trial.slices);
        let effects = sides.map(write_changes::of_case).unwrap_or_default();
        let view = CaseView {
            case: escape::name(self.name),
            anchor: anchor::anchor(self.name),
            slices: slices.map(|(name, value)| escape::name(&format!("{name}={value}"))).collect(),
            metrics: self.contrasts.iter().filter_map(metric_view).collect(),
            findings: self.findings(),
            effects: effects.iter().take(EFFECTS_SHOWN).map(effect_view).collect(),
            tally: sides.and_then(tally),
            first: trace.as_ref().and_then(TraceView::first),
            block: None,
        };
        (view, trace)
    }
}

fn tally(sides: &Sides<'_>) -> Option<[String; 2]> {
    let lanes = [&sides.baseline, &sides.candidate].map(|trials| {
        let known: Vec<bool> = trials.iter().filter_map(|shown| shown.success).collect();
        (known.iter().filter(|success| **success).count(), known.len())
    });
    let known = lanes.iter().all(|(_, of)| *of > 0);
    known.then(|| lanes.map(|(good, of)| format!("{good}/{of}")))
}

fn effect_view(effect: &CaseEffect) -> EffectView {
    EffectView {
        tool: escape::name(&effect.tool),
        kind: effect.kind,
        trials: format!("{} of {}", effect.trials, effect.of),
    }
}

fn finding_view(finding: &Finding) -> FindingView {
    FindingView {
        subject: escape::name(&finding.subject),
        detail: escape::visible(&escape::shortened(&finding.detail, TEXT_SHOWN)),
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
        name: escape::name(&metric.name),
        baseline: format::value(metric.unit, baseline),
        candidate: format::value(metric.unit, candidate),
        effect: format::effect(metric.unit, effect),
        tone: if effect < 0.0 { wording::BAD } else { wording::GOOD },
        order: effect,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;
    use crate::verdict::Answer;

    fn listed() -> Cases {
        let runs = fixture::runs();
        let analysis = fixture::analysis(Answer::Block);
        cases(&analysis, &by_case(&runs.input(), 7).unwrap(), runs.input().transcripts)
    }

    #[test]
    fn the_worst_case_comes_first_with_its_first_divergence() {
        let listed = listed();
        assert_eq!((listed.cases.len(), listed.left_out, listed.traced), (3, 0, 3));
        let worst = &listed.cases[0];
        assert_eq!(worst.case, fixture::HOSTILE_CASE);
        assert_eq!(worst.findings.len(), 2);
        assert_eq!(worst.first, Some(1), "the caller speaks first");
        assert_eq!(worst.tally, Some(["1/1".to_owned(), "0/1".to_owned()]));
        let [effect] = &worst.effects[..] else { panic!("{:?}", worst.effects) };
        assert_eq!(
            (effect.tool.as_str(), effect.kind, effect.trials.as_str()),
            ("refund", Kind::Duplicated, "1 of 1")
        );
        assert_eq!(listed.cases[1].first, None);
        assert_eq!(listed.tools, ["refund"]);
    }

    #[test]
    fn every_case_finds_what_happened_in_its_block() {
        let listed = listed();
        assert_eq!(listed.blocks.len(), 1);
        let block: serde_json::Value =
            serde_json::from_str(&embed_data::unpacked(&listed.blocks[0])).unwrap();
        for case in &listed.cases {
            let [number, place] = case.block.unwrap();
            assert_eq!(number, 0);
            let trace = &block[place];
            assert_eq!(trace["lanes"].as_array().unwrap().len(), 3);
            assert_eq!(trace["views"][0]["first"], serde_json::json!(case.first));
        }
    }

    #[test]
    fn the_texts_of_the_worst_cases_are_asked_for() {
        let runs = fixture::runs();
        let wanted = transcript_sessions(&fixture::analysis(Answer::Block), &runs.input()).unwrap();
        assert!(wanted.contains(&(Lane::Candidate, format!("{}-0", fixture::HOSTILE_CASE))));
        assert_eq!(wanted.len(), 9, "three cases in three lanes: {wanted:?}");
    }
}
