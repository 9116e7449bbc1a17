//! Values that are the same at every look of an analysis.

use std::collections::{BTreeMap, BTreeSet};

use schemas::id::CaseId;
use schemas::trial::Lane;

use super::request::{AnalysisRequest, MonitoringPlan};
use crate::decide::Tests;
use crate::drift;
use crate::fidelity::{self, FidelityCheck};
use crate::infrastructure;
use crate::invariants::{self, Checked};
use crate::metrics::{self, Measurement, Setting};
use crate::pairs::{PairedCase, Pairs};
use crate::policy::Policy;
use crate::run::Run;
use crate::schedule::{clustered_order, seeded_order};
use crate::units::{CaseUnits, SamplingUnits};

/// Values that are the same at every look.
pub(super) struct AnalysisContext<'a> {
    pub(super) request: AnalysisRequest<'a>,
    pub(super) pairs: Pairs<'a>,
    pub(super) checked: Checked,
    pub(super) fidelity: FidelityCheck,
    /// Lanes of which the infrastructure failed too many trials, in words.
    pub(super) infrastructure: Vec<String>,
    /// Reason why mean tests do not apply to these runs, if they do not.
    pub(super) mean_tests_disabled: Option<MeanTestsDisabled>,
    /// Drift test; absent if the answers could not be tested.
    pub(super) drift: Option<drift::Found>,
    /// Sampling units and weights of all cases.
    pub(super) units: SamplingUnits<'a>,
    /// Cases in the order in which they are looked at; those of a cluster follow each other.
    pub(super) order: Vec<CaseId>,
}

impl<'a> AnalysisContext<'a> {
    pub(super) fn new(
        request: AnalysisRequest<'a>,
        pairs: Pairs<'a>,
        mean_tests_disabled: Option<MeanTestsDisabled>,
    ) -> Self {
        let AnalysisRequest { policy, seed, .. } = request;
        let units = SamplingUnits::new(policy, &pairs);
        let order = match request.monitoring {
            MonitoringPlan::Waves(waves) => waves.order.to_vec(),
            MonitoringPlan::SingleLook | MonitoringPlan::PlannedLooks(_) | MonitoringPlan::Anytime => {
                let cases = pairs.cases.iter().map(|case| (case.case, case.slices.clone()));
                if units.is_clustered() {
                    clustered_order(cases, |case| units.unit(case), seed)
                } else {
                    seeded_order(cases, seed)
                }
            }
        };
        let checked = invariants::check(policy, &pairs, seed);
        let fidelity = fidelity::judge(policy, &pairs, mean_tests_disabled.is_some(), seed);
        let infrastructure = infrastructure::judge(policy, &pairs);
        Self {
            request,
            pairs,
            checked,
            fidelity,
            infrastructure,
            mean_tests_disabled,
            drift: None,
            units,
            order,
        }
    }

    /// The end of a look that does not divide a cluster: at least `end`, in cases of the order.
    pub(super) fn end_of_cluster(&self, end: usize) -> usize {
        let unit = |place: usize| self.order.get(place).and_then(|case| self.units.unit(case));
        let mut end = end.min(self.order.len());
        while end > 0 && unit(end).is_some() && unit(end) == unit(end - 1) {
            end += 1;
        }
        end
    }

    /// Pairs of the first cases of the order.
    pub(super) fn part(&self, end: usize) -> Pairs<'a> {
        let end = end.min(self.order.len());
        let wanted: BTreeSet<&CaseId> = self.order[..end].iter().collect();
        let held: BTreeSet<&CaseId> = self.pairs.cases.iter().map(|case| case.case).collect();
        let unseen = match self.request.monitoring {
            // Played cases that neither run has.
            MonitoringPlan::Waves(_) => wanted.difference(&held).count(),
            // The planned cases without trials are unknown, so every prefix gets its share of them.
            MonitoringPlan::SingleLook | MonitoringPlan::PlannedLooks(_) | MonitoringPlan::Anytime => {
                self.pairs.unseen.cases * end / self.order.len().max(1)
            }
        };
        self.pairs.only(&wanted, unseen)
    }

    /// Position of each case in the order.
    pub(super) fn ranks(&self, pairs: &Pairs<'_>) -> Vec<usize> {
        let places: BTreeMap<&CaseId, usize> =
            self.order.iter().enumerate().map(|(rank, case)| (case, rank)).collect();
        let rank = |case: &PairedCase<'_>| places.get(case.case).copied().unwrap_or(usize::MAX);
        pairs.cases.iter().map(rank).collect()
    }

    pub(super) fn measure(&self, pairs: &Pairs<'_>) -> Measurement {
        let setting = Setting { policy: self.request.policy, pairs, seed: self.request.seed };
        let mut measurement = metrics::measure(setting, &self.checked.demoted);
        if self.mean_tests_disabled.is_some() {
            for metric in &mut measurement.metrics {
                (metric.decides, metric.required) = (false, false);
            }
        }
        measurement
    }

    pub(super) fn tests<'r>(&'r self, ranks: &'r [usize], units: &'r CaseUnits) -> Tests<'r> {
        let Policy { alpha, strict, ref drift, .. } = *self.request.policy;
        Tests {
            alpha,
            seed: self.request.seed,
            strict,
            ranks,
            units,
            shared_state: drift.shared_state,
            calibration: self.request.calibration,
        }
    }

    /// Whether the sessions of either run were selected by their outcome.
    pub(super) fn is_selected(&self) -> bool {
        self.request.baseline.manifest.selected || self.request.candidate.manifest.selected
    }

    /// Whether the candidate breaks an invariant that the baseline keeps.
    pub(super) fn is_violated(&self) -> bool {
        let kept = |name: &str| !self.checked.demoted.contains(&name);
        self.checked.results.iter().any(|result| result.violations > 0 && kept(&result.name))
    }
}

/// Reason why the mean tests are disabled (DECISION 1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MeanTestsDisabled {
    Selected,
    BaselineIsRecording,
}

/// Reason why mean tests do not apply to these runs, if they do not.
pub(super) fn mean_tests_disabled(baseline: &Run, candidate: &Run) -> Option<MeanTestsDisabled> {
    if baseline.manifest.selected || candidate.manifest.selected {
        Some(MeanTestsDisabled::Selected)
    } else if baseline.manifest.lane == Lane::Recorded {
        Some(MeanTestsDisabled::BaselineIsRecording)
    } else {
        None
    }
}
