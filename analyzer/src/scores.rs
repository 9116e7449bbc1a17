//! Scores that evaluators give to trials.

use std::sync::Arc;

use schemas::score::ScoreKind;

/// An evaluator and the version of it that spoke.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Evaluator {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: ScoreKind,
    /// Its place in its configuration: of two that may decide, the lower does.
    pub rank: u32,
    /// Digest of its configuration.
    pub digest: String,
}

impl Evaluator {
    /// `label:NAME`, `evaluator:NAME` or `judge:NAME`.
    #[must_use]
    pub fn source(&self) -> String {
        let kind = match self.kind {
            ScoreKind::Label => "label",
            ScoreKind::Command | ScoreKind::Http => "evaluator",
            ScoreKind::Judge => "judge",
        };
        format!("{kind}:{}", self.name)
    }

    /// Labels first, then what the user's own checks say, then judges; in each by rank and name.
    pub(crate) fn order(&self) -> (u8, u32, &str) {
        let class = match self.kind {
            ScoreKind::Label => 0,
            ScoreKind::Command | ScoreKind::Http => 1,
            ScoreKind::Judge => 2,
        };
        (class, self.rank, &self.name)
    }
}

/// What an evaluator says of a trial.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialScore {
    /// The evaluator.
    pub evaluator: Arc<Evaluator>,
    /// Whether the work was done right; absent where it was asked and could not say.
    pub success: Option<bool>,
    /// The slice in which its agreement with labels counts; absent where that is measured over all trials together.
    pub slice: Option<Arc<str>>,
}
