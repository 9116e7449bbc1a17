//! The block test over sampling units.
//!
//! With cases as units, the trials of each case are relabelled. With clusters, the statistic is studentised on the sums
//! of the clusters, and it must be extreme among both of these references:
//!
//! - the sign of each cluster's sum is changed (Canay, Romano and Shaikh 2017). It needs symmetric cluster effects and
//!   nothing else, so that users who change in either direction are no evidence.
//!
//! - the trials of each case are relabelled. It is exact for identical builds whatever the numbers of trials per lane,
//!   where the sign changes are not.
//!
//! A contrast that does not change its sign where the lanes are swapped (drift) has only the second reference. Where the
//! trials of a session share state, only the first one is valid.

use super::group::Unit;
use crate::stats::labels::MOST_RELABELLINGS;
use crate::stats::permutation::Tables;
use crate::stats::stream::StreamKey;

/// What may be relabelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Design {
    /// Whether units have several cases.
    pub(crate) clustered: bool,
    /// Whether the trials of a case share state, so that only all trials of a lane are permuted together.
    pub(crate) shared_state: bool,
    /// Whether the contrast changes its sign where the lanes are swapped.
    pub(crate) mirrored: bool,
}

/// One-sided p of "no deterioration".
pub(crate) fn p_block(units: &[Unit<'_>], design: Design, seed: u64, metric: &str) -> f64 {
    let key = StreamKey::new(seed, &format!("block {metric}"));
    if !design.clustered {
        return relabelled(units, seed, metric).p_value(key);
    }
    let swapped = || {
        let flips: Vec<[f64; 2]> = units.iter().map(|unit| [unit.sum, -unit.sum]).collect();
        Tables::new(flips.iter().map(<[f64; 2]>::as_slice)).p_value(key)
    };
    let relabelled = || relabelled(units, seed, metric).p_value(key);
    match (design.mirrored, design.shared_state) {
        (true, true) => swapped(),
        (true, false) => swapped().max(relabelled()),
        (false, false) => relabelled(),
        // No permissible relabelling changes the contrast.
        (false, true) => 1.0,
    }
}

/// Sums of the units where the trials of each case are relabelled.
fn relabelled(units: &[Unit<'_>], seed: u64, metric: &str) -> Tables {
    let plain = |unit: &Unit<'_>| matches!(unit.cases[..], [(weight, _)] if weight == 1.0);
    if units.iter().all(plain) {
        let tables = units.iter().flat_map(|unit| &unit.cases);
        return Tables::new(tables.map(|(_, table)| table.contrasts.as_slice()));
    }
    let key = StreamKey::new(seed, &format!("relabel units {metric}"));
    let table = |(number, unit): (usize, &Unit<'_>)| -> Vec<f64> {
        if let [(weight, table)] = unit.cases[..] {
            return table.contrasts.iter().map(|contrast| weight * contrast).collect();
        }
        // Every case of the unit is relabelled; a sample of the combinations, the observed one included, keeps the test
        // exact.
        let mut stream = key.stream(number as u64);
        let mut sums = vec![unit.sum];
        sums.extend((0..MOST_RELABELLINGS).map(|_| {
            let drawn = unit.cases.iter().map(|(weight, table)| {
                let length = u32::try_from(table.contrasts.len()).unwrap_or(u32::MAX);
                weight * table.contrasts[stream.below(length) as usize]
            });
            drawn.sum::<f64>()
        }));
        sums
    };
    let tables: Vec<Vec<f64>> = units.iter().enumerate().map(table).collect();
    Tables::new(tables.iter().map(Vec::as_slice))
}
