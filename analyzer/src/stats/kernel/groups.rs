//! Embedded trials of all cases, in the memory layout of the tests.

use pulp::{Arch, Simd, WithSimd};

/// Number of parallel sums in a dot product; fixed, so that the result does not depend on the machine.
const LANES: usize = 16;

/// Vectors of all trials, case after case, the baseline's first within each.
///
/// Within an arm the vectors are sorted by content, so that the numbers of the trials do not matter.
#[derive(Debug, Clone, PartialEq)]
pub struct Groups {
    dimension: usize,
    vectors: Vec<f32>,
    cases: Vec<Case>,
}

/// Position of a case's trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Case {
    /// Index of the first trial among all cases.
    pub(super) start: usize,
    pub(super) baseline: usize,
    pub(super) candidate: usize,
}

/// Vectors that cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// An arm without a trial.
    #[error("case {case} has no vector in one of its arms; leave it out")]
    EmptyArm {
        /// Index of the case in input order, from 0.
        case: usize,
    },
    /// A vector of another length.
    #[error(
        "a vector of case {case} has {found} numbers, expected {expected}; embed all trials with one model"
    )]
    Length {
        /// Index of the case.
        case: usize,
        /// Dimension of the vector.
        found: usize,
        /// Expected dimension.
        expected: usize,
    },
    /// A vector with a number that is not finite.
    #[error("a vector of case {case} holds a number that is not finite; embed its trials again")]
    NotFinite {
        /// Index of the case.
        case: usize,
    },
}

impl Case {
    pub(super) fn size(self) -> usize {
        self.baseline + self.candidate
    }
}

impl Groups {
    /// Creates an empty set of cases for vectors of this dimension.
    #[must_use]
    pub fn new(dimension: usize) -> Self {
        Self { dimension, vectors: Vec::new(), cases: Vec::new() }
    }

    /// Adds a case: the vectors of its trials in both arms.
    ///
    /// # Errors
    ///
    /// An arm is empty, or a vector has another dimension or a number that is not finite; then nothing is added.
    pub fn push(&mut self, baseline: &[&[f32]], candidate: &[&[f32]]) -> Result<(), GroupError> {
        let case = self.cases.len();
        if baseline.is_empty() || candidate.is_empty() {
            return Err(GroupError::EmptyArm { case });
        }
        for vector in baseline.iter().chain(candidate) {
            if vector.len() != self.dimension {
                return Err(GroupError::Length { case, found: vector.len(), expected: self.dimension });
            }
            if !vector.iter().all(|value| value.is_finite()) {
                return Err(GroupError::NotFinite { case });
            }
        }
        let start = self.vectors.len() / self.dimension.max(1);
        for arm in [baseline, candidate] {
            let mut sorted: Vec<&[f32]> = arm.to_vec();
            sorted.sort_by(|a, b| {
                a.iter()
                    .zip(*b)
                    .map(|(x, y)| x.total_cmp(y))
                    .find(|o| o.is_ne())
                    .unwrap_or(std::cmp::Ordering::Equal)
            });
            sorted.into_iter().for_each(|vector| self.vectors.extend_from_slice(vector));
        }
        self.cases.push(Case { start, baseline: baseline.len(), candidate: candidate.len() });
        Ok(())
    }

    /// Dimension of the vectors.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Number of cases.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cases.len()
    }

    /// Whether there is no case.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }

    /// Number of trials of both arms in all cases.
    #[must_use]
    pub fn trials(&self) -> usize {
        self.cases.iter().map(|case| case.size()).sum()
    }

    /// Mean vectors of the arms of a case, the baseline's first.
    #[must_use]
    pub fn means(&self, case: usize) -> [Vec<f64>; 2] {
        let place = self.cases[case];
        let mean = |from: usize, count: usize| {
            let mut sum = vec![0.0; self.dimension];
            for trial in from..from + count {
                for (total, value) in sum.iter_mut().zip(self.vector(trial)) {
                    *total += f64::from(*value);
                }
            }
            let count = crate::stats::variance::float(count);
            sum.iter_mut().for_each(|total| *total /= count);
            sum
        };
        [mean(place.start, place.baseline), mean(place.start + place.baseline, place.candidate)]
    }

    pub(super) fn cases(&self) -> &[Case] {
        &self.cases
    }

    pub(super) fn vector(&self, trial: usize) -> &[f32] {
        &self.vectors[trial * self.dimension..(trial + 1) * self.dimension]
    }

    /// Half the squared distance of each pair of trials of a case, row by row; cosine distance for vectors of length
    /// 1.
    pub(super) fn distances(&self, case: Case) -> Vec<f64> {
        Arch::new().dispatch(Apart { groups: self, case })
    }
}

/// Distances of a case's trials, computed with the processor's vector width, which changes no bit of the result.
struct Apart<'a> {
    groups: &'a Groups,
    case: Case,
}

impl WithSimd for Apart<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<f64> {
        let size = self.case.size();
        let vector = |trial: usize| self.groups.vector(self.case.start + trial);
        let mut own = vec![0.0; size];
        for (trial, own) in own.iter_mut().enumerate() {
            *own = dot(vector(trial), vector(trial));
        }
        let mut square = vec![0.0; size * size];
        for row in 0..size {
            let left = vector(row);
            for column in row + 1..size {
                let both = dot(left, vector(column));
                // Equal vectors have equal dot products, so their distance is exactly 0.
                let distance = (0.5 * (own[row] + own[column]) - both).max(0.0);
                square[row * size + column] = distance;
                square[column * size + row] = distance;
            }
        }
        square
    }
}

/// Inlined, so that it is compiled for the processor's vectors.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let (left, left_rest) = a.as_chunks::<LANES>();
    let (right, right_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for (x, y) in left.iter().zip(right) {
        for lane in 0..LANES {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    let mut sum = 0.0;
    for lane in lanes {
        sum += f64::from(lane);
    }
    let mut rest = 0.0;
    for (x, y) in left_rest.iter().zip(right_rest) {
        rest += f64::from(x * y);
    }
    sum + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_that_do_not_fit_are_refused_and_leave_nothing_behind() {
        let mut groups = Groups::new(2);
        let (short, long, bad) = ([1.0_f32], [1.0_f32, 0.0], [f32::NAN, 0.0]);
        assert_eq!(groups.push(&[], &[&long]), Err(GroupError::EmptyArm { case: 0 }));
        assert_eq!(
            groups.push(&[&long], &[&short]),
            Err(GroupError::Length { case: 0, found: 1, expected: 2 })
        );
        assert_eq!(groups.push(&[&bad], &[&long]), Err(GroupError::NotFinite { case: 0 }));
        assert!(groups.is_empty() && groups.trials() == 0);
        assert_eq!(groups.push(&[&long], &[&long]), Ok(()));
        assert_eq!((groups.len(), groups.trials()), (1, 2));
    }

    #[test]
    fn distances_are_half_squares_and_exactly_zero_for_equal_vectors() {
        let mut groups = Groups::new(20);
        let a: Vec<f32> = (0..20_u8).map(|k| f32::from(k) / 10.0).collect();
        let b: Vec<f32> = (0..20_u8).map(|k| f32::from(20 - k) / 10.0).collect();
        groups.push(&[&a, &b], &[&a]).expect("a case");
        let square = groups.distances(groups.cases()[0]);
        let wanted: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>() / 2.0;
        assert!(square[2].abs() < 1e-300, "the baseline's first is the candidate's");
        assert!((square[1] / wanted - 1.0).abs() < 1e-6, "{} {wanted}", square[1]);
        assert!((square[1] - square[5]).abs() < 1e-300);
    }

    #[test]
    fn the_order_of_trials_within_an_arm_does_not_matter() {
        let (a, b, c) = ([1.0_f32, 2.0], [1.0_f32, -2.0], [0.5_f32, 0.0]);
        let (mut one, mut other) = (Groups::new(2), Groups::new(2));
        one.push(&[&a, &b, &c], &[&a, &c]).expect("a case");
        other.push(&[&c, &b, &a], &[&c, &a]).expect("a case");
        assert_eq!(one, other);
    }
}
