//! Why two runs cannot be decided on.

use store::StoreError;

/// Why [`decide`](crate::decide) or one of the readers ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum DecisionError {
    /// The command line or an input file is wrong: the user must change it.
    #[error(transparent)]
    Input(anyhow::Error),
    /// A store or run cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The decision or an output file failed.
    #[error(transparent)]
    Failed(anyhow::Error),
}

impl DecisionError {
    pub(crate) fn input(error: impl Into<anyhow::Error>) -> Self {
        Self::Input(error.into())
    }

    pub(crate) fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self::Failed(error.into())
    }

    /// Whether the user must change the command line or an input file (exit code 2).
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Input(_) => true,
            Self::Store(_) | Self::Failed(_) => false,
        }
    }
}
