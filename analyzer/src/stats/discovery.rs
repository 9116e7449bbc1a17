//! Control of the false discovery rate.

use super::variance::float;

/// Adjusts p-values (Benjamini and Hochberg 1995), in the order of the input.
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
}
