//! Scores: what one evaluator says of one trial. Written by `foreshadow score`, read by the decision.

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, CaseId, SessionId, TenantId};
use crate::trial::Lane;

/// What kind of evaluator said it: what a word of this kind is worth is the decision's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreKind {
    /// A label that a person gave, from a file of labels.
    Label,
    /// A program of the user's.
    Command,
    /// A service of the user's.
    Http,
    /// A language model; it votes only where its agreement with labels is measured and passes.
    Judge,
}

impl ScoreKind {
    /// The kind's name as it is stored and printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Command => "command",
            Self::Http => "http",
            Self::Judge => "judge",
        }
    }
}

/// What one evaluator says of one trial.
///
/// There is at most one row without `error` of a (session, evaluator, evaluator digest). Rows with `error` say that it
/// was tried; a row without one, wherever it stands, holds before them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Whose traffic.
    pub tenant: TenantId,
    /// Which agent.
    pub agent: AgentId,
    /// Whose trial.
    pub lane: Lane,
    /// The trial's case.
    pub case: CaseId,
    /// The trial's number within (lane, case).
    pub trial: u32,
    /// What the trial's exchanges are stored under.
    pub session: SessionId,
    /// When the trial started, UTC, microseconds since 1970, as its own row says.
    pub trial_started_at: Option<i64>,
    /// The evaluator's name in the configuration.
    pub evaluator: String,
    /// Its kind.
    pub kind: ScoreKind,
    /// Its place among the evaluators of its configuration, from 0: of two that may decide, the lower does.
    pub priority: u32,
    /// BLAKE3 of everything in its configuration that can change a score: another digest is another evaluator.
    pub evaluator_digest: String,
    /// When it was scored, UTC, microseconds since 1970.
    pub scored_at: i64,
    /// Whether the work was done right; absent where it could not be scored.
    pub success: Option<bool>,
    /// How well, from 0 to 1, where the evaluator says.
    pub value: Option<f64>,
    /// Why, in the evaluator's words.
    pub reason: Option<String>,
    /// The slice in which the evaluator's agreement with labels is measured, as `NAME=VALUE`; absent where it is
    /// measured over all trials together.
    pub slice: Option<String>,
    /// The model that answered, as it named itself; absent where none was asked.
    pub model: Option<String>,
    /// Tokens read for it.
    pub input_tokens: Option<u64>,
    /// Tokens written for it.
    pub output_tokens: Option<u64>,
    /// US dollars paid for it.
    pub cost_usd: Option<f64>,
    /// Why it could not be scored.
    pub error: Option<String>,
}
