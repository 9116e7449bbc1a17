//! Cases that repeat another case in everything that was measured.
//!
//! Independent trials do not take the same microseconds. Two cases whose trials agree in every duration, token count and
//! cost of both lanes are one case under two names, which a copied file makes.

use std::collections::{BTreeMap, BTreeSet};

use schemas::trial::Trial;

use crate::pairs::Pairs;
use crate::stats::variance::float;

/// Largest expected number of pairs of different cases that agree by chance.
const BY_CHANCE: f64 = 0.01;

/// What was measured of a trial on a scale fine enough to recognise it.
type Measured = [Option<u64>; 4];

/// Everything that was measured of a case, by lane.
type Prints = Vec<(u8, Option<bool>, Measured)>;

fn measured(trial: &Trial) -> Measured {
    [trial.duration_us, trial.input_tokens, trial.output_tokens, trial.cost_usd.map(f64::to_bits)]
}

/// Groups of equal cases, as indexes in [`Pairs::cases`].
pub(super) fn groups(pairs: &Pairs<'_>) -> Vec<Vec<usize>> {
    let mut distinct: [BTreeSet<u64>; 4] = Default::default();
    for record in pairs.trials() {
        for (values, value) in distinct.iter_mut().zip(measured(&record.trial)) {
            values.extend(value);
        }
    }
    // Digits that a value of this kind carries, in powers of two.
    let digits = distinct.map(|values| float(values.len().max(1)).log2());
    let cases = float(pairs.cases.len());
    let needed = (cases * cases / 2.0 / BY_CHANCE).log2();
    let mut known: BTreeMap<Prints, Vec<usize>> = BTreeMap::new();
    for (place, case) in pairs.cases.iter().enumerate() {
        let mut prints: Prints = Vec::new();
        for (lane, arm) in [(0, &case.baseline), (1, &case.candidate)] {
            prints.extend(
                arm.trials.iter().map(|record| (lane, record.trial.success, measured(&record.trial))),
            );
        }
        let carried: f64 = prints
            .iter()
            .flat_map(|(_, _, values)| values.iter().zip(digits))
            .map(|(value, digits)| if value.is_some() { digits } else { 0.0 })
            .sum();
        if case.is_paired() && carried >= needed {
            prints.sort_unstable();
            known.entry(prints).or_default().push(place);
        }
    }
    known.into_values().filter(|places| places.len() > 1).collect()
}
