//! List of cases behind the verdict, the worst first, as data for the page's script.
//!
//! Every text is made visible here; the script sets it as text only. The list itself is in the page as one block. The
//! traces of the trials are in further blocks, and the script decompresses a block when the reader opens one of its
//! cases.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use schemas::trial::Lane;
use serde::Serialize;

use super::input::ReportInput;
use super::severity::Severity;
use super::transcript::Transcripts;
use super::trials::{self, CaseTrials};
use super::write_changes::{self, CaseWriteChange, WriteChange};
use super::{anchor, embed_data, escape};
use crate::analysis::{Analysis, AnalyzeError};
use crate::finding::Finding;
use crate::format;
use crate::verdict::{MetricResult, Unit};

mod traces;

use traces::CaseTraces;

/// Cases listed on the page.
const CASES_LISTED: usize = 5000;

/// Cases whose traces share a block.
const CASES_PER_BLOCK: usize = 16;

/// Size of all blocks in base64, bytes. Cases beyond it are listed without traces.
const MAX_BLOCK_BYTES: usize = 6 << 20;

/// Cases shown with their transcripts; further cases are shown with their tool calls only.
const CASES_WITH_TRANSCRIPTS: usize = 60;

/// Findings listed per case.
const FINDINGS_LISTED: usize = 12;

/// Write changes listed per case.
const WRITE_CHANGES_LISTED: usize = 8;

/// The sessions whose transcripts the page shows beside their tool calls: those of the worst cases.
///
/// # Errors
/// The runs cannot be paired. Runs that were analyzed can.
pub fn transcript_sessions(
    analysis: &Analysis,
    input: &ReportInput<'_>,
) -> Result<BTreeSet<(Lane, String)>, AnalyzeError> {
    let by_case = trials::by_case(input, analysis.verdict.seed)?;
    let ranked = ranked(analysis, &by_case);
    let worst = ranked.iter().take(CASES_WITH_TRANSCRIPTS);
    let trials = worst.filter_map(|case| Some((case, by_case.get(case.name)?)));
    Ok(trials.flat_map(|(case, trials)| traces::sessions(trials, &case.findings)).collect())
}

/// The list with its compressed traces.
#[derive(Debug, Serialize)]
pub(super) struct CaseList {
    pub(super) cases: Vec<CaseView>,
    /// Metrics and invariants that the reader can filter by.
    subjects: Vec<String>,
    /// Tools that the reader can filter by: those with a write change in some case.
    tools: Vec<String>,
    /// Cases beyond [`CASES_LISTED`].
    #[serde(skip)]
    pub(super) left_out: usize,
    /// Cases whose traces are in the page.
    #[serde(skip)]
    pub(super) traced: usize,
    /// Listed cases that have trials.
    #[serde(skip)]
    pub(super) traceable: usize,
    /// Traces, compressed.
    #[serde(skip)]
    pub(super) blocks: Vec<String>,
}

/// One case.
#[derive(Debug, Serialize)]
pub(super) struct CaseView {
    pub(super) case: String,
    pub(super) anchor: String,
    slices: Vec<String>,
    metrics: Vec<CaseMetricView>,
    pub(super) findings: Vec<FindingView>,
    write_changes: Vec<WriteChangeView>,
    /// Successful trials of the trials with an outcome: baseline, candidate.
    successes: Option<[String; 2]>,
    /// Index of the first row in which the tool calls of the trial shown first differ.
    first_difference: Option<usize>,
    /// Number of the block with the traces and the index in it; `None` if they are not in the page.
    block: Option<[usize; 2]>,
}

/// The values of one metric in one case.
#[derive(Debug, Serialize)]
struct CaseMetricView {
    name: String,
    baseline: String,
    candidate: String,
    effect: String,
    severity: Severity,
    /// The effect as a number, to sort by.
    effect_value: f64,
}

/// A finding in one case.
#[derive(Debug, Serialize)]
pub(super) struct FindingView {
    pub(super) subject: String,
    pub(super) detail: String,
}

/// A write change in one case.
#[derive(Debug, Serialize)]
struct WriteChangeView {
    tool: String,
    change: WriteChange,
    /// Candidate trials with the change, of all.
    trials: String,
}

/// A case with the results that rank it.
struct RankedCase<'a> {
    name: &'a str,
    contrasts: Vec<Contrast<'a>>,
    findings: Vec<&'a Finding>,
}

/// One metric's values in one case; larger effects are better.
struct Contrast<'a> {
    metric: &'a MetricResult,
    baseline: f64,
    candidate: f64,
    effect: f64,
}

/// Lists the cases, the worst first.
pub(super) fn case_list(
    analysis: &Analysis,
    trials: &BTreeMap<&str, CaseTrials<'_>>,
    transcripts: &Transcripts,
) -> CaseList {
    let mut ranked = ranked(analysis, trials);
    let left_out = ranked.len().saturating_sub(CASES_LISTED);
    ranked.truncate(CASES_LISTED);
    let views: Vec<(CaseView, Option<CaseTraces>)> =
        ranked.par_iter().map(|case| case.view(trials.get(case.name), transcripts)).collect();
    let traceable = views.iter().filter(|(_, traces)| traces.is_some()).count();
    let (mut views, traces): (Vec<CaseView>, Vec<Option<CaseTraces>>) = views.into_iter().unzip();
    let blocks = pack_blocks(&mut views, &traces);
    let tools: BTreeSet<&str> =
        views.iter().flat_map(|case| &case.write_changes).map(|change| change.tool.as_str()).collect();
    CaseList {
        tools: tools.into_iter().map(str::to_owned).collect(),
        traced: views.iter().filter(|case| case.block.is_some()).count(),
        traceable,
        cases: views,
        subjects: subjects(analysis),
        left_out,
        blocks,
    }
}

/// Compresses the traces into blocks, the worst cases first, up to [`MAX_BLOCK_BYTES`], and sets each case's block.
fn pack_blocks(views: &mut [CaseView], traces: &[Option<CaseTraces>]) -> Vec<String> {
    let traced: Vec<usize> = (0..traces.len()).filter(|case| traces[*case].is_some()).collect();
    let groups: Vec<&[usize]> = traced.chunks(CASES_PER_BLOCK).collect();
    let packed: Vec<String> = (groups.par_iter())
        .map(|group| {
            let group: Vec<&Option<CaseTraces>> = group.iter().map(|case| &traces[*case]).collect();
            embed_data::compressed(
                &serde_json::to_string(&group).expect("traces hold only text keys and finite numbers"),
            )
        })
        .collect();
    let mut bytes = 0;
    let mut kept = Vec::new();
    for (number, (group, block)) in groups.into_iter().zip(packed).enumerate() {
        bytes += block.len();
        if bytes > MAX_BLOCK_BYTES {
            break;
        }
        for (index, case) in group.iter().enumerate() {
            views[*case].block = Some([number, index]);
        }
        kept.push(block);
    }
    kept
}

/// All cases: violated invariants first, then by the largest loss.
fn ranked<'a>(analysis: &'a Analysis, trials: &BTreeMap<&'a str, CaseTrials<'_>>) -> Vec<RankedCase<'a>> {
    let mut cases: BTreeMap<&str, RankedCase<'_>> = BTreeMap::new();
    let empty = |name| RankedCase { name, contrasts: Vec::new(), findings: Vec::new() };
    for name in trials.iter().filter(|(_, trials)| trials.is_paired()).map(|(name, _)| *name) {
        cases.entry(name).or_insert_with(|| empty(name));
    }
    for finding in &analysis.findings {
        cases.entry(&finding.case).or_insert_with(|| empty(&finding.case)).findings.push(finding);
    }
    for (metric, detail) in analysis.verdict.metrics.iter().zip(&analysis.details) {
        for contrast in &detail.contrasts {
            let case = cases.entry(&contrast.case).or_insert_with(|| empty(&contrast.case));
            case.contrasts.push(Contrast {
                metric,
                baseline: contrast.baseline,
                candidate: contrast.candidate,
                effect: contrast.effect,
            });
        }
    }
    let mut ranked: Vec<RankedCase<'_>> = cases.into_values().collect();
    ranked.sort_by(|a, b| a.rank().0.cmp(&b.rank().0).then(a.rank().1.total_cmp(&b.rank().1)));
    ranked
}

/// Violated invariants, then the metrics, in the verdict's order.
fn subjects(analysis: &Analysis) -> Vec<String> {
    let verdict = &analysis.verdict;
    let violated = verdict.invariants.iter().filter(|invariant| invariant.violations > 0);
    let mut names: Vec<String> = violated.map(|invariant| escape::name(&invariant.name)).collect();
    names.extend(verdict.metrics.iter().map(|metric| escape::name(&metric.name)));
    names
}

impl RankedCase<'_> {
    /// The sort key: whether no invariant is violated, then the sum of the losses of the deciding metrics.
    fn rank(&self) -> (bool, f64) {
        let is_violating = self.findings.iter().any(|finding| finding.effect.is_none());
        let deciding =
            self.contrasts.iter().filter(|contrast| contrast.metric.decides || contrast.metric.required);
        (!is_violating, deciding.map(|contrast| contrast.effect.min(0.0)).sum())
    }

    /// The distinct findings.
    fn findings(&self) -> Vec<FindingView> {
        let mut seen = BTreeSet::new();
        let distinct =
            self.findings.iter().copied().filter(|finding| seen.insert((&finding.subject, &finding.detail)));
        // Writes that differ are listed once, under the first metric that counts them.
        let mut described = BTreeSet::new();
        let view = |finding: &Finding| {
            let seen = finding.examples.iter().find(|example| example.lane == "candidate");
            let seen = seen.map_or("", |example| example.detail.as_str());
            let again = !seen.is_empty() && !described.insert(seen.to_owned());
            let numbers = finding.detail.strip_suffix(seen).and_then(|detail| detail.strip_suffix(": "));
            match numbers.filter(|_| again) {
                Some(numbers) => finding_view(&finding.subject, &format!("{numbers}: the same")),
                None => finding_view(&finding.subject, &finding.detail),
            }
        };
        distinct.take(FINDINGS_LISTED).map(view).collect()
    }

    fn view(
        &self,
        trials: Option<&CaseTrials<'_>>,
        transcripts: &Transcripts,
    ) -> (CaseView, Option<CaseTraces>) {
        let traces = trials.and_then(|trials| traces::case_traces(trials, &self.findings, transcripts));
        let any_trial =
            trials.into_iter().flat_map(|trials| trials.candidate.iter().chain(&trials.baseline)).take(1);
        let slices = any_trial.flat_map(|trial| &trial.record.trial.slices);
        let mut changes = trials.map(write_changes::more_often_in_candidate).unwrap_or_default();
        write_changes::drop_repetitions(&mut changes);
        let view = CaseView {
            case: escape::name(self.name),
            anchor: anchor::case_id(self.name),
            slices: slices.map(|(name, value)| escape::name(&format!("{name}={value}"))).collect(),
            metrics: self.contrasts.iter().filter_map(case_metric_view).collect(),
            findings: self.findings(),
            write_changes: changes.iter().take(WRITE_CHANGES_LISTED).map(write_change_view).collect(),
            successes: trials.and_then(successes),
            first_difference: traces.as_ref().and_then(CaseTraces::first_difference),
            block: None,
        };
        (view, traces)
    }
}

fn successes(trials: &CaseTrials<'_>) -> Option<[String; 2]> {
    let lanes = [&trials.baseline, &trials.candidate].map(|trials| {
        let known: Vec<bool> = trials.iter().filter_map(|trial| trial.success).collect();
        (known.iter().filter(|success| **success).count(), known.len())
    });
    let is_known = lanes.iter().all(|(_, of)| *of > 0);
    is_known.then(|| lanes.map(|(successes, of)| format!("{successes}/{of}")))
}

fn write_change_view(change: &CaseWriteChange) -> WriteChangeView {
    WriteChangeView {
        tool: escape::name(&change.tool),
        change: change.change,
        trials: format!("{} of {}", change.trials, change.of),
    }
}

fn finding_view(subject: &str, detail: &str) -> FindingView {
    FindingView {
        subject: escape::name(subject),
        detail: escape::visible(&escape::shortened(detail, escape::MAX_TEXT_CHARS)),
    }
}

/// The metric's values, if the case differs: by more than the margin for measured values, at all for shares.
fn case_metric_view(contrast: &Contrast<'_>) -> Option<CaseMetricView> {
    let Contrast { metric, baseline, candidate, effect } = *contrast;
    let is_listed = match metric.unit {
        Unit::Share => effect != 0.0,
        Unit::Distance | Unit::Seconds | Unit::Tokens | Unit::Usd | Unit::UsdMean => {
            effect.abs() > metric.margin
        }
    };
    is_listed.then(|| CaseMetricView {
        name: escape::name(&metric.name),
        baseline: format::value(metric.unit, baseline),
        candidate: format::value(metric.unit, candidate),
        effect: format::effect(metric.unit, effect),
        severity: if effect < 0.0 { Severity::Bad } else { Severity::Good },
        effect_value: effect,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;
    use crate::verdict::Decision;

    fn listed() -> CaseList {
        let runs = fixture::runs();
        let analysis = fixture::analysis(Decision::Block);
        case_list(&analysis, &trials::by_case(&runs.input(), 7).unwrap(), runs.input().transcripts)
    }

    #[test]
    fn the_worst_case_comes_first_with_its_first_difference() {
        let listed = listed();
        assert_eq!((listed.cases.len(), listed.left_out, listed.traced), (3, 0, 3));
        let worst = &listed.cases[0];
        assert_eq!(worst.case, fixture::HOSTILE_CASE);
        assert_eq!(worst.findings.len(), 2);
        assert_eq!(worst.first_difference, Some(1), "row 0 is the user's message");
        assert_eq!(worst.successes, Some(["1/1".to_owned(), "0/1".to_owned()]));
        let [change] = &worst.write_changes[..] else { panic!("{:?}", worst.write_changes) };
        assert_eq!(
            (change.tool.as_str(), change.change, change.trials.as_str()),
            ("refund", WriteChange::Duplicated, "1 of 1")
        );
        assert_eq!(listed.cases[1].first_difference, None);
        assert_eq!(listed.tools, ["refund"]);
    }

    #[test]
    fn every_case_has_its_traces_in_its_block() {
        let listed = listed();
        assert_eq!(listed.blocks.len(), 1);
        let block: serde_json::Value =
            serde_json::from_str(&embed_data::decompressed(&listed.blocks[0])).unwrap();
        for case in &listed.cases {
            let [number, index] = case.block.unwrap();
            assert_eq!(number, 0);
            let traces = &block[index];
            assert_eq!(traces["lanes"].as_array().unwrap().len(), 3);
            assert_eq!(
                traces["comparisons"][0]["first_difference"],
                serde_json::json!(case.first_difference)
            );
        }
    }

    #[test]
    fn the_worst_cases_are_shown_with_transcripts() {
        let runs = fixture::runs();
        let wanted = transcript_sessions(&fixture::analysis(Decision::Block), &runs.input()).unwrap();
        assert!(wanted.contains(&(Lane::Candidate, format!("{}-0", fixture::HOSTILE_CASE))));
        assert_eq!(wanted.len(), 9, "three cases in three lanes: {wanted:?}");
    }
}
