//! The request to score a run, and its progress.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use crate::config::ScoreConfig;

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
