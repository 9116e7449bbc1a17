//! What codes, metrics and states are called, and what each asks of the reader.

use schemas::exchange::Effect;
use schemas::trial::TrialEnding;

use super::{escape, number};
use crate::format;
use crate::verdict::{
    Answer, InvariantResult, InvariantState, MetricResult, MetricState, ReasonCode, Unit, Verdict,
};

/// How a line is coloured and marked; never by colour alone.
pub(super) const GOOD: &str = "good";
/// Harm.
pub(super) const BAD: &str = "bad";
/// To be looked at.
pub(super) const WARN: &str = "warn";
/// Nothing is known, or nothing is to be said.
pub(super) const OPEN: &str = "open";

/// The answer as a heading.
pub(super) fn answer(answer: Answer) -> &'static str {
    match answer {
        Answer::Approve => "Approve",
        Answer::Block => "Block",
        Answer::Inconclusive => "Inconclusive",
    }
}

/// Metrics named in the sentence of an approval.
const APPROVED_NAMED: usize = 3;

/// The verdict's reason in one sentence: what a metric did where the first reason is about one, else the reason itself.
pub(super) fn why(verdict: &Verdict) -> String {
    let Some(first) = verdict.reasons.first() else { return "No reason was given.".to_owned() };
    let of = |name: &Option<String>| {
        name.as_ref().and_then(|name| verdict.metrics.iter().find(|metric| &metric.name == name))
    };
    match (first.code, of(&first.metric)) {
        (ReasonCode::Deteriorated, Some(metric)) => sentence(&format!(
            "{} went from {} to {} over {}: {}, where {} is tolerated",
            escape::name(&metric.name),
            format::value(metric.unit, metric.baseline),
            format::value(metric.unit, metric.candidate),
            number::counted(metric.cases, "case", "cases"),
            format::effect(metric.unit, metric.effect),
            margin(metric),
        )),
        (ReasonCode::NonInferior, Some(metric)) => {
            let kept = verdict.reasons.iter().filter(|reason| reason.code == ReasonCode::NonInferior);
            let kept: Vec<&MetricResult> = kept.filter_map(|reason| of(&reason.metric)).collect();
            let shown = kept.iter().take(APPROVED_NAMED).map(|metric| {
                let [before, after] =
                    [metric.baseline, metric.candidate].map(|value| format::value(metric.unit, value));
                format!("{} ({before} \u{2192} {after})", escape::name(&metric.name))
            });
            let more = kept.len().saturating_sub(APPROVED_NAMED);
            let more = (more > 0).then(|| format!("{more} more"));
            sentence(&format!(
                "{} {} shown not to get worse than tolerated, over {}",
                listed(&shown.chain(more).collect::<Vec<_>>()),
                if kept.len() == 1 { "is" } else { "are" },
                number::counted(metric.cases, "case", "cases"),
            ))
        }
        _ => sentence(&first.detail),
    }
}

/// "a", "a and b", "a, b and c".
fn listed(names: &[String]) -> String {
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

/// Both ends of a metric's interval, in its unit.
pub(super) fn interval(metric: &MetricResult) -> String {
    ends(metric.unit, metric.interval)
}

/// Both ends of an interval of effects.
pub(super) fn ends(unit: Unit, interval: [f64; 2]) -> String {
    let [low, high] = interval.map(|end| format::effect(unit, end));
    match low.strip_suffix(" points") {
        Some(low) => format!("{low} to {high}"),
        None => format!("{low} to {high}"),
    }
}

/// The effect at which the margin is used up.
pub(super) fn margin(metric: &MetricResult) -> String {
    format::effect(metric.unit, -metric.margin)
}

/// What the answer means for the roll-out.
pub(super) fn consequence(answer: Answer) -> &'static str {
    match answer {
        Answer::Approve => "The candidate may roll out.",
        Answer::Block => "The candidate must not roll out.",
        Answer::Inconclusive => {
            "Neither harm nor safety is shown. The candidate does not roll out on this evidence."
        }
    }
}

/// The colour of an answer.
pub(super) fn answer_tone(answer: Answer) -> &'static str {
    match answer {
        Answer::Approve => GOOD,
        Answer::Block => BAD,
        Answer::Inconclusive => WARN,
    }
}

/// The exit code of `foreshadow analyze` for an answer.
pub(super) fn exit_code(answer: Answer) -> u8 {
    match answer {
        Answer::Approve => 0,
        Answer::Block => 3,
        Answer::Inconclusive => 4,
    }
}

/// The colour and the words of a metric's state.
pub(super) fn state(metric: &MetricResult) -> (&'static str, &'static str) {
    metric_state(metric.state, metric.decides)
}

/// The same of what may or may not block.
pub(super) fn metric_state(state: MetricState, decides: bool) -> (&'static str, &'static str) {
    match state {
        MetricState::NonInferior => (GOOD, "within margin"),
        MetricState::Deteriorated if decides => (BAD, "worse, blocks"),
        MetricState::Deteriorated => (WARN, "worse"),
        MetricState::DeterioratedWithinMargin => (WARN, "worse, within margin"),
        MetricState::Undecided => (OPEN, "undecided"),
    }
}

/// The colour and the words of an invariant's state.
pub(super) fn invariant(invariant: &InvariantResult) -> (&'static str, &'static str) {
    match invariant.state {
        InvariantState::Kept => (GOOD, "kept"),
        InvariantState::Violated => (BAD, "violated, blocks"),
        InvariantState::Demoted => (WARN, "violated by both, compared as a rate"),
        InvariantState::Unchecked => (OPEN, "not checked"),
        InvariantState::NotLive => (WARN, "cannot fail, proves nothing"),
        InvariantState::TooFewCases => (OPEN, "kept, by too few cases"),
    }
}

/// How an invariant fared, in one line.
pub(super) fn invariant_line(invariant: &InvariantResult) -> String {
    format!(
        "{} in {}, {} in the baseline",
        number::counted(invariant.violations, "violation", "violations"),
        number::counted(invariant.cases, "case", "cases"),
        number::count(invariant.violations_baseline),
    )
}

/// How a metric fared, in one line with its numbers.
pub(super) fn metric_line(metric: &MetricResult) -> String {
    let (_, state) = state(metric);
    format!(
        "{state} ({}): baseline {}, candidate {}, effect {}, interval {}, margin {}, {}, p block {}, p approve {}",
        role(metric),
        format::value(metric.unit, metric.baseline),
        format::value(metric.unit, metric.candidate),
        format::effect(metric.unit, metric.effect),
        interval(metric),
        margin(metric),
        number::counted(metric.cases, "case", "cases"),
        number::p_value(metric.p_block_adjusted.unwrap_or(metric.p_block)),
        number::p_value(metric.p_approve),
    )
}

/// Whether the margin is shown to be kept.
pub(super) fn keeps_margin(state: MetricState) -> bool {
    match state {
        MetricState::NonInferior | MetricState::DeterioratedWithinMargin => true,
        MetricState::Deteriorated | MetricState::Undecided => false,
    }
}

/// A reason in a word or two after the name of its metric.
pub(super) fn briefly(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::InvariantViolated => "is violated",
        ReasonCode::Deteriorated => "got worse",
        ReasonCode::NonInferior => "stays within its margin",
        ReasonCode::DeterioratedWithinMargin => "got worse within its margin",
        ReasonCode::Underpowered => "is undecided",
        ReasonCode::BelowFloor => "has too few cases",
        ReasonCode::TooManyUnscorable => "has too many unscorable trials",
        ReasonCode::MissingTrials => "lacks trials",
        ReasonCode::BaselineViolatesInvariant => "is broken by the baseline too",
        ReasonCode::InvariantUnchecked => "could not be checked",
        ReasonCode::MetricAbsent => "could not be computed",
        ReasonCode::AnswersChanged => "answers changed",
        ReasonCode::DiffersFromRecording => "differs from the recording",
        ReasonCode::SliceStandsOut => "stands out in some slices",
        ReasonCode::ReplayUnfaithful
        | ReasonCode::CorpusSelected
        | ReasonCode::BaselineIsRecording
        | ReasonCode::NoRequiredMetric
        | ReasonCode::NoPairs => "cannot be judged",
    }
}

/// What part a metric plays.
pub(super) fn role(metric: &MetricResult) -> &'static str {
    match (metric.required, metric.decides) {
        (true, true) => "required, may block",
        (true, false) => "required",
        (false, true) => "may block",
        (false, false) => "reported",
    }
}

/// What a metric measures, in one line; empty for one that this list does not know.
pub(super) fn meaning(metric: &str) -> &'static str {
    match metric {
        "success" => "share of trials that did the work right",
        "pass_k" => "chance that k trials of a case all succeed",
        "agreement" => "chance that two trials of a case end alike",
        "effects.duplicated" => "share of trials that make one write twice",
        "effects.missing" => "share of the recorded writes not made",
        "effects.extra" => "share of writes that the recording does not have",
        "effects.changed" => "share of the recorded writes made with other arguments",
        "effects.drift" => "how far writes moved, beyond the baseline's own spread",
        "unscorable" => "share of trials that left the recording",
        "semantic.drift" => "how far answers moved, beyond the baseline's own spread",
        "semantic.dispersion" => "how much answers to one case differ from each other",
        "sequence.drift" => "how far tool sequences moved, beyond the baseline's own spread",
        "sequence.dispersion" => "how much trials of one case differ from each other",
        "latency" => "time per trial, geometric mean",
        "tail_latency" => "share of trials slower than the bound",
        "tokens" => "tokens per trial, geometric mean",
        "cost" => "US dollars per trial, geometric mean",
        other if other.starts_with("invariant.") => {
            "share of trials that keep an invariant the baseline breaks too"
        }
        _ => "",
    }
}

/// What the reader does about a reason; empty where there is nothing to do.
pub(super) fn advice(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::InvariantViolated => {
            "Open the violating cases below, mend the candidate, replay it and analyze again. More sessions will not clear a violation."
        }
        ReasonCode::Deteriorated => {
            "Start with the worst cases below: the first tool call that differs is marked. Mend the candidate, replay it and analyze again."
        }
        ReasonCode::NonInferior => "",
        ReasonCode::DeterioratedWithinMargin => {
            "Within what the policy tolerates, but real: let the agent's owner know, or tighten the margin before the next candidate."
        }
        ReasonCode::Underpowered => "Replay more sessions; more trials of the same sessions help less.",
        ReasonCode::BelowFloor => {
            "Replay more sessions: below the floor no method can show that the margin is kept, however good the candidate is."
        }
        ReasonCode::ReplayUnfaithful => {
            "Look under Fidelity for what the world could not answer; record more, or declare aliases and read-only tools, then replay both lanes again."
        }
        ReasonCode::TooManyUnscorable => {
            "Too many trials left the recording to be judged: look at their first divergence, record newer sessions, then replay both lanes again."
        }
        ReasonCode::MissingTrials => "Finish the runs (replay with --resume), then analyze again.",
        ReasonCode::BaselineViolatesInvariant => {
            "Mend the baseline or the declaration: while production breaks the invariant itself it is only compared as a rate."
        }
        ReasonCode::CorpusSelected => {
            "Replay the baseline afresh on sessions that were not picked by their outcome; picked sessions regress to the mean."
        }
        ReasonCode::BaselineIsRecording => {
            "Replay the current build as lane baseline beside the candidate; a recording alone is too weak to compare with."
        }
        ReasonCode::NoRequiredMetric => {
            "Bring outcome labels or an evaluator, or name a metric that can be computed as required in the policy."
        }
        ReasonCode::MetricAbsent => {
            "See under Metrics why it could not be computed, or take it out of the policy."
        }
        ReasonCode::InvariantUnchecked => {
            "See that the runs hold what the invariant is checked on, or take it out of the policy."
        }
        ReasonCode::AnswersChanged => {
            "A change, not harm: read the answers of the cases that moved most, and let the agent's owner know."
        }
        ReasonCode::NoPairs => "Give two runs of the same cases: cases are paired by their name.",
        ReasonCode::DiffersFromRecording => {
            "See whether the build changed or the replay is imperfect: replay the current build too (--lane baseline) and compare with that."
        }
        ReasonCode::SliceStandsOut => {
            "Look at the sessions of these slices and record more of them; name a slice in the policy to let it decide next time."
        }
    }
}

/// Whether a reason speaks for, against, or leaves open.
pub(super) fn reason_tone(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::InvariantViolated | ReasonCode::Deteriorated => BAD,
        ReasonCode::NonInferior => GOOD,
        ReasonCode::DeterioratedWithinMargin
        | ReasonCode::BaselineViolatesInvariant
        | ReasonCode::AnswersChanged
        | ReasonCode::DiffersFromRecording
        | ReasonCode::SliceStandsOut => WARN,
        ReasonCode::Underpowered
        | ReasonCode::BelowFloor
        | ReasonCode::ReplayUnfaithful
        | ReasonCode::TooManyUnscorable
        | ReasonCode::MissingTrials
        | ReasonCode::CorpusSelected
        | ReasonCode::BaselineIsRecording
        | ReasonCode::NoRequiredMetric
        | ReasonCode::MetricAbsent
        | ReasonCode::InvariantUnchecked
        | ReasonCode::NoPairs => OPEN,
    }
}

/// The word for what a call does outside.
pub(super) fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Read => "read",
        Effect::Write => "write",
        Effect::Unknown => "unknown",
    }
}

/// How a trial ended, in words.
pub(super) fn ending(ending: TrialEnding) -> &'static str {
    match ending {
        TrialEnding::Complete => "complete",
        TrialEnding::Failed => "failed",
        TrialEnding::TimedOut => "timed out",
        TrialEnding::Truncated => "left the recording",
        TrialEnding::Infrastructure => "harness failed",
    }
}

/// What it would take to approve; `None` where the verdict asks for nothing more.
pub(super) fn need(verdict: &Verdict) -> Option<String> {
    let need = &verdict.need;
    if verdict.verdict != Answer::Inconclusive {
        return None;
    }
    if !need.detail.is_empty() {
        return Some(sentence(&need.detail));
    }
    (need.cases > 0).then(|| {
        format!(
            "{} in all with {} each per lane: approval then has a predicted probability of {}.",
            number::counted(need.cases, "case", "cases"),
            number::counted(need.trials, "trial", "trials"),
            number::percent(need.predicted_approve),
        )
    })
}
