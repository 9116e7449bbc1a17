//! Why a run cannot be scored.

use store::StoreError;

/// Why [`score`](crate::score) ended without a report.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// `[score]` names something that cannot be used: a file, a template, a variable, a URL.
    #[error(transparent)]
    Config(anyhow::Error),
    /// The location has no `run.json`.
    #[error(
        "{run} contains no run: run.json is missing; create a run with `foreshadow replay` or `foreshadow import --run`"
    )]
    NoRun {
        /// The location that was given.
        run: String,
    },
    /// The run cannot be read or written, or another process scores it now.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ScoreError {
    /// Whether the user must change the command line or the configuration (exit code 2).
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Config(_) | Self::NoRun { .. } => true,
            Self::Store(_) => false,
        }
    }
}
