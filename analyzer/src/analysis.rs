//! From two runs to a verdict: pairs, invariants, metrics, tests, the rule, and what explains it.

use std::collections::BTreeMap;

use crate::decide::{self, Reading, Tested};
use crate::drift::{self, DriftMap};
use crate::fidelity::{self, Faithful};
use crate::finding::Finding;
use crate::invariants::{self, Checked};
use crate::metrics::{self, CaseTable, Measured, Measurement, Setting};
use crate::need;
use crate::pairs::{Pairs, unanswered};
use crate::policy::Policy;
use crate::run::Run;
use crate::stats::variance::mean;
use crate::tools;
use crate::verdict::{Answer, Drift, MetricResult, Need, RunName, VERDICT_FORMAT, Verdict};
use schemas::id::CaseId;
use schemas::trial::Lane;

mod explain;
mod reasons;
#[cfg(test)]
mod tests;

pub use crate::pairs::PairError as AnalyseError;

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

/// Everything that the rule looks at.
struct Evidence<'a> {
    policy: &'a Policy,
    pairs: &'a Pairs<'a>,
    checked: &'a Checked,
    measurement: &'a Measurement,
    tested: &'a [Tested],
    intervals: &'a [[f64; 2]],
    faithful: &'a Faithful,
    /// Whether the answers changed, where that could be tested.
    drift: Option<&'a Drift>,
    /// Why means say nothing of these runs, where they do not.
    no_means: Option<NoMeans>,
    /// The answers of the metrics where missing trials count against the candidate, and for it.
    bounds: Option<(Answer, Answer)>,
}

/// Why the mean tests are switched off (DECISION 1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoMeans {
    Selected,
    BaselineIsRecording,
}

/// Compares the candidate's run with the baseline's and decides.
///
/// `recorded` is a run of the recordings, where neither run carries them. `seed` keys the permutations.
///
/// # Errors
/// A run has no trial of its lane, or has one twice.
pub fn analyse(
    policy: &Policy,
    baseline: &Run,
    candidate: &Run,
    recorded: Option<&Run>,
    seed: u64,
) -> Result<Analysis, AnalyseError> {
    let pairs = Pairs::new(baseline, candidate, recorded)?;
    let checked = invariants::check(policy, &pairs);
    let mut measurement = metrics::measure(Setting { policy, pairs: &pairs, seed }, &checked.demoted);
    let no_means = no_means(baseline, candidate);
    if no_means.is_some() {
        for metric in &mut measurement.metrics {
            (metric.decides, metric.required) = (false, false);
        }
    }
    let tested = decide::test(&measurement.metrics, Reading::Observed, policy.alpha, seed);
    let intervals: Vec<_> =
        measurement.metrics.iter().map(|metric| decide::interval(metric, policy.alpha)).collect();
    let faithful = fidelity::judge(policy, &pairs, no_means.is_some(), seed);
    // Why it could not be tested is what the metric `semantic.drift` is absent for.
    let found = drift::judge(policy, [baseline, candidate], &pairs, seed).ok();
    let evidence = Evidence {
        policy,
        pairs: &pairs,
        checked: &checked,
        measurement: &measurement,
        tested: &tested,
        intervals: &intervals,
        faithful: &faithful,
        drift: found.as_ref().map(|found| &found.drift),
        no_means,
        bounds: bounds(&measurement.metrics, policy.alpha, seed),
    };
    let answer = reasons::answer(&evidence);
    let need = needed(&evidence, answer, seed);
    let results = results(&measurement.metrics, &tested, &intervals);
    let mut findings = explain::findings(&pairs, &measurement.metrics, &checked);
    findings.extend(tools::reordered(&pairs));
    let verdict = Verdict {
        format: VERDICT_FORMAT,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        verdict: answer,
        looks: 1,
        reasons: reasons::list(&evidence, answer, &need),
        baseline: name(baseline),
        candidate: name(candidate),
        pairs: pairs.counts,
        invariants: checked.results.clone(),
        metrics: results,
        absent: measurement.absent.clone(),
        fidelity: faithful.counts,
        drift: found.as_ref().map(|found| found.drift.clone()),
        tools: tools::rates(&pairs, seed),
        need,
        notes: notes(&evidence, [baseline, candidate]),
        alpha: policy.alpha,
        policy_digest: policy.digest(),
        corpus_digest: corpus_digest(baseline, candidate, &pairs),
        seed,
    };
    let details = details(&pairs, &measurement.metrics);
    Ok(Analysis { verdict, findings, details, drift_map: found.map(|found| found.map) })
}

fn no_means(baseline: &Run, candidate: &Run) -> Option<NoMeans> {
    if baseline.manifest.selected || candidate.manifest.selected {
        Some(NoMeans::Selected)
    } else if baseline.manifest.lane == Lane::Recorded {
        Some(NoMeans::BaselineIsRecording)
    } else {
        None
    }
}

/// The answers under both readings of missing trials; nothing where none is missing in a metric that matters.
fn bounds(metrics: &[Measured], alpha: f64, seed: u64) -> Option<(Answer, Answer)> {
    let matters = |metric: &Measured| metric.bounds.is_some() && (metric.decides || metric.required);
    if !metrics.iter().any(matters) {
        return None;
    }
    let of = |reading| decide::answer(metrics, &decide::test(metrics, reading, alpha, seed));
    Some((of(Reading::Worst), of(Reading::Best)))
}

fn needed(evidence: &Evidence<'_>, answer: Answer, seed: u64) -> Need {
    let counts = evidence.pairs.counts;
    let trials = (counts.trials_baseline + counts.trials_candidate) / (2 * counts.paired.max(1));
    match answer {
        Answer::Approve => Need { reachable: true, detail: "nothing more".to_owned(), ..Need::default() },
        Answer::Block => {
            Need { detail: "the candidate must change; more cases will not".to_owned(), ..Need::default() }
        }
        Answer::Inconclusive => need::plan(
            &evidence.measurement.metrics,
            evidence.policy.alpha,
            trials.max(1),
            counts.paired,
            seed,
        ),
    }
}

fn results(metrics: &[Measured], tested: &[Tested], intervals: &[[f64; 2]]) -> Vec<MetricResult> {
    let all = metrics.iter().zip(tested).zip(intervals);
    let result = |((metric, test), interval): ((&Measured, &Tested), &[f64; 2])| {
        let over = |value: fn(&CaseTable) -> f64| {
            // A mean of ratios is geometric.
            let values: Vec<f64> = metric.observed.iter().map(value).collect();
            if metric.unit.is_ratio() {
                mean(&values.iter().map(|value| value.ln()).collect::<Vec<_>>()).exp()
            } else {
                mean(&values)
            }
        };
        MetricResult {
            name: metric.name.clone(),
            family: metric.family.to_owned(),
            required: metric.required,
            cases: crate::count::of(test.cases),
            baseline: over(|case| case.baseline),
            candidate: over(|case| case.candidate),
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
            clipped: crate::count::of(metric.clipped),
        }
    };
    all.map(result).collect()
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
    metrics.iter().map(detail).collect()
}

fn name(run: &Run) -> RunName {
    RunName { run: run.name.clone(), build: run.manifest.build.to_string() }
}

fn notes(evidence: &Evidence<'_>, runs: [&Run; 2]) -> Vec<String> {
    let mut notes = evidence.measurement.notes.clone();
    notes.extend(evidence.faithful.notes.iter().cloned());
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
    if counts.torn > 0 {
        notes.push(format!("{} torn trials did not vote; they are counted as missing", counts.torn));
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
    let decisions = evidence.pairs.trials().any(|record| record.has_envelope);
    if evidence.policy.invariant.envelope == Some(true) && !decisions {
        notes.push(
            "invariant.envelope is on, and no exchange carries an envelope's decision: nothing was checked"
                .to_owned(),
        );
    }
    notes
}

/// What should be there and is not, where anything is.
fn absent_trials(pairs: &Pairs<'_>) -> Option<String> {
    let counts = pairs.counts;
    let ended = pairs.cases.iter().map(|case| unanswered(&case.baseline) + unanswered(&case.candidate));
    let ended: usize = ended.sum();
    let without = counts.torn + crate::count::of(ended);
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
