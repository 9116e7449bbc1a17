//! Comparison of the candidate's trials with a recording that is the only baseline.
//!
//! With identical builds and a perfect replay, the recording and the candidate's K trials are exchangeable, so any of
//! the K + 1 could be the recording (DECISION 1.7). The statistic of a choice is its mean distance to the others minus
//! the mean distance among the others; it is large if the recording is the outlier. The test is exact for any number
//! of cases. It shows a difference of build or replay, not harm.

use crate::metrics::{Description, descriptions};
use crate::pairs::{PairedCase, Pairs};
use crate::run::TrialRecord;
use crate::stats::holm;
use crate::stats::permutation::Tables;
use crate::stats::stream::StreamKey;
use crate::stats::variance::float;
use crate::verdict::ExchangeabilityResult;

/// Statistic under every choice of the recording, starting with trial 0: mean distance of the chosen trial from the
/// others minus the mean distance among the others, negated, so that a small value is evidence against
/// exchangeability. Absent with fewer than three trials.
pub(crate) fn table(size: usize, distance: impl Fn(usize, usize) -> f64) -> Option<Vec<f64>> {
    if size < 3 {
        return None;
    }
    let mut rows = vec![0.0; size];
    let mut total = 0.0;
    for a in 0..size {
        for b in a + 1..size {
            let apart = distance(a, b);
            rows[a] += apart;
            rows[b] += apart;
            total += apart;
        }
    }
    let others = float(size - 1);
    let pairs = others * (others - 1.0) / 2.0;
    Some(rows.into_iter().map(|row| (total - row) / pairs - row / others).collect())
}

/// Compares the candidate's trials with the recordings by everything that describes a trial, with Holm's correction.
pub(crate) fn compare(pairs: &Pairs<'_>, seed: u64) -> Vec<ExchangeabilityResult> {
    let mut results: Vec<ExchangeabilityResult> =
        descriptions().into_iter().filter_map(|description| compare_by(pairs, &description, seed)).collect();
    let p_values: Vec<f64> = results.iter().map(|result| result.p).collect();
    for (result, adjusted) in results.iter_mut().zip(holm::adjust(&p_values)) {
        result.p_adjusted = adjusted;
    }
    results
}

fn compare_by(pairs: &Pairs<'_>, description: &Description, seed: u64) -> Option<ExchangeabilityResult> {
    let tables: Vec<Vec<f64>> = pairs.paired().filter_map(|case| case_table(case, description)).collect();
    if tables.is_empty() {
        return None;
    }
    let key = StreamKey::new(seed, &format!("exchange {}", description.name));
    let p = Tables::new(tables.iter().map(Vec::as_slice)).p_value(key);
    let name = description.name.to_owned();
    Some(ExchangeabilityResult { name, cases: crate::cast::to_u64(tables.len()), p, p_adjusted: p })
}

/// The recording first, then the candidate's trials in an order that does not depend on their numbers.
fn case_table(case: &PairedCase<'_>, description: &Description) -> Option<Vec<f64>> {
    let recording: &TrialRecord = case.baseline.trials.first()?;
    let trials: Vec<&TrialRecord> =
        std::iter::once(recording).chain(case.candidate.trials.iter().copied()).collect();
    let distances = (description.distances)(&trials)?;
    let size = trials.len();
    let mut table = table(size, |a, b| distances[a * size + b])?;
    // Sums in another order differ in their last digits.
    table.iter_mut().for_each(|value| *value = (*value * 1e12).round() / 1e12);
    table[1..].sort_by(f64::total_cmp);
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_odd_one_out_has_the_least_value() {
        let places: [f64; 4] = [3.0, 0.0, 0.1, -0.1];
        let table = table(4, |a, b| (places[a] - places[b]).abs()).expect("four trials");
        assert!(table[1..].iter().all(|other| *other > table[0]), "{table:?}");
        assert_eq!(super::table(2, |_, _| 1.0), None);
    }

    #[test]
    fn exchangeable_trials_are_told_apart_no_more_often_than_alpha() {
        // 1,000 runs of 30 cases with 1 + 4 trials, each case with its own mean; at 5 % the 99.9 % limit is .0713.
        let key = StreamKey::new(2, "exchange");
        let p = |number: u64, shift: f64| {
            let mut stream = key.stream(number);
            let mut unit = || f64::from(stream.next_u32()) / 4_294_967_296.0;
            let tables: Vec<Vec<f64>> = (0..30)
                .map(|_| {
                    let middle = 5.0 * unit();
                    let places: Vec<f64> =
                        (0..5).map(|trial| middle + unit() + if trial == 0 { shift } else { 0.0 }).collect();
                    table(5, |a, b| (places[a] - places[b]).abs()).expect("five trials")
                })
                .collect();
            Tables::new(tables.iter().map(Vec::as_slice)).p_value(StreamKey::new(number, "p"))
        };
        let share = float((0..1000).filter(|number| p(*number, 0.0) <= 0.05).count()) / 1000.0;
        assert!(share <= 0.0713, "{share}");
        assert!((0..20).all(|number| p(number, 0.6) <= 0.05), "a shift of two deviations is always seen");
    }
}
