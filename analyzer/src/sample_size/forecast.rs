//! Probability of approval after cases are added: a bootstrap draws the added cases from the observed ones and runs
//! the deciding tests.

use rayon::prelude::*;

use crate::decide::{MissingDataScenario, Tests};
use crate::metrics::{CaseTable, Measured};
use crate::stats::betting::{Bets, Side};
use crate::stats::gaffke::{self, Sample};
use crate::stats::normal;
use crate::stats::stream::{Stream, StreamKey, scale_to};
use crate::stats::variance::{Components, float, mean, variance};

/// Resamples per number of cases.
pub(super) const RESAMPLES: u32 = 400;

/// An effect within this many standard errors of zero counts as zero.
const SHRINK: f64 = 1.0;

/// A required metric in the forecast.
pub(super) struct Planned {
    /// Observed contrasts, in their seeded order.
    observed: Vec<f64>,
    low: f64,
    high: f64,
    pub(super) margin: f64,
    pub(super) floor: u64,
    /// Effect assumed of added cases.
    pub(super) assumed: f64,
    /// Variance of a case's contrast.
    pub(super) variance: f64,
    pub(super) components: Option<Components>,
    /// Mean number of trials per lane of the observed cases.
    trials: f64,
    /// Share of the cases that have the metric: 1, or that of a slice.
    share: f64,
}

impl Planned {
    pub(super) fn new(metric: &Measured, tests: &Tests<'_>, trials: f64, have: u64) -> Self {
        let contrasts: Vec<f64> = metric.observed.iter().map(CaseTable::observed).collect();
        let (middle, spread) = (mean(&contrasts), variance(&contrasts));
        let error = (spread / float(contrasts.len().max(1))).sqrt();
        let arms: Option<Vec<(&[f64], &[f64])>> =
            metric.arms.as_ref().map(|arms| arms.iter().map(|(b, c)| (b.as_slice(), c.as_slice())).collect());
        let (observed, widest) = tests.scaled(&metric.observed);
        Self {
            observed,
            low: widest * metric.low,
            high: widest * metric.high,
            margin: metric.margin,
            floor: gaffke::floor(tests.alpha, metric.margin, widest * metric.low),
            assumed: if middle.abs() <= SHRINK * error { 0.0 } else { middle },
            variance: spread,
            components: arms.and_then(|arms| Components::estimate(&contrasts, &arms)),
            trials,
            share: (float(metric.observed.len()) / crate::cast::to_f64(have.max(1))).min(1.0),
        }
    }

    #[cfg(test)]
    pub(super) fn made_up(observed: Vec<f64>, margin: f64, parts: Components, trials: f64) -> Self {
        Self {
            observed,
            low: -1.0,
            high: 1.0,
            margin,
            floor: gaffke::floor(0.05, margin, -1.0),
            assumed: 0.0,
            variance: parts.at(trials),
            components: Some(parts),
            trials,
            share: 1.0,
        }
    }

    /// Margin plus assumed effect.
    pub(super) fn room(&self) -> f64 {
        self.margin + self.assumed
    }

    /// Variance of the contrast of an added case with this many trials per lane.
    pub(super) fn variance_at(&self, trials: f64) -> f64 {
        match self.components {
            Some(parts) => self.variance * (parts.at(trials) / parts.at(self.trials).max(1e-12)),
            None => self.variance,
        }
    }

    /// Cases that have the metric after this many are added.
    fn cases_with(&self, extra: u64) -> u64 {
        crate::cast::to_u64(self.observed.len()) + crate::cast::round(crate::cast::to_f64(extra) * self.share)
    }

    /// Cases in all with this variance that reach the margin, by a normal approximation (DECISION 1.6).
    pub(super) fn guess(&self, z: f64, variance: f64) -> f64 {
        let room = self.room();
        (z * z * variance / (room * room)).max(crate::cast::to_f64(self.floor))
    }

    /// Probability of approval with this many added cases, by a normal approximation.
    fn chance(&self, extra: f64, alpha: f64, trials: f64) -> f64 {
        let have = float(self.observed.len());
        let extra = extra * self.share;
        let spread = self.variance_at(trials).max(1e-12);
        let all = have + extra;
        let total = (have * self.variance + extra * spread) / all;
        let bar = all.sqrt() * total.sqrt() * -normal::quantile(alpha);
        let middle = self.observed.iter().sum::<f64>() + extra * self.assumed + all * self.margin;
        normal::cdf((middle - bar) / (extra.max(1e-9) * spread).sqrt())
    }
}

/// Required metrics and settings of their tests.
pub(super) struct Forecast<'a> {
    pub(super) planned: Vec<Planned>,
    pub(super) tests: &'a Tests<'a>,
    pub(super) key: StreamKey,
}

impl Forecast<'_> {
    /// Probability that every required metric passes after this many cases are added with this many trials per lane.
    /// If `trials` is absent, added cases have as many trials as the observed ones.
    pub(super) fn predicted(&self, extra: u64, trials: Option<f64>) -> f64 {
        if self.planned.iter().any(|metric| metric.cases_with(extra) < metric.floor) {
            return 0.0;
        }
        let pools: Vec<Pool<'_>> =
            self.planned.iter().map(|metric| Pool::new(metric, scale(metric, trials), extra)).collect();
        let passes = |number: &u32| {
            let mut stream = self.key.stream(u64::from(*number));
            let draws = Draws::new(&mut stream, extra);
            pools.iter().all(|pool| pool.passes(&draws, self.tests))
        };
        let passed = (0..RESAMPLES).into_par_iter().filter(passes).count();
        float(passed) / f64::from(RESAMPLES)
    }

    /// First guess at the cases to add, at most `most`: the normal approximation reaches `power` there.
    pub(super) fn first_guess(&self, power: f64, trials: Option<f64>, most: u64) -> u64 {
        let chance = |extra: u64| {
            let of = |metric: &Planned| {
                let trials = trials.unwrap_or(metric.trials);
                metric.chance(crate::cast::to_f64(extra), self.tests.alpha, trials)
            };
            self.planned.iter().map(of).product::<f64>()
        };
        let is_enough = |extra| self.planned.iter().all(|metric| metric.cases_with(extra) >= metric.floor);
        let (mut low, mut high) = (0, 1);
        while (chance(high) < power || !is_enough(high)) && high < most {
            (low, high) = (high, 2 * high);
        }
        while high - low > 1 + high / 50 {
            let middle = u64::midpoint(low, high);
            if chance(middle) < power || !is_enough(middle) { low = middle } else { high = middle }
        }
        high
    }
}

/// Distribution of the contrasts of added cases.
struct Pool<'a> {
    metric: &'a Planned,
    /// Number of contrasts drawn.
    added: usize,
    /// For each observed contrast, the indexes into `values` that a draw of it adds, as is and negated.
    moved: Vec<[usize; 2]>,
    /// Possible contrasts, ascending, with the number of times each was observed.
    values: Vec<(f64, f64)>,
}

impl<'a> Pool<'a> {
    /// `scale` is the standard deviation of an added contrast divided by that of an observed one.
    fn new(metric: &'a Planned, scale: f64, extra: u64) -> Self {
        let moved = |drawn: &f64| {
            let [plain, turned] = if metric.assumed.abs() > 0.0 {
                [metric.assumed + scale * (drawn - metric.assumed); 2]
            } else {
                // With identical builds a contrast is as likely as its negative.
                [scale * drawn, -scale * drawn]
            };
            [plain.clamp(metric.low, metric.high), turned.clamp(metric.low, metric.high)]
        };
        let moved: Vec<[f64; 2]> = metric.observed.iter().map(moved).collect();
        let mut all: Vec<f64> = metric.observed.iter().chain(moved.as_flattened()).copied().collect();
        all.sort_by(f64::total_cmp);
        all.dedup();
        let place = |value: f64| all.partition_point(|held| *held < value);
        let mut values: Vec<(f64, f64)> = all.iter().map(|value| (*value, 0.0)).collect();
        metric.observed.iter().for_each(|value| values[place(*value)].1 += 1.0);
        let moved = moved.into_iter().map(|both| both.map(place)).collect();
        let added = metric.cases_with(extra) - crate::cast::to_u64(metric.observed.len());
        Self { metric, added: usize::try_from(added).unwrap_or(usize::MAX), moved, values }
    }

    /// Whether the metric passes with these draws added to the observed contrasts.
    fn passes(&self, draws: &Draws, tests: &Tests<'_>) -> bool {
        let Planned { observed, low, high, margin, .. } = self.metric;
        let held = u32::try_from(observed.len()).unwrap_or(u32::MAX);
        let drawn = draws.0.iter().take(self.added);
        let places = drawn
            .map(|(bits, is_turned)| self.moved[scale_to(*bits, held) as usize][usize::from(*is_turned)]);
        if tests.strict {
            // Bets follow the order of the cases.
            let mut contrasts = observed.clone();
            contrasts.extend(places.map(|place| self.values[place].0));
            return Bets::new(&contrasts, *low, *high).p_value(-margin, Side::Above) <= tests.alpha;
        }
        let mut groups = self.values.clone();
        places.for_each(|place| groups[place].1 += 1.0);
        groups.retain(|(_, count)| *count > 0.0);
        Sample::from_groups(groups, *low).passes(*margin, tests.alpha)
    }
}

/// Standard deviation of an added contrast divided by that of an observed one.
fn scale(metric: &Planned, trials: Option<f64>) -> f64 {
    match trials {
        Some(trials) if metric.variance > 0.0 => (metric.variance_at(trials) / metric.variance).sqrt(),
        Some(_) | None => 1.0,
    }
}

/// Draws of one resample, shared by all metrics because they concern the same cases.
struct Draws(Vec<(u32, bool)>);

impl Draws {
    fn new(stream: &mut Stream, extra: u64) -> Self {
        Self((0..extra).map(|_| (stream.next_u32(), stream.next_u32().is_multiple_of(2))).collect())
    }
}

/// Required metrics of a measurement.
pub(super) fn required(metrics: &[Measured]) -> impl Iterator<Item = &Measured> {
    metrics.iter().filter(|metric| {
        metric.required && !crate::decide::tables(metric, MissingDataScenario::Observed).is_empty()
    })
}
