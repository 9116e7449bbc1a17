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
    let references = references(units, design, seed, metric);
    let p_values = references.iter().map(|tables| tables.p_value(key));
    p_values.reduce(f64::max).unwrap_or(1.0)
}

/// Upper bound of the weighted mean contrast that inverts the block test at this level: the effects whose studentised
/// distance from the observed mean is not extreme among the references (Janssen 1997). At 0 this is the test itself, so
/// the bound is below 0 where the test rejects. Infinite if the test could reject nothing.
pub(crate) fn upper_bound(units: &[Unit<'_>], design: Design, level: f64, seed: u64, metric: &str) -> f64 {
    let key = StreamKey::new(seed, &format!("block {metric}"));
    let references = references(units, design, seed, metric);
    let critical = references.iter().map(|tables| tables.critical(key, level)).reduce(f64::min);
    // (S - W e) / root of the sum of (s - w e)^2 equals the critical value c at the bound e.
    let mut sums = [0.0; 5];
    for Unit { sum, weight, .. } in units {
        for (total, part) in sums.iter_mut().zip([*sum, *weight, sum * sum, sum * weight, weight * weight]) {
            *total += part;
        }
    }
    let [sum, weight, squares, mixed, weights] = sums;
    let c = critical.unwrap_or(f64::NEG_INFINITY).min(0.0);
    let steepness = weight * weight - c * c * weights;
    if !c.is_finite() || steepness <= 1e-12 * weight * weight {
        return f64::INFINITY;
    }
    let half = sum * weight - c * c * mixed;
    let rest = half * half - steepness * (sum * sum - c * c * squares);
    (half + rest.max(0.0).sqrt()) / steepness
}

/// Reference distributions among all of which the statistic must be extreme; none if no permissible relabelling changes
/// the contrast.
fn references(units: &[Unit<'_>], design: Design, seed: u64, metric: &str) -> Vec<Tables> {
    if !design.clustered {
        return vec![relabelled(units, seed, metric)];
    }
    let swapped = || {
        let flips: Vec<[f64; 2]> = units.iter().map(|unit| [unit.sum, -unit.sum]).collect();
        Tables::new(flips.iter().map(<[f64; 2]>::as_slice))
    };
    match (design.mirrored, design.shared_state) {
        (true, true) => vec![swapped()],
        (true, false) => vec![swapped(), relabelled(units, seed, metric)],
        (false, false) => vec![relabelled(units, seed, metric)],
        (false, true) => Vec::new(),
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
