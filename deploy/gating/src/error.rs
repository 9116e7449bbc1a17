//! Why a gate ends without a verdict.

use decision::DecisionError;
use replayer::ReplayError;
use scoring::ScoreError;
use store::StoreError;

/// Why [`run`](crate::run) ended without a verdict.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The configuration, a file that it names, or the command line is wrong.
    #[error(transparent)]
    Config(anyhow::Error),
    /// The gate was stopped, or a part of the run is missing; `--resume` continues it.
    #[error(transparent)]
    Incomplete(anyhow::Error),
    /// The trials of one lane failed.
    #[error("lane {lane}")]
    Replay {
        /// `baseline` or `candidate`.
        lane: &'static str,
        /// The cause.
        source: ReplayError,
    },
    /// A run cannot be scored.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// The runs cannot be decided on.
    #[error(transparent)]
    Decision(#[from] DecisionError),
    /// A run cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl GateError {
    pub(crate) fn config(error: impl Into<anyhow::Error>) -> Self {
        Self::Config(error.into())
    }

    /// Whether the user must change the command line or a file (exit code 2).
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Config(_) => true,
            Self::Incomplete(_) | Self::Store(_) => false,
            Self::Replay { source, .. } => source.is_usage(),
            Self::Score(error) => error.is_usage(),
            Self::Decision(error) => error.is_usage(),
        }
    }
}
