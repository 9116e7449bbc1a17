//! Power of decisions between identical builds, and of decisions on a changed one, by the same forecast as for a verdict.

use super::forecast::{Forecast, Planned};
use super::search::{MOST_CASES, POWER, search};
use crate::decide::Tests;
use crate::stats::gaffke;
use crate::stats::normal;
use crate::stats::stream::StreamKey;
use crate::stats::variance::{float, variance};

/// Repetitions per size or change; each metric needs some fifty of them.
const REPETITIONS: u32 = 200;

/// Steps of the bisections.
const STEPS: usize = 9;

/// A metric with the contrasts that identical builds can have.
#[derive(Debug, Clone)]
pub(crate) struct NullMetric {
    pub(crate) name: String,
    /// Layers of one contrast per case, NaN without one.
    pub(crate) population: Vec<f64>,
    /// Number of cases.
    pub(crate) cases: usize,
    pub(crate) low: f64,
    pub(crate) margin: f64,
    pub(crate) decides: bool,
    pub(crate) required: bool,
}

impl NullMetric {
    fn planned(&self, alpha: f64) -> Planned {
        let known: Vec<f64> = self.population.iter().copied().filter(|value| !value.is_nan()).collect();
        Planned {
            population: self.population.clone(),
            units: self.cases,
            held: Vec::new(),
            low: self.low,
            high: -self.low,
            margin: self.margin,
            floor: gaffke::floor(alpha, self.margin, self.low),
            required: self.required,
            decides: self.decides,
            assumed: 0.0,
            variance: variance(&known),
            components: None,
            trials: 1.0,
            share: 1.0,
            broken: 0.0,
        }
    }
}

/// Sizes and changes that a decision on these sessions can show.
pub(crate) struct Power<'a> {
    pub(crate) metrics: &'a [NullMetric],
    pub(crate) tests: Tests<'a>,
}

impl Power<'_> {
    fn forecast<'t>(&self, planned: Vec<Planned>, tests: &'t Tests<'t>) -> Forecast<'t> {
        let key = StreamKey::new(self.tests.seed, "calibrate");
        Forecast { planned, tests, key, repetitions: REPETITIONS }
    }

    /// Number of cases with which identical builds are approved with the planned power, over all metrics together.
    pub(crate) fn cases(&self) -> Option<(u64, f64)> {
        let planned: Vec<Planned> = self.metrics.iter().map(|one| one.planned(self.tests.alpha)).collect();
        self.cases_of(planned, POWER)
    }

    /// Number of cases with which this metric alone passes so often that all required ones together have the planned
    /// power.
    pub(crate) fn cases_for(&self, metric: &NullMetric) -> Option<u64> {
        let planned = Planned { required: true, ..metric.planned(self.tests.alpha) };
        self.cases_of(vec![planned], self.own_power(metric)).map(|(cases, _)| cases)
    }

    /// Power of each required metric with which all of them have the planned power.
    fn own_power(&self, metric: &NullMetric) -> f64 {
        let required = self.metrics.iter().filter(|one| one.required || one.name == metric.name).count();
        POWER.powf(1.0 / float(required.max(1)))
    }

    fn cases_of(&self, planned: Vec<Planned>, power: f64) -> Option<(u64, f64)> {
        let z = normal::quantile(1.0 - self.tests.alpha) + normal::quantile(power);
        let guess = |metric: &Planned| metric.guess(z, metric.variance);
        let required = planned.iter().filter(|metric| metric.required);
        let first = crate::cast::round(required.map(guess).fold(f64::NAN, f64::max));
        let forecast = self.forecast(planned, &self.tests);
        (first > 0)
            .then(|| search(first.min(MOST_CASES), power, |cases| forecast.predicted(cases, None).approve))?
    }

    /// Smallest margin at which this metric passes with its share of the planned power, with this many cases.
    pub(crate) fn margin(&self, metric: &NullMetric, cases: u64) -> f64 {
        let power = self.own_power(metric);
        let passes = |margin: f64| {
            let changed = NullMetric { margin, ..metric.clone() };
            let planned = Planned { required: true, decides: false, ..changed.planned(self.tests.alpha) };
            self.forecast(vec![planned], &self.tests).predicted(cases, None).approve >= power
        };
        bisect(-metric.low, passes)
    }

    /// Smallest worsening that blocks with the planned power, with this many cases, whether it is spread over all cases
    /// or breaks some of them.
    pub(crate) fn detectable(&self, metric: &NullMetric, cases: u64) -> f64 {
        let deciding = self.metrics.iter().filter(|one| one.decides || one.name == metric.name).count();
        let tests = Tests { alpha: self.tests.alpha / float(deciding.max(1)), ..self.tests };
        let of = |change: &dyn Fn(f64) -> Planned| {
            let blocks = |worsening: f64| {
                let planned = Planned { required: false, decides: true, ..change(worsening) };
                self.forecast(vec![planned], &tests).predicted(cases, None).block >= POWER
            };
            bisect((-metric.low).min(1.0), blocks)
        };
        let spread = of(&|worsening| {
            let population = metric.population.iter().map(|contrast| (contrast - worsening).max(metric.low));
            NullMetric { population: population.collect(), ..metric.clone() }.planned(tests.alpha)
        });
        let broken = of(&|worsening| Planned { broken: worsening, ..metric.planned(tests.alpha) });
        spread.max(broken)
    }
}

/// Smallest value up to `most` for which the condition holds.
fn bisect(most: f64, holds: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, most);
    for _ in 0..STEPS {
        let middle = 0.5 * (low + high);
        // Values of interest are far below the largest one.
        let middle = if low <= 0.0 { 0.25 * middle } else { middle };
        if holds(middle) { high = middle } else { low = middle }
    }
    high
}
