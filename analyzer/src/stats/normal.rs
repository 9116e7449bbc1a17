//! The standard normal distribution.

use statrs::function::erf::{erfc, erfc_inv};

/// Probability of a value at most `x`.
#[must_use]
pub fn cdf(x: f64) -> f64 {
    0.5 * erfc(-x / std::f64::consts::SQRT_2)
}

/// The value below which a share `p` lies; `p` strictly between 0 and 1.
#[must_use]
pub fn quantile(p: f64) -> f64 {
    let first = -std::f64::consts::SQRT_2 * erfc_inv(2.0 * p);
    // One Newton step takes the series' last digits.
    let density = (-0.5 * first * first).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if density > 1e-300 { first - (cdf(first) - p) / density } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_scipy() {
        // scipy.stats.norm.cdf and .ppf, see tests/calibration/reference.py.
        for (x, p) in [
            (-5.0, 2.866_515_718_791_933e-7),
            (-1.5, 0.066_807_201_268_858_07),
            (0.3, 0.617_911_422_188_952_7),
        ] {
            assert!((cdf(x) / p - 1.0).abs() < 1e-10, "cdf({x})");
            assert!((quantile(p) / x - 1.0).abs() < 1e-8, "quantile({p})");
        }
        assert!((quantile(0.95) / 1.644_853_626_951_472_2 - 1.0).abs() < 1e-10);
    }
}
