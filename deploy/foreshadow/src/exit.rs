//! Exit codes: a command returns a [`Status`] or a [`Failure`], and only these choose the code.

use analyzer::{Decision, Verdict};
use decision::DecisionError;
use gating::GateError;
use replayer::ReplayError;
use scoring::ScoreError;

/// The end of a command that did its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// The work is done, or the verdict is approve: 0.
    Success,
    /// The verdict is block: 3.
    Block,
    /// The verdict is inconclusive: 4.
    Inconclusive,
}

impl Status {
    pub(crate) fn of_verdict(verdict: &Verdict) -> Self {
        match verdict.verdict {
            Decision::Approve => Self::Success,
            Decision::Block => Self::Block,
            Decision::Inconclusive => Self::Inconclusive,
        }
    }

    pub(crate) fn code(self) -> u8 {
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

    fn of_service(error: impl Into<anyhow::Error>, is_usage: bool) -> Self {
        if is_usage { Self::usage(error) } else { Self::work(error) }
    }

    pub(crate) fn code(&self) -> u8 {
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

/// An error that no command marked as usage is failed work.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Work(error)
    }
}

impl From<DecisionError> for Failure {
    fn from(error: DecisionError) -> Self {
        let is_usage = error.is_usage();
        Self::of_service(error, is_usage)
    }
}

impl From<GateError> for Failure {
    fn from(error: GateError) -> Self {
        let is_usage = error.is_usage();
        Self::of_service(error, is_usage)
    }
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Self {
        let is_usage = error.is_usage();
        Self::of_service(error, is_usage)
    }
}

impl From<ScoreError> for Failure {
    fn from(error: ScoreError) -> Self {
        let is_usage = error.is_usage();
        Self::of_service(error, is_usage)
    }
}

#[cfg(feature = "demo")]
impl From<::demo::DemoError> for Failure {
    fn from(error: ::demo::DemoError) -> Self {
        let is_usage = error.is_usage();
        Self::of_service(error, is_usage)
    }
}
