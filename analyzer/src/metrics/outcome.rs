//! Whether the work was done right: success, all-of-k success, agreement between trials, and what cannot be scored.
//!
//! `success` is a label or an evaluator's word where there is one; else the built-in end-state check.

use schemas::exchange::Effect;
use schemas::trial::TrialEnding;

use crate::invariants::{self, Invariant};
use crate::metrics::scalar::{self, Functional, Scalar, Score};
use crate::metrics::{Measured, Measurement, Setting, spec};
use crate::pairs::PairedCase;
use crate::policy::DEFAULT_K;
use crate::run::TrialRecord;
use crate::verdict::Unit;
use crate::writes;

/// Where `success` comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SuccessSource {
    /// Labels that came with the trials, or an evaluator's.
    Label,
    /// The end state is compared with the recording's.
    EndState,
}

impl SuccessSource {
    /// Labels, where any voting trial carries one.
    fn of(setting: &Setting<'_>) -> Self {
        let labelled = setting.pairs.trials().any(|record| record.trial.success.is_some());
        if labelled { Self::Label } else { Self::EndState }
    }
}

/// How success is judged on these runs.
struct Judge<'a> {
    source: SuccessSource,
    invariants: Vec<Invariant<'a>>,
}

impl Judge<'_> {
    fn score(&self, case: &PairedCase<'_>, record: &TrialRecord) -> Score {
        let trial = &record.trial;
        match trial.ending {
            TrialEnding::Truncated | TrialEnding::Infrastructure => return Score::Missing,
            TrialEnding::Complete | TrialEnding::Failed | TrialEnding::TimedOut => {}
        }
        match self.source {
            SuccessSource::Label => match (trial.success, trial.ending) {
                (Some(success), _) => Score::Known(f64::from(u8::from(success))),
                (None, TrialEnding::Complete) => Score::Missing,
                (None, _) => Score::Known(0.0),
            },
            SuccessSource::EndState => self.end_state(case, record),
        }
    }

    /// The trial is complete, keeps the declared invariants, and made the recording's writes and no others.
    fn end_state(&self, case: &PairedCase<'_>, record: &TrialRecord) -> Score {
        let Some(recorded) = case.recorded.filter(|recorded| recorded.trial.has_transcript) else {
            return Score::Absent;
        };
        let good = record.trial.ending == TrialEnding::Complete
            && invariants::keeps_all(&self.invariants, record)
            && writes::distinct(record) == writes::distinct(recorded);
        Score::Known(f64::from(u8::from(good)))
    }
}

/// Measures success, pass_k and agreement.
pub(crate) fn measure(setting: Setting<'_>, measurement: &mut Measurement) {
    let source = SuccessSource::of(&setting);
    if source == SuccessSource::EndState {
        if let Err(why) = end_state_possible(setting) {
            for name in ["success", "pass_k", "agreement"] {
                measurement.take(name, Err(why.clone()));
            }
            return;
        }
        measurement.notes.push(
            "success is the built-in end-state check (trial complete, declared invariants kept, the recording's writes \
             made and no others): no trial carries a label"
                .to_owned(),
        );
    }
    note_labels(setting, source, measurement);
    let judge = Judge { source, invariants: Invariant::declared(&setting.policy.invariant) };
    let of = |functional| Scalar {
        score: |case: &PairedCase<'_>, record: &TrialRecord| judge.score(case, record),
        functional,
        more_is_better: true,
        scale: 1.0,
        bounded: functional != Functional::Agreement,
    };
    let k = setting.policy.settings("pass_k").k.unwrap_or(DEFAULT_K);
    for (name, functional) in [
        ("success", Functional::Mean),
        ("pass_k", Functional::PassK(k)),
        ("agreement", Functional::Agreement),
    ] {
        let start = setting.start(spec(name), Unit::Share);
        measurement.take(name, scalar::measure(setting, start, of(functional)));
    }
}

/// Says of a voting trial whether it did the work, as `success` counts it; nothing where that is not known.
pub(crate) fn succeeded(setting: Setting<'_>) -> impl Fn(&PairedCase<'_>, &TrialRecord) -> Option<bool> {
    let source = SuccessSource::of(&setting);
    let judge = Judge { source, invariants: Invariant::declared(&setting.policy.invariant) };
    let is_possible = source == SuccessSource::Label || end_state_possible(setting).is_ok();
    move |case, record| match judge.score(case, record) {
        Score::Known(value) if is_possible => Some(value > 0.5),
        Score::Known(_) | Score::Missing | Score::Absent => None,
    }
}

/// Distances by labelled outcome: 0 where both did the work or both did not.
pub(crate) fn distances(trials: &[&TrialRecord]) -> Option<Vec<f64>> {
    let label = |record: &TrialRecord| record.trial.success;
    super::distances(trials, label, |a, b| f64::from(u8::from(a != b)))
}

/// The check compares something only where a recording exists and effects are declared.
fn end_state_possible(setting: Setting<'_>) -> Result<(), String> {
    let recorded =
        setting.pairs.paired().any(|case| case.recorded.is_some_and(|record| record.trial.has_transcript));
    let labels = "no trial carries a success label or an evaluator's word";
    if !recorded {
        return Err(format!(
            "{labels}, and no recording of these cases is at hand for the end-state check (--recorded)"
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

fn note_labels(setting: Setting<'_>, source: SuccessSource, measurement: &mut Measurement) {
    if source == SuccessSource::EndState {
        let left_out = setting.pairs.paired().filter(|case| case.recorded.is_none()).count();
        if left_out > 0 {
            measurement.notes.push(format!(
                "{left_out} cases do not enter success: they have no recording, or the recording itself failed"
            ));
        }
        return;
    }
    let mut sources: Vec<&str> =
        setting.pairs.trials().filter_map(|record| record.trial.success_source.as_deref()).collect();
    sources.sort_unstable();
    sources.dedup();
    if !sources.is_empty() {
        measurement.notes.push(format!("success comes from: {}", sources.join(", ")));
    }
}

/// The share of trials that left the recording so far that nothing can be said of their outcome.
///
/// # Errors
/// Neither run was replayed, or no trial of either broke off: a share that is 0 by the way the replay works says nothing.
pub(crate) fn unscorable(setting: Setting<'_>) -> Result<Measured, String> {
    let replayed = |record: &TrialRecord| record.trial.fidelity.is_some();
    if !setting.pairs.trials().any(replayed) {
        return Err("the trials were imported, not replayed: none can leave its recording".to_owned());
    }
    // Both lanes together, so that it does not depend on which trial is called the candidate's.
    let broke_off = |record: &TrialRecord| {
        matches!(record.trial.ending, TrialEnding::Truncated | TrialEnding::Infrastructure)
    };
    if !setting.pairs.trials().any(broke_off) {
        return Err("no trial was broken off for leaving its recording: what a replay cannot answer is counted as missed \
                    and judged by fidelity.max_missed"
            .to_owned());
    }
    let scalar = Scalar {
        score: |_: &PairedCase<'_>, record: &TrialRecord| match record.trial.ending {
            TrialEnding::Infrastructure => Score::Missing,
            TrialEnding::Truncated => Score::Known(1.0),
            TrialEnding::Complete | TrialEnding::Failed | TrialEnding::TimedOut => Score::Known(0.0),
        },
        functional: Functional::Mean,
        more_is_better: false,
        scale: 1.0,
        bounded: true,
    };
    scalar::measure(setting, setting.start(spec("unscorable"), Unit::Share), scalar)
}
