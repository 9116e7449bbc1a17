//! Embedding of a trial's answers, compared by the semantic metrics and the kernel tests.
//!
//! The caller computes the vectors, with the built-in model or an endpoint.

use std::sync::Arc;

/// Number of parallel sums of a distance.
const LANES: usize = 8;

/// Norm below which a mean of directions has no direction, because the turns cancel each other.
const LEAST_LENGTH: f64 = 1e-6;

/// Embedding of a trial's answers: one vector of length 1, and the model that computed it.
///
/// For a trial of several turns it is the mean of the turns' directions, normalised: every turn has the same weight,
/// and every trial is one point. Vectors of different models are never compared.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerEmbedding {
    model: Arc<str>,
    vector: Arc<[f32]>,
}

/// Turns without a usable embedding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmbeddingError {
    /// There is no turn, or the vectors are empty.
    #[error("no turn has an embedding with an entry; embed the answers again")]
    Empty,
    /// Turns of different dimension.
    #[error("turn {turn} has {found} numbers, the first has {expected}; embed all turns with one model")]
    Lengths {
        /// Index of the turn, from 0.
        turn: usize,
        /// Dimension of the first turn.
        expected: usize,
        /// Dimension of this turn.
        found: usize,
    },
    /// A vector that is zero or contains a number that is not finite.
    #[error("turn {turn} is all zero or holds a number that is not finite; embed that answer again")]
    NoDirection {
        /// Index of the turn, from 0.
        turn: usize,
    },
    /// The turns point in opposite directions.
    #[error("the turns cancel each other, so their mean has no direction; the trial has no embedding")]
    Cancelled,
}

impl AnswerEmbedding {
    /// Computes the embedding of a trial from its turns' vectors, which need not have length 1. A single turn keeps
    /// its direction.
    ///
    /// # Errors
    ///
    /// Names the turn that cannot be used, or that the turns cancel each other.
    pub fn of_turns<V: AsRef<[f32]>>(model: &Arc<str>, turns: &[V]) -> Result<Self, EmbeddingError> {
        let expected = turns.first().map_or(0, |turn| turn.as_ref().len());
        if expected == 0 {
            return Err(EmbeddingError::Empty);
        }
        let mut sum = vec![0.0_f64; expected];
        for (turn, vector) in turns.iter().enumerate() {
            let vector = vector.as_ref();
            if vector.len() != expected {
                return Err(EmbeddingError::Lengths { turn, expected, found: vector.len() });
            }
            let length = length(vector.iter().map(|value| f64::from(*value)));
            if !length.is_finite() || length <= 0.0 {
                return Err(EmbeddingError::NoDirection { turn });
            }
            for (total, value) in sum.iter_mut().zip(vector) {
                *total += f64::from(*value) / length;
            }
        }
        let all = length(sum.iter().copied());
        if all < LEAST_LENGTH {
            return Err(EmbeddingError::Cancelled);
        }
        Ok(Self { model: Arc::clone(model), vector: sum.iter().map(|value| narrow(value / all)).collect() })
    }

    /// Model that computed the vector.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Whether both were computed by one model.
    pub(crate) fn is_comparable(&self, other: &Self) -> bool {
        self.model == other.model && self.vector.len() == other.vector.len()
    }

    /// Cosine distance to another embedding of the same model.
    pub(crate) fn distance(&self, other: &Self) -> f64 {
        cosine_distance(&self.vector, &other.vector)
    }

    /// The vector, shared.
    pub(crate) fn shared(&self) -> Arc<[f32]> {
        Arc::clone(&self.vector)
    }

    /// The vector, of length 1.
    #[must_use]
    pub fn vector(&self) -> &[f32] {
        &self.vector
    }
}

/// Cosine distance of two vectors of length 1: half the squared Euclidean distance, so that equal vectors have
/// distance exactly 0.
pub(crate) fn cosine_distance(a: &[f32], b: &[f32]) -> f64 {
    // Parallel sums; a single running sum would take four times as long.
    let (left, left_rest) = a.as_chunks::<LANES>();
    let (right, right_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for (x, y) in left.iter().zip(right) {
        for lane in 0..LANES {
            let apart = f64::from(x[lane] - y[lane]);
            lanes[lane] += apart * apart;
        }
    }
    let rest = left_rest.iter().zip(right_rest).map(|(x, y)| f64::from(x - y) * f64::from(x - y));
    (0.5 * (lanes.iter().sum::<f64>() + rest.sum::<f64>())).min(2.0)
}

fn length(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

#[expect(clippy::cast_possible_truncation, reason = "rounds a number of size at most 1 to the nearest f32")]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(turns: &[Vec<f32>]) -> Result<AnswerEmbedding, EmbeddingError> {
        AnswerEmbedding::of_turns(&Arc::from("m"), turns)
    }

    #[test]
    fn turns_count_alike_and_the_mean_has_length_one() {
        let one = made(&[vec![3.0, 4.0]]).expect("a direction");
        assert_eq!((one.model(), one.vector()), ("m", [0.6_f32, 0.8].as_slice()));
        // A turn ten times as long has the same weight.
        let two = made(&[vec![10.0, 0.0], vec![0.0, 1.0]]).expect("a direction");
        let half = std::f32::consts::FRAC_1_SQRT_2;
        assert_eq!(two.vector(), [half, half]);
    }

    #[test]
    fn what_has_no_direction_is_refused() {
        assert_eq!(made(&[]), Err(EmbeddingError::Empty));
        assert_eq!(made(&[vec![]]), Err(EmbeddingError::Empty));
        let lengths = EmbeddingError::Lengths { turn: 1, expected: 2, found: 1 };
        assert_eq!(made(&[vec![1.0, 0.0], vec![1.0]]), Err(lengths));
        assert_eq!(made(&[vec![0.0, 0.0]]), Err(EmbeddingError::NoDirection { turn: 0 }));
        assert_eq!(made(&[vec![1.0], vec![f32::NAN]]), Err(EmbeddingError::NoDirection { turn: 1 }));
        assert_eq!(made(&[vec![1.0], vec![-1.0]]), Err(EmbeddingError::Cancelled));
    }
}
