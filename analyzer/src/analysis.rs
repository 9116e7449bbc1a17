//! From two runs to a verdict: pairs, invariants, metrics, tests, the rule, and what explains it.

use std::collections::{BTreeMap, BTreeSet};

use crate::decide::{Tested, Tests};
use crate::drift::{self, DriftMap};
use crate::fidelity::{self, FidelityCheck};
use crate::finding::Finding;
use crate::invariants::{self, Checked};
use crate::metrics::{self, CaseTable, Measured, Measurement, Setting};
use crate::pairs::{PairedCase, Pairs, unanswered};
use crate::policy::Policy;
use crate::run::Run;
use crate::sample_size;
use crate::schedule::seeded_order;
use crate::stats::variance::mean;
use crate::tools;
use crate::verdict::{
    Calibration, Decision, Drift, LookHistory, MetricResult, Monitoring, MonitoringKind, Need, Review,
    RunIdentity, VERDICT_FORMAT, Verdict,
};
use schemas::id::CaseId;
use schemas::trial::Lane;

mod decision_summary;
mod explain;
mod interim;
mod reasons;
mod secondary;
#[cfg(test)]
mod tests;

pub use crate::pairs::PairError as AnalyzeError;
pub(crate) use decision_summary::{DecisionSummary, MetricDecisionSummary, decide_pairs};
pub use interim::{MonitoringPlan, PLANNED_ALPHA_SHARE, Waves};

use interim::Look;

/// The verdict and everything that explains it.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// The verdict.
    pub verdict: Verdict,
    /// Sessions to look at: those of invariants first, then of the metrics in the verdict's order, then writes made in
    /// another order (`effects.reordered`, which is no metric); the worst first.
    pub findings: Vec<Finding>,
    /// The contrasts of each metric, in the order of [`Verdict::metrics`].
    pub details: Vec<MetricDetail>,
    /// The mean answers of the cases on a plane, where the answers were embedded.
    pub drift_map: Option<DriftMap>,
}

/// A metric's contrasts.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricDetail {
    /// The metric.
    pub name: String,
    /// One per case, by case id.
    pub contrasts: Vec<CaseContrast>,
}

/// One case of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseContrast {
    /// The case.
    pub case: String,
    /// The baseline's value, in the metric's unit.
    pub baseline: f64,
    /// The candidate's value, in the metric's unit.
    pub candidate: f64,
    /// The contrast, larger is better.
    pub effect: f64,
}

/// What is asked: two runs, a policy, and how they are looked at.
#[derive(Debug, Clone, Copy)]
pub struct AnalysisRequest<'a> {
    /// What may block, what approval needs, how much worse is tolerated; fixed before the candidate's run is read.
    pub policy: &'a Policy,
    /// The current build's run.
    pub baseline: &'a Run,
    /// The new build's run.
    pub candidate: &'a Run,
    /// A run of the recordings, where neither run carries them.
    pub recorded: Option<&'a Run>,
    /// Keys everything random.
    pub seed: u64,
    /// How the data are looked at.
    pub monitoring: MonitoringPlan<'a>,
    /// What `foreshadow calibrate` found on these sessions, to stand beside the verdict.
    pub calibration: Option<&'a Calibration>,
    /// How many cases could be had in all, where that is known.
    pub corpus_cases: Option<u64>,
    /// Whether an inconclusive verdict says what it would take; that takes longer than the verdict itself.
    pub forecast: bool,
}

impl<'a> AnalysisRequest<'a> {
    /// One look at all of two runs.
    #[must_use]
    pub fn new(policy: &'a Policy, baseline: &'a Run, candidate: &'a Run, seed: u64) -> Self {
        Self {
            policy,
            baseline,
            candidate,
            recorded: None,
            seed,
            monitoring: MonitoringPlan::SingleLook,
            calibration: None,
            corpus_cases: None,
            forecast: true,
        }
    }
}

/// Everything that is the same at every look.
struct AnalysisContext<'a> {
    request: AnalysisRequest<'a>,
    pairs: Pairs<'a>,
    checked: Checked,
    fidelity: FidelityCheck,
    /// Why means say nothing of these runs, where they do not.
    mean_tests_disabled: Option<MeanTestsDisabled>,
    /// Whether the answers changed; absent where that could not be tested, or was not.
    drift: Option<drift::Found>,
    /// The cases in the order in which they are looked at.
    order: Vec<CaseId>,
}

impl<'a> AnalysisContext<'a> {
    fn new(
        request: AnalysisRequest<'a>,
        pairs: Pairs<'a>,
        mean_tests_disabled: Option<MeanTestsDisabled>,
    ) -> Self {
        let AnalysisRequest { policy, seed, .. } = request;
        let order = match request.monitoring {
            MonitoringPlan::Waves(waves) => waves.order.to_vec(),
            MonitoringPlan::SingleLook | MonitoringPlan::PlannedLooks(_) | MonitoringPlan::Anytime => {
                let slices = |case: &PairedCase<'a>| case.slices.clone();
                seeded_order(pairs.cases.iter().map(|case| (case.case, slices(case))), seed)
            }
        };
        let checked = invariants::check(policy, &pairs, seed);
        let fidelity = fidelity::judge(policy, &pairs, mean_tests_disabled.is_some(), seed);
        Self { request, pairs, checked, fidelity, mean_tests_disabled, drift: None, order }
    }

    /// The pairs of the first cases of the order.
    fn part(&self, end: usize) -> Pairs<'a> {
        let end = end.min(self.order.len());
        let wanted: BTreeSet<&CaseId> = self.order[..end].iter().collect();
        let held: BTreeSet<&CaseId> = self.pairs.cases.iter().map(|case| case.case).collect();
        let unseen = match self.request.monitoring {
            // Played, and neither run has it.
            MonitoringPlan::Waves(_) => wanted.difference(&held).count(),
            // Nothing is known of them, so every part has its share.
            MonitoringPlan::SingleLook | MonitoringPlan::PlannedLooks(_) | MonitoringPlan::Anytime => {
                self.pairs.unseen.cases * end / self.order.len().max(1)
            }
        };
        self.pairs.only(&wanted, unseen)
    }

    /// The place in the order of each case.
    fn ranks(&self, pairs: &Pairs<'_>) -> Vec<usize> {
        let places: BTreeMap<&CaseId, usize> =
            self.order.iter().enumerate().map(|(rank, case)| (case, rank)).collect();
        let rank = |case: &PairedCase<'_>| places.get(case.case).copied().unwrap_or(usize::MAX);
        pairs.cases.iter().map(rank).collect()
    }

    fn measure(&self, pairs: &Pairs<'_>) -> Measurement {
        let setting = Setting { policy: self.request.policy, pairs, seed: self.request.seed };
        let mut measurement = metrics::measure(setting, &self.checked.demoted);
        if self.mean_tests_disabled.is_some() {
            for metric in &mut measurement.metrics {
                (metric.decides, metric.required) = (false, false);
            }
        }
        measurement
    }

    fn tests<'r>(&self, ranks: &'r [usize]) -> Tests<'r> {
        let Policy { alpha, strict, .. } = *self.request.policy;
        Tests { alpha, seed: self.request.seed, strict, ranks }
    }

    /// Whether the sessions of either run were picked by their outcome.
    fn is_selected(&self) -> bool {
        self.request.baseline.manifest.selected || self.request.candidate.manifest.selected
    }

    /// Whether the candidate breaks an invariant that the baseline keeps.
    fn is_violated(&self) -> bool {
        let kept = |name: &str| !self.checked.demoted.contains(&name);
        self.checked.results.iter().any(|result| result.violations > 0 && kept(&result.name))
    }
}

/// Everything that the rule looks at.
struct Evidence<'a> {
    policy: &'a Policy,
    pairs: &'a Pairs<'a>,
    checked: &'a Checked,
    measurement: &'a Measurement,
    tested: &'a [Tested],
    intervals: &'a [[f64; 2]],
    fidelity: &'a FidelityCheck,
    /// Whether the answers changed, where that could be tested.
    drift: Option<&'a Drift>,
    /// Why means say nothing of these runs, where they do not.
    mean_tests_disabled: Option<MeanTestsDisabled>,
    /// The answers of the metrics where missing trials count against the candidate, and for it.
    bounds: Option<(Decision, Decision)>,
}

/// Why the mean tests are switched off (DECISION 1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MeanTestsDisabled {
    Selected,
    BaselineIsRecording,
}

/// Compares the candidate's run with the baseline's in one look, and decides.
///
/// `recorded` is a run of the recordings, where neither run carries them. `seed` keys the permutations.
///
/// # Errors
/// A run has no trial of its lane, or has one twice.
pub fn analyze_once(
    policy: &Policy,
    baseline: &Run,
    candidate: &Run,
    recorded: Option<&Run>,
    seed: u64,
) -> Result<Analysis, AnalyzeError> {
    analyze(&AnalysisRequest { recorded, ..AnalysisRequest::new(policy, baseline, candidate, seed) })
}

/// Compares the candidate's run with the baseline's as asked, and decides.
///
/// # Errors
/// A run has no trial of its lane, or has one twice.
pub fn analyze(request: &AnalysisRequest<'_>) -> Result<Analysis, AnalyzeError> {
    let AnalysisRequest { policy, baseline, candidate, seed, .. } = *request;
    let pairs = Pairs::new(baseline, candidate, request.recorded)?;
    let mut context = AnalysisContext::new(*request, pairs, mean_tests_disabled(baseline, candidate));
    // Why it could not be tested is what the metric `semantic.drift` is absent for.
    context.drift = drift::judge(policy, [baseline, candidate], &context.pairs, seed).ok();
    let mut look = interim::look(&context);
    look.bound(&context);
    let evidence = look.evidence(&context);
    let answer = reasons::answer(&evidence);
    let review = Review {
        drift: context.drift.as_ref().map(|found| found.drift.clone()),
        tools: tools::rates(&look.pairs, seed),
        exchangeability: secondary::exchangeability(&context),
        subgroup_search: secondary::subgroups(&context, &look),
    };
    let need = needed(&context, &look, answer);
    let metrics = &look.measurement.metrics;
    let mut findings = explain::findings(&look.pairs, metrics, &context.checked);
    findings.extend(tools::reordered(&look.pairs));
    let looks =
        look.look_history.as_ref().map_or(1, |course| course.looks.last().map_or(1, |last| last.look));
    let verdict = Verdict {
        format: VERDICT_FORMAT,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        verdict: answer,
        looks,
        reasons: reasons::list(&evidence, answer, &need, &review),
        baseline: name(baseline),
        candidate: name(candidate),
        pairs: look.pairs.counts,
        invariants: context.checked.results.clone(),
        metrics: results(&context, &look),
        absent: look.measurement.absent.clone(),
        outcome: look.measurement.outcome.clone(),
        fidelity: context.fidelity.counts,
        slices: secondary::slices(&context, &look),
        review,
        need,
        notes: notes(&evidence, [baseline, candidate], look.look_history.as_ref()),
        monitoring: Monitoring { alpha: policy.alpha, look_history: look.look_history.clone() },
        policy_digest: policy.digest(),
        envelope: invariants::envelope_name(policy),
        corpus_digest: corpus_digest(baseline, candidate, &look.pairs),
        seed,
        calibration: request.calibration.cloned(),
    };
    let details = details(&look.pairs, metrics);
    let drift_map = context.drift.as_ref().map(|found| found.map.clone());
    Ok(Analysis { verdict, findings, details, drift_map })
}

fn mean_tests_disabled(baseline: &Run, candidate: &Run) -> Option<MeanTestsDisabled> {
    if baseline.manifest.selected || candidate.manifest.selected {
        Some(MeanTestsDisabled::Selected)
    } else if baseline.manifest.lane == Lane::Recorded {
        Some(MeanTestsDisabled::BaselineIsRecording)
    } else {
        None
    }
}

fn needed(context: &AnalysisContext<'_>, look: &Look<'_>, answer: Decision) -> Need {
    match answer {
        Decision::Approve => Need { reachable: true, detail: "nothing more".to_owned(), ..Need::default() },
        Decision::Block => {
            Need { detail: "the candidate must change; more cases will not".to_owned(), ..Need::default() }
        }
        Decision::Inconclusive if !context.request.forecast => Need::default(),
        Decision::Inconclusive => {
            let counts = look.pairs.counts;
            let mut costs: Vec<f64> =
                look.pairs.trials().filter_map(|record| record.trial.cost_usd).collect();
            // Ascending, so that the numbers of the trials do not show in the last digit of the mean.
            costs.sort_by(f64::total_cmp);
            let pairs = crate::cast::to_f64(2 * counts.paired.max(1));
            let supply = sample_size::Supply {
                trials: (crate::cast::to_f64(counts.trials_baseline + counts.trials_candidate) / pairs)
                    .max(1.0),
                have: counts.paired,
                corpus: context.request.corpus_cases,
                trial_usd: (!costs.is_empty()).then(|| mean(&costs)),
                costs: context.request.policy.need,
            };
            sample_size::plan(&look.measurement.metrics, &look.tests(context), &supply)
        }
    }
}

fn results(context: &AnalysisContext<'_>, look: &Look<'_>) -> Vec<MetricResult> {
    let result = |(metric, test, interval): (&Measured, &Tested, &[f64; 2])| {
        let [baseline, candidate] = metrics::means(metric);
        MetricResult {
            name: metric.name.clone(),
            family: metric.family.to_owned(),
            required: metric.required,
            cases: crate::cast::to_u64(test.cases),
            baseline,
            candidate,
            effect: test.effect,
            interval: *interval,
            margin: metric.margin,
            p_block: test.p_block,
            p_block_adjusted: test.p_block_adjusted,
            p_approve: test.p_approve,
            decides: metric.decides,
            state: test.state,
            unit: metric.unit,
            floor: test.floor,
            clipped: crate::cast::to_u64(metric.clipped),
            adjusted: secondary::adjusted(context, look, metric),
        }
    };
    secondary::without_slices(look).map(result).collect()
}

fn details(pairs: &Pairs<'_>, metrics: &[Measured]) -> Vec<MetricDetail> {
    let contrast = |table: &CaseTable| CaseContrast {
        case: pairs.cases[table.place].case.to_string(),
        baseline: table.baseline,
        candidate: table.candidate,
        effect: table.observed(),
    };
    let detail = |metric: &Measured| MetricDetail {
        name: metric.name.clone(),
        contrasts: metric.observed.iter().map(contrast).collect(),
    };
    metrics.iter().filter(|metric| metric.slice.is_none()).map(detail).collect()
}

fn name(run: &Run) -> RunIdentity {
    RunIdentity { run: run.name.clone(), build: run.manifest.build.to_string() }
}

fn notes(evidence: &Evidence<'_>, runs: [&Run; 2], course: Option<&LookHistory>) -> Vec<String> {
    let mut notes: Vec<String> = course.and_then(course_note).into_iter().collect();
    notes.extend(evidence.measurement.notes.iter().cloned());
    notes.extend(evidence.fidelity.notes.iter().cloned());
    for run in runs {
        notes.extend(run.notes.iter().cloned());
        if run.manifest.lane == Lane::Recorded {
            notes.push(format!(
                "run {} is a recording: a comparison with it assumes perfect replay",
                run.name
            ));
        }
    }
    let counts = evidence.pairs.counts;
    notes.extend(absent_trials(evidence.pairs));
    for run in runs {
        notes.extend(uneven(run));
    }
    if counts.incomplete > 0 {
        notes.push(format!("{} torn trials did not vote; they are counted as missing", counts.incomplete));
    }
    let undecoded = evidence.pairs.trials().flat_map(|record| &record.calls);
    let undecoded = undecoded.filter(|call| call.arguments_verbatim.is_some()).count();
    if undecoded > 0 {
        notes.push(format!(
            "{undecoded} tool calls have arguments that are not JSON; they are compared verbatim"
        ));
    }
    let untold = tools::untold(evidence.pairs);
    if untold > 0 {
        notes
            .push(format!("{untold} tools are left out of the list of tools, those whose use changed least"));
    }
    notes.extend(evidence.checked.notes.iter().cloned());
    notes
}

/// That not everything was looked at, where that is so.
fn course_note(course: &LookHistory) -> Option<String> {
    let how = match course.kind {
        MonitoringKind::Looks => format!(
            "decided at look {} of {}",
            course.looks.len(),
            course.planned_looks.max(u32::try_from(course.looks.len()).unwrap_or(u32::MAX))
        ),
        MonitoringKind::Anytime => "decided while looking after every case".to_owned(),
    };
    course.stopped_early.then(|| {
        format!(
            "{how}, with {} of {} planned cases; the numbers are of these cases, in their seeded order",
            course.cases, course.planned_cases
        )
    })
}

/// What should be there and is not, where anything is.
fn absent_trials(pairs: &Pairs<'_>) -> Option<String> {
    let counts = pairs.counts;
    let ended = pairs.cases.iter().map(|case| unanswered(&case.baseline) + unanswered(&case.candidate));
    let ended: usize = ended.sum();
    let without = counts.incomplete + crate::cast::to_u64(ended);
    let total = counts.missing_baseline + counts.missing_candidate;
    let absent = total.saturating_sub(without);
    (absent > 0).then(|| {
        format!(
            "{absent} trials should be there and are not: {} cases are only in the baseline, {} only in the candidate, {} \
             were planned and are in neither; with torn and unfinished ones {} baseline and {} candidate trials are missing, \
             counted once against the candidate and once for it",
            counts.unpaired_baseline,
            counts.unpaired_candidate,
            pairs.unseen.cases,
            counts.missing_baseline,
            counts.missing_candidate
        )
    })
}

/// That a run without a plan has more trials of some cases than of others.
fn uneven(run: &Run) -> Option<String> {
    let mut counts: BTreeMap<&CaseId, usize> = BTreeMap::new();
    run.own().for_each(|record| *counts.entry(&record.trial.case).or_default() += 1);
    let (least, most) = (counts.values().min()?, counts.values().max()?);
    (run.manifest.planned_trials.is_none() && least < most).then(|| {
        let fewer = counts.values().filter(|count| *count < most).count();
        format!(
            "run {} has {most} trials of some cases and as few as {least} of others ({fewer} cases have fewer than {most}); \
             no plan says how many there should be, so none of these counts as missing",
            run.name
        )
    })
}

/// The digest that both runs carry of their corpus, else of the cases and trials that were compared.
fn corpus_digest(baseline: &Run, candidate: &Run, pairs: &Pairs<'_>) -> String {
    match (&baseline.manifest.corpus_digest, &candidate.manifest.corpus_digest) {
        (Some(before), Some(after)) if before == after => before.clone(),
        _ => {
            let mut hasher = blake3::Hasher::new();
            for case in pairs.paired() {
                let counts = (case.case.as_str(), case.baseline.trials.len(), case.candidate.trials.len());
                hasher.update(format!("{counts:?}\n").as_bytes());
            }
            hasher.finalize().to_hex().to_string()
        }
    }
}
