//! All statistics under the same relabellings, so that their p-values can be combined.
//!
//! If all cases together have few relabellings, every one is evaluated in double precision. Otherwise permutations are
//! drawn, each from its own stream, and the vector sums of the cross-session statistic are one matrix product.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView1, ArrayView2, Axis, Slice};
use rayon::prelude::*;

use crate::stats::kernel::design::{ENUMERATED, PERMUTATIONS, Relabelling, Statistic};
use crate::stats::kernel::groups::Groups;
use crate::stats::kernel::tables::CaseTables;
use crate::stats::stream::StreamKey;
use crate::stats::variance::float;

/// Permutations whose sums are one matrix product.
const BLOCK: u32 = 128;

/// Approximate number of vector rows in one product, so that the weights stay in a cache.
const ROWS: usize = 2_048;

/// Statistics under every relabelling evaluated, the observed one first; absent ones are empty. Larger is more
/// extreme.
#[derive(Debug, Default)]
pub(super) struct Joint {
    pub(super) values: [Vec<f64>; Statistic::COUNT],
    /// Whether all relabellings were evaluated.
    pub(super) exact: bool,
}

/// Sums over the cases under one relabelling.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    within: f64,
    /// Sum of the squared lengths of the cases' own differences.
    lengths: f64,
    dispersion: f64,
    single: f64,
}

impl Sums {
    fn add(&mut self, tables: &CaseTables, number: usize) {
        let at = |table: &[f64]| table.get(number).copied().unwrap_or(0.0);
        self.within += at(&tables.within);
        self.lengths += at(&tables.length);
        self.dispersion += at(&tables.dispersion);
        self.single += at(&tables.single);
    }

    /// `cross` is the squared length of the summed differences minus `lengths`.
    fn finish(&self, cross: f64) -> [f64; Statistic::COUNT] {
        // Dispersion can grow or shrink; both are changes.
        [self.within, cross, self.dispersion.abs(), self.single]
    }
}

/// Input of the relabellings.
pub(super) struct Source<'a> {
    pub(super) groups: &'a Groups,
    pub(super) tables: &'a [CaseTables],
    pub(super) relabelling: Relabelling,
    pub(super) key: StreamKey,
}

impl Source<'_> {
    /// Evaluates all relabellings if they are few, else draws.
    pub(super) fn joint(&self) -> Joint {
        let all = self.tables.iter().try_fold(1_u64, |all, tables| {
            all.checked_mul(tables.length.len() as u64).filter(|all| *all <= ENUMERATED)
        });
        let (taken, exact) = match all {
            Some(all) => (self.enumerate(all), true),
            None => (self.draw(), false),
        };
        let mut joint = Joint { exact, ..Joint::default() };
        for statistic in Statistic::ALL {
            let place = statistic.place();
            if self.tables.iter().any(|tables| !tables.of(statistic).is_empty()) {
                joint.values[place] = taken.iter().map(|values| values[place]).collect();
            }
        }
        joint
    }

    // === every relabelling ===

    fn enumerate(&self, all: u64) -> Vec<[f64; Statistic::COUNT]> {
        let products = Products::new(self);
        let one = |number: u64| {
            let mut rest = number;
            let mut sums = Sums::default();
            let mut rows = Vec::with_capacity(self.tables.len());
            for (tables, first) in self.tables.iter().zip(&products.firsts) {
                let count = tables.length.len() as u64;
                let digit =
                    usize::try_from(rest % count).expect("a table has at most some hundreds of entries");
                rest /= count;
                sums.add(tables, digit);
                rows.push(first + digit);
            }
            sums.finish(products.between(&rows))
        };
        (0..all).into_par_iter().map(one).collect()
    }

    /// Weights of a case's trials under a relabelling; the weighted sum of its vectors is the difference of its arms.
    fn weigh(&self, tables: &CaseTables, number: usize, weights: &mut [f32]) {
        let narrow = |share: f64| {
            #[expect(clippy::cast_possible_truncation, reason = "rounds a number of size at most 1 to f32")]
            let narrow = share as f32;
            narrow
        };
        let case = tables.case;
        let (label, sign) = match self.relabelling {
            Relabelling::Trials => (number, 1.0),
            Relabelling::Sessions => (0, if number == 0 { 1.0 } else { -1.0 }),
        };
        weights.fill(narrow(-sign / float(case.baseline)));
        for trial in tables.labels.chosen(label) {
            weights[*trial] = narrow(sign / float(case.candidate));
        }
    }

    // === drawn ===

    fn draw(&self) -> Vec<[f64; Statistic::COUNT]> {
        let centred = self.centred();
        let starts: Vec<u32> = (0..=PERMUTATIONS).step_by(BLOCK as usize).collect();
        let block = |start: u32| {
            let end = (start + BLOCK).min(PERMUTATIONS + 1);
            self.block(start..end, centred.view())
        };
        let blocks: Vec<Vec<[f64; Statistic::COUNT]>> = starts.into_par_iter().map(block).collect();
        blocks.into_iter().flatten().collect()
    }

    /// Vectors minus the mean of their case: weights sum to 0, so sums are equal with smaller rounding errors.
    fn centred(&self) -> Array2<f32> {
        let mut centred = Array2::zeros((self.groups.trials(), self.groups.dimension()));
        for case in self.groups.cases() {
            let trials = case.start..case.start + case.size();
            let mut mean = vec![0.0_f64; self.groups.dimension()];
            for trial in trials.clone() {
                mean.iter_mut()
                    .zip(self.groups.vector(trial))
                    .for_each(|(sum, value)| *sum += f64::from(*value));
            }
            mean.iter_mut().for_each(|sum| *sum /= float(case.size()));
            for trial in trials {
                let mut row = centred.row_mut(trial);
                for ((to, value), mean) in row.iter_mut().zip(self.groups.vector(trial)).zip(&mean) {
                    #[expect(clippy::cast_possible_truncation, reason = "a difference of f32 numbers as f32")]
                    let without = (f64::from(*value) - mean) as f32;
                    *to = without;
                }
            }
        }
        centred
    }

    /// Statistics of permutations `numbers`; number 0 is the observed labelling.
    fn block(
        &self,
        numbers: std::ops::Range<u32>,
        centred: ArrayView2<'_, f32>,
    ) -> Vec<[f64; Statistic::COUNT]> {
        let count = numbers.len();
        let mut streams: Vec<_> = numbers.clone().map(|number| self.key.stream(u64::from(number))).collect();
        let mut sums = vec![Sums::default(); count];
        let mut totals = Array2::<f32>::zeros((count, self.groups.dimension()));
        for cases in self.chunks() {
            let first = cases[0].case.start;
            let rows = cases.iter().map(|tables| tables.case.size()).sum::<usize>();
            let mut weights = Array2::<f32>::zeros((count, rows));
            for (place, stream) in streams.iter_mut().enumerate() {
                let is_observed = numbers.start == 0 && place == 0;
                let mut row = weights.row_mut(place);
                let row = row.as_slice_mut().expect("rows of a new array are contiguous");
                for tables in cases {
                    let length = u32::try_from(tables.length.len()).expect("some hundreds of entries");
                    let pick = if is_observed { 0 } else { stream.below(length) as usize };
                    sums[place].add(tables, pick);
                    let from = tables.case.start - first;
                    self.weigh(tables, pick, &mut row[from..from + tables.case.size()]);
                }
            }
            let vectors = centred.slice_axis(Axis(0), Slice::from(first..first + rows));
            general_mat_mul(1.0, &weights, &vectors, 1.0, &mut totals);
        }
        let finish = |(sums, total): (&Sums, ArrayView1<'_, f32>)| {
            let square: f64 = total.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
            sums.finish(square - sums.lengths)
        };
        sums.iter().zip(totals.rows()).map(finish).collect()
    }

    /// Groups the cases into runs of about [`ROWS`] trials.
    fn chunks(&self) -> Vec<&[CaseTables]> {
        let mut chunks = Vec::new();
        let mut rest = self.tables;
        while !rest.is_empty() {
            let mut rows = 0;
            let end = rest.iter().position(|tables| {
                rows += tables.case.size();
                rows >= ROWS
            });
            let (chunk, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
            chunks.push(chunk);
            rest = after;
        }
        chunks
    }
}

/// Dot products of the differences of all cases under all their relabellings.
struct Products {
    /// Row of each case's first relabelling.
    firsts: Vec<usize>,
    size: usize,
    values: Vec<f64>,
}

impl Products {
    fn new(source: &Source<'_>) -> Self {
        let mut firsts = Vec::new();
        let mut differences: Vec<Vec<f64>> = Vec::new();
        for tables in source.tables {
            firsts.push(differences.len());
            let mut weights = vec![0.0; tables.case.size()];
            for number in 0..tables.length.len() {
                source.weigh(tables, number, &mut weights);
                let mut difference = vec![0.0; source.groups.dimension()];
                for (trial, weight) in weights.iter().enumerate() {
                    let vector = source.groups.vector(tables.case.start + trial);
                    let each = difference.iter_mut().zip(vector);
                    each.for_each(|(sum, value)| *sum += f64::from(*weight) * f64::from(*value));
                }
                differences.push(difference);
            }
        }
        let size = differences.len();
        let row = |left: usize| {
            let dot = |right: &Vec<f64>| differences[left].iter().zip(right).map(|(a, b)| a * b).sum::<f64>();
            differences.iter().map(dot).collect::<Vec<f64>>()
        };
        let values = (0..size).into_par_iter().flat_map_iter(row).collect();
        Self { firsts, size, values }
    }

    /// Squared length of the sum of these differences, minus the squared lengths of each.
    fn between(&self, rows: &[usize]) -> f64 {
        let mut sum = 0.0;
        for (place, row) in rows.iter().enumerate() {
            let values = &self.values[row * self.size..(row + 1) * self.size];
            sum += rows[..place].iter().map(|column| values[*column]).sum::<f64>();
        }
        2.0 * sum
    }
}
