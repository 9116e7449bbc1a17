//! Statistics of one case under every relabelling of its trials.

use rayon::prelude::*;

use crate::stats::kernel::design::{Relabelling, Statistic};
use crate::stats::kernel::groups::{Case, Groups};
use crate::stats::labels::{Labels, Relabeller};
use crate::stats::pairwise::{Pairwise, Split, pairs};
use crate::stats::variance::float;

/// A case under every relabelling, the observed one first in every table. A table is empty if an arm is too small for
/// the statistic.
#[derive(Debug)]
pub(super) struct CaseTables {
    pub(super) case: Case,
    pub(super) labels: Labels,
    /// Unbiased squared maximum mean discrepancy of the arms.
    pub(super) within: Vec<f64>,
    /// Squared length of the difference of the arms' mean vectors.
    pub(super) length: Vec<f64>,
    /// Mean distance within the baseline minus that within the candidate.
    pub(super) dispersion: Vec<f64>,
    /// Mean similarity among the others minus their mean similarity to the single trial.
    pub(super) single: Vec<f64>,
    /// Observed mean distances.
    pub(super) observed: Observed,
}

impl CaseTables {
    /// The values of a statistic under every relabelling; for `Cross`, the case's own squared length.
    pub(super) fn of(&self, statistic: Statistic) -> &[f64] {
        match statistic {
            Statistic::Within => &self.within,
            Statistic::Cross => &self.length,
            Statistic::Dispersion => &self.dispersion,
            Statistic::Single => &self.single,
        }
    }
}

/// Observed mean distances of a case; absent within an arm of one trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed {
    /// Between two trials of the baseline.
    pub baseline: Option<f64>,
    /// Between two trials of the candidate.
    pub candidate: Option<f64>,
    /// Between a trial of the baseline and one of the candidate.
    pub between: f64,
}

impl Observed {
    /// Drift: distance between the arms beyond the distance within them; absent if an arm has one trial.
    #[must_use]
    pub fn drift(&self) -> Option<f64> {
        Some(self.between - 0.5 * (self.baseline? + self.candidate?))
    }

    /// Drift relative to the arms of two or more trials only.
    #[must_use]
    pub fn apart(&self) -> f64 {
        let own: Vec<f64> = [self.baseline, self.candidate].into_iter().flatten().collect();
        self.between - crate::stats::variance::mean(&own)
    }
}

/// All distances of all cases, and the bandwidth of the kernel.
pub(super) struct Distances {
    squares: Vec<Vec<f64>>,
    /// Median of half the squared distances of two trials of one case; 0 if nothing differs.
    pub(super) median: f64,
}

impl Distances {
    pub(super) fn new(groups: &Groups) -> Self {
        let squares: Vec<Vec<f64>> = groups.cases().par_iter().map(|case| groups.distances(*case)).collect();
        let mut all = Vec::new();
        for (case, square) in groups.cases().iter().zip(&squares) {
            let size = case.size();
            (0..size).for_each(|row| all.extend_from_slice(&square[row * size + row + 1..(row + 1) * size]));
        }
        let mut median = lower_median(&mut all);
        if median <= 0.0 {
            // Most pairs are equal: the median of the others.
            all.retain(|distance| *distance > 0.0);
            median = lower_median(&mut all);
        }
        Self { squares, median }
    }

    /// Kernel exp(-|x - y|^2 / (2 m)), m the squared median distance, of each pair of trials of the case.
    fn kernel(&self, number: usize, case: Case) -> Vec<f64> {
        let scale = if self.median > 0.0 { -0.5 / self.median } else { 0.0 };
        let size = case.size();
        let mut kernel = vec![1.0; size * size];
        for row in 0..size {
            for column in row + 1..size {
                let value = (self.squares[number][row * size + column] * scale).exp();
                (kernel[row * size + column], kernel[column * size + row]) = (value, value);
            }
        }
        kernel
    }
}

/// Median, the lower of the two in the middle; 0 if empty.
fn lower_median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = (values.len() - 1) / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// Within-session statistic of every case.
pub(super) fn within(groups: &Groups, distances: &Distances, relabeller: &Relabeller) -> Vec<Vec<f64>> {
    let table = |(number, case): (usize, &Case)| {
        let labels = relabeller.of(number, case.baseline, case.candidate);
        discrepancies(*case, &labels, &distances.kernel(number, *case))
    };
    groups.cases().par_iter().enumerate().map(table).collect()
}

/// Every table of every case.
pub(super) fn all(
    groups: &Groups,
    distances: &Distances,
    relabeller: &Relabeller,
    relabelling: Relabelling,
) -> Vec<CaseTables> {
    let tables = |(number, case): (usize, &Case)| {
        let labels = relabeller.of(number, case.baseline, case.candidate);
        let square = Pairwise::new(case.size(), &distances.squares[number]);
        let kernel = distances.kernel(number, *case);
        match relabelling {
            Relabelling::Trials => of_trials(*case, labels, &square, &kernel),
            Relabelling::Sessions => of_sessions(*case, labels, &square),
        }
    };
    groups.cases().par_iter().enumerate().map(tables).collect()
}

fn of_trials(case: Case, labels: Labels, square: &Pairwise<'_>, kernel: &[f64]) -> CaseTables {
    let splits: Vec<Split> = labels.iter().map(|chosen| square.split(chosen)).collect();
    CaseTables {
        case,
        within: discrepancies(case, &labels, kernel),
        length: splits.iter().map(|split| length(case, *split)).collect(),
        dispersion: splits.iter().filter_map(|split| dispersion(case, *split)).collect(),
        single: alone(case, &labels, kernel),
        observed: observed(case, splits[0]),
        labels,
    }
}

/// Only whole arms are swapped: the discrepancy is the same both ways and shows nothing.
fn of_sessions(case: Case, labels: Labels, square: &Pairwise<'_>) -> CaseTables {
    let split = square.split(labels.chosen(0));
    CaseTables {
        case,
        within: Vec::new(),
        length: vec![length(case, split); 2],
        dispersion: dispersion(case, split).map_or_else(Vec::new, |value| vec![value, -value]),
        single: Vec::new(),
        observed: observed(case, split),
        labels,
    }
}

fn discrepancies(case: Case, labels: &Labels, kernel: &[f64]) -> Vec<f64> {
    if case.baseline < 2 || case.candidate < 2 {
        return Vec::new();
    }
    let pairwise = Pairwise::new(case.size(), kernel);
    let (before, after) = (1.0 / pairs(case.baseline), 1.0 / pairs(case.candidate));
    let between = 2.0 / (float(case.baseline) * float(case.candidate));
    let discrepancy = |chosen: &[usize]| {
        let split = pairwise.split(chosen);
        split.baseline * before + split.candidate * after - split.between * between
    };
    labels.iter().map(discrepancy).collect()
}

/// Mean similarity of pairs without the single trial minus its mean similarity to the others (DECISION 1.7).
fn alone(case: Case, labels: &Labels, kernel: &[f64]) -> Vec<f64> {
    let others = case.size() - 1;
    if others < 2 || (case.baseline != 1 && case.candidate != 1) {
        return Vec::new();
    }
    let pairwise = Pairwise::new(case.size(), kernel);
    let of = |chosen: &[usize]| {
        let split = pairwise.split(chosen);
        (split.baseline + split.candidate) / pairs(others) - split.between / float(others)
    };
    labels.iter().map(of).collect()
}

/// The weights of the difference of means sum to 0, so its squared length is minus the weighted sum of half the
/// squared distances over ordered pairs.
fn length(case: Case, split: Split) -> f64 {
    let (before, after) = (float(case.baseline), float(case.candidate));
    2.0 * (split.between / (before * after)
        - split.baseline / (before * before)
        - split.candidate / (after * after))
}

fn dispersion(case: Case, split: Split) -> Option<f64> {
    (case.baseline >= 2 && case.candidate >= 2)
        .then(|| split.baseline / pairs(case.baseline) - split.candidate / pairs(case.candidate))
}

fn observed(case: Case, split: Split) -> Observed {
    let mean = |sum: f64, count: usize| (count >= 2).then(|| sum / pairs(count));
    Observed {
        baseline: mean(split.baseline, case.baseline),
        candidate: mean(split.candidate, case.candidate),
        between: split.between / (float(case.baseline) * float(case.candidate)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::stream::StreamKey;

    #[test]
    fn the_tables_of_a_small_case_are_the_formulas() {
        let mut groups = Groups::new(1);
        let vectors: Vec<[f32; 1]> = [0.0, 1.0, 3.0, 7.0].map(|value| [value]).to_vec();
        groups.push(&[&vectors[0], &vectors[1]], &[&vectors[2], &vectors[3]]).expect("a case");
        let distances = Distances::new(&groups);
        // Distances 1, 3, 7, 2, 6, 4: the lower median is 3, half its square 4.5.
        assert!((distances.median - 4.5).abs() < 1e-12);
        let relabeller = Relabeller::new(StreamKey::new(1, "t"));
        let tables = all(&groups, &distances, &relabeller, Relabelling::Trials);
        let k = |distance: f64| (-distance * distance / 18.0).exp();
        let within = k(1.0) + k(4.0) - 0.5 * (k(3.0) + k(7.0) + k(2.0) + k(6.0));
        assert!((tables[0].within[0] - within).abs() < 1e-12);
        assert!((tables[0].length[0] - 20.25).abs() < 1e-12, "means 0.5 and 5");
        assert!((tables[0].dispersion[0] + 7.5).abs() < 1e-12, "half of 1 minus half of 16");
        assert_eq!((tables[0].within.len(), tables[0].single.len()), (6, 0));
        // Swapping the arms mirrors dispersion and leaves the discrepancy.
        assert!((tables[0].within[5] - within).abs() < 1e-12);
        assert!((tables[0].dispersion[5] - 7.5).abs() < 1e-12);
        let swapped = all(&groups, &distances, &relabeller, Relabelling::Sessions);
        assert!((swapped[0].dispersion[1] - 7.5).abs() < 1e-12 && swapped[0].within.is_empty());
    }

    #[test]
    fn a_lone_trial_is_compared_with_the_others() {
        let mut groups = Groups::new(1);
        groups.push(&[&[9.0]], &[&[0.0], &[1.0], &[2.0]]).expect("a case");
        let distances = Distances::new(&groups);
        let relabeller = Relabeller::new(StreamKey::new(1, "t"));
        let tables = all(&groups, &distances, &relabeller, Relabelling::Trials);
        assert_eq!((tables[0].within.len(), tables[0].single.len()), (0, 4));
        let most = tables[0].single.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert!((tables[0].single[0] - most).abs() < 1e-15, "the observed lone trial is the odd one");
    }
}
