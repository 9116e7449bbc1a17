//! The answers of a trial as one direction: what the semantic metrics and the kernel tests compare.
//!
//! The vectors are made elsewhere, by the model inside the binary or by an endpoint; nothing is embedded here.

use std::sync::Arc;

/// Shorter than this a mean of directions points nowhere: the turns cancel each other.
const LEAST_LENGTH: f64 = 1e-6;

/// The embedding of a trial's answers: one vector of length 1, and the model that made it.
///
/// A trial of several turns is the mean of its turns' directions, scaled back to length 1: every turn counts alike, and
/// every trial is one point whatever its number of turns. Vectors of different models are never compared.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerEmbedding {
    model: Arc<str>,
    vector: Arc<[f32]>,
}

/// Turns that make no embedding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmbeddingError {
    /// No turn, or vectors without an entry.
    #[error("no turn has an embedding with an entry; embed the answers again")]
    Empty,
    /// Turns of different lengths.
    #[error("turn {turn} has {found} numbers, the first has {expected}; embed all turns with one model")]
    Lengths {
        /// The turn, counted from 0.
        turn: usize,
        /// How many numbers the first turn has.
        expected: usize,
        /// How many this one has.
        found: usize,
    },
    /// A number that is none, or a vector without a direction.
    #[error("turn {turn} is all zero or holds a number that is not finite; embed that answer again")]
    NoDirection {
        /// The turn, counted from 0.
        turn: usize,
    },
    /// The turns point in opposite directions.
    #[error("the turns cancel each other, so their mean has no direction; the trial has no embedding")]
    Cancelled,
}

impl AnswerEmbedding {
    /// Makes the embedding of a trial of its turns' vectors, which need not have length 1; a single turn keeps its
    /// direction.
    ///
    /// # Errors
    /// Names the turn that cannot be used, or says that there is nothing to take a mean of.
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

    /// The model that made it.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
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
        // A turn ten times as long counts no more than the other.
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
