//! Effort of the agent: time, tokens, money. Logarithms make a ratio mean the same in short and long cases.

use schemas::trial::Trial;

use crate::metrics::functional::Functional;
use crate::metrics::measured::spec;
use crate::metrics::scalar::{self, Scalar, Score};
use crate::metrics::{Measured, Measurement, Setting};
use crate::pairs::PairedCase;
use crate::policy::RATIO_RANGE_LN;
use crate::run::TrialRecord;
use crate::verdict::Unit;

/// Smallest arguments of the logarithms: a tenth of a millisecond, a token, a millionth of a cent.
const LEAST: [f64; 3] = [1e-4, 1.0, 1e-8];

/// Share of trials above the bound of `tail_latency` if the policy sets no bound, and of trials that count as the dearest.
const TAIL: f64 = 0.05;

/// Measures the family.
pub(crate) fn measure(setting: Setting<'_>, measurement: &mut Measurement) {
    measurement.take("latency", ratio(setting, "latency", Unit::Seconds, seconds, LEAST[0]));
    measurement.take("tail_latency", tail(setting));
    measurement.take("tokens", ratio(setting, "tokens", Unit::Tokens, tokens, LEAST[1]));
    measurement.take("cost", ratio(setting, "cost", Unit::Usd, |trial| trial.cost_usd, LEAST[2]));
    let mean = mean_cost(setting);
    measurement.notes.extend(mean.as_ref().ok().and_then(tail_note));
    measurement.take("cost_mean", mean);
}

/// Arithmetic mean of the cost, each trial up to the cap. A geometric mean hardly moves where few sessions cost many
/// times as much; what is paid is the arithmetic mean. Without a declared cap, the dearest trial of both lanes is the
/// cap, which any relabelling leaves as it is. Contrasts are shares of the baseline's mean: one scale for all cases.
fn mean_cost(setting: Setting<'_>) -> Result<Measured, String> {
    let mut lanes = [Vec::new(), Vec::new()];
    for case in setting.pairs.paired() {
        for (costs, arm) in lanes.iter_mut().zip([&case.baseline, &case.candidate]) {
            costs.extend(arm.trials.iter().filter_map(|record| usd(&record.trial)));
        }
    }
    lanes.iter_mut().for_each(|costs| costs.sort_by(f64::total_cmp));
    let dearest = lanes.iter().filter_map(|costs| costs.last()).copied().fold(0.0, f64::max);
    let cap = setting.policy.settings("cost_mean").cap_usd.unwrap_or(dearest);
    let capped: Vec<f64> = lanes[0].iter().map(|cost| cost.min(cap)).collect();
    let scale = crate::stats::variance::mean(&capped);
    if scale <= 0.0 {
        return Err("no baseline trial has a cost above zero".to_owned());
    }
    let score = |_: &PairedCase<'_>, record: &TrialRecord| match usd(&record.trial) {
        Some(cost) => Score::Known(cost.min(cap)),
        None => Score::Missing,
    };
    let scalar = Scalar {
        score,
        functional: Functional::Mean,
        more_is_better: false,
        scale,
        most: cap,
        bounded: true,
    };
    let mut start = setting.start(spec("cost_mean"), Unit::UsdMean);
    (start.low, start.high) = (-cap / scale, cap / scale);
    let measured = scalar::measure(setting, start, scalar)?;
    Ok(Measured { tail: Some([tail_share(&lanes[0]), tail_share(&lanes[1])]), ..measured })
}

fn usd(trial: &Trial) -> Option<f64> {
    trial.cost_usd.filter(|cost| cost.is_finite()).map(|cost| cost.max(0.0))
}

/// Share of the cost in the dearest trials, [`TAIL`] of all; `costs` are ascending.
fn tail_share(costs: &[f64]) -> f64 {
    let total: f64 = costs.iter().sum();
    let rank = crate::cast::round((TAIL * crate::stats::variance::float(costs.len())).ceil());
    let dearest: f64 = costs.iter().rev().take(usize::try_from(rank).unwrap_or(0)).sum();
    if total > 0.0 { dearest / total } else { 0.0 }
}

fn tail_note(measured: &Measured) -> Option<String> {
    let [baseline, candidate] = measured.tail?;
    Some(format!(
        "the dearest {:.0} % of trials carry {:.0} % of the candidate's cost and {:.0} % of the baseline's",
        100.0 * TAIL,
        100.0 * candidate,
        100.0 * baseline
    ))
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
        most: RATIO_RANGE_LN,
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
    let scalar = Scalar {
        score,
        functional: Functional::Mean,
        more_is_better: false,
        scale: 1.0,
        most: 1.0,
        bounded: true,
    };
    scalar::measure(setting, setting.start(spec("tail_latency"), Unit::Share), scalar)
}

fn percentile(setting: Setting<'_>) -> Option<u64> {
    let mut times: Vec<u64> = setting.pairs.trials().filter_map(|record| record.trial.duration_us).collect();
    times.sort_unstable();
    let rank = crate::cast::round((1.0 - TAIL) * crate::stats::variance::float(times.len())).max(1);
    times.get(usize::try_from(rank).ok()? - 1).copied()
}

#[cfg(test)]
mod tests {
    use schemas::trial::Lane;

    use super::tail_share;
    use crate::fixture::labelled;
    use crate::policy::Policy;
    use crate::run::Run;
    use crate::stats::stream::StreamKey;
    use crate::verdict::{Decision, MetricState, Verdict};

    /// Two hundred cases whose trials cost about 1 dollar; every `dear`th case costs 20 times as much in the candidate.
    fn runs(dear: Option<usize>) -> (Run, Run) {
        let outcomes = vec![vec![true; 4]; 200];
        let mut runs = [labelled(Lane::Baseline, &outcomes), labelled(Lane::Candidate, &outcomes)];
        for (lane, run) in runs.iter_mut().enumerate() {
            let mut stream = StreamKey::new(9, "costs").stream(lane as u64);
            for (number, record) in run.trials.iter_mut().enumerate() {
                let is_dear = lane == 1 && dear.is_some_and(|every| (number / 4) % every == 0);
                let cost = 0.8 + 0.004 * f64::from(stream.below(100));
                record.trial.cost_usd = Some(if is_dear { 20.0 * cost } else { cost });
            }
        }
        let [baseline, candidate] = runs;
        (baseline, candidate)
    }

    fn decide(policy: &str, runs: &(Run, Run)) -> Verdict {
        let policy = Policy::parse(policy).expect("a policy");
        crate::analyze_once(&policy, &runs.0, &runs.1, None, 1).expect("two runs").verdict
    }

    #[test]
    fn a_few_dear_sessions_are_not_approved_where_the_cost_is_required() {
        let runs = runs(Some(50));
        let verdict = decide("[metric.cost]\nrequired = true", &runs);
        let of = |name: &str| verdict.metrics.iter().find(|metric| metric.name == name).expect("measured");
        let tolerable = [MetricState::NonInferior, MetricState::DeterioratedWithinMargin];
        assert!(tolerable.contains(&of("cost").state), "the geometric mean hardly moves: {:?}", of("cost"));
        let mean = of("cost_mean");
        assert!(mean.required && mean.candidate / mean.baseline > 1.3, "{mean:?}");
        assert!(mean.tail.is_some_and(|[before, after]| before < 0.1 && after > 0.25), "{:?}", mean.tail);
        assert_ne!(verdict.verdict, Decision::Approve);
        assert!(verdict.notes.iter().any(|note| note.starts_with("the dearest 5 % of trials")));
        // Whoever declares that a session above 2 dollars counts as 2 accepts what lies above, up to the margin.
        let capped = "[metric.cost]\nrequired = true\n[metric.cost_mean]\ncap-usd = 2.0";
        let verdict = decide(capped, &runs);
        assert_eq!(verdict.verdict, Decision::Approve, "{:?}", verdict.reasons);
    }

    #[test]
    fn equal_costs_are_approved() {
        let verdict = decide("[metric.cost]\nrequired = true", &runs(None));
        assert_eq!(verdict.verdict, Decision::Approve, "{:?}", verdict.reasons);
        let error = Policy::parse("[metric.cost]\ncap-usd = 3.0").expect_err("of the arithmetic mean only");
        assert!(error.to_string().contains("cap-usd"), "{error}");
    }

    #[test]
    fn the_tail_is_a_twentieth_of_the_trials() {
        let mut costs = vec![1.0; 95];
        costs.extend([20.0; 5]);
        assert!((tail_share(&costs) - 100.0 / 195.0).abs() < 1e-12);
        assert!(tail_share(&[]).abs() < 1e-12);
    }
}
