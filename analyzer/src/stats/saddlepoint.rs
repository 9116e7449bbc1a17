//! Tail probabilities of a sum of independent draws, one from each of several tables.
//!
//! Under relabelling within sessions, a statistic that is a sum over sessions is such a sum. Its cumulant generating
//! function is known exactly: K(s) = sum of ln mean exp(s x) over the tables. Lugannani and Rice (1980) give tail
//! probabilities from it with a relative error of some percent, however small they are, without any draw (DECISION
//! 1.9). The approximation is for nearly continuous sums; with few tables the caller enumerates instead.

use rayon::prelude::*;

use crate::stats::normal;

/// Number of tables summed by one thread at a time; fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 64;

/// Distance from the mean, in standard deviations, below which the formula is replaced by its limit.
const NEAR_MEAN: f64 = 1e-4;

/// Tolerance of the saddlepoint, in standard deviations of the sum.
const TOLERANCE: f64 = 1e-9;

/// Relative tolerance of a tie between two sums.
const TIE: f64 = 1e-12;

/// Largest number of steps towards the saddlepoint; Newton needs about six.
const MAX_STEPS: u32 = 200;

/// Distribution of a sum of one entry of each table, every entry of a table equally likely.
#[derive(Debug, Clone)]
pub struct SumOfDraws {
    /// Entries of the tables that are not constant, centred, in standard deviations of the sum.
    values: Vec<f64>,
    /// Start and end of each table in `values`, and its smallest and largest entry.
    tables: Vec<Table>,
    mean: f64,
    deviation: f64,
}

#[derive(Debug, Clone, Copy)]
struct Table {
    start: usize,
    end: usize,
    least: f64,
    most: f64,
}

/// Cumulant generating function with its first two derivatives.
#[derive(Debug, Clone, Copy, Default)]
struct Cumulants {
    value: f64,
    first: f64,
    second: f64,
}

impl SumOfDraws {
    /// Builds the distribution from the tables.
    #[must_use]
    pub fn new<'a>(tables: impl IntoIterator<Item = &'a [f64]>) -> Self {
        let mut sum = Self { values: Vec::new(), tables: Vec::new(), mean: 0.0, deviation: 0.0 };
        let mut variance = 0.0;
        for table in tables {
            let count = crate::stats::variance::float(table.len());
            let middle = table.iter().sum::<f64>() / count;
            sum.mean += middle;
            let least = table.iter().copied().fold(f64::INFINITY, f64::min);
            let most = table.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            // A table that varies by rounding alone is constant.
            if table.is_empty() || most - least <= TIE * most.abs().max(least.abs()) {
                continue;
            }
            let start = sum.values.len();
            sum.values.extend(table.iter().map(|value| value - middle));
            variance += sum.values[start..].iter().map(|value| value * value).sum::<f64>() / count;
            sum.tables.push(Table {
                start,
                end: sum.values.len(),
                least: least - middle,
                most: most - middle,
            });
        }
        sum.deviation = variance.sqrt();
        let scale = if sum.deviation > 0.0 { 1.0 / sum.deviation } else { 0.0 };
        sum.values.iter_mut().for_each(|value| *value *= scale);
        for table in &mut sum.tables {
            (table.least, table.most) = (table.least * scale, table.most * scale);
        }
        sum
    }

    /// Number of tables that are not constant.
    #[must_use]
    pub fn varying(&self) -> usize {
        self.tables.len()
    }

    /// Mean and standard deviation of the sum.
    #[must_use]
    pub fn moments(&self) -> (f64, f64) {
        (self.mean, self.deviation)
    }

    /// P(sum >= `value`).
    #[must_use]
    pub fn at_least(&self, value: f64) -> f64 {
        if self.tables.is_empty() {
            let slack = TIE * value.abs().max(self.mean.abs());
            return if value <= self.mean + slack { 1.0 } else { 0.0 };
        }
        self.upper((value - self.mean) / self.deviation)
    }

    /// P(sum <= `value`).
    #[must_use]
    pub fn at_most(&self, value: f64) -> f64 {
        let mut mirrored = self.clone();
        mirrored.values.iter_mut().for_each(|entry| *entry = -*entry);
        for table in &mut mirrored.tables {
            (table.least, table.most) = (-table.most, -table.least);
        }
        mirrored.mean = -self.mean;
        mirrored.at_least(-value)
    }

    /// P(standardised sum >= z).
    fn upper(&self, z: f64) -> f64 {
        let most: f64 = self.tables.iter().map(|table| table.most).sum();
        let least: f64 = self.tables.iter().map(|table| table.least).sum();
        let slack = TIE * most.abs().max(least.abs()).max(1.0);
        if z > most + slack {
            return 0.0;
        }
        if z <= least + slack {
            return 1.0;
        }
        // The probability of the largest sum depends on how often each table has its largest entry.
        let edge = self.edge();
        let saddle = if z >= most - slack { None } else { self.saddlepoint(z) };
        let Some((s, at)) = saddle else { return edge };
        let root = s.signum() * (2.0 * (s * z - at.value)).max(0.0).sqrt();
        let scaled = s * at.second.sqrt();
        let tail = if root.abs() < NEAR_MEAN || scaled.abs() < NEAR_MEAN {
            // Limit at the mean: half, minus a sixth of the skewness times the normal density.
            0.5 - self.skewness() / (6.0 * (2.0 * std::f64::consts::PI).sqrt())
        } else {
            let density = (-0.5 * root * root).exp() / (2.0 * std::f64::consts::PI).sqrt();
            normal::cdf(-root) + density * (1.0 / scaled - 1.0 / root)
        };
        tail.clamp(edge, 1.0)
    }

    /// P(sum = its largest value).
    fn edge(&self) -> f64 {
        let log: f64 = self
            .tables
            .iter()
            .map(|table| {
                let entries = &self.values[table.start..table.end];
                let bar = table.most - TIE * table.most.abs();
                let largest = entries.iter().filter(|value| **value >= bar).count();
                let float = crate::stats::variance::float;
                (float(largest) / float(entries.len())).ln()
            })
            .sum();
        log.exp()
    }

    fn skewness(&self) -> f64 {
        let third = |table: &Table| {
            let entries = &self.values[table.start..table.end];
            let cubes = entries.iter().map(|value| value * value * value).sum::<f64>();
            cubes / crate::stats::variance::float(entries.len())
        };
        self.tables.iter().map(third).sum()
    }

    /// Solves K'(s) = z and returns s and K(s); `None` if z is too near the end of the support for the precision.
    fn saddlepoint(&self, z: f64) -> Option<(f64, Cumulants)> {
        // K' grows from the smallest to the largest sum: Newton inside a shrinking bracket.
        let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
        let mut s = z;
        for _ in 0..MAX_STEPS {
            let at = self.cumulants(s);
            let miss = at.first - z;
            if miss.abs() <= TOLERANCE {
                return Some((s, at));
            }
            if miss > 0.0 {
                high = s;
            } else {
                low = s;
            }
            let newton = s - miss / at.second;
            s = if newton > low && newton < high && (newton - s).abs() <= 1.0 + 2.0 * s.abs() {
                newton
            } else if low.is_finite() && high.is_finite() {
                0.5 * (low + high)
            } else {
                // No bracket yet: step outwards.
                s - miss.signum() * (1.0 + s.abs())
            };
            if !s.is_finite() || s.abs() > 1e12 || high - low <= 1e-14 * s.abs() {
                return None;
            }
        }
        None
    }

    fn cumulants(&self, s: f64) -> Cumulants {
        let parts: Vec<Cumulants> =
            self.tables.par_chunks(CHUNK).map(|tables| self.cumulants_of(tables, s)).collect();
        let mut all = Cumulants::default();
        for part in parts {
            all.value += part.value;
            all.first += part.first;
            all.second += part.second;
        }
        all
    }

    fn cumulants_of(&self, tables: &[Table], s: f64) -> Cumulants {
        let mut sum = Cumulants::default();
        for table in tables {
            let entries = &self.values[table.start..table.end];
            let most = (s * table.most).max(s * table.least);
            let (mut zeroth, mut first, mut second) = (0.0, 0.0, 0.0);
            for value in entries {
                let weight = (s * value - most).exp();
                zeroth += weight;
                first += weight * value;
                second += weight * value * value;
            }
            let mean = first / zeroth;
            sum.value += most + (zeroth / crate::stats::variance::float(entries.len())).ln();
            sum.first += mean;
            sum.second += second / zeroth - mean * mean;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::stream::StreamKey;

    fn close(found: f64, wanted: f64, relative: f64) {
        assert!((found / wanted - 1.0).abs() <= relative, "{found} is not {wanted}");
    }

    #[test]
    fn fair_coins_are_the_binomial_between_its_steps() {
        // 100 coins of +-1. Between two lattice points the formula is about right; scipy.stats.binom.sf(59, 100, .5).
        let tables = vec![[1.0, -1.0]; 100];
        let sum = SumOfDraws::new(tables.iter().map(<[f64; 2]>::as_slice));
        assert_eq!(sum.varying(), 100);
        close(sum.at_least(19.0), 0.028_443_966_820_490_4, 0.01);
        close(sum.at_most(-19.0), 0.028_443_966_820_490_4, 0.01);
        close(sum.at_least(49.0), 2.818_141_e-7, 0.06);
        assert!((sum.at_least(0.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn the_ends_are_exact() {
        let tables = [[0.0, 1.0, 1.0], [0.0, 2.0, 3.0]];
        let sum = SumOfDraws::new(tables.iter().map(<[f64; 3]>::as_slice));
        close(sum.at_least(4.0), 2.0 / 9.0, 1e-12);
        assert!(sum.at_least(4.1).abs() < 1e-15 && (sum.at_least(0.0) - 1.0).abs() < 1e-15);
        close(sum.at_most(0.0), 1.0 / 9.0, 1e-12);
        let constant = SumOfDraws::new([[2.0, 2.0].as_slice(), [1.0].as_slice()]);
        assert!((constant.at_least(3.0) - 1.0).abs() < 1e-15 && constant.at_least(3.1).abs() < 1e-15);
    }

    #[test]
    fn skewed_tables_agree_with_their_own_draws() {
        // Tables like squared distances: many small entries, a few large ones.
        let key = StreamKey::new(3, "skewed");
        let mut stream = key.stream(0);
        let tables: Vec<Vec<f64>> = (0..40)
            .map(|_| (0..70).map(|_| -(f64::from(stream.below(1_000_000)) + 0.5).ln() / 10.0).collect())
            .collect();
        let sum = SumOfDraws::new(tables.iter().map(Vec::as_slice));
        let (mean, deviation) = sum.moments();
        let mut draws = Vec::new();
        for number in 0..200_000 {
            let mut stream = key.stream(1 + number);
            draws.push(tables.iter().map(|table| table[stream.below(70) as usize]).sum::<f64>());
        }
        for z in [0.0, 1.0, 2.0] {
            let bar = mean + z * deviation;
            let share = draws.iter().filter(|value| **value >= bar).count();
            let share = crate::stats::variance::float(share) / 200_000.0;
            close(sum.at_least(bar), share, 0.03);
            close(sum.at_most(bar), 1.0 - share, 0.03);
        }
    }
}
