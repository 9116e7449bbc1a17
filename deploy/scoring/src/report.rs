//! The result of scoring one run: counts per evaluator, the embeddings, the cost.

use serde::Serialize;

use crate::evaluation::Evaluation;
use crate::evaluator::Evaluator;
use crate::grade;

/// Why scoring stopped before every trial was scored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum StopReason {
    /// The caller cancelled it.
    Interrupted,
    /// A limit of `[score.limits]` was reached.
    Bound {
        /// Key of the limit below `score`, such as `limits.max-usd`.
        key: &'static str,
    },
}

/// Counts of one evaluator.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct EvaluatorReport {
    /// Name in the configuration.
    pub name: String,
    /// `label`, `command`, `http` or `judge`.
    pub kind: &'static str,
    /// BLAKE3 of the settings that can change a grade, hexadecimal.
    pub digest: String,
    /// Trials that this evaluator applies to.
    pub wanted: u64,
    /// Trials of `wanted` that an earlier invocation scored.
    pub already: u64,
    /// Trials that this invocation scored.
    pub scored: u64,
    /// Trials of `scored` that are successes.
    pub successes: u64,
    /// Evaluations that failed in this invocation.
    pub errors: u64,
    /// `limits.max-consecutive-errors` evaluations failed in a row, so the rest was skipped.
    pub given_up: bool,
    /// More than `limits.max-error-share` of the wanted trials have no score.
    pub too_many_errors: bool,
    /// Error text of the last failed evaluation.
    pub last_error: Option<String>,
    #[serde(skip)]
    pub(crate) consecutive_errors: u32,
}

/// Counts of the embeddings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EmbeddingReport {
    /// Name of the model.
    pub model: String,
    /// Trials whose answers an earlier invocation embedded.
    pub trials_already: u64,
    /// Answers that this invocation embedded.
    pub embedded: u64,
    /// Answers of `embedded` that are longer than the model's window; the model read them in several windows.
    pub in_windows: u64,
    /// Answers of `embedded` that were truncated to `max-text-bytes`.
    pub cut: u64,
    /// Why the embeddings are incomplete.
    pub error: Option<String>,
}

/// The result of scoring one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScoreReport {
    /// Location of the run.
    pub run: String,
    /// One entry per evaluator, in the order of the configuration.
    pub evaluators: Vec<EvaluatorReport>,
    /// `None` if embeddings are off.
    pub embeddings: Option<EmbeddingReport>,
    /// Requests and program starts of this invocation.
    pub requests: u64,
    /// Tokens of all invocations.
    pub tokens: u64,
    /// US dollars of all invocations.
    pub usd: f64,
    /// Why scoring stopped early.
    pub stopped: Option<StopReason>,
}

impl EvaluatorReport {
    pub(crate) fn new(evaluator: &Evaluator) -> Self {
        Self {
            name: evaluator.name.clone(),
            kind: evaluator.kind.as_str(),
            digest: evaluator.digest.clone(),
            ..Self::default()
        }
    }

    pub(crate) fn count(&mut self, evaluation: &Evaluation) {
        match &evaluation.grade {
            Ok(grade) => {
                self.scored += 1;
                self.successes += u64::from(grade.success);
                self.consecutive_errors = 0;
            }
            Err(error) => {
                self.errors += 1;
                self.consecutive_errors += 1;
                self.last_error = Some(grade::detail(error));
            }
        }
    }
}

impl ScoreReport {
    /// Why the run is not fully scored and how to continue; `None` if it is.
    #[must_use]
    pub fn incomplete(&self) -> Option<String> {
        let stopped = self.stopped.as_ref().map(|stopped| match stopped {
            StopReason::Interrupted => {
                "scoring was interrupted; finished scores are kept; repeat the command".to_owned()
            }
            StopReason::Bound { key } => {
                format!("score.{key} is reached; finished scores are kept; raise it and repeat the command")
            }
        });
        let last_error = |one: &EvaluatorReport| {
            one.last_error.clone().unwrap_or_else(|| "the cause is unknown".to_owned())
        };
        let given_up = self.evaluators.iter().find(|one| one.given_up).map(|one| {
            format!(
                "evaluator {} failed {} times in a row, the last time because {}; correct this and repeat the command",
                one.name,
                one.consecutive_errors,
                last_error(one)
            )
        });
        let failing = self.evaluators.iter().find(|one| one.too_many_errors).map(|one| {
            format!(
                "evaluator {} failed on {} of {} trials, the last time because {}; correct this and repeat the command, \
                 which evaluates only these trials again, or raise score.limits.max-error-share",
                one.name,
                one.errors,
                one.wanted,
                last_error(one)
            )
        });
        let embedding = self.embeddings.as_ref().and_then(|one| one.error.as_ref()).map(|error| {
            format!("embedding the answers failed: {error}; correct this and repeat the command")
        });
        stopped.or(given_up).or(failing).or(embedding)
    }
}
