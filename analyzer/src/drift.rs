//! Test of whether the answers changed: kernel tests on the embedded answers of both runs, as a verdict section.
//!
//! A change is for review and is not harm. If the policy declares the build neutral, the metric `semantic.drift` can
//! block against its margin; nothing here decides.

use schemas::trial::Lane;

use crate::metrics::one_model;
use crate::pairs::{PairedCase, Pairs};
use crate::policy::Policy;
use crate::run::{Run, TrialRecord};
use crate::stats::kernel::{self, CaseResult, Groups, KernelTest, Observed, Relabelling, StatisticResult};
use crate::stats::variance::mean;
use crate::verdict::{Drift, DriftEffect, DriftStatistic, DriftedCase, PermutationUnit};

mod map;

pub use map::{DriftMap, DriftPoint};

/// Number of cases listed that drifted most.
const MOVED: usize = 20;

/// Result of the drift test.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) drift: Drift,
    pub(crate) map: DriftMap,
}

/// Tests the embedded answers of all paired cases of `runs`, the baseline first.
///
/// # Errors
///
/// Gives the reason why there is nothing to test.
pub(crate) fn judge(policy: &Policy, runs: [&Run; 2], pairs: &Pairs<'_>, seed: u64) -> Result<Found, String> {
    if runs[0].manifest.lane == Lane::Recorded && runs.iter().any(|run| run.manifest.selected) {
        return Err(
            "the recordings were selected by their outcome, so they are not exchangeable with any re-run"
                .to_owned(),
        );
    }
    let model = one_model(pairs)?;
    let embedded = Embedded::new(pairs)?;
    let relabelling = if policy.drift.shared_state { Relabelling::Sessions } else { Relabelling::Trials };
    let test = kernel::test(&embedded.groups, relabelling, seed);
    let mut drift = Drift {
        model,
        cases: crate::cast::to_u64(embedded.cases.len()),
        trials_baseline: embedded.trials[0],
        trials_candidate: embedded.trials[1],
        permutation_unit: match relabelling {
            Relabelling::Trials => PermutationUnit::Trials,
            Relabelling::Sessions => PermutationUnit::Sessions,
        },
        permutations: crate::cast::to_u64(test.relabellings),
        is_exact: test.is_exact,
        bandwidth: test.bandwidth,
        distance_baseline: average(&test.cases, |observed| observed.baseline),
        distance_candidate: average(&test.cases, |observed| observed.candidate),
        distance_between: average(&test.cases, |observed| Some(observed.between)).unwrap_or_default(),
        drift: average(&test.cases, Observed::drift),
        statistics: test.statistics.iter().map(statistic).collect(),
        p_min: test.p_min,
        changed: test.p_min <= policy.alpha,
        effect: if policy.drift.behaviour_neutral { DriftEffect::Block } else { DriftEffect::Review },
        drifted: drifted(&embedded.cases, &test),
        detail: String::new(),
    };
    drift.detail = detail(&drift);
    let map = map::project(&embedded.groups, &embedded.cases, &test.cases, seed);
    Ok(Found { drift, map })
}

/// Cases with an embedded answer in both lanes.
struct Embedded<'a> {
    groups: Groups,
    cases: Vec<&'a str>,
    trials: [u64; 2],
}

impl<'a> Embedded<'a> {
    fn new(pairs: &Pairs<'a>) -> Result<Self, String> {
        let dimension = pairs.trials().find_map(|record| record.embedding.as_ref());
        let dimension = dimension.map_or(0, |embedding| embedding.vector().len());
        let mut embedded = Self { groups: Groups::new(dimension), cases: Vec::new(), trials: [0; 2] };
        for case in pairs.paired() {
            embedded.take(case)?;
        }
        if embedded.cases.is_empty() {
            return Err("no case has an embedded answer in both runs".to_owned());
        }
        Ok(embedded)
    }

    fn take(&mut self, case: &PairedCase<'a>) -> Result<(), String> {
        let of = |trials: &[&'a TrialRecord]| -> Vec<&'a [f32]> {
            trials.iter().filter_map(|record| record.embedding.as_ref()).map(|it| it.vector()).collect()
        };
        let arms = [of(&case.baseline.trials), of(&case.candidate.trials)];
        if arms.iter().any(Vec::is_empty) {
            return Ok(());
        }
        self.groups
            .push(&arms[0], &arms[1])
            .map_err(|error| format!("the answers of case {} cannot be compared: {error}", case.case))?;
        self.cases.push(case.case.as_str());
        for (count, arm) in self.trials.iter_mut().zip(&arms) {
            *count += crate::cast::to_u64(arm.len());
        }
        Ok(())
    }
}

fn average(cases: &[CaseResult], of: impl Fn(&Observed) -> Option<f64>) -> Option<f64> {
    let values: Vec<f64> = cases.iter().filter_map(|case| of(&case.observed)).collect();
    (!values.is_empty()).then(|| mean(&values))
}

fn statistic(result: &StatisticResult) -> DriftStatistic {
    DriftStatistic {
        name: result.statistic.as_str().to_owned(),
        cases: crate::cast::to_u64(result.cases),
        value: result.value,
        p: result.p,
        p_permutation: result.p_permutation,
    }
}

/// Cases with the largest drift, in descending order.
fn drifted(cases: &[&str], test: &KernelTest) -> Vec<DriftedCase> {
    let mut moved: Vec<DriftedCase> = cases
        .iter()
        .zip(&test.cases)
        .map(|(case, result)| DriftedCase {
            case: (*case).to_owned(),
            drift: result.observed.apart(),
            p: result.p,
        })
        .filter(|case| case.drift > 0.0)
        .collect();
    // The sort is stable: ties stay in the order of their cases.
    moved.sort_by(|a, b| b.drift.total_cmp(&a.drift));
    moved.truncate(MOVED);
    moved
}

fn detail(drift: &Drift) -> String {
    let smallest = drift.statistics.iter().min_by(|a, b| a.p_permutation.total_cmp(&b.p_permutation));
    let named = smallest.map_or("none", |statistic| statistic.name.as_str());
    let outcome = if drift.changed { "answers changed" } else { "no change of answers shown" };
    let distances = match (drift.drift, drift.distance_baseline) {
        (Some(excess), Some(own)) => {
            let verb = if excess < 0.0 { "falls short of" } else { "exceeds" };
            format!(
                ": mean cosine distance between builds {verb} the within-build distance by {:.3} (within the baseline: {own:.3})",
                excess.abs()
            )
        }
        (Some(_) | None, _) => String::new(),
    };
    format!(
        "{outcome} (p = {}){distances}; {} cases, smallest p from statistic {named}, embeddings of {}",
        crate::format::p_value(drift.p_min),
        drift.cases,
        drift.model
    )
}

#[cfg(test)]
mod tests;
