//! Probability of each decision after cases are added.
//!
//! How the added cases behave is uncertain, because the observed ones are few. So each repetition first draws a
//! population (Bayesian bootstrap, Rubin 1981: exponential weights of the observed cases), then the added cases from
//! it, and runs the deciding tests on all of them. The share of approvals is the assurance (`O'Hagan` and others 2005):
//! power averaged over the uncertainty of the effect, not power at a guessed effect.

use rayon::prelude::*;

use crate::decide::{MissingDataScenario, Tests, tables};
use crate::metrics::{CaseTable, Measured};
use crate::stats::betting::{Bets, Side};
use crate::stats::gaffke::{self, Sample};
use crate::stats::stream::{Stream, StreamKey};
use crate::stats::variance::{Components, float, mean, variance};
use crate::stats::{holm, normal};

/// An effect within this many standard errors of zero counts as zero in the first guess.
const SHRINK: f64 = 1.0;

/// Above this many times the observed cases, added cases are drawn as normal counts.
const MOST_DRAWN: usize = 4;

/// Probabilities of the decisions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Chances {
    pub(super) approve: f64,
    pub(super) block: f64,
}

/// A metric in the forecast that approval needs or that can block.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    /// Contrasts that a unit (a case or a cluster) can have: layers of `units` values each, NaN without one.
    pub(super) population: Vec<f64>,
    /// Number of units.
    pub(super) units: usize,
    /// Contrasts that stay as they are, in their seeded order.
    pub(super) held: Vec<f64>,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) margin: f64,
    pub(super) floor: u64,
    pub(super) required: bool,
    pub(super) decides: bool,
    /// Effect assumed in the first guess.
    pub(super) assumed: f64,
    /// Variance of a unit's contrast.
    pub(super) variance: f64,
    pub(super) components: Option<Components>,
    /// Mean number of trials per lane of the observed cases.
    pub(super) trials: f64,
    /// Units per added case.
    pub(super) share: f64,
    /// Share of added units that the candidate breaks: their contrast is -1.
    pub(super) broken: f64,
}

impl Planned {
    pub(super) fn new(metric: &Measured, tests: &Tests<'_>, trials: f64, have: u64) -> Self {
        let contrasts: Vec<f64> = metric.observed.iter().map(CaseTable::observed).collect();
        let (middle, spread) = (mean(&contrasts), variance(&contrasts));
        let error = (spread / float(contrasts.len().max(1))).sqrt();
        let arms: Option<Vec<(&[f64], &[f64])>> =
            metric.arms.as_ref().map(|arms| arms.iter().map(|(b, c)| (b.as_slice(), c.as_slice())).collect());
        // Approval needs the scenario in which missing trials count against the candidate.
        let (held, widest) = tests.scaled(tables(metric, MissingDataScenario::Worst));
        Self {
            units: held.len(),
            population: held.clone(),
            low: widest * metric.low,
            high: widest * metric.high,
            margin: metric.margin,
            floor: gaffke::floor(tests.alpha, metric.margin, widest * metric.low),
            required: metric.required,
            decides: metric.decides,
            assumed: if middle.abs() <= SHRINK * error { 0.0 } else { middle },
            variance: spread,
            components: arms.and_then(|arms| Components::estimate(&contrasts, &arms)),
            trials,
            share: (float(held.len()) / crate::cast::to_f64(have.max(1))).min(1.0),
            broken: 0.0,
            held,
        }
    }

    #[cfg(test)]
    pub(super) fn made_up(observed: Vec<f64>, margin: f64, parts: Components, trials: f64) -> Self {
        Self {
            population: observed.clone(),
            units: observed.len(),
            held: observed,
            low: -1.0,
            high: 1.0,
            margin,
            floor: gaffke::floor(0.05, margin, -1.0),
            required: true,
            decides: true,
            assumed: 0.0,
            variance: parts.at(trials),
            components: Some(parts),
            trials,
            share: 1.0,
            broken: 0.0,
        }
    }

    /// Variance of the contrast of an added case with this many trials per lane.
    pub(super) fn variance_at(&self, trials: f64) -> f64 {
        match self.components {
            Some(parts) => self.variance * (parts.at(trials) / parts.at(self.trials).max(1e-12)),
            None => self.variance,
        }
    }

    /// Units that are added with this many cases.
    fn added(&self, extra: u64) -> u64 {
        crate::cast::round(crate::cast::to_f64(extra) * self.share)
    }

    /// Units in all with this variance that reach the margin, by a normal approximation (DECISION 1.6).
    pub(super) fn guess(&self, z: f64, variance: f64) -> f64 {
        let room = (self.margin + self.assumed).max(0.2 * self.margin);
        (z * z * variance / (room * room)).max(crate::cast::to_f64(self.floor))
    }

    /// Standard deviation of an added contrast divided by that of an observed one.
    fn scale(&self, trials: Option<f64>) -> f64 {
        match trials {
            Some(trials) if self.variance > 0.0 => (self.variance_at(trials) / self.variance).sqrt(),
            Some(_) | None => 1.0,
        }
    }
}

/// Metrics and settings of their tests.
pub(super) struct Forecast<'a> {
    pub(super) planned: Vec<Planned>,
    pub(super) tests: &'a Tests<'a>,
    pub(super) key: StreamKey,
    /// Repetitions per number of cases.
    pub(super) repetitions: u32,
}

impl Forecast<'_> {
    /// Metrics that approval needs.
    pub(super) fn required(&self) -> impl Iterator<Item = &Planned> {
        self.planned.iter().filter(|metric| metric.required)
    }

    /// Probabilities of the decisions after this many cases are added with this many trials per lane. If `trials` is
    /// absent, added cases have as many trials as the observed ones.
    pub(super) fn predicted(&self, extra: u64, trials: Option<f64>) -> Chances {
        let pools: Vec<Pool<'_>> =
            self.planned.iter().map(|metric| Pool::new(metric, metric.scale(trials), extra)).collect();
        self.share_of(|stream| {
            let draws = Draws::new(stream, &pools, self.tests.strict);
            let tested: Vec<(bool, f64)> = pools.iter().map(|pool| pool.test(&draws, self.tests)).collect();
            self.decide(&tested)
        })
    }

    /// Probabilities of the decisions with any number of added cases: those that the population itself would get.
    pub(super) fn limit(&self) -> Chances {
        let pools: Vec<Pool<'_>> = self.planned.iter().map(|metric| Pool::new(metric, 1.0, 0)).collect();
        self.share_of(|stream| {
            let draws = Draws::new(stream, &pools, false);
            let tested: Vec<(bool, f64)> = self
                .planned
                .iter()
                .map(|metric| {
                    let effect = draws.effect(metric);
                    (effect > -metric.margin, if effect < 0.0 { 0.0 } else { 1.0 })
                })
                .collect();
            self.decide(&tested)
        })
    }

    fn share_of(&self, decide: impl Fn(&mut Stream) -> [bool; 2] + Sync) -> Chances {
        let once = |number: u32| decide(&mut self.key.stream(u64::from(number)));
        let all: Vec<[bool; 2]> = (0..self.repetitions).into_par_iter().map(once).collect();
        let share = |place: usize| {
            float(all.iter().filter(|decided| decided[place]).count()) / f64::from(self.repetitions)
        };
        Chances { approve: share(0), block: share(1) }
    }

    /// Whether the metrics approve and whether they block; of each whether it passes, and its p of the block test.
    fn decide(&self, tested: &[(bool, f64)]) -> [bool; 2] {
        let deciding: Vec<usize> = (0..tested.len()).filter(|place| self.planned[*place].decides).collect();
        let adjusted = holm::adjust(&deciding.iter().map(|place| tested[*place].1).collect::<Vec<_>>());
        let mut worse = deciding.into_iter().zip(adjusted).filter(|(_, p)| *p <= self.tests.alpha);
        let blocks = worse.any(|(place, _)| !tested[place].0);
        let mut required = self.planned.iter().zip(tested).filter(|(metric, _)| metric.required).peekable();
        let any = required.peek().is_some();
        [!blocks && any && required.all(|(_, (passes, _))| *passes), blocks]
    }
}

/// Distribution of the contrasts of added units.
struct Pool<'a> {
    metric: &'a Planned,
    /// Number of units drawn.
    added: usize,
    /// For each value of the population, the index into `values`; absent where there is none.
    moved: Vec<Option<usize>>,
    /// Possible contrasts, ascending, with the number of times each is held.
    values: Vec<(f64, f64)>,
    /// Index into `values` of the contrast of a broken unit.
    broken: usize,
}

impl<'a> Pool<'a> {
    /// `scale` is the standard deviation of an added contrast divided by that of an observed one.
    fn new(metric: &'a Planned, scale: f64, extra: u64) -> Self {
        let known: Vec<f64> = metric.population.iter().copied().filter(|value| !value.is_nan()).collect();
        let middle = mean(&known);
        let moved: Vec<f64> = metric
            .population
            .iter()
            .map(|drawn| (middle + scale * (drawn - middle)).clamp(metric.low, metric.high))
            .collect();
        let worst = metric.low.max(-1.0);
        let held = metric.held.iter().chain(&moved).chain(std::iter::once(&worst));
        let mut all: Vec<f64> = held.copied().filter(|value| !value.is_nan()).collect();
        all.sort_by(f64::total_cmp);
        all.dedup();
        let place = |value: f64| all.partition_point(|held| *held < value);
        let mut values: Vec<(f64, f64)> = all.iter().map(|value| (*value, 0.0)).collect();
        metric.held.iter().for_each(|value| values[place(*value)].1 += 1.0);
        let moved = moved.into_iter().map(|value| (!value.is_nan()).then(|| place(value))).collect();
        let added = usize::try_from(metric.added(extra)).unwrap_or(usize::MAX);
        Self { metric, added, moved, broken: place(worst), values }
    }

    /// Whether the metric passes with these draws added, and its p of the block test.
    ///
    /// The block test's permutation distribution is close to normal from the floor on, and enumerating it would cost
    /// more than all the rest.
    fn test(&self, draws: &Draws, tests: &Tests<'_>) -> (bool, f64) {
        let Planned { held, low, high, margin, .. } = self.metric;
        let mut groups = self.values.clone();
        let mut order = Vec::new();
        draws.each(self.metric, self.added, |place, is_broken, count| {
            if let Some(group) = self.moved[place].map(|group| if is_broken { self.broken } else { group }) {
                groups[group].1 += count;
                order.push(group);
            }
        });
        groups.retain(|(_, count)| *count > 0.0);
        let count: f64 = groups.iter().map(|(_, count)| count).sum();
        let effect = groups.iter().map(|(value, count)| value * count).sum::<f64>() / count.max(1.0);
        let squares: f64 = groups.iter().map(|(value, count)| count * (value - effect).powi(2)).sum();
        let error = (squares / (count - 1.0).max(1.0) / count.max(1.0)).sqrt();
        let p_block = if error > 0.0 { normal::cdf(effect / error) } else { f64::from(effect >= 0.0) };
        if count < crate::cast::to_f64(self.metric.floor) {
            return (false, p_block);
        }
        let passes = if tests.strict {
            // Bets follow the order of the cases.
            let mut contrasts = held.clone();
            contrasts.extend(order.into_iter().map(|group| self.values[group].0));
            Bets::new(&contrasts, *low, *high).p_value(-margin, Side::Above) <= tests.alpha
        } else {
            Sample::from_groups(groups, *low).passes(*margin, tests.alpha)
        };
        (passes, p_block)
    }
}

/// Draws of one repetition, shared by all metrics because they concern the same units.
struct Draws {
    /// Weights of the units in the drawn population, summed up.
    sums: Vec<f64>,
    /// Draws of single units; empty if counts are drawn instead.
    units: Vec<(u32, u32)>,
    /// Normal draws of the units' counts.
    noise: Vec<f64>,
}

impl Draws {
    fn new(stream: &mut Stream, pools: &[Pool<'_>], in_order: bool) -> Self {
        let units = pools.iter().map(|pool| pool.metric.units).max().unwrap_or(0);
        let added = pools.iter().map(|pool| pool.added).max().unwrap_or(0);
        let mut sum = 0.0;
        let sums = (0..units)
            .map(|_| {
                sum -= uniform(stream.next_u32()).ln();
                sum
            })
            .collect();
        let single = in_order || added <= MOST_DRAWN * units.max(100);
        let drawn = if single { added } else { 0 };
        let noise = if single { 0 } else { units };
        Self {
            sums,
            units: (0..drawn).map(|_| (stream.next_u32(), stream.next_u32())).collect(),
            noise: (0..noise).map(|_| normal::quantile(uniform(stream.next_u32()))).collect(),
        }
    }

    /// Calls `add` with the index into the population, whether the unit is broken, and the number of times it is drawn.
    fn each(&self, metric: &Planned, added: usize, mut add: impl FnMut(usize, bool, f64)) {
        let Some(total) = metric.units.checked_sub(1).map(|last| self.sums[last]) else { return };
        let layers = (metric.population.len() / metric.units).max(1);
        if self.noise.is_empty() {
            for (bits, layer) in self.units.iter().take(added) {
                let target = total * uniform(*bits);
                let unit =
                    self.sums[..metric.units].partition_point(|sum| *sum < target).min(metric.units - 1);
                let is_broken = uniform(*layer) < metric.broken;
                add(unit + metric.units * (layer.reverse_bits() as usize % layers), is_broken, 1.0);
            }
            return;
        }
        let mut before = 0.0;
        for unit in 0..metric.units {
            let expected = float(added) * (self.sums[unit] - before) / total;
            before = self.sums[unit];
            let count = (expected + expected.sqrt() * self.noise[unit]).max(0.0);
            (0..layers).for_each(|layer| add(unit + metric.units * layer, false, count / float(layers)));
        }
    }

    /// Mean contrast of the drawn population.
    fn effect(&self, metric: &Planned) -> f64 {
        let (mut before, mut sum, mut weights) = (0.0, 0.0, 0.0);
        for unit in 0..metric.units {
            let weight = self.sums[unit] - before;
            before = self.sums[unit];
            for value in metric.population.iter().skip(unit).step_by(metric.units.max(1)) {
                if !value.is_nan() {
                    sum += weight * value;
                    weights += weight;
                }
            }
        }
        if weights > 0.0 { sum / weights } else { 0.0 }
    }
}

/// Uniform draw strictly between 0 and 1.
fn uniform(bits: u32) -> f64 {
    (f64::from(bits) + 0.5) / 4_294_967_296.0
}

/// Metrics that approval needs or that can block, and that have a value.
pub(super) fn relevant(metrics: &[Measured]) -> impl Iterator<Item = &Measured> {
    metrics.iter().filter(|metric| (metric.required || metric.decides) && !metric.observed.is_empty())
}
