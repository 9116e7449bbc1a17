//! Approve test: Gaffke's bound (Learned-Miller and Thomas 2020) for the mean of bounded contrasts.
//!
//! One pseudo-case at the bottom of the range is added. With a(k) = contrast(k) + margin and E(k) independent standard
//! exponentials, p = P(sum of E(k) a(k) <= 0). If only the pseudo-case is below zero, p is a product. Otherwise the
//! cumulant generating function is integrated along the line through its saddlepoint, to about ten digits. Student's t
//! is not used: near the ceiling it approves two to six times too often (DECISION 1.3).

use std::f64::consts::PI;

/// Step of the integration, in widths of the integrand's peak.
const STEP: f64 = 0.2;

/// Factor between an approximate p and alpha above which the exact p is on the same side.
const CLEARLY: f64 = 1.5;

/// Largest number of integration steps, reached only with one or two cases.
const MAX_STEPS: u32 = 4000;

/// Mean contrast of a sampling unit: a case, or a cluster of cases.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UnitMean {
    /// Weighted mean of the unit's contrasts.
    pub mean: f64,
    /// Sum of the weights of the unit's cases, positive.
    pub weight: f64,
}

/// Units of equal mean and weight.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Group {
    value: f64,
    weight: f64,
    count: f64,
}

/// Contrasts of all cases, with multiplicities.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Distinct values ascending, with their weights and multiplicities.
    groups: Vec<Group>,
    /// Weight of the pseudo-case: the largest of any unit.
    heaviest: f64,
    low: f64,
}

impl Sample {
    /// Groups the contrasts; `low` is the bottom of their range.
    #[must_use]
    pub fn new(contrasts: &[f64], low: f64) -> Self {
        let units: Vec<UnitMean> =
            contrasts.iter().map(|contrast| UnitMean { mean: *contrast, weight: 1.0 }).collect();
        Self::of_units(&units, low)
    }

    /// Groups units of unequal weight. The mean is the weighted one: with a(k) = weight(k) (mean(k) + margin), the
    /// null hypothesis "the weighted mean is at most -margin" is "the expected a(k) is at most 0". The weight is a part
    /// of the draw, and the pseudo-case has the largest one, so a unit that weighs more than all of these is not
    /// provided for.
    #[must_use]
    pub fn of_units(units: &[UnitMean], low: f64) -> Self {
        let mut sorted: Vec<UnitMean> = units.iter().filter(|unit| unit.weight > 0.0).copied().collect();
        sorted.sort_by(|a, b| a.mean.total_cmp(&b.mean).then(a.weight.total_cmp(&b.weight)));
        let mut groups: Vec<Group> = Vec::new();
        for UnitMean { mean: value, weight } in sorted {
            match groups.last_mut() {
                Some(held) if held.value == value && held.weight == weight => held.count += 1.0,
                Some(_) | None => groups.push(Group { value, weight, count: 1.0 }),
            }
        }
        let heaviest = groups.iter().map(|group| group.weight).fold(0.0, f64::max);
        Self { groups, heaviest, low }
    }

    /// Wraps values of equal weight that are already grouped, ascending and distinct.
    #[must_use]
    pub fn from_groups(groups: Vec<(f64, f64)>, low: f64) -> Self {
        let groups = groups.into_iter().map(|(value, count)| Group { value, weight: 1.0, count }).collect();
        Self { groups, heaviest: 1.0, low }
    }

    fn weights(&self, margin: f64) -> Vec<(f64, f64)> {
        let mut weights: Vec<(f64, f64)> =
            self.groups.iter().map(|group| (group.weight * (group.value + margin), group.count)).collect();
        weights.push((self.heaviest * (self.low + margin), 1.0));
        weights.retain(|(weight, count)| weight.abs() > 1e-15 && *count > 0.0);
        weights
    }

    /// Whether [`Self::p_value`] is at most `alpha`; clear cases are settled by an approximation.
    #[must_use]
    pub fn passes(&self, margin: f64, alpha: f64) -> bool {
        match approximate(&self.weights(margin)) {
            Some(p) if p > CLEARLY * alpha => false,
            Some(p) if p < alpha / CLEARLY => true,
            Some(_) | None => self.p_value(margin) <= alpha,
        }
    }

    /// One-sided p of "the mean is at most -margin".
    #[must_use]
    pub fn p_value(&self, margin: f64) -> f64 {
        let weights = self.weights(margin);
        let below = weights.iter().filter(|(weight, _)| *weight < 0.0).map(|(_, count)| count).sum::<f64>();
        let above = weights.iter().filter(|(weight, _)| *weight > 0.0).map(|(_, count)| count).sum::<f64>();
        if below == 0.0 {
            return 0.0;
        }
        if above == 0.0 {
            return 1.0;
        }
        if below <= 1.0 {
            return one_below(&weights);
        }
        integrate(&weights).clamp(0.0, 1.0)
    }

    /// Largest value that the mean is shown to exceed at level `alpha`; `low` if nothing is shown.
    #[must_use]
    pub fn lower_bound(&self, alpha: f64) -> f64 {
        let top = self.groups.last().map_or(self.low, |group| group.value);
        let (mut shown, mut not_shown) = (self.low, top);
        if top <= self.low {
            return self.low;
        }
        for _ in 0..40 {
            let middle = 0.5 * (shown + not_shown);
            if self.p_value(-middle) <= alpha {
                shown = middle;
            } else {
                not_shown = middle;
            }
            if not_shown - shown < 1e-9 {
                break;
            }
        }
        shown
    }
}

/// The single weight below zero is exponential and memoryless: the sum of the others must stay below it.
fn one_below(weights: &[(f64, f64)]) -> f64 {
    let low = weights.iter().find(|(weight, _)| *weight < 0.0).map_or(0.0, |(weight, _)| -weight);
    let log: f64 = weights
        .iter()
        .filter(|(weight, _)| *weight > 0.0)
        .map(|(weight, count)| -count * (weight / low).ln_1p())
        .sum();
    log.exp()
}

/// Saddlepoint approximation of P(sum <= 0) (Lugannani and Rice 1980); absent if it is inaccurate: with hardly any
/// weight on one side, or near the middle.
fn approximate(weights: &[(f64, f64)]) -> Option<f64> {
    let on = |side: fn(&f64) -> bool| {
        weights.iter().filter(|(weight, _)| side(weight)).map(|(_, count)| count).sum::<f64>()
    };
    if on(|weight| *weight < 0.0) < 4.0 || on(|weight| *weight > 0.0) < 4.0 {
        return None;
    }
    let s = near_saddlepoint(weights);
    let height: f64 = weights.iter().map(|(weight, count)| -count * (-s * weight).ln_1p()).sum();
    let r = s.signum() * (-2.0 * height).max(0.0).sqrt();
    let u = s * derivatives(weights, s).1.sqrt();
    let density = (-0.5 * r * r).exp() / (2.0 * PI).sqrt();
    (r.abs() > 0.2).then(|| super::normal::cdf(r) + density * (1.0 / r - 1.0 / u))
}

/// Floor of a margin: the smallest number of cases that can show it. With fewer, a candidate that breaks a share
/// `margin` of the sessions shows nothing with a probability above `alpha`. `low` is the bottom of the range, below
/// zero.
#[must_use]
pub fn floor(alpha: f64, margin: f64, low: f64) -> u64 {
    if margin >= -low {
        return 1;
    }
    let cases = (alpha.ln() / (margin / low).ln_1p()).ceil();
    // 59.0000000001 is 59.
    let cases =
        if (1.0 + margin / low).powf(cases - 1.0) <= alpha * (1.0 + 1e-12) { cases - 1.0 } else { cases };
    crate::cast::round(cases)
}

/// Number of equally heavy units that show as much as these of unequal weight where no contrast differs from zero: the
/// number that the floor is compared with. It is the number of units where all weigh the same.
#[must_use]
pub fn effective_units(weights: &[f64], margin: f64, low: f64) -> f64 {
    let heaviest = weights.iter().copied().fold(0.0, f64::max);
    if heaviest <= 0.0 || weights.iter().all(|weight| *weight == heaviest) {
        return super::variance::float(weights.len());
    }
    let step = margin / (-low - margin).max(f64::MIN_POSITIVE);
    let shown: f64 = weights.iter().map(|weight| (step * weight / heaviest).ln_1p()).sum();
    shown / step.ln_1p()
}

// === the integral ===

/// First two derivatives of K(s) = -sum of n ln(1 - s a).
fn derivatives(weights: &[(f64, f64)], s: f64) -> (f64, f64) {
    let mut first = 0.0;
    let mut second = 0.0;
    for (weight, count) in weights {
        let part = weight / (1.0 - s * weight);
        first += count * part;
        second += count * part * part;
    }
    (first, second)
}

/// The interval on which K is finite.
fn finite(weights: &[(f64, f64)]) -> (f64, f64) {
    let least = weights.iter().map(|(weight, _)| *weight).fold(f64::INFINITY, f64::min);
    let most = weights.iter().map(|(weight, _)| *weight).fold(f64::NEG_INFINITY, f64::max);
    (1.0 / least, 1.0 / most)
}

/// Solves K'(s) = 0 by Newton's method inside a bracket: as exact as [`saddlepoint`] in a fifth of the time, but not
/// identical in the last digit.
fn near_saddlepoint(weights: &[(f64, f64)]) -> f64 {
    let (mut low, mut high) = finite(weights);
    let mut s = 0.0;
    for _ in 0..100 {
        let (first, second) = derivatives(weights, s);
        if first > 0.0 {
            high = s;
        } else {
            low = s;
        }
        let newton = s - first / second;
        let next = if newton > low && newton < high { newton } else { 0.5 * (low + high) };
        let step = next - s;
        s = next;
        if step.abs() <= 1e-10 * s.abs() {
            break;
        }
    }
    s
}

/// Solves K'(s) = 0 by bisection, because K' grows over the whole interval on which K is finite.
fn saddlepoint(weights: &[(f64, f64)]) -> f64 {
    let (mut low, mut high) = finite(weights);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if derivatives(weights, middle).0 > 0.0 {
            high = middle;
        } else {
            low = middle;
        }
        if high - low <= 1e-10 * (high.abs() + low.abs()) {
            break;
        }
    }
    0.5 * (low + high)
}

/// P(sum <= 0) as a line integral of exp(K(z)) / z, on the side of the pole at 0 where the saddlepoint is.
fn integrate(weights: &[(f64, f64)]) -> f64 {
    let mut real = saddlepoint(weights);
    let (_, curve) = derivatives(weights, real);
    // Near the pole the sum would need small steps; a line one width away gives the same integral.
    if real.abs() * curve.sqrt() < 1.0 {
        real = -1.0 / derivatives(weights, 0.0).1.sqrt();
    }
    let (_, curve) = derivatives(weights, real);
    let step = STEP / curve.sqrt();
    let height: f64 = weights.iter().map(|(weight, count)| -count * (1.0 - real * weight).ln()).sum();
    let mut sum = 0.5 / real;
    let smallest = 1e-15 / real.abs();
    for number in 1..MAX_STEPS {
        let imaginary = step * f64::from(number);
        let (log, angle) = transform(weights, real, imaginary);
        let size = (log - height).exp();
        // exp(i angle) / (real + i imaginary), its real part.
        let modulus = real * real + imaginary * imaginary;
        sum += size * (angle.cos() * real + angle.sin() * imaginary) / modulus;
        if size / modulus.sqrt() < smallest {
            break;
        }
    }
    let area = height.exp() * step * sum / PI;
    if real < 0.0 { -area } else { 1.0 - area }
}

/// Logarithm of the size, and the angle, of exp(K(real + i imaginary)).
fn transform(weights: &[(f64, f64)], real: f64, imaginary: f64) -> (f64, f64) {
    let mut log = 0.0;
    let mut angle = 0.0;
    // Single weights are multiplied; one logarithm each would take ten times as long.
    let (mut x, mut y) = (1.0, 0.0);
    let mut held = 0;
    for (weight, count) in weights {
        let (a, b) = (1.0 - real * weight, -imaginary * weight);
        if *count > 1.0 {
            log -= 0.5 * count * (a * a + b * b).ln();
            angle -= count * b.atan2(a);
            continue;
        }
        (x, y) = (x * a - y * b, x * b + y * a);
        held += 1;
        if held == 16 {
            held = 0;
            log -= 0.5 * (x * x + y * y).ln();
            angle -= y.atan2(x);
            (x, y) = (1.0, 0.0);
        }
    }
    (log - 0.5 * (x * x + y * y).ln(), angle - y.atan2(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_failure_it_is_the_floor() {
        let p = Sample::new(&[0.0; 58], -1.0).p_value(0.05);
        assert!((p - 0.95_f64.powi(58)).abs() < 1e-12);
        assert_eq!(floor(0.05, 0.10, -1.0), 29);
        assert_eq!(floor(0.05, 0.05, -1.0), 59);
        assert_eq!(floor(0.05, 0.02, -1.0), 149);
        assert_eq!(floor(0.05, 1.10_f64.ln() / 4.0_f64.ln(), -1.0), 43);
    }

    #[test]
    fn failures_of_full_size_are_clopper_pearson() {
        // 100 cases in [0, 1] with 3 zeros and 97 ones: lower 95 % bound of the mean = beta.ppf(.05, 97, 4).
        let mut values = vec![1.0; 97];
        values.extend([0.0; 3]);
        let bound = Sample::new(&values, 0.0).lower_bound(0.05);
        assert!((bound - 0.924_289_206_25).abs() < 1e-8, "{bound}");
    }

    #[test]
    fn equal_weights_change_nothing_and_unequal_ones_raise_the_floor() {
        let contrasts: Vec<f64> = (0..60).map(|k| [0.3, -0.1, 0.0][k % 3]).collect();
        let of = |weight: fn(usize) -> f64| -> Vec<UnitMean> {
            contrasts
                .iter()
                .enumerate()
                .map(|(k, mean)| UnitMean { mean: *mean, weight: weight(k) })
                .collect()
        };
        let plain = Sample::new(&contrasts, -1.0).p_value(0.05);
        let twice = Sample::of_units(&of(|_| 2.0), -1.0).p_value(0.05);
        assert!((plain - twice).abs() < 1e-9, "{plain} {twice}");
        // 59 cases without a failure are enough, but not if one of them weighs as much as ten others.
        let weights: Vec<f64> = (0..59).map(|k| if k == 0 { 10.0 } else { 1.0 }).collect();
        let units: Vec<UnitMean> =
            weights.iter().map(|weight| UnitMean { mean: 0.0, weight: *weight }).collect();
        let p = Sample::of_units(&units, -1.0).p_value(0.05);
        let effective = effective_units(&weights, 0.05, -1.0);
        assert!((p - 0.95_f64.powf(effective)).abs() < 1e-9 && effective < 8.0, "{p} {effective}");
        assert!((effective_units(&[3.0; 59], 0.05, -1.0) - 59.0).abs() < 1e-12);
    }

    #[test]
    fn agrees_with_a_million_draws() {
        // tests/calibration/reference.py, 1e6 draws of the Dirichlet-weighted mean.
        let mixed: Vec<f64> = (0..40).map(|k| [0.2, 0.0, -0.2, 0.0, 0.1][k % 5]).collect();
        let p = Sample::new(&mixed, -1.0).p_value(0.05);
        assert!((p - 0.0830).abs() < 0.001, "{p}");
        let float = crate::stats::variance::float;
        let spread: Vec<f64> =
            (0..100).map(|k| if k % 17 == 0 { -0.9 } else { 0.02 * float(k % 7) }).collect();
        let p = Sample::new(&spread, -1.0).p_value(0.05);
        assert!((p - 0.0606).abs() < 0.001, "{p}");
    }

    #[test]
    fn distinct_and_grouped_values_give_the_same() {
        let grouped: Vec<f64> = (0..60).map(|k| [0.3, -0.1, 0.0][k % 3]).collect();
        let distinct: Vec<f64> = grouped
            .iter()
            .enumerate()
            .map(|(k, value)| value + crate::stats::variance::float(k) * 1e-13)
            .collect();
        let (a, b) = (Sample::new(&grouped, -1.0).p_value(0.05), Sample::new(&distinct, -1.0).p_value(0.05));
        assert!((a / b - 1.0).abs() < 1e-6, "{a} {b}");
    }

    #[test]
    fn what_is_settled_quickly_is_settled_rightly() {
        let key = crate::stats::stream::StreamKey::new(4, "samples");
        for number in 0..300 {
            let mut stream = key.stream(number);
            let bad = 2 + stream.below(12);
            let values: Vec<f64> = (0..120)
                .map(|_| if stream.below(100) < bad { -0.2 * f64::from(1 + stream.below(5)) } else { 0.1 })
                .collect();
            let sample = Sample::new(&values, -1.0);
            assert_eq!(sample.passes(0.05, 0.05), sample.p_value(0.05) <= 0.05, "sample {number}");
        }
    }

    #[test]
    fn the_bound_moves_with_the_level_and_stays_below_the_mean() {
        let values: Vec<f64> = (0..80).map(|k| if k % 7 == 0 { -0.5 } else { 0.1 }).collect();
        let sample = Sample::new(&values, -1.0);
        let (strict, loose) = (sample.lower_bound(0.01), sample.lower_bound(0.10));
        assert!(strict < loose && loose < crate::stats::variance::mean(&values));
    }
}
