//! Why the demo cannot run.

/// Why the demo ended without its verdicts.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The output folder cannot be used: the user must choose another.
    #[error(transparent)]
    Folder(anyhow::Error),
    /// A stage failed.
    #[error(transparent)]
    Stage(#[from] anyhow::Error),
}

impl DemoError {
    /// Whether the user must change the command line (exit code 2).
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Folder(_))
    }
}
