//! The decision rule over all evidence, and the reasons in words.

use super::context::MeanTestsDisabled;
use super::evidence::Evidence;
use crate::decide::{self, Tested};
use crate::format;
use crate::invariants::CaveatKind;
use crate::metrics::Measured;
use crate::model_inputs;
use crate::plain;
use crate::policy::RunsApart;
use crate::verdict::{
    Decision, ExchangeabilityResult, MetricResult, MetricState, Need, NoOutcome, Reason, ReasonCode, Review,
    RunTiming,
};

/// Decides: invariants first, then the metrics, then the other conditions of approval.
pub(super) fn answer(evidence: &Evidence<'_>) -> Decision {
    if !violated(evidence).is_empty() {
        return Decision::Block;
    }
    // Neither harm nor its absence follows from answers that were given to other requests.
    if refuses_runs_apart(evidence) || model_inputs::judge(evidence.pairs).failure().is_some() {
        return Decision::Inconclusive;
    }
    let of_metrics = decide::answer(&evidence.measurement.metrics, evidence.tested);
    let of_metrics = match evidence.bounds {
        // Without agreement of the extreme scenarios there is no decision.
        Some((worst, best)) if worst != best => Decision::Inconclusive,
        // Missing trials never turn an inconclusive result into an approval.
        Some((Decision::Approve, _)) => of_metrics,
        Some((worst, _)) => worst,
        None => of_metrics,
    };
    match of_metrics {
        Decision::Approve if !forbidden(evidence).is_empty() => Decision::Inconclusive,
        Decision::Approve | Decision::Block | Decision::Inconclusive => of_metrics,
    }
}

/// Whether the policy refuses to decide because the lanes are not known to have run at the same time.
fn refuses_runs_apart(evidence: &Evidence<'_>) -> bool {
    evidence.policy.sampling.runs_apart == RunsApart::Refuse
        && evidence.units.sampling.runs != RunTiming::Interleaved
}

/// Reasons, the deciding ones first.
pub(super) fn list(
    evidence: &Evidence<'_>,
    answer: Decision,
    need: &Need,
    review: &Review,
    results: &[MetricResult],
) -> Vec<Reason> {
    let mut reasons = match answer {
        Decision::Block => blocking(evidence, results),
        Decision::Approve => approving(evidence, results),
        Decision::Inconclusive => {
            let left = left_recording(evidence);
            let is_left = left.is_some();
            let mut reasons: Vec<Reason> = left.into_iter().collect();
            // Already said of a candidate that left the recording.
            reasons.extend(
                forbidden(evidence)
                    .into_iter()
                    .filter(|reason| !is_left || reason.code != ReasonCode::ReplayLeftRecording),
            );
            reasons.extend(missing(evidence).filter(|_| !is_left));
            if !is_left {
                reasons.extend(undecided(evidence, need, results));
            }
            reasons
        }
    };
    reasons.extend(remarks(evidence, results));
    reasons.extend(for_review(evidence, review));
    reasons
}

/// Reasons against an approval that more sessions do not remove.
pub(super) fn obstacles(evidence: &Evidence<'_>) -> Vec<ReasonCode> {
    let mut reasons = forbidden(evidence);
    reasons.extend(missing(evidence));
    let codes = reasons.into_iter().map(|reason| reason.code);
    codes.filter(|code| !code.more_sessions_help()).collect()
}

/// Remarks for review, which never decide.
fn for_review(evidence: &Evidence<'_>, review: &Review) -> Vec<Reason> {
    let differs = review.exchangeability.iter().filter(|result| result.p_adjusted <= evidence.policy.alpha);
    let say = |result: &ExchangeabilityResult| {
        let detail = format!(
            "the candidate's trials differ from the recordings in {} over {} cases (adjusted p = {}): the build changed, or the replay is not perfect",
            result.name,
            result.cases,
            format::p_value(result.p_adjusted)
        );
        reason(ReasonCode::DiffersFromRecording, None, detail)
    };
    let mut reasons: Vec<Reason> = differs.map(say).collect();
    if let Some((found, worst)) =
        review.subgroup_search.as_ref().and_then(|found| Some((found, found.slices.first()?)))
    {
        let criteria: Vec<String> =
            worst.criteria.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        let detail = format!(
            "{} stands out in {} of {} slices searched, most in {} ({} cases, {:+.1} points there, {:+.1} elsewhere); review these sessions and add sessions there",
            found.metric,
            found.slices.len(),
            found.searched,
            criteria.join(", "),
            worst.cases,
            100.0 * worst.effect,
            100.0 * worst.effect_elsewhere
        );
        reasons.push(reason(ReasonCode::SliceStandsOut, Some(&found.metric), detail));
    }
    reasons
}

fn reason(code: ReasonCode, metric: Option<&str>, detail: String) -> Reason {
    Reason { code, metric: metric.map(str::to_owned), detail }
}

fn violated(evidence: &Evidence<'_>) -> Vec<Reason> {
    let held = |name: &str| !evidence.checked.demoted.contains(&name);
    let broken = evidence.checked.results.iter().filter(|result| result.violations > 0 && held(&result.name));
    let say = |result: &crate::verdict::InvariantResult| {
        let first = result.details.first().map_or("", String::as_str);
        let detail = format!(
            "the candidate breaks invariant {} in {} trial(s), the baseline in none; first: {first}",
            result.name, result.violations
        );
        reason(ReasonCode::InvariantViolated, Some(&result.name), detail)
    };
    broken.map(say).collect()
}

fn tested<'e>(evidence: &'e Evidence<'_>) -> impl Iterator<Item = (&'e Measured, &'e Tested, [f64; 2])> {
    let all = evidence.measurement.metrics.iter().zip(evidence.tested).zip(evidence.intervals);
    all.map(|((metric, test), interval)| (metric, test, *interval))
}

/// What the metric found in plain words, with its name.
fn plain_words(metric: &Measured, results: &[MetricResult]) -> String {
    if let Some(result) = results.iter().find(|result| result.name == metric.name) {
        return plain::change(result);
    }
    let (own, slice) = match &metric.slice {
        Some(slice) => (slice.metric.as_str(), format!(" in slice {}", slice.name)),
        None => (metric.name.as_str(), String::new()),
    };
    format!("{}{slice} ({})", plain::subject(own, None), metric.name)
}

fn numbers(evidence: &Evidence<'_>, metric: &Measured, test: &Tested, interval: [f64; 2]) -> String {
    let of = |effect| format::effect(metric.unit, effect);
    format!(
        "effect {} over {} cases, {:.0} % bounds {}, tolerated {}",
        of(test.effect),
        test.cases,
        100.0 * (1.0 - evidence.policy.alpha),
        format::bounds(metric.unit, interval),
        of(-metric.margin)
    )
}

fn blocking(evidence: &Evidence<'_>, results: &[MetricResult]) -> Vec<Reason> {
    let mut reasons = violated(evidence);
    for (metric, test, interval) in tested(evidence) {
        if metric.decides && test.state == MetricState::Deteriorated {
            let p = test.p_block_adjusted.unwrap_or(test.p_block);
            let text = numbers(evidence, metric, test, interval);
            let what = plain_words(metric, results);
            let detail = format!("{what}; {text}, adjusted p {}", format::p_value(p));
            reasons.push(reason(ReasonCode::Deteriorated, Some(&metric.name), detail));
        }
    }
    reasons
}

fn approving(evidence: &Evidence<'_>, results: &[MetricResult]) -> Vec<Reason> {
    let required = tested(evidence).filter(|(metric, ..)| metric.required);
    let say = |(metric, test, interval): (&Measured, &Tested, [f64; 2])| {
        let text = numbers(evidence, metric, test, interval);
        let what = plain_words(metric, results);
        let detail =
            format!("{what}, not worse than tolerated; {text}, p {}", format::p_value(test.p_approve));
        reason(ReasonCode::NonInferior, Some(&metric.name), detail)
    };
    required.map(say).collect()
}

/// Conditions of approval that are not met, apart from the metrics.
fn forbidden(evidence: &Evidence<'_>) -> Vec<Reason> {
    let failed = evidence.infrastructure.iter().cloned();
    let mut reasons: Vec<Reason> =
        failed.map(|detail| reason(ReasonCode::ProviderFailures, None, detail)).collect();
    if evidence.pairs.counts.paired == 0 {
        if !reasons.is_empty() {
            return reasons;
        }
        let detail =
            "the runs have no case in common; replay or import both from the same sessions".to_owned();
        reasons.push(reason(ReasonCode::NoPairs, None, detail));
        return reasons;
    }
    reasons.extend(baseline_fails(evidence));
    reasons.extend(check_vacuous(evidence));
    if let Some(detail) = model_inputs::judge(evidence.pairs).failure() {
        reasons.push(reason(ReasonCode::ModelInputChanged, None, detail));
    } else if let Some(detail) = model_inputs::judge(evidence.pairs).history_failure(evidence.policy.alpha) {
        reasons.push(reason(ReasonCode::ModelInputChanged, None, detail));
    }
    reasons.extend(nothing_decides(evidence));
    for absent in &evidence.measurement.absent {
        if evidence.policy.settings(&absent.name).required == Some(true) {
            let detail = format!(
                "the policy requires {}, which could not be computed: {}",
                absent.name, absent.reason
            );
            reasons.push(reason(ReasonCode::MetricAbsent, Some(&absent.name), detail));
        }
    }
    let unbounded = |metric: &&Measured| metric.required && metric.left_out > 0;
    for metric in evidence.measurement.metrics.iter().filter(unbounded) {
        let detail = format!(
            "approval needs {}, {} of whose trials are missing, and its values have no worst case to count them as",
            metric.name, metric.left_out
        );
        reasons.push(reason(ReasonCode::MissingTrials, Some(&metric.name), detail));
    }
    for caveat in &evidence.checked.caveats {
        let code = match caveat.why {
            CaveatKind::Unchecked => ReasonCode::InvariantUnchecked,
            CaveatKind::TooFewCases => ReasonCode::BelowFloor,
        };
        reasons.push(reason(code, Some(caveat.name), caveat.detail.clone()));
    }
    if refuses_runs_apart(evidence) {
        let detail = "the lanes are not known to have run at the same time, and the policy refuses to decide on such runs \
                      (sampling.runs-apart): a shift in time cannot be told from a change of the build; replay both lanes at once"
            .to_owned();
        reasons.push(reason(ReasonCode::RunsApart, None, detail));
    }
    if !evidence.units.uncovered.is_empty() {
        let detail = format!(
            "no case stands for a part of the traffic that the policy declares: {}; record sessions of it, or correct \
             traffic.shares",
            evidence.units.uncovered.join(", ")
        );
        reasons.push(reason(ReasonCode::TrafficUncovered, None, detail));
    }
    if let Some(left) = evidence.fidelity.left_recording.as_ref().filter(|left| left.above_limit) {
        let detail = format!("the candidate asks for what the recording does not hold: {}", left.calls);
        reasons.push(reason(ReasonCode::ReplayLeftRecording, None, detail));
    }
    for failure in &evidence.fidelity.failures {
        reasons.push(reason(ReasonCode::ReplayUnfaithful, None, failure.clone()));
    }
    reasons
}

/// Reason why no metric decides on these runs.
fn nothing_decides(evidence: &Evidence<'_>) -> Option<Reason> {
    match evidence.mean_tests_disabled {
        Some(MeanTestsDisabled::Selected) => Some(reason(
            ReasonCode::CorpusSelected,
            None,
            "the sessions were selected by their outcome, so any re-run regresses to the mean; replay the current build too \
             (--lane baseline), on sessions sampled regardless of outcome"
                .to_owned(),
        )),
        Some(MeanTestsDisabled::BaselineIsRecording) => Some(reason(
            ReasonCode::BaselineIsRecording,
            None,
            "the baseline is the recording itself, so a difference can come from the replay; replay the current build too \
             (--lane baseline)"
                .to_owned(),
        )),
        None if !evidence.measurement.metrics.iter().any(|metric| metric.required) => Some(reason(
            ReasonCode::NoRequiredMetric,
            None,
            format!("no metric that approval needs could be computed{}", why_absent(evidence, "success")),
        )),
        None => None
    }
}

/// A baseline that fails is no standard: a build can be as good as nothing without being good.
fn baseline_fails(evidence: &Evidence<'_>) -> Option<Reason> {
    let least = evidence.policy.least_baseline_success;
    let own = |metric: &&Measured| metric.name == "success" && metric.slice.is_none();
    let metric = evidence.measurement.metrics.iter().find(own)?;
    let [baseline, candidate] = crate::metrics::means(metric, evidence.case_units);
    if evidence.mean_tests_disabled.is_some() || baseline >= least {
        return None;
    }
    let trials: usize = metric.arms.iter().flatten().map(|(before, _)| before.len()).sum();
    let detail = format!(
        "the baseline fails: success {:.1} % of {trials} trials (candidate {:.1} %), and the policy demands at least {:.0} % \
         (least-baseline-success); not being worse than a build that fails shows nothing",
        100.0 * baseline,
        100.0 * candidate,
        100.0 * least
    );
    Some(reason(ReasonCode::BaselineFails, Some("success"), detail))
}

/// Cases in which the success check cannot fail do not count; with too few others nothing is shown.
fn check_vacuous(evidence: &Evidence<'_>) -> Option<Reason> {
    let vacuous = evidence.measurement.outcome.vacuous_cases;
    let own = |metric: &(&Measured, &Tested)| metric.0.name == "success" && metric.0.slice.is_none();
    let success = evidence.measurement.metrics.iter().zip(evidence.tested).find(own);
    let (left, floor) = success.map_or((0, 0), |(_, test)| (crate::cast::to_u64(test.cases), test.floor));
    let enough = success.is_some_and(|(metric, _)| !metric.required || left >= floor);
    (vacuous > 0 && !enough).then(|| {
        let why = evidence.measurement.notes.iter().find_map(|note| note.split_once("does not score: "));
        let detail = format!(
            "the built-in success check cannot fail in {vacuous} cases, and {left} others are too few to approve{}",
            why.map_or_else(String::new, |(_, why)| format!(": {why}"))
        );
        reason(ReasonCode::SuccessCheckVacuous, Some("success"), detail)
    })
}

fn why_absent(evidence: &Evidence<'_>, name: &str) -> String {
    let absent = evidence.measurement.absent.iter().find(|absent| absent.name == name);
    absent.map_or_else(String::new, |absent| format!("; {name}: {}", absent.reason))
}

/// Reason that the candidate asks for what the recordings do not hold, where the decision hangs on that.
pub(super) fn left_recording(evidence: &Evidence<'_>) -> Option<Reason> {
    let left = evidence.fidelity.left_recording.as_ref()?;
    let hangs = evidence.bounds.is_some_and(|(worst, best)| worst != best);
    if !hangs && !left.above_limit {
        return None;
    }
    let worse: Vec<&str> = tested(evidence)
        .filter(|(metric, test, _)| metric.decides && test.state == MetricState::Deteriorated)
        .map(|(metric, ..)| metric.name.as_str())
        .collect();
    let others = if worse.is_empty() {
        "the trials without such a call do not differ from the baseline's".to_owned()
    } else {
        format!(
            "the trials without such a call got worse too ({}), but the others could outweigh it",
            worse.join(", ")
        )
    };
    let detail = format!(
        "the candidate asks for what the recording does not hold: {}; {others}; {}",
        left.calls, left.remedy
    );
    Some(reason(ReasonCode::ReplayLeftRecording, None, detail))
}

fn missing(evidence: &Evidence<'_>) -> Option<Reason> {
    let (worst, best) = evidence.bounds.filter(|(worst, best)| worst != best)?;
    let counts = evidence.counts;
    let left = |lane: &NoOutcome| lane.diverged + lane.missed_answer;
    let left = left(&counts.no_outcome_baseline) + left(&counts.no_outcome_candidate);
    let total = counts.missing_baseline + counts.missing_candidate;
    let code = if 2 * left > total { ReasonCode::TooManyUnscorable } else { ReasonCode::MissingTrials };
    let detail = format!(
        "trials without an outcome: baseline {}, candidate {}; counted against the candidate the decision is {}, counted for it \
         {}",
        counts.no_outcome_baseline.in_words(),
        counts.no_outcome_candidate.in_words(),
        worst.as_str(),
        best.as_str()
    );
    Some(reason(code, None, detail))
}

fn undecided(evidence: &Evidence<'_>, need: &Need, results: &[MetricResult]) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for (metric, test, interval) in tested(evidence) {
        if !metric.required || decide::is_tolerable(test.state) {
            continue;
        }
        if test.units < test.floor {
            let count = if test.units == crate::cast::to_u64(test.cases) {
                format!("{} cases", test.cases)
            } else {
                format!("{} cases that count as {} independent ones", test.cases, test.units)
            };
            let detail = format!(
                "{} has {count}; below {} no method can show a margin of {}",
                metric.name,
                test.floor,
                format::size(metric.unit, metric.margin)
            );
            reasons.push(reason(ReasonCode::BelowFloor, Some(&metric.name), detail));
        }
        if test.p_approve > evidence.policy.alpha {
            let text = numbers(evidence, metric, test, interval);
            let what = plain_words(metric, results);
            let need = if need.detail.is_empty() { String::new() } else { format!("; {}", need.detail) };
            let detail = format!("{what}, not shown to stay within its margin; {text}{need}");
            reasons.push(reason(ReasonCode::Underpowered, Some(&metric.name), detail));
        }
    }
    reasons
}

fn remarks(evidence: &Evidence<'_>, results: &[MetricResult]) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for (metric, test, interval) in tested(evidence) {
        if metric.decides && test.state == MetricState::DeterioratedWithinMargin {
            let text = numbers(evidence, metric, test, interval);
            let what = plain_words(metric, results);
            let detail = format!("{what}, worse but within its margin; {text}");
            reasons.push(reason(ReasonCode::DeterioratedWithinMargin, Some(&metric.name), detail));
        }
    }
    if let Some(drift) = evidence.drift.filter(|drift| drift.changed) {
        let first =
            drift.drifted.first().map_or_else(String::new, |moved| format!("; moved most: {}", moved.case));
        reasons.push(reason(ReasonCode::AnswersChanged, None, format!("{}{first}", drift.detail)));
    }
    for result in &evidence.checked.results {
        if evidence.checked.demoted.contains(&result.name.as_str()) {
            let detail = format!(
                "the baseline breaks invariant {} in {} of {} trials, the candidate in {} of {}: it is compared as a rate, \
                 invariant.{}, which decides and which approval needs",
                result.name,
                result.violations_baseline,
                result.baseline.trials,
                result.violations,
                result.candidate.trials,
                result.name
            );
            reasons.push(reason(ReasonCode::BaselineViolatesInvariant, Some(&result.name), detail));
        }
    }
    reasons
}
