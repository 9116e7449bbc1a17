//! Outcome of trials: success, all-of-k success, agreement between trials, and unscorable trials.
//!
//! `success` comes from a label, an evaluator or a qualified judge ([`crate::outcome`]), else from the built-in
//! end-state check ([`crate::outcome::end_state`]).

use schemas::exchange::Effect;
use schemas::score::ScoreKind;
use schemas::trial::{BLANK_LABEL, TrialEnding, UNREADABLE_LABEL};

use crate::metrics::functional::Functional;
use crate::metrics::measured::spec;
use crate::metrics::scalar::{self, Scalar, Score};
use crate::metrics::{Correction, Measured, Measurement, Setting};
use crate::outcome::end_state::{self, EndState};
use crate::outcome::{EvaluatorResult, OutcomeResult, Sources};
use crate::pairs::{Arm, PairedCase, Pairs};
use crate::policy::DEFAULT_K;
use crate::run::TrialRecord;
use crate::verdict::{NoOutcome, Unit};

/// Sources of success on these runs.
struct Judged<'a> {
    sources: Sources<'a>,
    /// The end-state check, if it applies to cases without another source.
    end_state: Option<EndState<'a>>,
}

impl<'a> Judged<'a> {
    /// Finds the sources, or the reason why nothing can be scored.
    fn new(setting: Setting<'a>) -> (Self, Result<(), String>) {
        let sources = Sources::new(setting.policy, setting.pairs);
        let possible = end_state_possible(setting);
        // A case that labels or evaluators could have scored and did not is missing; its end state is not used.
        let applies = sources.only_judges() && possible.is_ok();
        let end_state = applies.then(|| EndState::new(setting.policy, setting.pairs));
        let unscorable = if sources.is_empty() { possible } else { Ok(()) };
        (Self { sources, end_state }, unscorable)
    }

    fn score(&self, case: &PairedCase<'_>, record: &TrialRecord) -> Score {
        let source = self.sources.of(case);
        // The table has an outcome that cannot be read: nothing else may stand in for it.
        if source.is_none() && has_unreadable_label(record) {
            return Score::Missing;
        }
        if let (None, Some(check)) = (source, &self.end_state) {
            return end_state(check, case, record);
        }
        if !record.ended_by_itself() {
            return Score::Missing;
        }
        match (source.and_then(|source| source.score_of(record)), record.trial.ending) {
            (Some(success), _) => Score::Known(f64::from(u8::from(success))),
            (None, TrialEnding::Complete) => Score::Missing,
            (None, _) if has_unreadable_label(record) => Score::Missing,
            (None, _) => Score::Known(0.0),
        }
    }

    /// Trials of both lanes that ended and have no outcome, by cause.
    fn unscored(&self, pairs: &Pairs<'_>) -> [NoOutcome; 2] {
        let of = |case: &PairedCase<'_>, arm: &Arm<'_>, counts: &mut NoOutcome| {
            for record in
                arm.trials.iter().filter(|record| record.ended_by_itself() && record.first_miss().is_none())
            {
                if matches!(self.score(case, record), Score::Known(_)) {
                    continue;
                }
                match record.trial.outcome_missing.as_deref() {
                    Some(UNREADABLE_LABEL) => counts.unreadable_label += 1,
                    Some(BLANK_LABEL) if record.scores.is_empty() => counts.blank_label += 1,
                    Some(_) | None => counts.not_scored += 1,
                }
            }
        };
        let mut counts = [NoOutcome::default(); 2];
        for case in &pairs.cases {
            of(case, &case.baseline, &mut counts[0]);
            of(case, &case.candidate, &mut counts[1]);
        }
        counts
    }

    /// Number of cases by source.
    fn result(&self, pairs: &Pairs<'_>) -> OutcomeResult {
        let fallback = |case: &PairedCase<'_>| {
            let check = self.end_state.as_ref().filter(|_| end_state::reference(case).is_some());
            match check {
                Some(check) if check.vacuity_of(case).is_none() => "end_state",
                Some(_) | None => "none",
            }
        };
        let decided_by = self.sources.counts(pairs, fallback);
        let used = |case: &PairedCase<'_>| self.sources.of(case).is_none();
        let vacuous = self
            .end_state
            .iter()
            .flat_map(|check| pairs.paired().filter(|case| used(case) && check.vacuity_of(case).is_some()));
        OutcomeResult {
            decided_by,
            evaluators: self.sources.evaluators.clone(),
            vacuous_cases: crate::cast::to_u64(vacuous.count()),
        }
    }
}

/// Outcome by the end-state check. Cases in which it cannot fail have none.
fn end_state(check: &EndState<'_>, case: &PairedCase<'_>, record: &TrialRecord) -> Score {
    let recorded = end_state::reference(case).filter(|_| check.vacuity_of(case).is_none());
    let Some(recorded) = recorded else { return Score::Absent };
    match check.passes(recorded, record).filter(|_| record.ended_by_itself()) {
        None => Score::Missing,
        Some(good) => Score::Known(f64::from(u8::from(good))),
    }
}

fn has_unreadable_label(record: &TrialRecord) -> bool {
    record.trial.outcome_missing.as_deref() == Some(UNREADABLE_LABEL)
}

/// Measures success, pass_k and agreement.
pub(crate) fn measure(setting: Setting<'_>, measurement: &mut Measurement) {
    let (scoring, possible) = Judged::new(setting);
    measurement.outcome = scoring.result(setting.pairs);
    measurement.unscored = scoring.unscored(setting.pairs);
    note_evaluators(&measurement.outcome.evaluators, &mut measurement.notes);
    if let Err(why) = possible {
        for name in ["success", "pass_k", "agreement"] {
            measurement.take(name, Err(why.clone()));
        }
        return;
    }
    note_sources(setting, &scoring, measurement);
    let of = |functional| Scalar {
        score: |case: &PairedCase<'_>, record: &TrialRecord| scoring.score(case, record),
        functional,
        more_is_better: true,
        scale: 1.0,
        most: 1.0,
        bounded: functional != Functional::Agreement,
    };
    let k = setting.policy.settings("pass_k").k.unwrap_or(DEFAULT_K);
    for (name, functional) in [
        ("success", Functional::Mean),
        ("pass_k", Functional::PassK(k)),
        ("agreement", Functional::Agreement),
    ] {
        let start = setting.start(spec(name), Unit::Share);
        let least = setting.policy.judge.min_cases.div_ceil(2);
        let correction = Correction::new(&scoring.sources, setting.pairs, functional, least);
        let measured = correction.and_then(|correction| {
            let measured = scalar::measure(setting, start, of(functional))?;
            Ok(Measured { correction, ..measured })
        });
        measurement.take(name, measured);
    }
}

/// Success of a complete trial as the metric `success` counts it; absent if unknown.
pub(crate) fn succeeded(setting: Setting<'_>) -> impl Fn(&PairedCase<'_>, &TrialRecord) -> Option<bool> {
    let (scoring, possible) = Judged::new(setting);
    let is_possible = possible.is_ok();
    move |case, record| match scoring.score(case, record) {
        Score::Known(value) | Score::Fact(value) if is_possible && record.first_miss().is_none() => {
            Some(value > 0.5)
        }
        Score::Known(_) | Score::Fact(_) | Score::Missing | Score::Absent => None,
    }
}

/// Distances by labelled outcome: 0 between two successes or two failures, else 1.
pub(crate) fn distances(trials: &[&TrialRecord]) -> Option<Vec<f64>> {
    let label = |record: &TrialRecord| record.trial.success;
    crate::metrics::measured::distances(trials, label, |a, b| f64::from(u8::from(a != b)))
}

/// The end-state check needs a recording and declared effects.
fn end_state_possible(setting: Setting<'_>) -> Result<(), String> {
    let recorded =
        setting.pairs.paired().any(|case| case.recorded.is_some_and(|record| record.trial.has_transcript));
    let labels = "no trial has a success label or a score";
    if !recorded {
        return Err(format!(
            "{labels}, and the end-state check has no recording of these cases (--recorded)"
        ));
    }
    let declared = setting
        .pairs
        .paired()
        .filter_map(|case| case.recorded)
        .chain(setting.pairs.trials())
        .any(|record| record.calls.iter().any(|call| call.effect != Effect::Unknown));
    if declared {
        return Ok(());
    }
    Err(format!(
        "{labels}, and no tool call has a declared effect for the end-state check; declare effects with --tools"
    ))
}

/// Notes on the sources of success and on what is left out of it.
fn note_sources(setting: Setting<'_>, scoring: &Judged<'_>, measurement: &mut Measurement) {
    let notes = &mut measurement.notes;
    for (why, cases) in scoring.end_state.iter().flat_map(EndState::vacuous_cases) {
        notes.push(format!(
            "the end-state check cannot fail in {cases} cases, which it does not score: {}",
            why.words()
        ));
    }
    if scoring.sources.is_empty() {
        notes.push(
            "no trial has a label, so success is the built-in end-state check: trial complete, declared invariants kept, exactly \
             the recorded writes made, an answer given, and in sessions that only read an answer near the recorded one"
                .to_owned(),
        );
        let left_out = setting.pairs.paired().filter(|case| case.recorded.is_none()).count();
        if left_out > 0 {
            notes.push(format!(
                "{left_out} cases are left out of success: they have no recording, or the recording itself failed"
            ));
        }
        return;
    }
    let counts: Vec<String> = measurement
        .outcome
        .decided_by
        .iter()
        .map(|count| match count.source.as_str() {
            "none" => format!("no source in {} cases, which count as missing", count.cases),
            "end_state" => format!("the built-in end-state check in {} cases", count.cases),
            source => format!("{source} in {} cases", count.cases),
        })
        .collect();
    if !counts.is_empty() {
        notes.push(format!("success comes from: {}", counts.join(", ")));
    }
}

/// Notes on every judge's qualification, and on every other evaluator's agreement with labels if there are any.
fn note_evaluators(evaluators: &[EvaluatorResult], notes: &mut Vec<String>) {
    for one in evaluators {
        let (kind, name) = (&one.kind, &one.name);
        if one.errors > 0 {
            let all = one.scored + one.errors;
            notes.push(format!("{kind} {name} could not score {} of {all} trials", one.errors));
        }
        if one.kind != ScoreKind::Judge.as_str() && one.qualified {
            continue;
        }
        let says = |qualified: bool| if qualified { "is qualified" } else { "is not qualified" };
        if one.slices.is_empty() || !one.qualified {
            notes.push(format!("{kind} {name} {}: {}", says(one.qualified), one.overall.reason));
        }
        for slice in &one.slices {
            let place = slice.slice.as_deref().filter(|slice| !slice.is_empty()).unwrap_or("no slice");
            notes.push(format!("{kind} {name} {} on {place}: {}", says(slice.qualified), slice.reason));
        }
    }
}

/// Share of trials that diverged from the recording so far that they have no outcome.
///
/// # Errors
///
/// Neither run was replayed, or no trial of either was cut off: then the share is 0 by construction and shows nothing.
pub(crate) fn unscorable(setting: Setting<'_>) -> Result<Measured, String> {
    let replayed = |record: &TrialRecord| record.trial.fidelity.is_some();
    if !setting.pairs.trials().any(replayed) {
        return Err(
            "the trials were imported, not replayed, so none can diverge from its recording".to_owned()
        );
    }
    // Both lanes together, so that the result does not depend on which trials are the candidate's.
    if !setting.pairs.trials().any(|record| !record.ended_by_itself()) {
        return Err("no trial was cut off for diverging from its recording; fidelity.max-missed limits the missing answers \
                    instead"
            .to_owned());
    }
    let scalar = Scalar {
        score: |_: &PairedCase<'_>, record: &TrialRecord| match record.trial.ending {
            TrialEnding::Infrastructure => Score::Missing,
            TrialEnding::Truncated => Score::Fact(1.0),
            TrialEnding::Complete | TrialEnding::Failed | TrialEnding::TimedOut => Score::Fact(0.0),
        },
        functional: Functional::Mean,
        more_is_better: false,
        scale: 1.0,
        most: 1.0,
        bounded: true,
    };
    scalar::measure(setting, setting.start(spec("unscorable"), Unit::Share), scalar)
}
