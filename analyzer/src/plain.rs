//! Plain words for what a verdict found: what was compared, and what each metric says.

use crate::format;
use crate::verdict::{Decision, LaneMisses, MetricResult, NoOutcome, ReasonCode, Unit, Verdict};

/// What a metric found, with its name in parentheses: `issue_refund made more than once: 0.0 % → 56.3 % of trials
/// (effects.duplicated)`.
pub(crate) fn change(metric: &MetricResult) -> String {
    let values = [metric.baseline, metric.candidate];
    let change = change_of(&metric.name, metric.unit, values, metric.tool.as_deref());
    // The effect is corrected by labels, the two values are not.
    let scored = if metric.judge.is_some() { " as scored" } else { "" };
    format!("{change}{scored} ({})", metric.name)
}

/// What the metric of this name found, without the name: values of the baseline and of the candidate.
fn change_of(name: &str, unit: Unit, values: [f64; 2], tool: Option<&str>) -> String {
    let [before, after] = values.map(|value| format::value(unit, value));
    format!("{}: {before} \u{2192} {after}{}", subject(name, tool), whole(name, unit))
}

/// What the metric counts or measures, as the beginning of a sentence.
pub(crate) fn subject(name: &str, tool: Option<&str>) -> String {
    let of_writes = |what: &str, of_tool: &str| match tool {
        Some(tool) => format!("{tool} {of_tool}"),
        None => what.to_owned(),
    };
    match name {
        "success" => "Successful trials".to_owned(),
        "pass_k" => "Every one of k trials succeeds".to_owned(),
        "agreement" => "Two trials of a case end alike".to_owned(),
        "effects.duplicated" => of_writes("Writes made more than once", "made more than once"),
        "effects.missing" => of_writes("Recorded writes not made", "recorded and not made"),
        "effects.extra" => of_writes("Writes that the recording lacks", "made where the recording does not"),
        "effects.changed" => of_writes("Writes with changed arguments", "made with changed arguments"),
        "effects.drift" => "Writes differ between the builds".to_owned(),
        "unscorable" => "Trials that left the recording".to_owned(),
        "semantic.drift" => "Answers differ between the builds".to_owned(),
        "semantic.dispersion" => "Answers to one case differ among themselves".to_owned(),
        "sequence.drift" => "Tool sequences differ between the builds".to_owned(),
        "sequence.dispersion" => "Tool sequences of one case differ among themselves".to_owned(),
        "latency" => "Time per trial".to_owned(),
        "tail_latency" => "Slow trials".to_owned(),
        "tokens" => "Tokens per trial".to_owned(),
        "cost" => "Cost per trial".to_owned(),
        "cost_mean" => "Mean cost per trial, up to the cap".to_owned(),
        other => match other.strip_prefix("invariant.") {
            Some(invariant) => format!("Invariant {invariant} broken"),
            None => format!("Metric {other}"),
        },
    }
}

/// What a share is a share of.
fn whole(name: &str, unit: Unit) -> &'static str {
    match (unit, name) {
        (Unit::Share, "effects.missing" | "effects.changed") => " of the recorded writes",
        (Unit::Share, "effects.extra") => " of the writes",
        (Unit::Share, "pass_k" | "agreement") => " of the time",
        (Unit::Share, "success" | "unscorable" | "tail_latency") => "",
        (Unit::Share, _) => " of trials",
        (Unit::Distance, _) => " (distance)",
        (Unit::Seconds | Unit::Tokens | Unit::Usd | Unit::UsdMean, _) => "",
    }
}

/// Formats the verdict as one sentence with its first reason in plain words.
#[must_use]
pub fn verdict_sentence(verdict: &Verdict) -> String {
    let word = match verdict.verdict {
        Decision::Approve => "APPROVE",
        Decision::Block => "BLOCK",
        Decision::Inconclusive => "INCONCLUSIVE",
    };
    if verdict.reasons.is_empty() {
        return word.to_owned();
    }
    format!("{word}: {}", headline(verdict))
}

/// The first reason in one sentence without its test results.
pub(crate) fn headline(verdict: &Verdict) -> String {
    let Some(first) = verdict.reasons.first() else { return "the verdict names no reason".to_owned() };
    let cut = match first.code {
        ReasonCode::Deteriorated
        | ReasonCode::NonInferior
        | ReasonCode::Underpowered
        | ReasonCode::DeterioratedWithinMargin => first.detail.split("; effect ").next(),
        _ => None,
    };
    let others = verdict.reasons.iter().skip(1).filter(|reason| reason.code == first.code).count();
    let more = match (first.code, others) {
        (_, 0) => String::new(),
        (ReasonCode::Deteriorated, _) => format!("; {others} more got worse"),
        (ReasonCode::NonInferior, _) => format!("; so are {others} more"),
        (_, _) => String::new(),
    };
    format!("{}{more}", cut.unwrap_or(&first.detail))
}

/// What was compared, what was missing and why, and what was tested: three lines that a reader needs before the
/// verdict.
#[must_use]
pub fn comparison_lines(verdict: &Verdict) -> [String; 3] {
    [compared(verdict), missing(verdict), tested(verdict)]
}

/// Whether the three lines say what this note says.
#[must_use]
pub fn is_in_comparison(note: &str) -> bool {
    note.starts_with("success comes from: ")
}

fn compared(verdict: &Verdict) -> String {
    let pairs = &verdict.pairs;
    let sources: Vec<String> =
        verdict.outcome.decided_by.iter().map(|source| source_words(&source.source, source.cases)).collect();
    let success = if sources.is_empty() { "nothing".to_owned() } else { sources.join(", ") };
    let name = |build: &str, run: &str| if build.is_empty() { run.to_owned() } else { build.to_owned() };
    format!(
        "Compared: {} of {} cases with {} baseline and {} candidate trials; {} against {}; success is decided by {success}",
        pairs.paired,
        pairs.cases,
        pairs.trials_baseline,
        pairs.trials_candidate,
        name(&verdict.candidate.build, &verdict.candidate.run),
        name(&verdict.baseline.build, &verdict.baseline.run),
    )
}

fn source_words(source: &str, cases: u64) -> String {
    let name = match source.split_once(':') {
        Some(("label", name)) => format!("label {name}"),
        Some((kind, name)) => format!("{kind} {name}"),
        None if source == "end_state" => "the built-in comparison of writes".to_owned(),
        None if source == "label" => "labels".to_owned(),
        None if source == "none" => "nothing".to_owned(),
        None => source.to_owned(),
    };
    format!("{name} ({cases} cases)")
}

fn missing(verdict: &Verdict) -> String {
    let pairs = &verdict.pairs;
    if pairs.missing_baseline + pairs.missing_candidate == 0 {
        return "Missing: no trial".to_owned();
    }
    let lane = |number: u64, causes: &NoOutcome| {
        if causes.total() == 0 { number.to_string() } else { causes.in_words() }
    };
    format!(
        "Missing: trials without an outcome: baseline {}, candidate {}",
        lane(pairs.missing_baseline, &pairs.no_outcome_baseline),
        lane(pairs.missing_candidate, &pairs.no_outcome_candidate)
    )
}

fn tested(verdict: &Verdict) -> String {
    let counts = verdict.fidelity.unwrap_or_default();
    let parts = [
        (counts.exact, "as recorded"),
        (counts.normalised, "as recorded after normalisation"),
        (counts.derived, "derived"),
        (counts.live, "live"),
        (counts.faulted, "with an injected fault"),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, how)| format!("{number} {how}"))
        .collect();
    if parts.is_empty() && counts.missed == 0 {
        return "Tested: the trials as they were imported; nothing was replayed".to_owned();
    }
    let answered = if parts.is_empty() { "none".to_owned() } else { parts.join(", ") };
    let not_answered =
        if counts.missed == 0 { "every call was answered".to_owned() } else { misses(verdict) };
    format!("Tested: replayed trials; answers {answered}; {not_answered}")
}

/// Calls without an answer, by lane and kind.
fn misses(verdict: &Verdict) -> String {
    let share = |missed: u64, all: u64, what: &str| {
        let percent = 100.0 * crate::cast::to_f64(missed) / crate::cast::to_f64(all.max(1));
        (missed > 0).then(|| format!("{missed} of {all} {what} calls ({percent:.1} %)"))
    };
    let lane = |lane: &LaneMisses| {
        let tool = share(lane.tool_calls_missed, lane.tool_calls, "tool");
        let model = share(lane.model_calls_missed, lane.model_calls, "model");
        let missed: Vec<String> = [tool, model].into_iter().flatten().collect();
        let missed = if missed.is_empty() { "none".to_owned() } else { missed.join(" and ") };
        format!("{} {missed}", lane.lane)
    };
    let lanes = verdict.misses.iter().flat_map(|misses| &misses.lanes);
    format!("not answered: {}", lanes.map(lane).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::METRICS;
    use crate::verdict::MetricState;

    fn result(name: &str, tool: Option<&str>) -> MetricResult {
        MetricResult {
            name: name.to_owned(),
            family: String::new(),
            required: true,
            cases: 48,
            units: 48,
            baseline: 0.0,
            candidate: 0.563,
            effect: -0.563,
            interval: [-0.7, -0.4],
            margin: 0.02,
            p_block: 0.0,
            p_block_adjusted: None,
            p_approve: 1.0,
            decides: true,
            state: MetricState::Deteriorated,
            unit: Unit::Share,
            floor: 1,
            clipped: 0,
            adjusted: None,
            judge: None,
            tool: tool.map(str::to_owned),
            tail: None,
        }
    }

    #[test]
    fn a_change_is_said_in_plain_words() {
        assert_eq!(
            change(&result("effects.duplicated", Some("issue_refund"))),
            "issue_refund made more than once: 0.0 % \u{2192} 56.3 % of trials (effects.duplicated)"
        );
        assert_eq!(
            change(&result("effects.duplicated", None)),
            "Writes made more than once: 0.0 % \u{2192} 56.3 % of trials (effects.duplicated)"
        );
        assert_eq!(
            change(&result("invariant.idempotency", None)),
            "Invariant idempotency broken: 0.0 % \u{2192} 56.3 % of trials (invariant.idempotency)"
        );
    }

    #[test]
    fn every_metric_has_plain_words() {
        for metric in METRICS {
            let words = change(&result(metric.name, None));
            assert!(!words.starts_with("Metric "), "{words}");
        }
    }
}
