//! The cases of a metric by sampling unit.

use std::collections::BTreeMap;

use crate::metrics::CaseTable;
use crate::stats::gaffke::UnitMean;

/// Unit and weight of a case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Member {
    pub(crate) unit: usize,
    /// Weight in the means, not negative; 1 on average over the cases.
    pub(crate) weight: f64,
}

/// Unit and weight of each case of a look.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct CaseUnits {
    /// By index in [`crate::pairs::Pairs::cases`]. A case beyond them is a unit of its own with weight 1.
    pub(crate) members: Vec<Member>,
    /// Whether a unit has more than one case.
    pub(crate) clustered: bool,
    /// Whether the weights differ.
    pub(crate) weighted: bool,
}

impl CaseUnits {
    /// Every case is a unit of its own.
    #[cfg(test)]
    pub(crate) const CASES: Self = Self { members: Vec::new(), clustered: false, weighted: false };

    pub(crate) fn weight(&self, place: usize) -> f64 {
        self.members.get(place).map_or(1.0, |member| member.weight)
    }

    /// Groups the cases of a metric in the order of their first case; a unit without weight is left out.
    pub(crate) fn group<'t>(&self, tables: &'t [CaseTable]) -> Vec<Unit<'t>> {
        let mut units: Vec<Unit<'t>> = Vec::new();
        let mut known: BTreeMap<usize, usize> = BTreeMap::new();
        for table in tables {
            let member = self.members.get(table.place);
            let weight = self.weight(table.place);
            if weight <= 0.0 {
                continue;
            }
            let new = units.len();
            let at = match member.filter(|_| self.clustered) {
                Some(member) => *known.entry(member.unit).or_insert(new),
                None => new,
            };
            if at == new {
                units.push(Unit { cases: Vec::new(), weight: 0.0, sum: 0.0 });
            }
            let unit = &mut units[at];
            unit.cases.push((weight, table));
            unit.weight += weight;
            unit.sum += weight * table.observed();
        }
        units
    }
}

/// A sampling unit with its cases.
#[derive(Debug, Clone)]
pub(crate) struct Unit<'t> {
    /// Weight and contrasts of each case.
    pub(crate) cases: Vec<(f64, &'t CaseTable)>,
    /// Sum of the weights.
    pub(crate) weight: f64,
    /// Weighted sum of the observed contrasts.
    pub(crate) sum: f64,
}

impl Unit<'_> {
    pub(crate) fn mean(&self) -> UnitMean {
        UnitMean { mean: self.sum / self.weight, weight: self.weight }
    }

    /// Means of several units.
    pub(crate) fn means(units: &[Unit<'_>]) -> Vec<UnitMean> {
        units.iter().map(Unit::mean).collect()
    }

    /// Weighted mean contrast of several units; 0 without any.
    pub(crate) fn effect(units: &[Unit<'_>]) -> f64 {
        let weight: f64 = units.iter().map(|unit| unit.weight).sum();
        if weight > 0.0 { units.iter().map(|unit| unit.sum).sum::<f64>() / weight } else { 0.0 }
    }

    /// Number of cases of several units.
    pub(crate) fn cases(units: &[Unit<'_>]) -> usize {
        units.iter().map(|unit| unit.cases.len()).sum()
    }
}
