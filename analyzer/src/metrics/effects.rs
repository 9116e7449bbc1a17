//! Side effects of trials: duplicated, missing, extra and changed writes; and invariants compared as rates.
//!
//! Both arms are compared with the recording and never with the baseline's own trials, which keeps identical builds
//! exchangeable. A note counts the calls of unknown effect, which are left out.

use schemas::exchange::Effect;
use schemas::trial::TrialEnding;

use crate::invariants::{self, Invariant};
use crate::metrics::dispersion::{self, Form};
use crate::metrics::functional::Functional;
use crate::metrics::measured::spec;
use crate::metrics::scalar::{self, Scalar, Score};
use crate::metrics::{Measured, Measurement, Setting};
use crate::pairs::PairedCase;
use crate::policy::{DEMOTED_MARGIN, Margin, MetricSpec};
use crate::run::{ToolCall, TrialRecord};
use crate::verdict::Unit;
use crate::writes::{self, Difference};

const NAMES: [&str; 4] = ["effects.duplicated", "effects.missing", "effects.extra", "effects.changed"];

/// Measures the family.
pub(crate) fn measure(setting: Setting<'_>, measurement: &mut Measurement) {
    let undeclared: usize = setting.pairs.trials().map(writes::undeclared).sum();
    if undeclared > 0 {
        measurement.notes.push(format!(
            "{undeclared} tool calls have no declared effect and are left out of the effects metrics; declare effects with --tools"
        ));
    }
    let declared =
        setting.pairs.trials().any(|record| record.calls.iter().any(|call| call.effect != Effect::Unknown));
    if !declared {
        for name in NAMES.iter().chain(&["effects.drift"]) {
            measurement.take(
                name,
                Err("no tool call has a declared effect; declare effects with --tools".to_owned()),
            );
        }
        return;
    }
    measurement.take(NAMES[0], duplicated(setting));
    let of = |name: &'static str, part: fn(&Difference) -> f64| against_recording(setting, name, part);
    measurement.take(NAMES[1], of(NAMES[1], |difference| difference.missing));
    measurement.take(NAMES[2], of(NAMES[2], |difference| difference.extra));
    measurement.take(NAMES[3], of(NAMES[3], |difference| difference.changed));
    let recorded = setting.pairs.paired().any(|case| case.recorded.is_some());
    let drift = if recorded {
        Err("writes are compared with the recording instead".to_owned())
    } else {
        let describe = |record: &TrialRecord| record.trial.has_transcript.then(|| writes::counted(record));
        let start = setting.start(spec("effects.drift"), Unit::Distance);
        dispersion::measure(setting, start, Form::Drift, describe, writes::distance)
    };
    measurement.take("effects.drift", drift);
}

/// Distances by writes; absent if a trial has no transcript or no call declares an effect.
pub(crate) fn distances(trials: &[&TrialRecord]) -> Option<Vec<f64>> {
    let mut calls = trials.iter().flat_map(|record| &record.calls);
    if calls.all(|call| call.effect == Effect::Unknown) {
        return None;
    }
    let describe = |record: &TrialRecord| record.trial.has_transcript.then(|| writes::counted(record));
    crate::metrics::measured::distances(trials, describe, writes::distance)
}

fn harm<F>(score: F) -> Scalar<F> {
    Scalar {
        score,
        functional: Functional::Mean,
        more_is_better: false,
        scale: 1.0,
        most: 1.0,
        bounded: true,
    }
}

/// Whether the writes of the trial are known completely.
fn readable(record: &TrialRecord) -> Result<(), Score> {
    if !record.trial.has_transcript {
        return Err(Score::Absent);
    }
    match record.trial.ending {
        TrialEnding::Truncated | TrialEnding::Infrastructure => Err(Score::Missing),
        TrialEnding::Complete | TrialEnding::Failed | TrialEnding::TimedOut => Ok(()),
    }
}

fn duplicated(setting: Setting<'_>) -> Result<Measured, String> {
    let score = |_: &PairedCase<'_>, record: &TrialRecord| {
        // A repetition counts even if the trial was cut off later.
        // A repetition after a miss can be a retry of what the recording could not answer.
        if writes::repeated(&record.until_miss(), &[]).is_some() {
            return Score::Fact(1.0);
        }
        readable(record).map_or_else(|score| score, |()| Score::Known(0.0))
    };
    scalar::measure(setting, setting.start(spec(NAMES[0]), Unit::Share), harm(score))
}

fn against_recording(
    setting: Setting<'_>,
    name: &'static str,
    part: fn(&Difference) -> f64,
) -> Result<Measured, String> {
    if !setting.pairs.paired().any(|case| case.recorded.is_some()) {
        return Err("these cases have no recording (--recorded)".to_owned());
    }
    // A metric that cannot fail shows nothing, so approval must not rest on it.
    let mut recorded = setting.pairs.paired().filter_map(|case| case.recorded);
    let needs_writes = name != "effects.extra" && setting.policy.requires(name, false);
    if needs_writes && !recorded.any(|record| record.calls.iter().any(ToolCall::wrote)) {
        return Err("no recorded session writes, so it cannot fail on these sessions".to_owned());
    }
    let score = |case: &PairedCase<'_>, record: &TrialRecord| {
        let Some(recorded) = case.recorded.filter(|recorded| recorded.trial.has_transcript) else {
            return Score::Absent;
        };
        let compare = || part(&writes::compare(&writes::distinct(record), &writes::distinct(recorded)));
        readable(record).map_or_else(|score| score, |()| Score::Known(compare()))
    };
    scalar::measure(setting, setting.start(spec(name), Unit::Share), harm(score))
}

/// Share of trials that break an invariant which the baseline breaks too. It decides and is required whatever metrics
/// the policy lists: the policy declared the invariant, and one violation by the baseline must not switch it off.
///
/// # Errors
///
/// Gives the reason why there is nothing to compare.
pub(crate) fn demoted(setting: Setting<'_>, name: &str) -> Result<Measured, String> {
    let declared = Invariant::declared(&setting.policy.invariant);
    let invariant = declared.iter().find(|invariant| invariant.name() == name);
    let invariant = invariant.ok_or_else(|| "it is not declared".to_owned())?;
    let full = format!("invariant.{name}");
    let rate = MetricSpec {
        name: "invariant",
        family: "invariant",
        margin: Margin::Difference(DEMOTED_MARGIN),
        decides: true,
        required: true,
    };
    let mut start = setting.start(&rate, Unit::Share);
    (start.decides, start.required) = (rate.decides, rate.required);
    start.name = full;
    let score = |_: &PairedCase<'_>, record: &TrialRecord| match invariants::broken_share(
        invariant,
        &record.until_miss(),
    ) {
        Some(share) if share > 0.0 => Score::Fact(share),
        Some(share) => Score::Known(share),
        None if record.first_miss().is_some() => Score::Missing,
        None => Score::Absent,
    };
    scalar::measure(setting, start, harm(score))
}
