//! A measured metric, and the context in which every family measures.

use crate::metrics::judged::Correction;
use crate::metrics::table::CaseTable;
use crate::outcome::OutcomeResult;
use crate::pairs::Pairs;
use crate::policy::{METRICS, Margin, MetricSpec, Policy, RATIO_RANGE_LN};
use crate::run::TrialRecord;
use crate::verdict::{AbsentMetric, NoOutcome, Unit};

/// Slice and metric of a restricted metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SliceOf {
    /// Name of the slice in the policy.
    pub(crate) name: String,
    /// Name of the metric.
    pub(crate) metric: String,
}

/// A metric measured on these runs, ready for its tests.
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
    /// Cases with a value in both lanes, by case.
    pub(crate) observed: Vec<CaseTable>,
    /// Contrasts with every missing trial counted against the candidate, and for it; absent if no trial is missing.
    pub(crate) bounds: Option<Bounds>,
    /// Number of missing trials that are left out because the metric's values are unbounded.
    pub(crate) left_out: usize,
    /// Trial values of both lanes per case of `observed`, if the contrast is a difference of their means.
    pub(crate) arms: Option<Vec<(Vec<f64>, Vec<f64>)>>,
    /// Number of cases whose contrast was clipped to the range.
    pub(crate) clipped: usize,
    /// Smallest number of trials per lane that a case needs.
    pub(crate) least: usize,
    /// Whether the contrast changes its sign where the lanes are swapped; drift does not.
    pub(crate) mirrored: bool,
    /// The slice, for a restricted metric.
    pub(crate) slice: Option<SliceOf>,
    /// Errors of the judges that decide cases; the tests then use the corrected mean.
    pub(crate) correction: Option<Correction>,
    /// Share of the sum of all values in the largest values of each lane; of `cost_mean` alone.
    pub(crate) tail: Option<[f64; 2]>,
}

/// Smallest number of cases with which a slice is tested.
pub(crate) const SLICE_CASES: usize = 30;

impl Measured {
    /// Whether this many cases are enough for a test; only slices have a minimum.
    pub(crate) fn has_enough_cases(&self, cases: usize) -> bool {
        self.slice.is_none() || cases >= SLICE_CASES
    }
}

/// Contrasts in the two extreme scenarios of missing trials.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) worst: Vec<CaseTable>,
    pub(crate) best: Vec<CaseTable>,
}

/// All metrics that could be computed, and the reasons for those that could not.
#[derive(Debug, Default)]
pub(crate) struct Measurement {
    pub(crate) metrics: Vec<Measured>,
    pub(crate) absent: Vec<AbsentMetric>,
    pub(crate) notes: Vec<String>,
    /// Sources of `success`.
    pub(crate) outcome: OutcomeResult,
    /// Baseline and candidate trials that ended and have no outcome, by cause.
    pub(crate) unscored: [NoOutcome; 2],
}

impl Measurement {
    pub(super) fn take(&mut self, name: &str, measured: Result<Measured, String>) {
        match measured {
            Ok(measured) => self.metrics.push(measured),
            Err(why) => self.absent.push(AbsentMetric { name: name.to_owned(), reason: why }),
        }
    }
}

/// Input of every family.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) pairs: &'a Pairs<'a>,
    pub(crate) seed: u64,
}

impl Setting<'_> {
    /// A metric with the policy's settings, before it is measured.
    pub(super) fn start(&self, spec: &MetricSpec, unit: Unit) -> Measured {
        let margin = self.policy.settings(spec.name).margin.unwrap_or(spec.margin);
        let margin = match margin {
            Margin::Difference(share) | Margin::OfDispersion(share) => share,
            Margin::Ratio(ratio) if unit.is_ratio() => ratio.ln() / RATIO_RANGE_LN,
            Margin::Ratio(ratio) => ratio - 1.0,
        };
        let (decides, required) = self.policy.roles(spec);
        Measured {
            name: spec.name.to_owned(),
            family: spec.family,
            unit,
            decides,
            required,
            margin,
            low: -1.0,
            high: 1.0,
            observed: Vec::new(),
            bounds: None,
            left_out: 0,
            arms: None,
            clipped: 0,
            least: 1,
            mirrored: true,
            slice: None,
            correction: None,
            tail: None,
        }
    }
}

/// Distances between trials, row by row; absent if a trial lacks the description.
pub(super) fn distances<T>(
    trials: &[&TrialRecord],
    describe: impl Fn(&TrialRecord) -> Option<T>,
    distance: impl Fn(&T, &T) -> f64,
) -> Option<Vec<f64>> {
    let described: Vec<T> = trials.iter().map(|record| describe(record)).collect::<Option<_>>()?;
    Some(described.iter().flat_map(|a| described.iter().map(|b| distance(a, b))).collect::<Vec<f64>>())
}

/// Specification of a metric of [`METRICS`].
pub(super) fn spec(name: &str) -> &'static MetricSpec {
    METRICS.iter().find(|spec| spec.name == name).expect("only names of METRICS are asked for")
}
