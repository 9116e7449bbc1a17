//! Scores: one evaluator's result for one trial. `foreshadow score` writes them, the analyzer reads them.

use serde::{Deserialize, Serialize};

use crate::columns;
use crate::columns::text_values;
use crate::id::{AgentId, CaseId, SessionId, TenantId};
use crate::trial::Lane;

/// The kind of an evaluator; the decision policy weighs each kind.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ScoreKind {
    /// A person's label, from a file of labels.
    Label,
    /// A program of the user.
    Command,
    /// A service of the user.
    Http,
    /// A language model. It counts only where its measured agreement with labels passes.
    Judge,
}

text_values! {
    ScoreKind: |value| (*value).into();
}

impl ScoreKind {
    /// The name as stored and printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

columns! {
    /// One evaluator's result for one trial.
    ///
    /// There is at most one row without `error` for each (session, evaluator, evaluator digest). A row with `error` records
    /// a failed attempt; a row without one takes precedence over it, in any order.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Score {
        /// Tenant of the traffic.
        pub tenant: TenantId,
        /// Agent of the traffic.
        pub agent: AgentId,
        /// Lane of the trial.
        pub lane: Lane,
        /// Case of the trial.
        pub case: CaseId,
        /// Number of the trial within (lane, case).
        pub trial: u32,
        /// Session of the trial's exchanges.
        #[column(lookup)]
        pub session: SessionId,
        /// Start of the trial, UTC, as in its own row.
        pub trial_started_at: Option<i64>,
        /// Name of the evaluator in the configuration.
        pub evaluator: String,
        /// Kind of the evaluator: `label`, `command`, `http` or `judge`.
        pub kind: ScoreKind,
        /// Position of the evaluator in its configuration, from 0. Of two that may decide, the lower one decides.
        pub priority: u32,
        /// BLAKE3 of every setting that can change a score. Another digest is another evaluator.
        pub evaluator_digest: String,
        /// Time of scoring, UTC.
        pub scored_at: i64,
        /// Whether the task succeeded; null if it could not be scored.
        pub success: Option<bool>,
        /// Score from 0 to 1, if the evaluator gives one.
        pub value: Option<f64>,
        /// The evaluator's reason.
        #[column(payload)]
        pub reason: Option<String>,
        /// Slice in which the evaluator's agreement with labels is measured, as `NAME=VALUE`; null for all trials together.
        #[column(payload)]
        pub slice: Option<String>,
        /// Model that answered, as it named itself; null if no model was called.
        pub model: Option<String>,
        /// Input tokens of scoring.
        pub input_tokens: Option<u64>,
        /// Output tokens of scoring.
        pub output_tokens: Option<u64>,
        /// Cost of scoring in US dollars.
        pub cost_usd: Option<f64>,
        /// Reason of a failed attempt.
        #[column(payload)]
        pub error: Option<String>,
    }
}
