//! The entry point: builds the evaluators of a configuration and scores one run.

use store::Store;

use crate::embeddings::EmbeddingProvider;
use crate::error::ScoreError;
use crate::evaluator;
use crate::report::ScoreReport;
use crate::request::{ScoreProgress, ScoreRequest};
use crate::runner::Runner;

/// Scores the run in `store` and commits the rows to it. `env` looks up `${NAME}` of the configuration.
///
/// # Errors
/// A configuration that cannot be used, a location without a run, or a store that cannot be read or written.
pub async fn score(
    request: &ScoreRequest,
    store: &Store,
    env: &dyn Fn(&str) -> Option<String>,
    on_progress: &mut dyn FnMut(ScoreProgress),
) -> Result<ScoreReport, ScoreError> {
    let evaluators = evaluator::all(&request.config, &request.base, env).map_err(ScoreError::Config)?;
    let provider =
        EmbeddingProvider::new(request.config.embeddings.as_ref(), env).map_err(ScoreError::Config)?;
    let manifest = store.manifest().await?;
    let manifest = manifest.ok_or_else(|| ScoreError::NoRun { run: request.run.clone() })?;
    let runner = Runner { store, own: manifest.lane, request };
    Ok(runner.run(&evaluators, provider.as_ref(), on_progress).await?)
}
