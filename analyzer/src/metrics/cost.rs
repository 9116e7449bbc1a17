//! Effort of the agent: time, tokens, money. Logarithms make a ratio mean the same in short and long cases.

use schemas::trial::Trial;

use crate::metrics::measured::spec;
use crate::metrics::scalar::{self, Functional, Scalar, Score};
use crate::metrics::{Measured, Measurement, Setting};
use crate::pairs::PairedCase;
use crate::policy::RATIO_RANGE_LN;
use crate::run::TrialRecord;
use crate::verdict::Unit;

/// Smallest arguments of the logarithms: a tenth of a millisecond, a token, a millionth of a cent.
const LEAST: [f64; 3] = [1e-4, 1.0, 1e-8];

/// Share of trials above the bound of `tail_latency` if the policy sets no bound.
const TAIL: f64 = 0.05;

/// Measures the family.
pub(crate) fn measure(setting: Setting<'_>, measurement: &mut Measurement) {
    measurement.take("latency", ratio(setting, "latency", Unit::Seconds, seconds, LEAST[0]));
    measurement.take("tail_latency", tail(setting));
    measurement.take("tokens", ratio(setting, "tokens", Unit::Tokens, tokens, LEAST[1]));
    measurement.take("cost", ratio(setting, "cost", Unit::Usd, |trial| trial.cost_usd, LEAST[2]));
}

fn seconds(trial: &Trial) -> Option<f64> {
    trial.duration_us.map(|time| micros(time) / 1e6)
}

fn micros(time: u64) -> f64 {
    // Seconds and remainder are converted apart: above 2^32 microseconds (71 minutes) a single conversion would
    // saturate.
    let (whole, rest) = (time / 1_000_000, time % 1_000_000);
    crate::cast::to_f64(whole) * 1e6 + crate::cast::to_f64(rest)
}

fn tokens(trial: &Trial) -> Option<f64> {
    let total = trial.input_tokens.unwrap_or(0) + trial.output_tokens.unwrap_or(0);
    trial.input_tokens.or(trial.output_tokens).map(|_| crate::cast::to_f64(total))
}

fn ratio(
    setting: Setting<'_>,
    name: &'static str,
    unit: Unit,
    value: fn(&Trial) -> Option<f64>,
    least: f64,
) -> Result<Measured, String> {
    let score = |_: &PairedCase<'_>, record: &TrialRecord| match value(&record.trial) {
        Some(value) if value.is_finite() => Score::Known(value.max(least).ln()),
        // A value that was not measured, or whose cell cannot be read. It may be the one that decides.
        Some(_) | None => Score::Missing,
    };
    let scalar = Scalar {
        score,
        functional: Functional::Mean,
        more_is_better: false,
        scale: RATIO_RANGE_LN,
        bounded: false,
    };
    scalar::measure(setting, setting.start(spec(name), unit), scalar)
}

/// Share of trials above a bound: the policy's, else the 95th percentile of both lanes together. A percentile of the
/// baseline alone would change with the relabelling, and the test would not be exact.
fn tail(setting: Setting<'_>) -> Result<Measured, String> {
    let bound = match setting.policy.settings("tail_latency").bound_ms {
        Some(bound_ms) => bound_ms.saturating_mul(1000),
        None => percentile(setting).ok_or_else(|| "no trial has a duration".to_owned())?,
    };
    let score = |_: &PairedCase<'_>, record: &TrialRecord| match record.trial.duration_us {
        Some(time) => Score::Known(f64::from(u8::from(time > bound))),
        None => Score::Missing,
    };
    let scalar =
        Scalar { score, functional: Functional::Mean, more_is_better: false, scale: 1.0, bounded: true };
    scalar::measure(setting, setting.start(spec("tail_latency"), Unit::Share), scalar)
}

fn percentile(setting: Setting<'_>) -> Option<u64> {
    let mut times: Vec<u64> = setting.pairs.trials().filter_map(|record| record.trial.duration_us).collect();
    times.sort_unstable();
    let rank = crate::cast::round((1.0 - TAIL) * crate::stats::variance::float(times.len())).max(1);
    times.get(usize::try_from(rank).ok()? - 1).copied()
}
