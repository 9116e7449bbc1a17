//! Sums of a symmetric function over the pairs of trials of a case, within and between the arms, under any
//! relabelling.

use crate::stats::variance::float;

/// Values of the pairs of the pooled trials of a case.
#[derive(Debug)]
pub struct Pairwise<'s> {
    size: usize,
    /// Row by row; the diagonal is not read.
    values: &'s [f64],
    rows: Vec<f64>,
    total: f64,
}

/// Sums over the unordered pairs of a relabelled case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Split {
    /// Pairs of two candidate trials.
    pub candidate: f64,
    /// Pairs of two baseline trials.
    pub baseline: f64,
    /// Pairs of one trial each.
    pub between: f64,
}

impl<'s> Pairwise<'s> {
    /// Wraps a symmetric matrix of `size` rows, row by row.
    #[must_use]
    pub fn new(size: usize, values: &'s [f64]) -> Self {
        let rows: Vec<f64> = (0..size)
            .map(|row| {
                let all = &values[row * size..(row + 1) * size];
                all[..row].iter().sum::<f64>() + all[row + 1..].iter().sum::<f64>()
            })
            .collect();
        let total = 0.5 * rows.iter().sum::<f64>();
        Self { size, values, rows, total }
    }

    /// Sums for the candidate trials `chosen`. The cost is that of the pairs of one arm; the other sums follow from
    /// row sums.
    #[must_use]
    pub fn split(&self, chosen: &[usize]) -> Split {
        // Loops with a length known at compile time are unrolled, for the usual numbers of trials.
        let (inside, rows) = match chosen.len() {
            3 => self.sums(&chosen[..3]),
            4 => self.sums(&chosen[..4]),
            5 => self.sums(&chosen[..5]),
            8 => self.sums(&chosen[..8]),
            _ => self.sums(chosen),
        };
        let between = rows - 2.0 * inside;
        Split { candidate: inside, baseline: self.total - between - inside, between }
    }

    /// Sum over the pairs of these trials, and sum over their rows.
    #[inline(always)]
    fn sums(&self, chosen: &[usize]) -> (f64, f64) {
        // One bounds check here saves one for every value.
        assert!(chosen.iter().all(|trial| *trial < self.size), "a trial of the case is chosen");
        let mut inside = 0.0;
        let mut rows = 0.0;
        for (place, row) in chosen.iter().enumerate() {
            rows += self.rows[*row];
            let values = &self.values[row * self.size..(row + 1) * self.size];
            inside += chosen[place + 1..].iter().map(|column| values[*column]).sum::<f64>();
        }
        (inside, rows)
    }
}

/// Number of unordered pairs of `count` trials.
#[must_use]
pub fn pairs(count: usize) -> f64 {
    0.5 * float(count) * (float(count) - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_is_the_sums_over_pairs() {
        let values: Vec<f64> = (0..25_u8).map(|k| f64::from((k / 5) * (k % 5)) + 1.0).collect();
        let split = Pairwise::new(5, &values).split(&[1, 3]);
        // Trials 1 and 3 against 0, 2 and 4; the value of a pair is its product plus 1.
        assert!((split.candidate - 4.0).abs() < 1e-12);
        assert!((split.baseline - (1.0 + 1.0 + 9.0)).abs() < 1e-12);
        assert!((split.between - ((4.0 * 6.0) + 6.0)).abs() < 1e-12);
        assert!((pairs(5) - 10.0).abs() < 1e-15 && pairs(1).abs() < 1e-15);
    }
}
