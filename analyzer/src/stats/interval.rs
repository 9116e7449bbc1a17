//! Confidence intervals of a share.

use statrs::function::beta::beta_reg;

use super::variance::float;

/// Exact two-sided interval of a share (Clopper and Pearson 1934): `hits` of `all`, at this confidence level.
#[must_use]
pub fn clopper_pearson(hits: u64, all: u64, level: f64) -> [f64; 2] {
    let side = 0.5 * (1.0 - level);
    let number = |count: u64| float(usize::try_from(count).unwrap_or(usize::MAX));
    let (x, n) = (number(hits), number(all));
    // Quantile of the beta distribution by bisection.
    let quantile = |p: f64, a: f64, b: f64| {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if beta_reg(a, b, middle) < p { low = middle } else { high = middle }
        }
        0.5 * (low + high)
    };
    let low = if hits == 0 { 0.0 } else { quantile(side, x, n - x + 1.0) };
    let high = if hits >= all { 1.0 } else { quantile(1.0 - side, x + 1.0, n - x) };
    [low, high]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_scipy() {
        // scipy.stats.binomtest(k, n).proportion_ci(.95, "exact"), see tests/calibration/reference.py.
        for (hits, all, wanted) in [
            (0, 200, [0.0, 0.018_275_340]),
            (7, 200, [0.014_185_526, 0.070_780_998]),
            (5, 5, [0.478_176_25, 1.0]),
        ] {
            let found = clopper_pearson(hits, all, 0.95);
            assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {wanted:?}");
        }
    }
}
