//! Scores that evaluators give to trials.

use std::sync::Arc;

use schemas::score::ScoreKind;

/// An evaluator and its version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Evaluator {
    /// Name in the score configuration.
    pub name: String,
    /// Kind: label, command, service or judge.
    pub kind: ScoreKind,
    /// Priority: of two evaluators that can decide, the one with the lower number does.
    pub priority: u32,
    /// Digest of the evaluator's configuration.
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

    /// Sort key: labels, then the user's own checks, then judges; within each by priority and name.
    pub(crate) fn order(&self) -> (u8, u32, &str) {
        let class = match self.kind {
            ScoreKind::Label => 0,
            ScoreKind::Command | ScoreKind::Http => 1,
            ScoreKind::Judge => 2,
        };
        (class, self.priority, &self.name)
    }
}

/// Score of a trial by one evaluator.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialScore {
    /// The evaluator.
    pub evaluator: Arc<Evaluator>,
    /// Whether the trial succeeded; absent if the evaluator was called and could not decide.
    pub success: Option<bool>,
    /// Slice in which the evaluator's agreement with labels is measured; absent if it is measured over all trials.
    pub slice: Option<Arc<str>>,
}
