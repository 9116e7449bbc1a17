//! The block test: within-session permutation of the arm labels, studentised.
//!
//! A case is a table of its contrast under every relabelling of its trials, the observed one first. Under "identical
//! builds" every entry of a table is equally likely, independently of the other cases, so the test is exact; because
//! the statistic is studentised it stays right where the mean effect is 0 but single cases differ (DECISION 1.3).

use rayon::prelude::*;

use crate::stats::stream::StreamKey;

/// Random permutations drawn where enumerating all is too much.
pub const PERMUTATIONS: u32 = 19_999;

/// Drawn first: where these already look harmless the others are not drawn.
const FIRST: u32 = 1_999;

/// Over this many of the first as bad as observed (15 %) nothing is shown at any level in use. Rejections at a level
/// well below it are only ever lost by stopping, never won, so the test keeps its size.
const HARMLESS: usize = 300;

/// Up to this many relabellings of all cases together are enumerated.
pub const ENUMERATED: u64 = 16_384;

/// Relative slack within which two statistics count as tied.
const TIE: f64 = 1e-12;

/// The tables of the cases, laid end to end.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    values: Vec<f64>,
    /// Start and length of each case whose contrast depends on the labels.
    spans: Vec<(usize, u32)>,
    fixed_sum: f64,
    fixed_squares: f64,
}

impl Tables {
    /// Lays out the tables; an entry 0 is the observed contrast. Cases that no relabelling changes are summed up once.
    #[must_use]
    pub fn new<'a>(tables: impl IntoIterator<Item = &'a [f64]>) -> Self {
        let mut laid = Self::default();
        for table in tables {
            let first = table.first().copied().unwrap_or(0.0);
            if table.iter().all(|value| *value == first) {
                laid.fixed_sum += first;
                laid.fixed_squares += first * first;
            } else {
                let length =
                    u32::try_from(table.len()).expect("a table has at most some hundreds of entries");
                laid.spans.push((laid.values.len(), length));
                laid.values.extend_from_slice(table);
            }
        }
        laid
    }

    /// A monotone function of Student's t, without its division by zero: sum over root of sum of squares.
    fn statistic(&self, mut entry: impl FnMut(u32) -> u32) -> f64 {
        let mut sum = self.fixed_sum;
        let mut squares = self.fixed_squares;
        for (start, length) in &self.spans {
            let value = self.values[start + entry(*length) as usize];
            sum += value;
            squares += value * value;
        }
        if squares > 0.0 { sum / squares.sqrt() } else { 0.0 }
    }

    /// One-sided p of "no deterioration": how often a relabelling looks as bad as what was observed, or worse.
    #[must_use]
    pub fn p_value(&self, key: StreamKey) -> f64 {
        let observed = self.statistic(|_| 0);
        let bar = observed + TIE * observed.abs().max(1.0);
        let all = self.spans.iter().try_fold(1_u64, |all, (_, length)| {
            all.checked_mul(u64::from(*length)).filter(|all| *all <= ENUMERATED)
        });
        match all {
            Some(all) => self.enumerate(all, bar),
            None => self.sample(key, bar),
        }
    }

    fn enumerate(&self, all: u64, bar: f64) -> f64 {
        let as_bad = (0..all).into_par_iter().filter(|number| {
            let mut rest = *number;
            let statistic = self.statistic(|length| {
                let digit = rest % u64::from(length);
                rest /= u64::from(length);
                u32::try_from(digit).expect("a remainder by a 32 bit number fits 32 bits")
            });
            statistic <= bar
        });
        ratio(as_bad.count(), usize::try_from(all).unwrap_or(usize::MAX))
    }

    fn sample(&self, key: StreamKey, bar: f64) -> f64 {
        let as_bad = |numbers: std::ops::Range<u32>| {
            let hits = numbers.into_par_iter().filter(|number| {
                let mut stream = key.stream(u64::from(*number));
                self.statistic(|length| stream.below(length)) <= bar
            });
            hits.count()
        };
        // The observed labelling is one of those drawn from, so p is never 0 (Phipson and Smyth 2010).
        let first = as_bad(0..FIRST);
        if first > HARMLESS {
            return ratio(first + 1, FIRST as usize + 1);
        }
        ratio(first + as_bad(FIRST..PERMUTATIONS) + 1, PERMUTATIONS as usize + 1)
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    let float = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    float(part) / float(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flips(contrasts: &[f64]) -> Vec<[f64; 2]> {
        contrasts.iter().map(|contrast| [*contrast, -contrast]).collect()
    }

    fn p_of(contrasts: &[f64]) -> f64 {
        let tables = flips(contrasts);
        Tables::new(tables.iter().map(<[f64; 2]>::as_slice)).p_value(StreamKey::new(7, "test"))
    }

    #[test]
    fn enumerated_sign_flips_agree_with_scipy() {
        // scipy.stats.permutation_test(permutation_type="samples", alternative="less"), see tests/calibration/reference.py.
        let p = p_of(&[-0.4, -0.1, 0.2, -0.7, 0.05, -0.3, -0.25, 0.1, -0.6, -0.15]);
        assert!((p - 0.027_343_75).abs() < 1e-12, "{p}");
    }

    #[test]
    fn single_binary_trials_are_the_sign_test() {
        // 12 discordant cases, 10 of them worse: binom.cdf(2, 12, .5) = 79/4096.
        let mut contrasts = vec![-1.0; 10];
        contrasts.extend([1.0, 1.0]);
        contrasts.extend([0.0; 30]);
        assert!((p_of(&contrasts) - 79.0 / 4096.0).abs() < 1e-12);
    }

    #[test]
    fn sampled_agrees_with_the_normal_limit() {
        // 40 discordant cases, 26 worse: binom.cdf(14, 40, .5) = 0.0403.
        let mut contrasts = vec![-1.0; 26];
        contrasts.extend([1.0; 14]);
        assert!((p_of(&contrasts) - 0.040_345).abs() < 0.005);
    }

    #[test]
    fn nothing_differs_nothing_is_shown() {
        assert!((p_of(&[0.0; 50]) - 1.0).abs() < 1e-12);
    }
}
