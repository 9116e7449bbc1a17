//! Calibration of the decision on the sessions of a run, as `foreshadow calibrate` writes it and verdicts repeat it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Decision, Unit};

/// Version of the calibration's format.
pub const CALIBRATION_FORMAT: u32 = 1;

/// Error rates of the decision between identical builds, and detectable changes, on the sessions of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Calibration {
    /// [`CALIBRATION_FORMAT`].
    pub format: u32,
    /// Run whose trials were split.
    pub run: String,
    /// Build of the run.
    pub build: String,
    /// Digest of the calibrated policy.
    pub policy_digest: String,
    /// Seed of the splits.
    pub seed: u64,
    /// Looks of each decision.
    pub looks: u32,
    /// Number of cases with at least two complete trials.
    pub cases: u64,
    /// Mean number of trials per case in each arm of a split.
    pub trials: f64,
    /// Number of random splits of each case's trials into two arms, each decided as if one arm were a candidate.
    pub splits: u64,
    /// Number of splits by decision.
    pub decisions: CalibrationDecisions,
    /// Share of splits that were blocked. Both arms are the same build, so each block is a false alarm.
    pub false_block: f64,
    /// 95 % interval of that share (Clopper and Pearson 1934) over the splits. The splits share the sessions, so it
    /// bounds the rate on these sessions.
    pub false_block_interval: [f64; 2],
    /// Other runs of the same build, made apart.
    #[serde(default)]
    pub against: Vec<String>,
    /// Calibration of each metric.
    pub metrics: Vec<CalibrationMetric>,
    /// Number of cases with which identical builds are approved with probability 0.8, all required metrics together, with
    /// as many trials per lane as the run has; absent if no metric is required or no number suffices.
    #[serde(default)]
    pub cases_to_approve: Option<u64>,
    /// Cost of a decision of this size.
    pub cost: CostForecast,
    /// Facts that a reader needs to judge the numbers.
    pub notes: Vec<String>,
}

/// Number of splits by decision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CalibrationDecisions {
    /// Approved splits.
    pub approve: u64,
    /// Blocked splits.
    pub block: u64,
    /// Inconclusive splits.
    pub inconclusive: u64,
}

impl CalibrationDecisions {
    /// Counts a decision.
    pub fn add(&mut self, answer: Decision) {
        match answer {
            Decision::Approve => self.approve += 1,
            Decision::Block => self.block += 1,
            Decision::Inconclusive => self.inconclusive += 1,
        }
    }
}

/// Calibration of a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CalibrationMetric {
    /// Name of the metric.
    pub name: String,
    /// Unit of the metric's values.
    pub unit: Unit,
    /// Whether the metric can block.
    pub decides: bool,
    /// Whether approval needs the metric.
    pub required: bool,
    /// Number of cases with a value.
    pub cases: u64,
    /// Tolerated worsening, on the scale of effects.
    pub margin: f64,
    /// Share of splits in which the corrected block test of this metric rejected.
    pub false_alarm: f64,
    /// Standard deviation of a case's contrast between identical builds, with as many trials per lane as the run has.
    pub deviation: f64,
    /// Smallest worsening that blocks with probability 0.8, spread over all cases or in some of them, with these cases and as many trials per lane as the run
    /// has, on the scale of effects.
    pub detectable: f64,
    /// The detectable worsening in words.
    pub detectable_text: String,
    /// Smallest margin that identical builds reach so often that all required metrics together do with probability 0.8, on
    /// the scale of effects.
    pub approvable_margin: f64,
    /// Number of cases with which identical builds reach the margin so often that all required metrics together do with
    /// probability 0.8.
    pub cases_to_approve: u64,
    /// Shifts between runs of the same build made apart; absent without `--against`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between: Option<RunShifts>,
}

/// Shifts of a metric between runs of the same build that were made apart (empirical null, Schuemie and others 2018).
///
/// Splits of one run share its time, its provider and its load, so they cannot show what differs between runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunShifts {
    /// Mean contrast of each other run against the calibrated one, on the scale of effects.
    pub shifts: Vec<f64>,
    /// Standard deviation of a shift between two runs of one build.
    pub deviation: f64,
    /// Standard error that the trials within the runs explain.
    pub within: f64,
    /// Degrees of freedom of the deviation: number of other runs. A block must exceed the deviation times the quantile
    /// of Student's t with these.
    pub freedom: u64,
    /// Two-sided p of "a run and the calibrated one differ by their trials alone": the smallest over the other runs, times
    /// their number.
    pub p: f64,
    /// Whether that is rejected at the policy's alpha: the metric drifts between runs of one build.
    pub drifts: bool,
}

/// Cost of a decision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CostForecast {
    /// Trials of both lanes, with all cases.
    pub trials: u64,
    /// Tokens of both lanes, if the run counts them.
    pub tokens: Option<f64>,
    /// US dollars of both lanes, if the run counts them.
    pub usd: Option<f64>,
    /// Hours of agent time of both lanes, if the run counts them.
    pub agent_hours: Option<f64>,
    /// Mean share of the cases that were looked at before a split was decided (early stopping).
    pub share_used: f64,
}
