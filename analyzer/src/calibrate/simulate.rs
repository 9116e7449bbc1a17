//! Decisions of the planned size between identical builds, simulated: as many trials per lane as the run has.
//!
//! A split has half of the trials in each arm, so its contrasts vary too much and `pass_k` may not exist in it. Outcomes
//! are drawn anew instead: each case has a probability of success from its own trials and from the spread of all cases
//! (beta distribution, fitted by moments). The contrasts of other metrics are those of the splits, scaled to the
//! planned number of trials.

use crate::analysis::DecisionSummary;
use crate::metrics::{Setting, succeeded};
use crate::pairs::Pairs;
use crate::policy::{METRICS, Margin, Policy};
use crate::sample_size::NullMetric;
use crate::stats::normal;
use crate::stats::stream::{Stream, StreamKey};
use crate::stats::variance::{float, mean, variance};

/// Possible contrasts of each case.
const LAYERS: usize = 16;

/// Metrics that decide or that approval needs, with the contrasts that identical builds would have. `factor` is the
/// standard deviation of a contrast of the planned size divided by that of a split.
pub(super) fn metrics(
    policy: &Policy,
    first: &Pairs<'_>,
    decided: &[DecisionSummary],
    factor: f64,
    seed: u64,
) -> Vec<NullMetric> {
    let mut found = outcomes(policy, first, seed);
    let cases = first.cases.len();
    let names: Vec<&str> = decided
        .iter()
        .max_by_key(|split| split.metrics.len())
        .into_iter()
        .flat_map(|split| &split.metrics)
        .filter(|metric| metric.decides || metric.required)
        .map(|metric| metric.name.as_str())
        .collect();
    for name in names {
        if found.iter().any(|one| one.name == name) {
            continue;
        }
        let mut population = Vec::new();
        let mut settings = None;
        for split in decided.iter().take(LAYERS) {
            let Some(metric) = split.metrics.iter().find(|metric| metric.name == name) else { continue };
            let mut layer = vec![f64::NAN; cases];
            for (place, contrast) in &metric.contrasts {
                if let Some(value) = layer.get_mut(*place) {
                    *value = factor * contrast;
                }
            }
            // Either arm could have been the candidate.
            population.extend(layer.iter().map(|contrast| -contrast));
            population.extend(layer);
            settings = Some((metric.low, metric.margin, metric.decides, metric.required));
        }
        if let Some((low, margin, decides, required)) = settings {
            found.push(NullMetric {
                name: name.to_owned(),
                population,
                cases,
                low,
                margin,
                decides,
                required,
            });
        }
    }
    found
}

/// Success and all-of-k success, from outcomes that are drawn anew.
fn outcomes(policy: &Policy, first: &Pairs<'_>, seed: u64) -> Vec<NullMetric> {
    let score = succeeded(Setting { policy, pairs: first, seed });
    let counts: Vec<(usize, usize)> = first
        .cases
        .iter()
        .map(|case| {
            let trials = case.baseline.trials.iter().chain(&case.candidate.trials);
            let known: Vec<bool> = trials.filter_map(|record| score(case, record)).collect();
            (known.iter().filter(|success| **success).count(), known.len())
        })
        .collect();
    if counts.iter().all(|(_, trials)| *trials == 0) {
        return Vec::new();
    }
    let [good, bad] = fitted(&counts);
    let mut stream = StreamKey::new(seed, "calibrated outcomes").stream(0);
    let k = policy.settings("pass_k").k.unwrap_or(crate::policy::DEFAULT_K);
    let (mut success, mut pass_k) = (Vec::new(), Vec::new());
    for _ in 0..LAYERS {
        for (successes, trials) in &counts {
            let chance = beta(good + float(*successes), bad + float(trials - successes), &mut stream);
            let mut lane = || (0..*trials).filter(|_| uniform(&mut stream) < chance).count();
            let (before, after) = (lane(), lane());
            let of = |count: usize| float(count) / float((*trials).max(1));
            success.push(if *trials > 0 { of(after) - of(before) } else { f64::NAN });
            let all = |count: usize| -> f64 {
                (0..k)
                    .map(|step| (float(count) - float(step)).max(0.0) / (float(*trials) - float(step)))
                    .product()
            };
            pass_k.push(if *trials >= k { all(after) - all(before) } else { f64::NAN });
        }
    }
    let metric = |name: &str, population: Vec<f64>| {
        let spec = METRICS.iter().find(|spec| spec.name == name)?;
        let (decides, required) = policy.roles(spec);
        let margin = match policy.settings(name).margin.unwrap_or(spec.margin) {
            Margin::Difference(share) | Margin::OfDispersion(share) | Margin::Ratio(share) => share,
        };
        let is_known = population.iter().any(|contrast| !contrast.is_nan());
        (is_known && (decides || required)).then(|| NullMetric {
            name: name.to_owned(),
            population,
            cases: counts.len(),
            low: -1.0,
            margin,
            decides,
            required,
        })
    };
    [metric("success", success), metric("pass_k", pass_k)].into_iter().flatten().collect()
}

/// Parameters of the beta distribution of the cases' probabilities of success, by moments.
fn fitted(counts: &[(usize, usize)]) -> [f64; 2] {
    let repeated: Vec<(f64, f64)> = counts
        .iter()
        .filter(|(_, trials)| *trials >= 2)
        .map(|(successes, trials)| (float(*successes) / float(*trials), float(*trials)))
        .collect();
    let shares: Vec<f64> = repeated.iter().map(|(share, _)| *share).collect();
    let middle = mean(&shares).clamp(0.001, 0.999);
    // The unbiased variance of a case's share, p (1 - p) / (T - 1).
    let noise = mean(
        &repeated.iter().map(|(share, trials)| share * (1.0 - share) / (trials - 1.0)).collect::<Vec<_>>(),
    );
    let between = (variance(&shares) - noise).max(0.0);
    let correlation = (between / (middle * (1.0 - middle))).clamp(1e-3, 0.95);
    let concentration = 1.0 / correlation - 1.0;
    [middle * concentration, (1.0 - middle) * concentration]
}

fn uniform(stream: &mut Stream) -> f64 {
    (f64::from(stream.next_u32()) + 0.5) / 4_294_967_296.0
}

fn beta(a: f64, b: f64, stream: &mut Stream) -> f64 {
    let (x, y) = (gamma(a, stream), gamma(b, stream));
    if x + y > 0.0 { x / (x + y) } else { 0.5 }
}

/// Gamma draw of Marsaglia and Tsang (2000).
fn gamma(shape: f64, stream: &mut Stream) -> f64 {
    if shape < 1.0 {
        return gamma(shape + 1.0, stream) * uniform(stream).powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal::quantile(uniform(stream));
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && uniform(stream).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}
