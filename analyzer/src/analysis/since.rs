//! Sum of the changes since a reference build: each release may lose less than its margin, and ten releases may not.

use super::context::{AnalysisContext, mean_tests_disabled};
use super::request::AnalysisRequest;
use super::{interim, secondary};
use crate::decide::Tested;
use crate::format;
use crate::metrics::{self, Measured};
use crate::pairs::{PairError, Pairs};
use crate::verdict::{
    MetricState, Reason, ReasonCode, ReferenceComparison, ReferenceMetric, ReferencePolicyEffect, RunIdentity,
};

/// Compares the candidate with the reference by the request's monitoring plan. `None` without a reference.
pub(super) fn compare(request: &AnalysisRequest<'_>) -> Result<Option<ReferenceComparison>, PairError> {
    let Some(reference) = request.reference else { return Ok(None) };
    let AnalysisRequest { policy, candidate, .. } = *request;
    let pairs = Pairs::new(reference, candidate, request.recorded)?;
    let own = AnalysisRequest { baseline: reference, reference: None, ..*request };
    let context = AnalysisContext::new(own, pairs, mean_tests_disabled(reference, candidate));
    let mut look = interim::look(&context);
    look.bound(&context);
    let of = |(metric, test, interval): (&Measured, &Tested, &[f64; 2])| {
        let [before, after] = metrics::means(metric, &look.units);
        ReferenceMetric {
            name: metric.name.clone(),
            unit: metric.unit,
            cases: crate::cast::to_u64(test.cases),
            reference: before,
            candidate: after,
            effect: test.effect,
            interval: *interval,
            p_block_adjusted: test.p_block_adjusted,
            worse: metric.decides && test.state == MetricState::Deteriorated,
        }
    };
    let decisive = |(metric, ..): &(&Measured, &Tested, &[f64; 2])| metric.decides || metric.required;
    let metrics: Vec<ReferenceMetric> = secondary::without_slices(&look).filter(decisive).map(of).collect();
    let worse = metrics.iter().any(|metric| metric.worse);
    // Missing trials must not decide: both extremes must say that the metrics got worse.
    let agree = look.bounds.is_none_or(|(worst, best)| worst == best);
    Ok(Some(ReferenceComparison {
        reference: RunIdentity { run: reference.name.clone(), build: reference.manifest.build.to_string() },
        cases: look.pairs.counts.paired,
        effect: match (worse && agree, policy.reference.blocks) {
            (true, true) => ReferencePolicyEffect::Blocks,
            (true, false) => ReferencePolicyEffect::Shown,
            (false, _) => ReferencePolicyEffect::None,
        },
        metrics,
    }))
}

/// Reason for each metric that is proven to be worse than in the reference.
pub(super) fn reasons(since: &ReferenceComparison) -> Vec<Reason> {
    let worse = since.metrics.iter().filter(|metric| metric.worse);
    let say = |metric: &ReferenceMetric| Reason {
        code: ReasonCode::WorseThanReference,
        metric: Some(metric.name.clone()),
        detail: format!(
            "{} got worse since the reference build {} ({}): {} → {}, {} over {} cases (adjusted p {})",
            metric.name,
            since.reference.build,
            since.reference.run,
            format::value(metric.unit, metric.reference),
            format::value(metric.unit, metric.candidate),
            format::effect(metric.unit, metric.effect),
            metric.cases,
            format::p_value(metric.p_block_adjusted.unwrap_or(1.0))
        ),
    };
    if since.effect == ReferencePolicyEffect::None { Vec::new() } else { worse.map(say).collect() }
}

/// Note with the sum of changes of every metric that decides or that approval needs.
pub(super) fn note(since: &ReferenceComparison) -> String {
    let build = &since.reference.build;
    if since.cases == 0 {
        return format!(
            "the reference run {} has no case in common with the candidate, so the sum of changes since build {build} is unknown",
            since.reference.run
        );
    }
    let changes: Vec<String> = since
        .metrics
        .iter()
        .map(|metric| format!("{} {}", metric.name, format::effect(metric.unit, metric.effect)))
        .collect();
    format!(
        "sum of changes since the reference build {build} over {} cases: {}",
        since.cases,
        changes.join(", ")
    )
}
