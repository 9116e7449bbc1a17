//! Plain words for the codes, states and metrics of a verdict, the same in the page, the summary and junit.xml.

use schemas::exchange::Effect;
use schemas::trial::TrialEnding;

use super::severity::Severity;
use super::{escape, number};
use crate::verdict::{
    Decision, InvariantResult, InvariantState, MetricResult, MetricState, Need, NeedAdvice, ReasonCode, Unit,
    Verdict,
};
use crate::{format, plain};

/// Metrics named in the sentence of an approval.
const APPROVED_NAMED: usize = 3;

/// The decision as a heading.
pub(super) fn decision(decision: Decision) -> &'static str {
    match decision {
        Decision::Approve => "Approve",
        Decision::Block => "Block",
        Decision::Inconclusive => "Inconclusive",
    }
}

pub(super) fn decision_severity(decision: Decision) -> Severity {
    match decision {
        Decision::Approve => Severity::Good,
        Decision::Block => Severity::Bad,
        Decision::Inconclusive => Severity::Warning,
    }
}

/// The consequence for the rollout.
pub(super) fn consequence(decision: Decision) -> &'static str {
    match decision {
        Decision::Approve => "The candidate may roll out.",
        Decision::Block => "The candidate must not roll out.",
        Decision::Inconclusive => "Neither harm nor safety is proven. The candidate does not roll out yet.",
    }
}

/// The exit code of `foreshadow analyze`.
pub(super) fn exit_code(decision: Decision) -> u8 {
    match decision {
        Decision::Approve => 0,
        Decision::Block => 3,
        Decision::Inconclusive => 4,
    }
}

/// The first reason in one sentence, with the metric's numbers if it is about a metric.
pub(super) fn why(verdict: &Verdict) -> String {
    let Some(first) = verdict.reasons.first() else { return "The verdict names no reason.".to_owned() };
    let metric_named = |name: &Option<String>| {
        name.as_ref().and_then(|name| verdict.metrics.iter().find(|metric| &metric.name == name))
    };
    match (first.code, metric_named(&first.metric)) {
        (ReasonCode::Deteriorated, Some(metric)) => sentence(&format!(
            "{} over {}, tolerated {}",
            escape::name(&plain::change(metric)),
            number::counted(metric.cases, "case", "cases"),
            margin(metric),
        )),
        (ReasonCode::NonInferior, Some(metric)) => {
            let reasons = verdict.reasons.iter().filter(|reason| reason.code == ReasonCode::NonInferior);
            let within: Vec<&MetricResult> =
                reasons.filter_map(|reason| metric_named(&reason.metric)).collect();
            let named = within.iter().take(APPROVED_NAMED).map(|metric| escape::name(&plain::change(metric)));
            let more = within.len().saturating_sub(APPROVED_NAMED);
            let more = (more > 0).then(|| format!("{more} more"));
            let (verb, margin) =
                if within.len() == 1 { ("stays", "its margin") } else { ("stay", "their margins") };
            sentence(&format!(
                "{} {verb} within {margin}, tested over {}",
                enumeration(&named.chain(more).collect::<Vec<_>>()),
                number::counted(metric.cases, "case", "cases"),
            ))
        }
        _ => sentence(&plain::headline(verdict)),
    }
}

/// "a", "a and b", "a, b and c".
fn enumeration(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [only] => only.clone(),
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}

/// A fragment with a capital letter and a full stop.
fn sentence(fragment: &str) -> String {
    let mut letters = fragment.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    let mut sentence = escape::visible(&first.chain(letters).collect::<String>());
    if !sentence.ends_with(['.', '!', '?']) {
        sentence.push('.');
    }
    sentence
}

/// The sample size that approval needs; `None` for a verdict that is not inconclusive.
pub(super) fn sample_size(verdict: &Verdict) -> Option<String> {
    let need = &verdict.need;
    if verdict.verdict != Decision::Inconclusive {
        return None;
    }
    if !need.detail.is_empty() {
        return Some(sentence(&need.detail));
    }
    (need.cases > 0).then(|| {
        format!(
            "{} in all, {} each per lane. Predicted probability of approval: {}.",
            number::counted(need.cases, "case", "cases"),
            number::counted(need.trials, "trial", "trials"),
            number::percent(need.predicted_approve),
        )
    })
}

/// Both bounds of a metric's effect, in its unit.
pub(super) fn interval(metric: &MetricResult) -> String {
    bounds(metric.unit, metric.interval)
}

/// Both bounds of an interval of effects; the unit stands once.
pub(super) fn bounds(unit: Unit, interval: [f64; 2]) -> String {
    format::bounds(unit, interval)
}

/// The worst effect that the policy tolerates.
pub(super) fn margin(metric: &MetricResult) -> String {
    format::effect(metric.unit, -metric.margin)
}

/// Severity and label of a metric's state.
pub(super) fn metric(metric: &MetricResult) -> (Severity, &'static str) {
    metric_state(metric.state, metric.decides)
}

/// Severity and label of a state; `may_block` tells a blocking metric from a reported one.
pub(super) fn metric_state(state: MetricState, may_block: bool) -> (Severity, &'static str) {
    match state {
        MetricState::NonInferior => (Severity::Good, "within margin"),
        MetricState::Deteriorated if may_block => (Severity::Bad, "worse, blocks"),
        MetricState::Deteriorated => (Severity::Warning, "worse"),
        MetricState::DeterioratedWithinMargin => (Severity::Warning, "worse, within margin"),
        MetricState::Undecided => (Severity::Neutral, "undecided"),
    }
}

/// Severity and label of an invariant's state.
pub(super) fn invariant(invariant: &InvariantResult) -> (Severity, &'static str) {
    match invariant.state {
        InvariantState::Kept => (Severity::Good, "holds"),
        InvariantState::Violated => (Severity::Bad, "violated, blocks"),
        InvariantState::Demoted => (Severity::Warning, "violated by both builds, compared as a rate"),
        InvariantState::Unchecked => (Severity::Neutral, "not checked"),
        InvariantState::Vacuous => (Severity::Warning, "vacuous, proves nothing"),
        InvariantState::TooFewCases => (Severity::Neutral, "holds, too few cases"),
    }
}

/// The counts of an invariant in one line.
pub(super) fn invariant_line(invariant: &InvariantResult) -> String {
    format!(
        "{} in {} of the candidate, {} of the baseline",
        number::counted(invariant.violations, "violation", "violations"),
        number::counted(invariant.cases, "case", "cases"),
        number::count(invariant.violations_baseline),
    )
}

/// The result of a metric in one line with its numbers.
pub(super) fn metric_line(metric: &MetricResult) -> String {
    let (_, state) = self::metric(metric);
    format!(
        "{state} ({}): {}; effect {}, interval {}, margin {}, {}, p block {}, p approve {}",
        role(metric),
        escape::name(&plain::change(metric)),
        format::effect(metric.unit, metric.effect),
        interval(metric),
        margin(metric),
        number::counted(metric.cases, "case", "cases"),
        number::p_value(metric.p_block_adjusted.unwrap_or(metric.p_block)),
        number::p_value(metric.p_approve),
    )
}

/// Whether the margin is proven to be kept.
pub(super) fn is_within_margin(state: MetricState) -> bool {
    match state {
        MetricState::NonInferior | MetricState::DeterioratedWithinMargin => true,
        MetricState::Deteriorated | MetricState::Undecided => false,
    }
}

/// The part that a metric plays in the decision.
pub(super) fn role(metric: &MetricResult) -> &'static str {
    decision_role(metric.required, metric.decides)
}

/// The part that a metric or slice plays: approval requires it, and it may block.
pub(super) fn decision_role(is_required: bool, may_block: bool) -> &'static str {
    match (is_required, may_block) {
        (true, true) => "required, may block",
        (true, false) => "required",
        (false, true) => "may block",
        (false, false) => "reported only",
    }
}

/// The definition of a metric in one line; empty for an unknown metric.
pub(super) fn meaning(metric: &str) -> &'static str {
    match metric {
        "success" => "share of successful trials",
        "pass_k" => "probability that k trials of a case all succeed",
        "agreement" => "probability that two trials of a case have the same outcome",
        "effects.duplicated" => "share of trials with a duplicated write",
        "effects.missing" => "share of the recorded writes that are missing",
        "effects.extra" => "share of the writes that are not in the recording",
        "effects.changed" => "share of the recorded writes made with other arguments",
        "effects.drift" => "distance of the writes between builds, beyond the baseline's own spread",
        "unscorable" => "share of trials that left the recording",
        "semantic.drift" => "distance of the answers between builds, beyond the baseline's own spread",
        "semantic.dispersion" => "distance between the answers to one case",
        "sequence.drift" => "distance of the tool sequences between builds, beyond the baseline's own spread",
        "sequence.dispersion" => "distance between the tool sequences of one case",
        "latency" => "time per trial, geometric mean",
        "tail_latency" => "share of trials slower than the bound",
        "tokens" => "tokens per trial, geometric mean",
        "cost" => "US dollars per trial, geometric mean",
        "cost_mean" => "US dollars per trial, arithmetic mean up to the cap",
        other if other.starts_with("invariant.") => {
            "share of trials that break an invariant which the baseline breaks too"
        }
        _ => "",
    }
}

/// A reason as the label of a list of metrics.
pub(super) fn short_reason(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::InvariantViolated => "violated",
        ReasonCode::Deteriorated => "worse",
        ReasonCode::NonInferior => "within margin",
        ReasonCode::DeterioratedWithinMargin => "worse within margin",
        ReasonCode::BaselineFails => "the baseline fails",
        ReasonCode::SuccessCheckVacuous => "the success check cannot fail",
        ReasonCode::Underpowered => "undecided",
        ReasonCode::BelowFloor => "too few cases",
        ReasonCode::TooManyUnscorable => "too many unscorable trials",
        ReasonCode::MissingTrials => "missing trials",
        ReasonCode::BaselineViolatesInvariant => "violated by the baseline too",
        ReasonCode::InvariantUnchecked => "not checked",
        ReasonCode::MetricAbsent => "not computed",
        ReasonCode::AnswersChanged => "answers changed",
        ReasonCode::DiffersFromRecording => "unlike the recording",
        ReasonCode::SliceStandsOut => "some slices stand out",
        ReasonCode::ReplayLeftRecording => "left the recording",
        ReasonCode::WorseThanReference => "worse than the reference",
        ReasonCode::ReplayUnfaithful
        | ReasonCode::ModelInputChanged
        | ReasonCode::CorpusSelected
        | ReasonCode::BaselineIsRecording
        | ReasonCode::NoRequiredMetric
        | ReasonCode::NoPairs
        | ReasonCode::ProviderFailures
        | ReasonCode::RunsApart
        | ReasonCode::TrafficUncovered => "not judged",
    }
}

/// The next step for the reader; empty if there is none.
#[expect(clippy::too_many_lines, reason = "one arm for each code")]
pub(super) fn advice(code: ReasonCode, need: &Need) -> &'static str {
    match code {
        ReasonCode::InvariantViolated => {
            "Open the violating cases below. Fix the candidate, replay it and analyze again. More sessions will not clear a violation."
        }
        ReasonCode::Deteriorated => {
            "Start with the worst cases below: each marks the first tool call that differs. Fix the candidate, replay it and analyze again."
        }
        ReasonCode::NonInferior => "",
        ReasonCode::DeterioratedWithinMargin => {
            "The loss is real but tolerated by the policy. Inform the agent's owner, or tighten the margin before the next candidate."
        }
        // One number, one advice: the forecast of this verdict says whether sessions or trials help.
        ReasonCode::Underpowered if need.cases == 0 => {
            "More sessions alone will not bring approval. The sample size says why."
        }
        ReasonCode::Underpowered => match need.advice {
            Some(NeedAdvice::AddSessions) => {
                "Replay more sessions, as many as the sample size says. More trials of the same sessions help less."
            }
            Some(NeedAdvice::AddSessionsOrTrials) => {
                "Replay more sessions, or more trials of each session, as many as the sample size says."
            }
            None => "Replay more sessions, as many as the sample size says.",
        },
        ReasonCode::BaselineFails => {
            "Open the baseline's failures first: a provider that refused, a scorer that fails everybody, a broken build. Mend that and run both lanes again."
        }
        ReasonCode::SuccessCheckVacuous => {
            "Add labels or an evaluator, or embed the answers of both runs (foreshadow score), so that a wrong answer can fail."
        }
        ReasonCode::BelowFloor => {
            "Replay more sessions. With so few cases no test can prove that the margin is kept, however good the candidate is."
        }
        ReasonCode::ReplayLeftRecording => {
            "Look at the calls that the recording does not hold. Where an argument makes no difference to the tool, declare it in the policy and replay again; otherwise replay cannot judge this change."
        }
        ReasonCode::ReplayUnfaithful => {
            "Fidelity lists what the replay could not answer or answered otherwise than the recording. More sessions of the same kind will not change that."
        }
        ReasonCode::ModelInputChanged => {
            "Replay both builds with --model live. A recorded model cannot show the effect of a changed prompt, model, tool list or parameter, and more sessions do not help."
        }
        ReasonCode::TooManyUnscorable => {
            "Too many trials left the recording and cannot be scored. Open the first difference of these trials: it names the call that the recording does not hold."
        }
        ReasonCode::MissingTrials => "Finish the runs (replay with --resume), then analyze again.",
        ReasonCode::BaselineViolatesInvariant => {
            "Fix the baseline or the invariant. As long as the baseline violates it too, one violation does not block; a higher rate of the candidate does, and approval needs the rate to stay within its margin."
        }
        ReasonCode::CorpusSelected => {
            "Replay the baseline on sessions that were not selected by their outcome. Selected sessions regress to the mean."
        }
        ReasonCode::BaselineIsRecording => {
            "Replay the current build too (--lane baseline). A recording alone is too weak to compare with."
        }
        ReasonCode::NoRequiredMetric => {
            "Import outcome labels, configure an evaluator, or require a metric in the policy that these runs can compute."
        }
        ReasonCode::MetricAbsent => {
            "The reason is under Metrics. Supply the missing data, or remove the metric from the policy."
        }
        ReasonCode::InvariantUnchecked => {
            "No trial holds the data that the invariant checks. Record it, or remove the invariant from the policy."
        }
        ReasonCode::AnswersChanged => {
            "A change is not harm. Read the answers of the cases that moved most, and inform the agent's owner."
        }
        ReasonCode::ProviderFailures => {
            "Mend the provider, its limits or the network, repeat the replay with --resume, which runs the failed trials again, then analyze again."
        }
        ReasonCode::RunsApart => {
            "Replay both lanes at once, with `foreshadow replay --baseline --candidate` or `foreshadow gate`."
        }
        ReasonCode::TrafficUncovered => {
            "Record sessions of the missing part of the traffic, or correct `traffic.shares` in the policy."
        }
        ReasonCode::NoPairs => "Analyze two runs of the same cases. Cases are paired by name.",
        ReasonCode::DiffersFromRecording => {
            "Either the build changed or the replay is inexact. Replay the current build too (--lane baseline) and compare with that."
        }
        ReasonCode::WorseThanReference => {
            "Each release since the reference may have lost less than its margin. Mend the sum, or name a newer reference in the policy."
        }
        ReasonCode::SliceStandsOut => {
            "Open the sessions of the slices that stand out (see Slices), and record more of them. Name a slice in the policy to let it decide next time."
        }
    }
}

/// Severity of a reason: it proves harm, proves safety, needs a review, or leaves the question open.
pub(super) fn reason_severity(code: ReasonCode) -> Severity {
    match code {
        ReasonCode::InvariantViolated | ReasonCode::Deteriorated => Severity::Bad,
        ReasonCode::NonInferior => Severity::Good,
        ReasonCode::DeterioratedWithinMargin
        | ReasonCode::BaselineViolatesInvariant
        | ReasonCode::AnswersChanged
        | ReasonCode::DiffersFromRecording
        | ReasonCode::WorseThanReference
        | ReasonCode::SliceStandsOut => Severity::Warning,
        ReasonCode::Underpowered
        | ReasonCode::BaselineFails
        | ReasonCode::SuccessCheckVacuous
        | ReasonCode::BelowFloor
        | ReasonCode::ReplayLeftRecording
        | ReasonCode::ReplayUnfaithful
        | ReasonCode::ModelInputChanged
        | ReasonCode::TooManyUnscorable
        | ReasonCode::MissingTrials
        | ReasonCode::CorpusSelected
        | ReasonCode::BaselineIsRecording
        | ReasonCode::NoRequiredMetric
        | ReasonCode::MetricAbsent
        | ReasonCode::InvariantUnchecked
        | ReasonCode::NoPairs
        | ReasonCode::ProviderFailures
        | ReasonCode::RunsApart
        | ReasonCode::TrafficUncovered => Severity::Neutral,
    }
}

/// The effect of a tool; also a CSS class of the page.
pub(super) fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Read => "read",
        Effect::Write => "write",
        Effect::Unknown => "unknown",
    }
}

/// The ending of a trial.
pub(super) fn ending(ending: TrialEnding) -> &'static str {
    match ending {
        TrialEnding::Complete => "complete",
        TrialEnding::Failed => "failed",
        TrialEnding::TimedOut => "timed out",
        TrialEnding::Truncated => "left the recording",
        TrialEnding::Infrastructure => "harness failed",
    }
}
