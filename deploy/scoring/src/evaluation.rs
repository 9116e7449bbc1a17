//! The result of one evaluation of one trial.

use crate::grade::Grade;

/// A grade or the reason why there is none, with the cost of the request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Evaluation {
    /// The grade, or an error text for the `error` column.
    pub(crate) grade: Result<Grade, String>,
    /// The model, as the endpoint named it.
    pub(crate) model: Option<String>,
    /// Tokens read.
    pub(crate) input_tokens: Option<u64>,
    /// Tokens written.
    pub(crate) output_tokens: Option<u64>,
    /// US dollars.
    pub(crate) cost_usd: Option<f64>,
}

impl Evaluation {
    /// An evaluation without a model, tokens or a price.
    pub(crate) fn free(grade: Result<Grade, String>) -> Self {
        Self { grade, model: None, input_tokens: None, output_tokens: None, cost_usd: None }
    }
}
