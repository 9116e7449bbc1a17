//! The entry point: builds the evaluators of a configuration and scores one run.

use std::path::PathBuf;

use store::Store;
use tokio_util::sync::CancellationToken;

use crate::config::ScoreConfig;
use crate::embeddings::EmbeddingProvider;
use crate::error::ScoreError;
use crate::evaluator;
use crate::report::ScoreReport;
use crate::runner::Runner;

/// One run to score.
#[derive(Debug)]
pub struct ScoreRequest {
    /// Location of the run, for messages and the report.
    pub run: String,
    /// The `[score]` table.
    pub config: ScoreConfig,
    /// Folder that relative paths of the configuration start from.
    pub base: PathBuf,
    /// Microseconds since 1970, UTC.
    pub clock: fn() -> i64,
    /// Stops scoring; finished rows are committed.
    pub cancel: CancellationToken,
}

/// Progress of scoring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScoreProgress {
    /// Trials that were processed.
    pub done: u64,
    /// Trials of the run.
    pub total: u64,
}

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
