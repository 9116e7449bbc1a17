//! Block test: within-session permutation of the arm labels, studentised.
//!
//! A case is a table of its contrast under every relabelling of its trials, the observed one first. With identical
//! builds every entry of a table is equally likely, independently of the other cases, so the test is exact. The
//! studentised statistic keeps the level if the mean effect is 0 but single cases differ (DECISION 1.3).

use rayon::prelude::*;

use crate::stats::stream::{Stream, StreamKey};

mod tilted;

use tilted::{Drawn, Tilted};

/// Number of permutations drawn if enumeration is too expensive and the first draws are not clearly harmless.
pub const PERMUTATIONS: u32 = 15_999;

/// Number of permutations drawn first; if they are clearly harmless, no more are drawn.
const FIRST: u32 = 1_999;

/// Permutations evaluated together, so that their sums and streams stay in the cache; weights are added by block.
const BLOCK: u32 = 64;

/// Number of the first draws at least as extreme (15 %) above which no level in use can reject. Stopping can only lose
/// rejections, so the test keeps its size.
const HARMLESS: usize = 300;

/// Largest number of relabellings of all cases together that is enumerated.
pub const ENUMERATED: u64 = 32_768;

/// Relative tolerance of a tie between two statistics.
const TIE: f64 = 1e-12;

/// Tables of the cases, concatenated.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    values: Vec<f64>,
    /// Start and length of each case whose contrast depends on the labels.
    spans: Vec<(usize, u32)>,
    fixed_sum: f64,
    fixed_squares: f64,
}

impl Tables {
    /// Lays out the tables, whose entry 0 is the observed contrast. Cases that no relabelling changes are summed once.
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

    /// Statistic under one relabelling.
    fn statistic(&self, mut entry: impl FnMut(u32) -> u32) -> f64 {
        let mut sum = self.fixed_sum;
        let mut squares = self.fixed_squares;
        for (start, length) in &self.spans {
            let value = self.values[start + entry(*length) as usize];
            sum += value;
            squares += value * value;
        }
        studentised(sum, squares)
    }

    /// One-sided p of "no deterioration": share of relabellings at least as extreme as the observed one.
    #[must_use]
    pub fn p_value(&self, key: StreamKey) -> f64 {
        let observed = self.statistic(|_| 0);
        let bar = observed + TIE * observed.abs().max(1.0);
        match self.number() {
            Some(all) => self.enumerate(all, bar),
            None => self.sample(key, bar),
        }
    }

    /// Number of relabellings, if they are enumerated.
    fn number(&self) -> Option<u64> {
        self.spans.iter().try_fold(1_u64, |all, (_, length)| {
            all.checked_mul(u64::from(*length)).filter(|all| *all <= ENUMERATED)
        })
    }

    /// Least statistic that is not significant at `level`: the block test rejects exactly what lies below it. Minus
    /// infinity if nothing does, for example with few relabellings.
    #[must_use]
    pub fn critical(&self, key: StreamKey, level: f64) -> f64 {
        match self.number() {
            Some(all) => {
                let mut statistics: Vec<f64> =
                    (0..all).into_par_iter().map(|number| self.numbered(number)).collect();
                statistics.sort_by(f64::total_cmp);
                let allowed = crate::cast::round((level * crate::cast::to_f64(all) + 1e-9).floor());
                let place = usize::try_from(allowed).unwrap_or(usize::MAX);
                // With a level of nothing the least statistic of all is not significant either.
                if allowed == 0 { f64::NEG_INFINITY } else { statistics.get(place).copied().unwrap_or(0.0) }
            }
            None => self.sampled_critical(key, level),
        }
    }

    /// Estimates [`Self::critical`] from relabellings drawn near it.
    fn sampled_critical(&self, key: StreamKey, level: f64) -> f64 {
        let tables =
            || self.spans.iter().map(|(start, length)| &self.values[*start..*start + *length as usize]);
        let (mut middle, mut variance) = (0.0, 0.0);
        for table in tables() {
            let average = super::variance::mean(table);
            middle += average;
            variance += super::variance::mean(
                &table.iter().map(|value| (value - average).powi(2)).collect::<Vec<_>>(),
            );
        }
        let target = middle + super::normal::quantile(level.clamp(1e-12, 0.5)) * variance.sqrt();
        let tilted = Tilted::new(tables(), Some(target));
        let streams = (0..FIRST).map(|number| key.stream(u64::from(FIRST + PERMUTATIONS + number)));
        let statistic =
            |drawn: &Drawn| studentised(self.fixed_sum + drawn.sum, self.fixed_squares + drawn.squares);
        let mut drawn: Vec<(f64, f64)> =
            tilted.draw(streams).iter().map(|drawn| (statistic(drawn), drawn.weight())).collect();
        drawn.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut below = 0.0;
        let reached = drawn.iter().find(|(_, weight)| {
            below += weight / f64::from(FIRST);
            below > level
        });
        reached.or(drawn.last()).map_or(f64::NEG_INFINITY, |(statistic, _)| *statistic)
    }

    fn enumerate(&self, all: u64, bar: f64) -> f64 {
        let as_bad = (0..all).into_par_iter().filter(|number| self.numbered(*number) <= bar);
        ratio(as_bad.count(), usize::try_from(all).unwrap_or(usize::MAX))
    }

    /// Statistic of the relabelling with this number.
    fn numbered(&self, number: u64) -> f64 {
        let mut rest = number;
        self.statistic(|length| {
            let digit = rest % u64::from(length);
            rest /= u64::from(length);
            u32::try_from(digit).expect("a remainder by a 32 bit number fits 32 bits")
        })
    }

    fn sample(&self, key: StreamKey, bar: f64) -> f64 {
        let blocks = (0..FIRST.div_ceil(BLOCK)).into_par_iter().map(|block| {
            let end = FIRST.min((block + 1) * BLOCK);
            self.as_bad(key, block * BLOCK..end, bar)
        });
        let first: usize = blocks.sum();
        // The observed labelling is one of the draws, so p is never 0 (Phipson and Smyth 2010).
        if first > HARMLESS {
            return ratio(first + 1, FIRST as usize + 1);
        }
        self.tail(key, bar)
    }

    /// Number of these permutations at least as extreme as the observed labelling. All permutations are evaluated case
    /// by case, so that each table is read from memory once.
    fn as_bad(&self, key: StreamKey, numbers: std::ops::Range<u32>, bar: f64) -> usize {
        let start = (self.fixed_sum, self.fixed_squares);
        let mut drawn: Vec<(Stream, (f64, f64))> =
            numbers.map(|number| (key.stream(u64::from(number)), start)).collect();
        for (first, length) in &self.spans {
            let table = &self.values[*first..*first + *length as usize];
            for (stream, (sum, squares)) in &mut drawn {
                let value = table[stream.below(*length) as usize];
                *sum += value;
                *squares += value * value;
            }
        }
        drawn.iter().filter(|(_, (sum, squares))| studentised(*sum, *squares) <= bar).count()
    }

    /// P-value from permutations drawn near the observed statistic, without the earlier draws.
    fn tail(&self, key: StreamKey, bar: f64) -> f64 {
        let tables = self.spans.iter().map(|(start, length)| &self.values[*start..*start + *length as usize]);
        let tilted = Tilted::new(tables, None);
        let block = |block: u32| {
            let end = PERMUTATIONS.min((block + 1) * BLOCK);
            let streams = (block * BLOCK..end).map(|number| key.stream(u64::from(FIRST + number)));
            let is_as_bad = |drawn: &Drawn| {
                studentised(self.fixed_sum + drawn.sum, self.fixed_squares + drawn.squares) <= bar
            };
            tilted.draw(streams).iter().filter(|drawn| is_as_bad(drawn)).map(Drawn::weight).sum::<f64>()
        };
        let blocks: Vec<f64> = (0..PERMUTATIONS.div_ceil(BLOCK)).into_par_iter().map(block).collect();
        let weight = blocks.iter().sum::<f64>() + tilted.observed_weight;
        (weight / f64::from(PERMUTATIONS + 1)).min(1.0)
    }
}

/// A monotone function of Student's t without its division by zero: sum over root of the sum of squares.
fn studentised(sum: f64, squares: f64) -> f64 {
    if squares > 0.0 { sum / squares.sqrt() } else { 0.0 }
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
    fn the_critical_value_is_the_quantile_of_the_statistic() {
        // Sign changes of 200 contrasts are close to normal: -1.645, -2.326 and -3.719.
        let contrasts: Vec<f64> = (0..200).map(|k| 0.01 * f64::from((k * 37) % 19 - 9)).collect();
        let tables = flips(&contrasts);
        let tables = Tables::new(tables.iter().map(<[f64; 2]>::as_slice));
        for (level, wanted) in [(0.05, -1.645), (0.01, -2.326), (1e-4, -3.719)] {
            let found = tables.critical(StreamKey::new(7, "test"), level);
            assert!((found - wanted).abs() < 0.1, "{level}: {found}");
        }
        // Enumerated: with five contrasts and a level of 1/32 only the least statistic is significant.
        let few = flips(&[-0.4, -0.1, -0.2, -0.7, -0.05]);
        let few = Tables::new(few.iter().map(<[f64; 2]>::as_slice));
        let observed = few.statistic(|_| 0);
        assert!(few.critical(StreamKey::new(7, "test"), 1.0 / 32.0) > observed);
        assert!(few.critical(StreamKey::new(7, "test"), 0.03) <= observed);
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
    fn tails_far_beyond_the_number_of_draws_are_right() {
        // scipy.stats.binom.cdf(better, worse + better, .5).
        let discordant = |worse: usize, better: usize| {
            let mut contrasts = vec![-1.0; worse];
            contrasts.extend(vec![1.0; better]);
            p_of(&contrasts)
        };
        for (worse, better, wanted) in
            [(52, 8, 2.602_846e-9), (82, 18, 3.073_903e-11), (40, 20, 0.006_744_647), (36, 24, 0.077_500_952)]
        {
            let p = discordant(worse, better);
            assert!((p / wanted - 1.0).abs() < 0.05, "{worse} worse, {better} better: {p} {wanted}");
        }
    }

    #[test]
    fn p_is_uniform_under_the_null_in_its_lower_part() {
        // 2,000 tables of identical builds with spread contrasts; 99.9 % limits of the share at most .05 and .01.
        let key = StreamKey::new(9, "null");
        let p_values: Vec<f64> = (0..2000_u64)
            .map(|number| {
                let mut stream = key.stream(number);
                let sign = |size: f64, bits: u32| if bits.is_multiple_of(2) { size } else { -size };
                let contrasts: Vec<f64> = (0..40)
                    .map(|_| {
                        let size = f64::from(stream.below(1000)) / 1000.0;
                        sign(size * size, stream.next_u32())
                    })
                    .collect();
                let tables = flips(&contrasts);
                Tables::new(tables.iter().map(<[f64; 2]>::as_slice))
                    .p_value(StreamKey::new(number, "uniform"))
            })
            .collect();
        let share = |alpha: f64| ratio(p_values.iter().filter(|p| **p <= alpha).count(), 2000);
        assert!((0.034..0.066).contains(&share(0.05)), "{}", share(0.05));
        assert!((0.003..0.018).contains(&share(0.01)), "{}", share(0.01));
    }

    #[test]
    fn nothing_differs_nothing_is_shown() {
        assert!((p_of(&[0.0; 50]) - 1.0).abs() < 1e-12);
    }
}
