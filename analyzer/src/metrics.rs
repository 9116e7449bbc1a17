//! The metrics: each a bounded contrast per case, candidate minus baseline, larger is better.
//!
//! Here is what they share: how trial values become the table of a case's contrast under every relabelling. What the
//! values are is in the files of the families. Nothing here tests or decides.

use crate::outcome::OutcomeResult;
use crate::pairs::Pairs;
use crate::policy::{METRICS, Margin, MetricSpec, Policy, RATIO_RANGE_LN};
use crate::run::TrialRecord;
use crate::stats::variance::mean;
use crate::verdict::{AbsentMetric, Unit};

mod cost;
mod dispersion;
mod effects;
mod outcome;
mod scalar;
mod semantic;
mod sequence;
mod sliced;
mod table;

pub(crate) use outcome::succeeded;
pub(crate) use semantic::one_model;
pub(crate) use sliced::SliceOf;
pub(crate) use table::CaseTable;

/// A metric on these runs, ready to be tested.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) family: &'static str,
    pub(crate) unit: Unit,
    pub(crate) decides: bool,
    pub(crate) required: bool,
    /// Tolerated worsening on the scale of the contrasts.
    pub(crate) margin: f64,
    /// Range of the contrasts.
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// The cases with a value in both lanes, by case.
    pub(crate) observed: Vec<CaseTable>,
    /// The same with every missing trial counted against the candidate, then for it; where trials are missing.
    pub(crate) bounds: Option<Bounds>,
    /// Missing trials that no bound stands in for, as the metric's values have none: they are left out.
    pub(crate) left_out: usize,
    /// Trial values of both lanes per case of `observed`, where the contrast is a difference of their means.
    pub(crate) arms: Option<Vec<(Vec<f64>, Vec<f64>)>>,
    /// Cases whose contrast was cut to the range.
    pub(crate) clipped: usize,
    /// The fewest trials in a lane that a case needs.
    pub(crate) least: usize,
    /// The slice that it is restricted to, where it is.
    pub(crate) slice: Option<SliceOf>,
}

/// The fewest cases with which a slice says anything.
pub(crate) const SLICE_CASES: usize = 30;

impl Measured {
    /// Whether this many cases are enough to say anything: a slice needs some.
    pub(crate) fn has_enough_cases(&self, cases: usize) -> bool {
        self.slice.is_none() || cases >= SLICE_CASES
    }
}

/// The contrasts under the two extreme readings of missing trials.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) worst: Vec<CaseTable>,
    pub(crate) best: Vec<CaseTable>,
}

/// All metrics that could be computed, and why the others could not.
#[derive(Debug, Default)]
pub(crate) struct Measurement {
    pub(crate) metrics: Vec<Measured>,
    pub(crate) absent: Vec<AbsentMetric>,
    pub(crate) notes: Vec<String>,
    /// Where `success` comes from.
    pub(crate) outcome: OutcomeResult,
}

impl Measurement {
    fn take(&mut self, name: &str, measured: Result<Measured, String>) {
        match measured {
            Ok(measured) => self.metrics.push(measured),
            Err(why) => self.absent.push(AbsentMetric { name: name.to_owned(), reason: why }),
        }
    }
}

/// What every family needs to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) pairs: &'a Pairs<'a>,
    pub(crate) seed: u64,
}

impl Setting<'_> {
    /// A metric with the policy's word on it, and nothing measured.
    fn start(&self, spec: &MetricSpec, unit: Unit) -> Measured {
        let margin = self.policy.settings(spec.name).margin.unwrap_or(spec.margin);
        let margin = match margin {
            Margin::Difference(share) | Margin::OfDispersion(share) => share,
            Margin::Ratio(ratio) => ratio.ln() / RATIO_RANGE_LN,
        };
        Measured {
            name: spec.name.to_owned(),
            family: spec.family,
            unit,
            decides: self.policy.decides(spec.name, spec.decides),
            required: self.policy.requires(spec.name, spec.required),
            margin,
            low: -1.0,
            high: 1.0,
            observed: Vec::new(),
            bounds: None,
            left_out: 0,
            arms: None,
            clipped: 0,
            least: 1,
            slice: None,
        }
    }
}

/// What a trial is described by where its distance from other trials is all that counts.
pub(crate) struct Description {
    pub(crate) name: &'static str,
    /// The distances between trials, row by row; nothing where the trials are not so described.
    pub(crate) distances: fn(&[&TrialRecord]) -> Option<Vec<f64>>,
}

/// Everything that trials are described by.
pub(crate) fn descriptions() -> [Description; 3] {
    [
        Description { name: "success", distances: outcome::distances },
        Description { name: "writes", distances: effects::distances },
        Description { name: "calls", distances: sequence::distances },
    ]
}

/// Distances between trials, row by row; nothing where one of them cannot be described.
fn distances<T>(
    trials: &[&TrialRecord],
    describe: impl Fn(&TrialRecord) -> Option<T>,
    distance: impl Fn(&T, &T) -> f64,
) -> Option<Vec<f64>> {
    let described: Vec<T> = trials.iter().map(|record| describe(record)).collect::<Option<_>>()?;
    Some(described.iter().flat_map(|a| described.iter().map(|b| distance(a, b))).collect::<Vec<f64>>())
}

/// Means of the lanes' values over the cases; of ratios geometric ones.
pub(crate) fn means(metric: &Measured) -> [f64; 2] {
    let over = |value: fn(&CaseTable) -> f64| {
        let values: Vec<f64> = metric.observed.iter().map(value).collect();
        if metric.unit.is_ratio() {
            mean(&values.iter().map(|value| value.ln()).collect::<Vec<_>>()).exp()
        } else {
            mean(&values)
        }
    };
    [over(|case| case.baseline), over(|case| case.candidate)]
}

/// The specification of a metric of [`METRICS`].
fn spec(name: &str) -> &'static MetricSpec {
    METRICS.iter().find(|spec| spec.name == name).expect("only names of METRICS are asked for")
}

/// Measures everything that these runs allow, in the order of [`METRICS`], then demoted invariants, then named slices.
pub(crate) fn measure(setting: Setting<'_>, demoted: &[&'static str]) -> Measurement {
    let mut measurement = Measurement::default();
    outcome::measure(setting, &mut measurement);
    effects::measure(setting, &mut measurement);
    measurement.take("unscorable", outcome::unscorable(setting));
    semantic::measure(setting, &mut measurement);
    sequence::measure(setting, &mut measurement);
    cost::measure(setting, &mut measurement);
    for name in demoted {
        measurement.take(&format!("invariant.{name}"), effects::demoted(setting, name));
    }
    let sliced = sliced::measure(setting, &measurement.metrics);
    measurement.metrics.extend(sliced);
    measurement
}
