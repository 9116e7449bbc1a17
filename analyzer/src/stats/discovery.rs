//! Control of the share of false discoveries among several: by p-values and by e-values.

use super::variance::float;

/// Adjusts p-values (Benjamini and Hochberg 1995); the result stands in the order of the input.
#[must_use]
pub fn adjust(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*b].total_cmp(&p_values[*a]).then(b.cmp(a)));
    let mut adjusted = vec![1.0; p_values.len()];
    let all = float(p_values.len());
    let mut least: f64 = 1.0;
    for (passed, place) in order.into_iter().enumerate() {
        least = least.min(all / (all - float(passed)) * p_values[place]);
        adjusted[place] = least;
    }
    adjusted
}

/// Which of the hypotheses are rejected by their e-values (Wang and Ramdas 2022): the k largest, for the largest k with
/// k times the k-th over the count at least 1/alpha. Right under any dependence.
#[must_use]
pub fn by_e_values(e_values: &[f64], alpha: f64) -> Vec<bool> {
    let mut sorted = e_values.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let all = float(e_values.len());
    let enough = |rank: usize, value: f64| float(rank) * value >= all / alpha;
    let least = sorted.iter().enumerate().rev().find(|(place, value)| enough(place + 1, **value));
    match least {
        Some((_, least)) => e_values.iter().map(|value| value >= least).collect(),
        None => vec![false; e_values.len()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_statsmodels() {
        // statsmodels.stats.multitest.multipletests(method="fdr_bh"), see tests/calibration/reference.py.
        let adjusted = adjust(&[0.01, 0.04, 0.03, 0.005, 0.5]);
        for (found, wanted) in adjusted.iter().zip([0.025, 0.05, 0.05, 0.025, 0.5]) {
            assert!((found - wanted).abs() < 1e-12, "{adjusted:?}");
        }
        assert!(adjust(&[]).is_empty());
    }

    #[test]
    fn e_values_reject_the_largest_that_hold_together() {
        assert_eq!(by_e_values(&[100.0, 1.0, 45.0, 0.0], 0.05), [true, false, true, false]);
        assert_eq!(by_e_values(&[79.0, 1.0, 39.0, 0.0], 0.05), [false; 4]);
        assert!(by_e_values(&[], 0.05).is_empty());
    }
}
