//! Group-sequential boundaries: alpha spent over looks, and the boundary of each look.
//!
//! One-sided spending of the O'Brien-Fleming kind, alpha(t) = 2 (1 - Phi(z(1 - alpha/2) / sqrt t)) (Lan and DeMets
//! 1983). Boundaries come from the joint distribution of the looks by numerical recursion (Armitage, McPherson and
//! Rowe 1969): the density of the sum at one look, below the boundary, is convolved with the next increment.
//! Information fractions are shares of the planned cases, so increments are independent.

use std::collections::BTreeMap;

use super::normal;

/// Positive nodes and weights of Gauss-Legendre quadrature with 16 points.
const NODES: [(f64, f64); 8] = [
    (0.095_012_509_837_637_44, 0.189_450_610_455_068_6),
    (0.281_603_550_779_258_9, 0.182_603_415_044_923_6),
    (0.458_016_777_657_227_4, 0.169_156_519_395_002_6),
    (0.617_876_244_402_643_8, 0.149_595_988_816_576_7),
    (0.755_404_408_355_003, 0.124_628_971_255_534_1),
    (0.865_631_202_387_831_8, 0.095_158_511_682_492_6),
    (0.944_575_023_073_232_6, 0.062_253_523_938_647_46),
    (0.989_400_934_991_649_9, 0.027_152_459_411_754_18),
];

/// Number of standard deviations beyond which the density is negligible.
const REACH: f64 = 8.0;

/// Width of a quadrature panel, in standard deviations of the smallest increment.
const PANEL: f64 = 3.0;

/// Part of `alpha` spent at information fraction `t`; all of it from 1 on.
#[must_use]
pub fn spent(alpha: f64, t: f64) -> f64 {
    if t >= 1.0 {
        alpha
    } else if t <= 0.0 {
        0.0
    } else {
        2.0 * normal::cdf(normal::quantile(0.5 * alpha) / t.sqrt())
    }
}

/// Boundary of the standard normal quantile of 1 - p at each look. `fractions` are ascending, above 0. A boundary is
/// infinite if nothing can be spent.
#[must_use]
pub fn boundaries(alpha: f64, fractions: &[f64]) -> Vec<f64> {
    let mut found = Vec::with_capacity(fractions.len());
    let mut density: Option<Density> = None;
    for (look, t) in fractions.iter().enumerate() {
        let before = if look == 0 { 0.0 } else { fractions[look - 1] };
        let spend = spent(alpha, *t) - spent(alpha, before);
        let step = t - before;
        // A look without new cases, or with nothing to spend, shows nothing.
        if step <= 1e-9 || spend <= 1e-300 {
            found.push(f64::INFINITY);
            if step > 1e-9 {
                density =
                    Some(Density::after(density.as_ref(), *t, step, f64::INFINITY, smallest(fractions)));
            }
            continue;
        }
        let bound = match &density {
            None => -normal::quantile(spend),
            Some(density) => density.bound(spend, *t, step),
        };
        density = Some(Density::after(density.as_ref(), *t, step, bound, smallest(fractions)));
        found.push(bound);
    }
    found
}

fn smallest(fractions: &[f64]) -> f64 {
    let steps = fractions.windows(2).map(|pair| pair[1] - pair[0]).filter(|step| *step > 1e-9);
    steps.chain(fractions.first().copied()).fold(f64::INFINITY, f64::min)
}

/// Density of the sum (a Brownian motion at the look's time) if no boundary has been crossed: nodes, and density times
/// weight there.
struct Density {
    points: Vec<(f64, f64)>,
}

impl Density {
    /// Density after a look at time `t` with boundary `bound` on the standard scale.
    fn after(before: Option<&Self>, t: f64, step: f64, bound: f64, smallest: f64) -> Self {
        let (low, high) = (-REACH * t.sqrt(), (bound * t.sqrt()).min(REACH * t.sqrt()));
        let scale = step.sqrt();
        let points = nodes(low, high, PANEL * smallest.sqrt());
        let of = |x: f64| match before {
            None => density(x / scale) / scale,
            Some(before) => before.folded(x, scale),
        };
        Self { points: points.into_iter().map(|(x, weight)| (x, weight * of(x))).collect() }
    }

    /// Density of the sum at `x` after an increment of this standard deviation.
    fn folded(&self, x: f64, scale: f64) -> f64 {
        let near = self.near(x - REACH * scale, x + REACH * scale);
        let sum: f64 = near.iter().map(|(point, mass)| mass * density((x - point) / scale)).sum();
        sum / scale
    }

    /// Boundary at time `t` that is crossed with probability `spend` by paths that have crossed none before.
    fn bound(&self, spend: f64, t: f64, step: f64) -> f64 {
        let (root, scale) = (t.sqrt(), step.sqrt());
        let crossed = |bound: f64| -> f64 {
            let high = bound * root;
            self.points.iter().map(|(point, mass)| mass * normal::cdf((point - high) / scale)).sum()
        };
        // Upper limit: without earlier looks the boundary would be crossed more often.
        let (mut low, mut high) = (-REACH, (-normal::quantile(spend)).min(37.0) + 1e-9);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if crossed(middle) > spend {
                low = middle;
            } else {
                high = middle;
            }
            if high - low < 1e-9 {
                break;
            }
        }
        0.5 * (low + high)
    }

    fn near(&self, low: f64, high: f64) -> &[(f64, f64)] {
        let first = self.points.partition_point(|(point, _)| *point < low);
        let end = self.points.partition_point(|(point, _)| *point <= high);
        &self.points[first..end]
    }
}

/// Nodes and weights of an interval, ascending.
fn nodes(low: f64, high: f64, width: f64) -> Vec<(f64, f64)> {
    let panels = crate::cast::round(((high - low) / width).ceil()).max(1);
    let half = 0.5 * (high - low) / crate::cast::to_f64(panels);
    let mut points = Vec::new();
    for panel in 0..panels {
        let middle = low + half * (2.0 * crate::cast::to_f64(panel) + 1.0);
        let side =
            |sign: f64| move |(node, weight): &(f64, f64)| (middle + sign * half * node, half * weight);
        points.extend(NODES.iter().rev().map(side(-1.0)));
        points.extend(NODES.iter().map(side(1.0)));
    }
    points
}

fn density(x: f64) -> f64 {
    (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// Levels at which boundaries are tabulated besides the level of the decision: standard normal quantiles of 1 - alpha
/// from `HIGHEST` down in steps of `GRID_STEP`.
const LEVELS: u32 = 64;
const HIGHEST: f64 = 7.0;
const GRID_STEP: f64 = 9.0 / 63.0;

/// A schedule of looks with its boundaries by level, computed on demand.
#[derive(Debug, Clone)]
pub struct Schedule {
    fractions: Vec<f64>,
    /// Quantiles of the levels, descending: the strictest first.
    levels: Vec<f64>,
    rows: BTreeMap<usize, Vec<f64>>,
}

impl Schedule {
    /// A schedule of looks at these information fractions; `alpha` is tabulated exactly.
    #[must_use]
    pub fn new(alpha: f64, fractions: &[f64]) -> Self {
        let exact = -normal::quantile(alpha);
        let mut levels: Vec<f64> =
            (0..LEVELS).map(|number| HIGHEST - GRID_STEP * f64::from(number)).collect();
        levels.retain(|level| (level - exact).abs() > 1e-6);
        levels.push(exact);
        levels.sort_by(|a, b| b.total_cmp(a));
        Self { fractions: fractions.to_vec(), levels, rows: BTreeMap::new() }
    }

    /// Information fractions of the looks.
    #[must_use]
    pub fn fractions(&self) -> &[f64] {
        &self.fractions
    }

    fn row(&mut self, level: usize) -> &[f64] {
        let (levels, fractions) = (&self.levels, &self.fractions);
        self.rows.entry(level).or_insert_with(|| boundaries(normal::cdf(-levels[level]), fractions))
    }

    /// Smallest alpha whose boundary a p-value crosses at this look (from 0), interpolated between tabulated levels.
    pub fn level(&mut self, look: usize, p: f64) -> f64 {
        let reached = -normal::quantile(p.clamp(1e-300, 1.0 - 1e-12));
        // Boundaries fall with the level's quantile, so the first level whose boundary is reached is searched.
        let (mut first, mut end) = (0, self.levels.len());
        while first < end {
            let middle = usize::midpoint(first, end);
            if reached >= self.row(middle)[look] {
                end = middle;
            } else {
                first = middle + 1;
            }
        }
        if first == self.levels.len() {
            return 1.0;
        }
        let (level, bound) = (self.levels[first], self.row(first)[look]);
        if first == 0 {
            return normal::cdf(-level);
        }
        let (stricter, above) = (self.levels[first - 1], self.row(first - 1)[look]);
        let share =
            if above.is_finite() && above > bound { (reached - bound) / (above - bound) } else { 0.0 };
        normal::cdf(-(level + share * (stricter - level)))
    }
}

/// Sequential p of one test after its looks: the smallest alpha whose boundary has been crossed so far.
#[must_use]
pub fn sequential_p(schedule: &mut Schedule, p_values: &[f64]) -> f64 {
    let each = p_values.iter().enumerate().map(|(look, p)| schedule.level(look, *p));
    each.fold(1.0, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUARTERS: [f64; 4] = [0.25, 0.5, 0.75, 1.0];

    #[test]
    fn boundaries_are_those_of_the_design() {
        let expected = [(0.05, [3.7496, 2.5399, 2.0161, 1.7202]), (0.04, [3.9444, 2.6815, 2.1305, 1.8182])];
        for (alpha, wanted) in expected {
            for (found, wanted) in boundaries(alpha, &QUARTERS).iter().zip(wanted) {
                assert!((found - wanted).abs() < 2e-4, "alpha {alpha}: {found} {wanted}");
            }
        }
    }

    #[test]
    fn one_look_is_no_sequence_and_uneven_looks_spend_all() {
        assert!((boundaries(0.05, &[1.0])[0] - 1.644_853_627).abs() < 1e-8);
        let mut schedule = Schedule::new(0.05, &[1.0]);
        for p in [1e-9, 0.003, 0.05, 0.4] {
            assert!((schedule.level(0, p) / p - 1.0).abs() < 1e-3, "{p}: {}", schedule.level(0, p));
        }
        // A look that adds nothing is skipped.
        let bounds = boundaries(0.05, &[0.5, 0.5, 1.0]);
        assert!(bounds[1].is_infinite());
        assert!((bounds[2] - boundaries(0.05, &[0.5, 1.0])[1]).abs() < 1e-9);
    }

    #[test]
    fn the_sequential_p_is_alpha_on_the_boundary() {
        let mut schedule = Schedule::new(0.05, &QUARTERS);
        for (look, bound) in boundaries(0.05, &QUARTERS).into_iter().enumerate() {
            let p = normal::cdf(-bound);
            assert!((schedule.level(look, p * 0.999_999) - 0.05).abs() < 1e-5, "look {look}");
            // Between the tabulated levels: the boundary of the level found has this p.
            let level = schedule.level(look, 0.3 * p);
            let back = normal::cdf(-boundaries(level, &QUARTERS)[look]);
            assert!((back / (0.3 * p) - 1.0).abs() < 2e-2, "look {look}: {back} {}", 0.3 * p);
            assert!(level < 0.05);
        }
        assert!((sequential_p(&mut schedule, &[1.0, 1.0]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn peeking_with_these_boundaries_keeps_the_level() {
        // 20,000 Brownian paths without drift, ten looks; at 5 % the 99.9 % limit is .0548.
        let fractions: Vec<f64> = (1..=10).map(|look| 0.1 * f64::from(look)).collect();
        let bounds = boundaries(0.05, &fractions);
        let key = crate::stats::stream::StreamKey::new(3, "paths");
        let crossed = (0..20_000_u64).filter(|number| {
            let mut stream = key.stream(*number);
            let mut sum = 0.0;
            fractions.iter().zip(&bounds).any(|(t, bound)| {
                let unit = (f64::from(stream.next_u32()) + 0.5) / 4_294_967_296.0;
                sum += normal::quantile(unit) * 0.1_f64.sqrt();
                sum / t.sqrt() >= *bound
            })
        });
        let share = f64::from(u32::try_from(crossed.count()).expect("few paths")) / 20_000.0;
        assert!((0.045..0.0548).contains(&share), "{share}");
    }
}
