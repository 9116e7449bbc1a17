//! Westfall-Young min-p (1993): the distribution of the smallest p is estimated from the same relabellings, so
//! dependence between the statistics costs no power.

use crate::stats::variance::float;

/// Share of the relabellings in which the statistic is at least as large as in each; `slack` is relative.
pub(super) fn shares(values: &[f64], slack: f64) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let share = |value: &f64| {
        let bar = value - slack * value.abs();
        let below = sorted.partition_point(|other| *other < bar);
        float(sorted.len() - below) / float(sorted.len())
    };
    values.iter().map(share).collect()
}

/// P-value of the smallest share: `shares` of each statistic, the observed relabelling first.
pub(super) fn p_of_smallest(shares: &[Vec<f64>]) -> f64 {
    let Some(first) = shares.first() else { return 1.0 };
    let smallest = |number: usize| shares.iter().map(|of| of[number]).fold(1.0, f64::min);
    let observed = smallest(0);
    let as_small = (0..first.len()).filter(|number| smallest(*number) <= observed).count();
    float(as_small) / float(first.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_count_and_the_smallest_pays_for_the_others() {
        let first = shares(&[3.0, 1.0, 2.0, 3.0 - 1e-15], 1e-12);
        assert_eq!(first, [0.5, 1.0, 0.75, 0.5]);
        let second = shares(&[0.0, 1.0, 2.0, 3.0], 1e-12);
        assert_eq!(second, [1.0, 0.75, 0.5, 0.25]);
        // Smallest: 0.5, 0.75, 0.5, 0.25; three of four are at most 0.5.
        assert!((p_of_smallest(&[first.clone(), second]) - 0.75).abs() < 1e-15);
        assert!((p_of_smallest(&[first]) - 0.5).abs() < 1e-15);
        assert!((p_of_smallest(&[]) - 1.0).abs() < 1e-15);
    }
}
