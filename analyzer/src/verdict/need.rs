//! Sample size that an approval would need.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Sample size that approval of a build like the candidate would need.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Need {
    /// Number of cases in all, not in addition; 0 if nothing more is needed or approval is not reachable.
    pub cases: u64,
    /// Trials per case and lane that this assumes.
    pub trials: u64,
    /// Predicted probability of approval with that many: power averaged over all effects that the cases so far allow
    /// (assurance).
    pub predicted_approve: f64,
    /// Predicted probability of a block with that many.
    #[serde(default)]
    pub predicted_block: f64,
    /// Predicted probability of approval with any number of cases; 0 if nothing was predicted.
    #[serde(default)]
    pub limit_approve: f64,
    /// Whether more cases of this kind can lead to approval.
    #[serde(default)]
    pub reachable: bool,
    /// Alternatives with the same power.
    #[serde(default)]
    pub options: Vec<NeedOption>,
    /// Predicted approval by number of cases added and trials per case.
    #[serde(default)]
    pub table: Vec<NeedRow>,
    /// Cost-optimal number of trials per case; absent if the runs do not determine it.
    #[serde(default)]
    pub best_trials: Option<u64>,
    /// Whether more cases or more trials help more; absent if the runs do not determine it.
    #[serde(default)]
    pub advice: Option<NeedAdvice>,
    /// The need in one sentence.
    #[serde(default)]
    pub detail: String,
}

/// An alternative with the planned power.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NeedOption {
    /// Trials per case and lane.
    pub trials: u64,
    /// Number of cases.
    pub cases: u64,
    /// Trials in all, both lanes.
    pub trials_total: u64,
}

/// Prediction for a number of added cases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NeedRow {
    /// Cases to add.
    pub extra_cases: u64,
    /// Cases in all.
    pub cases: u64,
    /// Trials per lane of each added case.
    pub trials: u64,
    /// Predicted probability of approval.
    pub predicted_approve: f64,
    /// Predicted probability of a block.
    #[serde(default)]
    pub predicted_block: f64,
    /// Trials to add, both lanes.
    pub trials_added: u64,
    /// Cost of these trials, US dollars, at the mean cost of the existing trials.
    #[serde(default)]
    pub cost_usd: Option<f64>,
}

/// Advice between more cases and more trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NeedAdvice {
    /// Most of the variance is between cases, which more trials of the same cases cannot remove.
    AddSessions,
    /// Most of the variance is within cases, so more trials per case help as well.
    AddSessionsOrTrials,
}
