//! The price of an answer: how many cases it would take to approve a build that is as the candidate looks (DECISION 1.6).
//!
//! A normal approximation gives the first guess; resampling the observed contrasts through the real test corrects it.

use rayon::prelude::*;

use crate::metrics::{CaseTable, Measured};
use crate::stats::gaffke::{self, Sample};
use crate::stats::normal;
use crate::stats::stream::{StreamKey, scaled};
use crate::stats::variance::{Components, float, mean, variance};
use crate::verdict::{Need, NeedOption};

/// Probability of approval that is planned for.
const POWER: f64 = 0.80;

/// Resamples per number of cases tried.
const RESAMPLES: u32 = 400;

/// More cases than this are called not reachable.
const MOST_CASES: u64 = 50_000;

/// Trials of each case that are offered as other ways.
const OFFERED_TRIALS: [u32; 4] = [1, 2, 4, 8];

/// A required metric as the planner sees it.
struct Planned {
    /// Distinct contrasts, moved to the assumed effect, ascending.
    values: Vec<f64>,
    /// For each case, the place of its contrast in `values`.
    places: Vec<usize>,
    low: f64,
    margin: f64,
    floor: u64,
    /// What is tolerated plus what is assumed of the effect.
    room: f64,
    variance: f64,
    components: Option<Components>,
}

/// Plans for the required metrics; `trials` is the number of trials of each case in each lane.
pub(crate) fn plan(metrics: &[Measured], alpha: f64, trials: u64, have: u64, seed: u64) -> Need {
    let planned: Vec<Planned> =
        metrics.iter().filter(|metric| metric.required).map(|metric| Planned::new(metric, alpha)).collect();
    if planned.is_empty() {
        return Need { detail: "no required metric could be computed".to_owned(), ..Need::default() };
    }
    if planned.iter().any(|metric| metric.room <= 0.0) {
        let detail = "not reachable: the candidate looks worse than the margin allows, more cases will not change that";
        return Need { trials, detail: detail.to_owned(), ..Need::default() };
    }
    let z = normal::quantile(1.0 - alpha) + normal::quantile(1.0 - (1.0 - POWER) / float(planned.len()));
    let guess = planned.iter().map(|metric| metric.guess(z, metric.variance)).fold(1.0, f64::max);
    let floor = planned.iter().map(|metric| metric.floor).max().unwrap_or(1);
    let key = StreamKey::new(seed, "need");
    let chance = |cases: u64| predicted(&planned, cases, alpha, key);
    let Some((cases, predicted_approve)) = search(floor, crate::count::whole(guess), chance) else {
        let detail = format!("not reachable: over {MOST_CASES} cases of this kind would be needed");
        return Need { trials, detail, ..Need::default() };
    };
    let correction = crate::count::float(cases) / guess.max(1.0);
    let options = options(&planned, z, correction, floor);
    let detail = format!(
        "about {cases} cases with {trials} trial(s) each per lane (there are {have}) to approve with probability {predicted_approve:.2}, \
         if the candidate is as it looks now"
    );
    Need { cases, trials, predicted_approve, reachable: true, options, detail }
}

impl Planned {
    fn new(metric: &Measured, alpha: f64) -> Self {
        let contrasts: Vec<f64> = metric.observed.iter().map(CaseTable::observed).collect();
        let (middle, spread) = (mean(&contrasts), variance(&contrasts));
        let error = (spread / float(contrasts.len().max(1))).sqrt();
        // An effect within one standard error is taken for none.
        let assumed = if middle.abs() < error { 0.0 } else { middle };
        let moved: Vec<f64> =
            contrasts.iter().map(|value| (value - middle + assumed).clamp(metric.low, metric.high)).collect();
        let mut values = moved.clone();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let place = |value: &f64| values.partition_point(|held| held < value);
        let places = moved.iter().map(place).collect();
        let arms: Option<Vec<(&[f64], &[f64])>> =
            metric.arms.as_ref().map(|arms| arms.iter().map(|(b, c)| (b.as_slice(), c.as_slice())).collect());
        let components = arms.and_then(|arms| Components::estimate(&contrasts, &arms));
        Self {
            values,
            places,
            low: metric.low,
            margin: metric.margin,
            floor: gaffke::floor(alpha, metric.margin, metric.low),
            room: metric.margin + assumed,
            variance: spread,
            components,
        }
    }

    fn guess(&self, z: f64, variance: f64) -> f64 {
        (z * z * variance / (self.room * self.room)).max(crate::count::float(self.floor))
    }
}

/// Share of resamples of this many cases in which every required metric passes its real test.
fn predicted(planned: &[Planned], cases: u64, alpha: f64, key: StreamKey) -> f64 {
    let passes = |number: &u32| {
        let mut stream = key.stream(u64::from(*number));
        let mut counts: Vec<Vec<f64>> = planned.iter().map(|metric| vec![0.0; metric.values.len()]).collect();
        for _ in 0..cases {
            // One draw for all metrics: they are of the same case.
            let drawn = stream.bits();
            for (metric, counts) in planned.iter().zip(&mut counts) {
                let cases = u32::try_from(metric.places.len()).unwrap_or(u32::MAX);
                let place = scaled(drawn, cases) as usize;
                counts[metric.places[place]] += 1.0;
            }
        }
        planned.iter().zip(counts).all(|(metric, counts)| {
            let groups =
                metric.values.iter().copied().zip(counts).filter(|(_, count)| *count > 0.0).collect();
            Sample::from_groups(groups, metric.low).p_value(metric.margin) <= alpha
        })
    };
    let passed = (0..RESAMPLES).into_par_iter().filter(passes).count();
    float(passed) / f64::from(RESAMPLES)
}

/// The fewest cases with the planned power, near a first guess.
fn search(floor: u64, guess: u64, chance: impl Fn(u64) -> f64) -> Option<(u64, f64)> {
    let mut high = guess.max(floor).max(2);
    let mut reached = chance(high);
    let mut low = floor.saturating_sub(1);
    while reached < POWER {
        low = high;
        high = high + high / 4 + 1;
        if high > MOST_CASES {
            return None;
        }
        reached = chance(high);
    }
    // A hundredth is finer than the variance is known.
    while high - low > 1 + high / 100 {
        let middle = low + (high - low) / 2;
        let found = chance(middle);
        if found >= POWER {
            (high, reached) = (middle, found);
        } else {
            low = middle;
        }
    }
    Some((high, reached))
}

/// Cases for other numbers of trials, where the runs say how much of the variance trials remove.
fn options(planned: &[Planned], z: f64, correction: f64, floor: u64) -> Vec<NeedOption> {
    if planned.iter().all(|metric| metric.components.is_none()) {
        return Vec::new();
    }
    let of = |trials: u32| {
        let guess = planned.iter().map(|metric| {
            metric.guess(z, metric.components.map_or(metric.variance, |parts| parts.at(f64::from(trials))))
        });
        let cases = crate::count::whole(guess.fold(1.0, f64::max) * correction).max(floor);
        let trials = u64::from(trials);
        NeedOption { trials, cases, trials_total: 2 * cases * trials }
    };
    OFFERED_TRIALS.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_finds_the_least_number() {
        let chance = |cases: u64| if cases >= 500 { 0.9 } else { 0.1 };
        let (cases, reached) = search(59, 700, chance).expect("reachable");
        assert!((500..=506).contains(&cases), "{cases}");
        assert!(reached > 0.8);
        assert!((500..=506).contains(&search(59, 100, chance).expect("reachable").0));
        assert_eq!(search(59, 100, |_| 0.0), None);
    }

    #[test]
    fn the_guess_is_the_formula_of_the_design() {
        // alpha .05, power .80, margin .05, between .005, within .045 in both arms: K = 1 needs 235, K = 4 69.
        let parts = Components { between: 0.005, within: 0.09 };
        let z = normal::quantile(0.95) + normal::quantile(0.80);
        let metric = |trials: f64| Planned {
            values: vec![0.0],
            places: vec![0],
            low: -1.0,
            margin: 0.05,
            floor: 59,
            room: 0.05,
            variance: parts.at(trials),
            components: Some(parts),
        };
        assert_eq!(crate::count::whole(metric(1.0).guess(z, parts.at(1.0)).ceil()), 235);
        assert_eq!(crate::count::whole(metric(4.0).guess(z, parts.at(4.0)).ceil()), 69);
    }
}
