//! Secondary results: slices, subgroup search, adjusted effects, comparison with a recording.

use super::context::{AnalysisContext, MeanTestsDisabled};
use super::interim::Look;
use crate::decide::Tested;
use crate::metrics::{self, Measured};
use crate::stats::{corrected, discovery};
use crate::subgroup_search;
use crate::verdict::{
    Adjusted, ExchangeabilityResult, JudgeCorrection, MetricState, SliceResult, SubgroupSearch,
};

/// Smallest number of cases with a labelled recording for an adjusted effect.
const LEAST_RECORDINGS: usize = 20;

/// Results of the declared slices, by slice and metric. Slices that cannot block are corrected among themselves.
pub(super) fn slices(context: &AnalysisContext<'_>, look: &Look<'_>) -> Vec<SliceResult> {
    let all = look.measurement.metrics.iter().zip(&look.tested).zip(&look.intervals);
    let mut results: Vec<SliceResult> = all
        .filter_map(|((metric, test), interval)| {
            let slice = metric.slice.as_ref()?;
            let policy = context.request.policy.slice.get(&slice.name)?;
            let [baseline, candidate] = metrics::means(metric, &look.units);
            Some(SliceResult {
                name: slice.name.clone(),
                criteria: policy.criteria.clone(),
                critical: metric.decides,
                required: metric.required,
                metric: slice.metric.clone(),
                unit: metric.unit,
                cases: crate::cast::to_u64(test.cases),
                has_enough_cases: metric.has_enough_cases(test.cases),
                floor: test.floor,
                baseline,
                candidate,
                effect: test.effect,
                interval: *interval,
                margin: metric.margin,
                p_block: test.p_block,
                p_block_adjusted: test.p_block_adjusted.unwrap_or(test.p_block),
                p_approve: test.p_approve,
                state: test.state,
            })
        })
        .collect();
    let others: Vec<usize> = (0..results.len()).filter(|place| !results[*place].critical).collect();
    let p_values: Vec<f64> = others.iter().map(|place| results[*place].p_block).collect();
    let alpha = context.request.policy.alpha;
    for (place, adjusted) in others.into_iter().zip(discovery::adjust(&p_values)) {
        let result = &mut results[place];
        result.p_block_adjusted = adjusted;
        if adjusted > alpha {
            result.state = match result.state {
                MetricState::Deteriorated => MetricState::Undecided,
                MetricState::DeterioratedWithinMargin => MetricState::NonInferior,
                MetricState::NonInferior | MetricState::Undecided => result.state,
            };
        }
    }
    results
}

/// Subgroup search in the first metric that decides or is required.
pub(super) fn subgroups(context: &AnalysisContext<'_>, look: &Look<'_>) -> Option<SubgroupSearch> {
    let own = || look.measurement.metrics.iter().filter(|metric| metric.slice.is_none());
    let matters = |metric: &&Measured| metric.required || metric.decides;
    let metric = own().find(|metric| metric.name == "success" && matters(metric)).or(own().find(matters))?;
    subgroup_search::search(&look.pairs, metric, context.request.policy.alpha, context.request.seed)
}

/// Comparison of the candidate's trials with the recordings, if these are the baseline.
pub(super) fn exchangeability(context: &AnalysisContext<'_>) -> Vec<ExchangeabilityResult> {
    match context.mean_tests_disabled {
        // A recording selected by its outcome is never exchangeable with other trials.
        Some(MeanTestsDisabled::BaselineIsRecording) if !context.is_selected() => {
            crate::exchangeability::compare(&context.pairs, context.request.seed)
        }
        Some(_) | None => Vec::new(),
    }
}

/// Mean contrast adjusted by the recordings (CUPED): compares the recordings of the cases looked at with those of all
/// cases.
pub(super) fn adjusted(
    context: &AnalysisContext<'_>,
    look: &Look<'_>,
    metric: &Measured,
) -> Option<Adjusted> {
    let label = |success: bool| f64::from(u8::from(success));
    let known = |case: &crate::pairs::PairedCase<'_>| case.recorded_any?.trial.success.map(label);
    let all: Vec<f64> = context.pairs.cases.iter().filter_map(known).collect();
    let pairs: Vec<(f64, f64)> = metric
        .observed
        .iter()
        .filter_map(|table| Some((known(look.pairs.cases.get(table.place)?)?, table.observed())))
        .collect();
    (pairs.len() >= LEAST_RECORDINGS).then(|| crate::stats::variance::control(&pairs, &all))?.map(
        |(effect, standard_error, explained)| Adjusted {
            cases: crate::cast::to_u64(pairs.len()),
            effect,
            standard_error,
            explained,
        },
    )
}

/// Correction of a metric for the judges' errors, with the plain form beside it.
pub(super) fn judge(look: &Look<'_>, metric: &Measured) -> Option<JudgeCorrection> {
    let mut result = metric.correction.as_ref()?.result(&metric.observed, &look.units);
    if metric.name == "success" {
        let rates = metrics::means(metric, &look.units);
        let lanes =
            look.measurement.outcome.evaluators.iter().find(|one| one.kind == "judge" && one.qualified);
        let corrected: Vec<f64> = lanes
            .map(|one| &one.overall.lanes)
            .into_iter()
            .flatten()
            .zip(rates)
            .filter_map(|(lane, passed)| {
                let share = |part: u64, of: u64| {
                    (of > 0).then(|| crate::cast::to_f64(part) / crate::cast::to_f64(of))
                };
                let sensitivity = share(lane.successes_passed, lane.successes)?;
                let specificity = share(lane.failures_caught, lane.failures)?;
                corrected::rogan_gladen(passed, sensitivity, specificity)
            })
            .collect();
        if let [baseline, candidate] = corrected[..] {
            result.rogan_gladen = Some(candidate - baseline);
        }
    }
    Some(result)
}

/// Metrics over all cases with their test results, without those of slices.
pub(super) fn tested<'l>(look: &'l Look<'_>) -> impl Iterator<Item = (&'l Measured, &'l Tested)> {
    look.measurement.metrics.iter().zip(&look.tested).filter(|(metric, _)| metric.slice.is_none())
}

/// Metrics over all cases with test results and bounds, without those of slices.
pub(super) fn without_slices<'l>(
    look: &'l Look<'_>,
) -> impl Iterator<Item = (&'l Measured, &'l Tested, &'l [f64; 2])> {
    let all = look.measurement.metrics.iter().zip(&look.tested).zip(&look.intervals);
    all.filter(|((metric, _), _)| metric.slice.is_none())
        .map(|((metric, test), interval)| (metric, test, interval))
}
