//! What `foreshadow calibrate` measured on the sessions of a run, as it is written to its file and into verdicts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Decision, Unit};

/// The version of the calibration's shape.
pub const CALIBRATION_FORMAT: u32 = 1;

/// How the decision does on these sessions when nothing changed, and what it could see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Calibration {
    /// [`CALIBRATION_FORMAT`].
    pub format: u32,
    /// The run whose trials were split.
    pub run: String,
    /// Its build.
    pub build: String,
    /// The policy that was calibrated.
    pub policy_digest: String,
    /// Seed of the splits.
    pub seed: u64,
    /// Looks of each decision.
    pub looks: u32,
    /// Cases of the run that could be split.
    pub cases: u64,
    /// Trials that each arm of a split has of a case, on average.
    pub trials: f64,
    /// Random splits of each case's trials into two arms; each was decided on as if one were a candidate.
    pub splits: u64,
    /// Splits by their answer.
    pub decisions: CalibrationDecisions,
    /// Share of splits that blocked: identical builds, so each is a false alarm.
    pub false_block: f64,
    /// 95 % interval of that share (Clopper and Pearson 1934) over the splits; they share the sessions, so it is the
    /// rate on these sessions that it bounds.
    pub false_block_interval: [f64; 2],
    /// The metrics.
    pub metrics: Vec<CalibrationMetric>,
    /// What a decision of this size costs.
    pub cost: CostForecast,
    /// What the reader must know to judge the numbers.
    pub notes: Vec<String>,
}

/// Splits by their answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CalibrationDecisions {
    /// Approved.
    pub approve: u64,
    /// Blocked.
    pub block: u64,
    /// Neither.
    pub inconclusive: u64,
}

impl CalibrationDecisions {
    /// Counts an answer.
    pub fn add(&mut self, answer: Decision) {
        match answer {
            Decision::Approve => self.approve += 1,
            Decision::Block => self.block += 1,
            Decision::Inconclusive => self.inconclusive += 1,
        }
    }
}

/// What could be seen of a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CalibrationMetric {
    /// The metric.
    pub name: String,
    /// What it is measured in.
    pub unit: Unit,
    /// Whether it may block.
    pub decides: bool,
    /// Whether approval needs it.
    pub required: bool,
    /// Cases that have it.
    pub cases: u64,
    /// How much worse is tolerated, on the scale of effects.
    pub margin: f64,
    /// Share of splits in which this metric alone, corrected, said "worse".
    pub false_alarm: f64,
    /// Standard deviation of a case's contrast between identical builds, with as many trials in each lane as the run has.
    pub deviation: f64,
    /// The smallest worsening that blocks with probability 0.8 with these cases and as many trials in each lane as the
    /// run has, on the scale of effects.
    pub detectable: f64,
    /// The same in words.
    pub detectable_text: String,
    /// The smallest margin with which identical builds are approved with probability 0.8, on the scale of effects.
    pub approvable_margin: f64,
    /// Cases with which identical builds reach the margin with probability 0.8.
    pub cases_to_approve: u64,
}

/// What a decision costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CostForecast {
    /// Trials of both lanes, with all cases.
    pub trials: u64,
    /// Tokens of both lanes, where the run counts them.
    pub tokens: Option<f64>,
    /// US dollars of both lanes, where the run counts them.
    pub usd: Option<f64>,
    /// Hours of agent time of both lanes, where the run counts them.
    pub agent_hours: Option<f64>,
    /// Mean share of the cases that had been looked at when splits were decided (early stopping).
    pub share_used: f64,
}
