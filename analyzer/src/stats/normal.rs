//! The standard normal distribution.
//!
//! `erfc` is that of libm (FreeBSD msun), exact to one unit in the last place; that of statrs differs by up to 5e-11, and
//! by 1e-10 of the value in the far tail.

use libm::erfc;
use statrs::function::erf::erfc_inv;

/// Probability of a value at most `x`.
#[must_use]
pub fn cdf(x: f64) -> f64 {
    0.5 * erfc(-x / std::f64::consts::SQRT_2)
}

/// Quantile of `p`, which must be strictly between 0 and 1.
#[must_use]
pub fn quantile(p: f64) -> f64 {
    let first = -std::f64::consts::SQRT_2 * erfc_inv(2.0 * p);
    // One Newton step corrects the last digits of the series.
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
            (-8.5, 9.479_534_822_203_25e-18),
            (-1.0, 0.158_655_253_931_457_07),
            (2.2, 0.986_096_552_486_501_4),
        ] {
            assert!((cdf(x) / p - 1.0).abs() < 1e-12, "cdf({x})");
            assert!((quantile(p) / x - 1.0).abs() < 1e-8, "quantile({p})");
        }
        assert!((cdf(-20.0) / 2.753_624_118_606_155_6e-89 - 1.0).abs() < 1e-12);
        assert!((quantile(0.95) / 1.644_853_626_951_472_2 - 1.0).abs() < 1e-10);
    }
}
