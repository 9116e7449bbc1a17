//! What a verdict says of changes that are for review: answers that drift, tools used more or less.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether the answers changed (DECISION 1.9): evidence of change, not of harm.
///
/// Distances are cosine distances of the embedded answers; a case's drift is the mean distance between the lanes less the
/// mean distance within each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Drift {
    /// The model that embedded the answers.
    pub model: String,
    /// Cases with an embedded answer in both lanes.
    pub cases: u64,
    /// The baseline's embedded answers in them.
    pub trials_baseline: u64,
    /// The candidate's.
    pub trials_candidate: u64,
    /// What was relabelled.
    pub permutation_unit: PermutationUnit,
    /// Relabellings taken, the observed one included.
    pub permutations: u64,
    /// Whether these are all there are.
    pub is_exact: bool,
    /// Bandwidth of the Gaussian kernel: the median distance (Euclidean) of two answers to one case.
    pub bandwidth: f64,
    /// Mean distance of two answers of the baseline to one case; absent where it has one trial of each.
    pub distance_baseline: Option<f64>,
    /// The same of the candidate.
    pub distance_candidate: Option<f64>,
    /// Mean distance of an answer of the baseline and one of the candidate to one case.
    pub distance_between: f64,
    /// Mean drift over the cases with two trials in both lanes; 0 in the mean for identical builds.
    pub drift: Option<f64>,
    /// What each statistic says.
    pub statistics: Vec<DriftStatistic>,
    /// The probability for identical builds of a smallest p as small as the smallest of the statistics'
    /// (Westfall and Young 1993).
    pub p_min: f64,
    /// Whether the answers changed: `p_min` is at most the policy's alpha.
    pub changed: bool,
    /// What a change leads to.
    pub effect: DriftEffect,
    /// The cases that moved most, the furthest first, at most twenty.
    pub drifted: Vec<DriftedCase>,
    /// The same in one sentence.
    pub detail: String,
}

/// What may be relabelled when nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PermutationUnit {
    /// The trials of a case.
    Trials,
    /// The whole arms of a case: its trials share state, the policy says.
    Sessions,
}

/// What a change of answers leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriftEffect {
    /// A person looks at it.
    Review,
    /// The policy declares the build neutral: metric `semantic.drift` may block, and approval needs it.
    Block,
}

/// What a drift statistic says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DriftStatistic {
    /// `within` (each session's own change), `cross` (a change that sessions have in common), `dispersion` (more or less
    /// variety) or `single` (the only trial of a lane is unlike the other lane's).
    pub name: String,
    /// Cases that it says something of.
    pub cases: u64,
    /// Its value.
    pub value: f64,
    /// The probability for identical builds of a value as extreme.
    pub p: f64,
    /// The same as a share of the relabellings taken; `p` is more exact in the tail, where a saddlepoint gives it.
    pub p_permutation: f64,
}

/// A case whose answers moved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DriftedCase {
    /// The case.
    pub case: String,
    /// Its drift.
    pub drift: f64,
    /// Share of the case's own relabellings under which its lanes lie at least as far apart.
    pub p: f64,
}

/// How often a tool is used: a change is a finding, never harm, so nothing here decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ToolRate {
    /// The tool.
    pub tool: String,
    /// Share of the baseline's trials that call it, mean over the cases.
    pub called_baseline: f64,
    /// The same of the candidate.
    pub called_candidate: f64,
    /// Two-sided p of "no change", within-session permutation; not corrected for the number of tools.
    pub p_called: f64,
    /// Cases compared: both lanes have a transcript.
    pub cases: u64,
    /// Share of the baseline's trials that make a write of it in another order than the recording, mean over the cases;
    /// absent where there is no recording or the tool does not write.
    pub reordered_baseline: Option<f64>,
    /// The same of the candidate.
    pub reordered_candidate: Option<f64>,
}
