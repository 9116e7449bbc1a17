//! The metrics: each a bounded contrast per case, candidate minus baseline, larger is better.
//!
//! Here is what they share: how trial values become the table of a case's contrast under every relabelling. What the
//! values are is in the files of the families. Nothing here tests or decides.

use crate::pairs::Pairs;
use crate::policy::{METRICS, Margin, MetricSpec, Policy};
use crate::verdict::{AbsentMetric, Unit};

mod cost;
mod effects;
mod outcome;
mod scalar;
mod semantic;
mod sequence;
mod table;
mod varied;

pub(crate) use outcome::succeeded;
pub(crate) use semantic::one_model;
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
}

impl Measurement {
    fn take(&mut self, name: &str, measured: Result<Measured, String>) {
        match measured {
            Ok(measured) => self.metrics.push(measured),
            Err(why) => self.absent.push(AbsentMetric { name: name.to_owned(), why }),
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
            Margin::Ratio(ratio) => ratio.ln() / cost::RANGE_LN,
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
        }
    }
}

/// The specification of a metric of [`METRICS`].
fn spec(name: &str) -> &'static MetricSpec {
    METRICS.iter().find(|spec| spec.name == name).expect("only names of METRICS are asked for")
}

/// Measures everything that these runs allow, in the order of [`METRICS`], demoted invariants last.
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
    measurement
}
