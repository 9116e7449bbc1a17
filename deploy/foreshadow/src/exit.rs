//! What a command ends with: the exit codes of the command line, and nothing else decides them.

/// How a command that did its work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The work is done, or the verdict is approve: 0.
    Success,
    /// The verdict is block: 3.
    Block,
    /// The verdict is inconclusive: 4.
    Inconclusive,
}

impl Outcome {
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Block => 3,
            Self::Inconclusive => 4,
        }
    }
}

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The work failed: 1.
    Work(anyhow::Error),
    /// The command line or a configuration file is wrong: 2.
    Usage(anyhow::Error),
}

impl Failure {
    pub(crate) fn work(error: impl Into<anyhow::Error>) -> Self {
        Self::Work(error.into())
    }

    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(error.into())
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Work(_) => 1,
            Self::Usage(_) => 2,
        }
    }

    pub(crate) fn error(&self) -> &anyhow::Error {
        match self {
            Self::Work(error) | Self::Usage(error) => error,
        }
    }
}

/// An error without a word about usage is a failure of the work.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Work(error)
    }
}
