//! Sample size that an approval would need.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What it would take to approve a build that is as the candidate looks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Need {
    /// Cases in all, not in addition; 0 where nothing more is needed or it cannot be reached.
    pub cases: u64,
    /// Trials of each case in each lane that this counts with.
    pub trials: u64,
    /// Predicted probability of approval with that many.
    pub predicted_approve: f64,
    /// Whether more cases of this kind can lead to approval at all.
    #[serde(default)]
    pub reachable: bool,
    /// Other ways to the same power: cases by trials of each.
    #[serde(default)]
    pub options: Vec<NeedOption>,
    /// What adding cases would bring, by cases added and trials of each.
    #[serde(default)]
    pub table: Vec<NeedRow>,
    /// Trials of each case that reach the power at the least cost; absent where the runs do not say.
    #[serde(default)]
    pub best_trials: Option<u64>,
    /// Whether more cases or more trials of each help more; absent where the runs do not say.
    #[serde(default)]
    pub advice: Option<NeedAdvice>,
    /// The same in one sentence.
    #[serde(default)]
    pub detail: String,
}

/// A way to the wanted power.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NeedOption {
    /// Trials of each case in each lane.
    pub trials: u64,
    /// Cases.
    pub cases: u64,
    /// Trials in all, both lanes.
    pub trials_total: u64,
}

/// What a number of cases more would bring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NeedRow {
    /// Cases to add.
    pub extra_cases: u64,
    /// Cases in all.
    pub cases: u64,
    /// Trials in each lane of each case that is added.
    pub trials: u64,
    /// Predicted probability of approval then.
    pub predicted_approve: f64,
    /// Trials to add, both lanes.
    pub trials_added: u64,
    /// What these cost, US dollars, at the mean cost of the trials that are there.
    #[serde(default)]
    pub cost_usd: Option<f64>,
}

/// What helps more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NeedAdvice {
    /// Most of the variance is between cases: more trials of the same cases cannot remove it.
    AddSessions,
    /// Most of the variance is within cases: more trials of each help as well.
    AddSessionsOrTrials,
}
