//! When a gate looks at the data: the order of the cases and the number of cases at each look.

use std::sync::Arc;

use analyzer::Policy;
use anyhow::bail;
use replayer::Prepared;
use schemas::id::CaseId;

use crate::config::GateConfig;

/// The order of the cases and the looks, fixed before the first trial.
#[derive(Debug, Clone)]
pub struct LookSchedule {
    /// All cases that the gate may replay, in the order of replay.
    pub(crate) order: Arc<[CaseId]>,
    /// Number of cases at the last planned look.
    pub(crate) planned: usize,
    /// Number of planned looks.
    pub(crate) looks: usize,
    /// Looks continue after the planned ones, up to all cases.
    pub(crate) extension: bool,
}

impl LookSchedule {
    /// Orders the cases by the seed and spreads the looks over them.
    ///
    /// # Errors
    /// The corpus has fewer sessions than an approval needs under this policy.
    pub(crate) fn new(
        config: &GateConfig,
        policy: &Policy,
        extension: bool,
        corpus: &Prepared,
    ) -> anyhow::Result<Self> {
        let slices = corpus.cases().map(|(case, slices)| {
            (case, slices.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>())
        });
        let (order, clusters) = analyzer::planned_order(policy, &slices.collect::<Vec<_>>(), config.seed);
        let order: Arc<[CaseId]> = order.into();
        let planned = config.sessions.unwrap_or(order.len()).min(order.len());
        let reachable = if extension { order.len() } else { planned }.min(clusters) as u64;
        let unit = if clusters < order.len() { "clusters of sessions" } else { "sessions" };
        let floors = policy.floors(config.trials);
        if let Some((metric, floor)) = floors.iter().find(|(_, floor)| *floor > reachable) {
            bail!(
                "metric {metric} needs at least {floor} {unit}, the gate has {reachable}: no candidate can be approved; \
                 record more sessions, or widen the margin in the policy if the business tolerates it; no trial was run"
            );
        }
        let looks = config.looks.unwrap_or(policy.looks).clamp(1, 64) as usize;
        Ok(Self { order, planned, looks: looks.min(planned), extension })
    }

    /// Number of cases at each look, ascending: the planned looks, then those of the extension.
    #[must_use]
    pub fn ends(&self) -> Vec<usize> {
        let mut ends: Vec<usize> =
            (1..=self.looks).map(|look| (self.planned * look).div_ceil(self.looks)).collect();
        ends.dedup();
        let wave = self.planned.div_ceil(self.looks).max(1);
        let mut end = self.planned;
        while self.extension && end < self.order.len() {
            end = (end + wave).min(self.order.len());
            ends.push(end);
        }
        ends
    }

    /// Number of cases at the last planned look.
    #[must_use]
    pub fn planned_cases(&self) -> usize {
        self.planned
    }

    /// Number of planned looks.
    #[must_use]
    pub fn planned_looks(&self) -> usize {
        self.looks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(cases: usize, planned: usize, looks: usize, extension: bool) -> LookSchedule {
        let case = |number| CaseId::parse(&format!("c{number}")).expect("an id");
        LookSchedule { order: (0..cases).map(case).collect(), planned, looks, extension }
    }

    #[test]
    fn looks_divide_the_planned_cases_evenly() {
        assert_eq!(schedule(100, 100, 4, false).ends(), [25, 50, 75, 100]);
        assert_eq!(schedule(10, 10, 3, false).ends(), [4, 7, 10]);
        assert_eq!(schedule(2, 2, 2, false).ends(), [1, 2]);
    }

    #[test]
    fn an_extension_adds_waves_up_to_the_whole_corpus() {
        assert_eq!(schedule(70, 40, 2, true).ends(), [20, 40, 60, 70]);
        assert_eq!(schedule(40, 40, 2, true).ends(), [20, 40]);
    }
}
