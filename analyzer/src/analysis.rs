//! Analysis of two runs: pairs, invariants, metrics, tests, the decision rule, and explanations.

use crate::decide::Tested;
use crate::drift::{self, DriftMap};
use crate::finding::Finding;
use crate::metrics::{self, CaseTable, Measured};
use crate::pairs::Pairs;
use crate::policy::Policy;
use crate::run::Run;
use crate::stats::variance::mean;
use crate::verdict::{
    Decision, MetricResult, Monitoring, Need, ReasonCode, ReferencePolicyEffect, Review, RunIdentity,
    VERDICT_FORMAT, Verdict,
};
use crate::{invariants, sample_size, tools};

mod context;
mod decision_summary;
mod evidence;
mod explain;
mod interim;
mod notes;
mod reasons;
mod request;
mod secondary;
mod since;
#[cfg(test)]
mod tests;

pub use crate::pairs::PairError as AnalyzeError;
pub(crate) use decision_summary::{DecisionSummary, MetricDecisionSummary, decide_pairs};
pub use request::{AnalysisRequest, MonitoringPlan, PLANNED_ALPHA_SHARE, Waves};

use context::{AnalysisContext, mean_tests_disabled};
use interim::Look;

/// The verdict with its explanations.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// The verdict.
    pub verdict: Verdict,
    /// Sessions that explain the verdict, the worst first: those of invariants, then of the metrics in the verdict's
    /// order, then of writes made in another order (`effects.reordered`, which is no metric).
    pub findings: Vec<Finding>,
    /// Contrasts of each metric, in the order of [`Verdict::metrics`].
    pub details: Vec<MetricDetail>,
    /// Mean answers of the cases on a plane, if the answers were embedded.
    pub drift_map: Option<DriftMap>,
}

/// Contrasts of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricDetail {
    /// Name of the metric.
    pub name: String,
    /// One contrast per case, by case id.
    pub contrasts: Vec<CaseContrast>,
}

/// A case of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseContrast {
    /// Id of the case.
    pub case: String,
    /// Value of the baseline, in the metric's unit.
    pub baseline: f64,
    /// Value of the candidate, in the metric's unit.
    pub candidate: f64,
    /// Contrast, larger is better.
    pub effect: f64,
}

/// Compares two runs in one look and decides.
///
/// `recorded` is a run of the recordings, if neither run contains them. `seed` keys the permutations.
///
/// # Errors
///
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

/// Compares two runs by the request's monitoring plan and decides.
///
/// # Errors
///
/// A run has no trial of its lane, or has one twice.
pub fn analyze(request: &AnalysisRequest<'_>) -> Result<Analysis, AnalyzeError> {
    let AnalysisRequest { policy, baseline, candidate, seed, .. } = *request;
    let pairs = Pairs::new(baseline, candidate, request.recorded)?;
    let mut context = AnalysisContext::new(*request, pairs, mean_tests_disabled(baseline, candidate));
    // The reason for an untestable drift is that of the absent metric `semantic.drift`.
    context.drift = drift::judge(policy, [baseline, candidate], &context.pairs, seed).ok();
    let mut look = interim::look(&context);
    look.bound(&context);
    let evidence = look.evidence(&context);
    let since = since::compare(request)?;
    let is_worse = since.as_ref().is_some_and(|since| since.effect == ReferencePolicyEffect::Blocks);
    let own_answer = reasons::answer(&evidence);
    let answer = if is_worse { Decision::Block } else { own_answer };
    let review = Review {
        drift: context.drift.as_ref().map(|found| found.drift.clone()),
        tools: tools::rates(&look.pairs, seed),
        exchangeability: secondary::exchangeability(&context),
        subgroup_search: secondary::subgroups(&context, &look),
    };
    let need = needed(&context, &look, answer, &reasons::obstacles(&evidence));
    let results = results(&context, &look);
    let metrics = &look.measurement.metrics;
    let mut findings = explain::findings(&look.pairs, metrics, &context.checked);
    findings.extend(tools::reordered(&look.pairs));
    let mut reasons = reasons::list(&evidence, own_answer, &need, &review, &results);
    let worse = since.as_ref().map(since::reasons).unwrap_or_default();
    let first = if is_worse { 0 } else { reasons.len() };
    reasons.splice(first..first, worse);
    let mut notes = notes::notes(&evidence, [baseline, candidate], look.look_history.as_ref());
    notes.extend(since.as_ref().map(since::note));
    let looks =
        look.look_history.as_ref().map_or(1, |history| history.looks.last().map_or(1, |last| last.look));
    let verdict = Verdict {
        format: VERDICT_FORMAT,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        verdict: answer,
        looks,
        reasons,
        baseline: name(baseline),
        candidate: name(candidate),
        pairs: look.counts(),
        sampling: context.units.sampling.clone(),
        invariants: context.checked.results.clone(),
        metrics: results,
        absent: look.measurement.absent.clone(),
        outcome: look.measurement.outcome.clone(),
        fidelity: context.fidelity.counts,
        misses: context.fidelity.misses.clone(),
        slices: secondary::slices(&context, &look),
        review,
        need,
        notes,
        monitoring: Monitoring { alpha: policy.alpha, look_history: look.look_history.clone() },
        policy_digest: policy.digest(),
        envelope: invariants::envelope_name(policy),
        corpus_digest: notes::corpus_digest(baseline, candidate, &look.pairs),
        seed,
        calibration: request.calibration.cloned(),
        since,
    };
    let details = details(&look.pairs, metrics);
    let drift_map = context.drift.as_ref().map(|found| found.map.clone());
    let mut analysis = Analysis { verdict, findings, details, drift_map };
    if let Some(hider) = invariants::Hider::new(&policy.invariant) {
        hide_forbidden(&mut analysis, &hider);
    }
    Ok(analysis)
}

/// Replaces forbidden texts by tokens in everything that quotes a trial. The verdict goes where the trial never should: to
/// build logs, pull requests and tracing backends.
fn hide_forbidden(analysis: &mut Analysis, hider: &invariants::Hider) {
    let verdict = &mut analysis.verdict;
    verdict.reasons.iter_mut().for_each(|reason| hider.hide(&mut reason.detail));
    verdict.notes.iter_mut().for_each(|note| hider.hide(note));
    for invariant in &mut verdict.invariants {
        invariant.details.iter_mut().for_each(|detail| hider.hide(detail));
        for example in &mut invariant.violation_examples {
            hider.hide(&mut example.detail);
            hider.hide(&mut example.pointer);
        }
    }
    for finding in &mut analysis.findings {
        hider.hide(&mut finding.detail);
        finding.examples.iter_mut().for_each(|example| hider.hide(&mut example.detail));
    }
}

fn needed(
    context: &AnalysisContext<'_>,
    look: &Look<'_>,
    answer: Decision,
    obstacles: &[ReasonCode],
) -> Need {
    match answer {
        Decision::Approve => Need { reachable: true, detail: "nothing more".to_owned(), ..Need::default() },
        Decision::Block => {
            Need { detail: "the candidate must change; more cases will not".to_owned(), ..Need::default() }
        }
        Decision::Inconclusive if !obstacles.is_empty() => sample_size::without_forecast(),
        Decision::Inconclusive if !context.request.forecast => Need::default(),
        Decision::Inconclusive => {
            let counts = look.pairs.counts;
            let mut costs: Vec<f64> =
                look.pairs.trials().filter_map(|record| record.trial.cost_usd).collect();
            // Ascending, so that the numbers of the trials do not affect the last digit of the mean.
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
        let [baseline, candidate] = metrics::means(metric, &look.units);
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
            units: test.units,
            clipped: crate::cast::to_u64(metric.clipped),
            adjusted: secondary::adjusted(context, look, metric),
            judge: secondary::judge(look, metric),
            tool: tools::explaining(&look.pairs, &metric.name),
            tail: metric.tail,
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
