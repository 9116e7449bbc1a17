//! Textbook tests of two samples. The decision uses none of them; other tools decide by them, and the calibration
//! compares the procedure with them.
//!
//! Every convention follows SciPy, so that each test can be checked against it.

use analyzer::stats::normal::cdf;
use statrs::function::beta::beta_reg;
use statrs::function::gamma::ln_gamma;

/// Converts a count to a number.
pub(crate) fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("fewer than 2^32"))
}

/// One- and two-sided p-values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tails {
    /// P-value of "not less".
    pub(crate) less: f64,
    /// P-value of "not greater".
    pub(crate) greater: f64,
    /// P-value of "no different".
    pub(crate) both: f64,
}

// === distributions ===

/// Distribution function of Student's t with `freedom` degrees of freedom.
pub(crate) fn t_cdf(t: f64, freedom: f64) -> f64 {
    let square = t * t;
    let (a, x) = (0.5 * freedom, freedom / (freedom + square));
    // Of the two forms, the one without a difference from 1, which would lose a small tail.
    let tail = if x < (a + 1.0) / (a + 2.5) {
        0.5 * beta_reg(a, 0.5, x)
    } else {
        0.5 - 0.5 * beta_reg(0.5, a, square / (freedom + square))
    };
    if t > 0.0 { 1.0 - tail } else { tail }
}

/// Solves `cdf(x) = p` for a growing function between two points, by bisection to the last digit.
fn inverse(p: f64, mut low: f64, mut high: f64, cdf: impl Fn(f64) -> f64) -> f64 {
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if cdf(middle) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// Quantile of Student's t.
pub(crate) fn t_quantile(p: f64, freedom: f64) -> f64 {
    if p > 0.5 {
        return -t_quantile(1.0 - p, freedom);
    }
    let mut low = -2.0;
    while t_cdf(low, freedom) > p {
        low *= 2.0;
    }
    inverse(p, low, 0.0, |t| t_cdf(t, freedom))
}

/// Distribution function of the beta distribution.
pub(crate) fn beta_cdf(x: f64, a: f64, b: f64) -> f64 {
    beta_reg(a, b, x)
}

/// Quantile of the beta distribution.
pub(crate) fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    inverse(p, 0.0, 1.0, |x| beta_reg(a, b, x))
}

/// Probability of at most `hits` successes in `of` trials.
pub(crate) fn binomial_cdf(hits: usize, of: usize, probability: f64) -> f64 {
    if hits >= of {
        return 1.0;
    }
    beta_reg(float(of - hits), float(hits + 1), 1.0 - probability)
}

/// Smallest number of hits whose cumulative probability is at least `p`.
pub(crate) fn binomial_quantile(p: f64, of: usize, probability: f64) -> usize {
    let (mut low, mut high) = (0, of);
    while low < high {
        let middle = usize::midpoint(low, high);
        if binomial_cdf(middle, of, probability) >= p { high = middle } else { low = middle + 1 }
    }
    low
}

// === tests ===

/// Student's t of a mean against 0 (`scipy.stats.ttest_rel` of the differences).
pub(crate) fn paired_t(differences: &[f64]) -> Tails {
    let count = float(differences.len());
    let mean = differences.iter().sum::<f64>() / count;
    let squares: f64 = differences.iter().map(|value| (value - mean) * (value - mean)).sum();
    let error = (squares / (count - 1.0) / count).sqrt();
    if error == 0.0 {
        // Nothing varies: the sign alone decides, as in the limit.
        let of = |holds: bool| if holds { 0.0 } else { 1.0 };
        return Tails { less: of(mean < 0.0), greater: of(mean > 0.0), both: of(mean != 0.0) };
    }
    let t = mean / error;
    let (less, greater) = (t_cdf(t, count - 1.0), t_cdf(-t, count - 1.0));
    Tails { less, greater, both: (2.0 * less.min(greater)).min(1.0) }
}

/// Mid-ranks from 1, and the sum of t^3 - t over the ties.
fn ranks(values: &[f64]) -> (Vec<f64>, f64) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut ties = 0.0;
    let mut before = 0;
    for tied in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let (first, size) = (float(before), float(tied.len()));
        before += tied.len();
        tied.iter().for_each(|place| ranks[*place] = first + 0.5 * (size + 1.0));
        ties += size * size * size - size;
    }
    (ranks, ties)
}

/// Mann and Whitney's U by the normal limit, with continuity correction (`mannwhitneyu(method="asymptotic")`).
pub(crate) fn mann_whitney(x: &[f64], y: &[f64]) -> Tails {
    let pooled: Vec<f64> = x.iter().chain(y).copied().collect();
    let (ranks, ties) = ranks(&pooled);
    let (m, n) = (float(x.len()), float(y.len()));
    let total = m + n;
    let u = ranks[..x.len()].iter().sum::<f64>() - 0.5 * m * (m + 1.0);
    let spread = (m * n / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)))).sqrt();
    if spread == 0.0 {
        return Tails { less: 1.0, greater: 1.0, both: 1.0 };
    }
    let above = |u: f64| cdf(-(u - 0.5 * m * n - 0.5) / spread);
    let (greater, less) = (above(u), above(m * n - u));
    Tails { less, greater, both: (2.0 * above(u.max(m * n - u))).min(1.0) }
}

/// Wilcoxon's signed ranks by the normal limit, without zeros (`wilcoxon(method="approx")`).
pub(crate) fn wilcoxon(differences: &[f64]) -> Tails {
    let kept: Vec<f64> = differences.iter().copied().filter(|value| *value != 0.0).collect();
    if kept.is_empty() {
        return Tails { less: 1.0, greater: 1.0, both: 1.0 };
    }
    let sizes: Vec<f64> = kept.iter().map(|value| value.abs()).collect();
    let (ranks, ties) = ranks(&sizes);
    let positive: f64 = kept.iter().zip(ranks).filter(|(value, _)| **value > 0.0).map(|(_, rank)| rank).sum();
    let count = float(kept.len());
    let spread = ((count * (count + 1.0) * (2.0 * count + 1.0) - 0.5 * ties) / 24.0).sqrt();
    let z = (positive - 0.25 * count * (count + 1.0)) / spread;
    Tails { less: cdf(z), greater: cdf(-z), both: (2.0 * cdf(-z.abs())).min(1.0) }
}

/// Fisher's exact test of `[[a, b], [c, d]]` (`scipy.stats.fisher_exact`).
pub(crate) fn fisher([a, b, c, d]: [usize; 4]) -> Tails {
    let choose =
        |n: usize, k: usize| ln_gamma(float(n + 1)) - ln_gamma(float(k + 1)) - ln_gamma(float(n - k + 1));
    let (good, first, all) = (a + c, a + b, a + b + c + d);
    let chance = |x: usize| (choose(good, x) + choose(all - good, first - x) - choose(all, first)).exp();
    let least = (good + first).saturating_sub(all);
    let seen = chance(a);
    let mut tails = Tails { less: 0.0, greater: 0.0, both: 0.0 };
    for x in least..=good.min(first) {
        let p = chance(x);
        tails.less += if x <= a { p } else { 0.0 };
        tails.greater += if x >= a { p } else { 0.0 };
        tails.both += if p <= seen * (1.0 + 1e-7) { p } else { 0.0 };
    }
    Tails { less: tails.less.min(1.0), greater: tails.greater.min(1.0), both: tails.both.min(1.0) }
}
