//! Student's t distribution.

use statrs::function::beta::beta_reg;

/// Probability of a value at most `t` with this many degrees of freedom.
#[must_use]
pub fn cdf(t: f64, freedom: f64) -> f64 {
    if t.is_nan() {
        return 1.0;
    }
    if t.is_infinite() {
        return if t > 0.0 { 1.0 } else { 0.0 };
    }
    let tail = 0.5 * beta_reg(0.5 * freedom, 0.5, freedom / (freedom + t * t));
    if t > 0.0 { 1.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_scipy() {
        // scipy.stats.t.cdf(-6.313751514675043, 1) = .05, .cdf(-2.131846786326649, 4) = .05, .cdf(1.2, 3)
        assert!((cdf(-6.313_751_514_675_043, 1.0) - 0.05).abs() < 1e-10);
        assert!((cdf(-2.131_846_786_326_649, 4.0) - 0.05).abs() < 1e-10);
        assert!((cdf(1.2, 3.0) - 0.841868942650947).abs() < 1e-10, "{}", cdf(1.2, 3.0));
        assert!((cdf(0.0, 2.0) - 0.5).abs() < 1e-12 && cdf(f64::NEG_INFINITY, 1.0) <= 0.0);
    }
}
