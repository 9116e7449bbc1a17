//! Sources of `success` in a verdict, with the measured agreement of each evaluator.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many cases a source decided `success` of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceCount {
    /// `label`, `label:NAME`, `evaluator:NAME`, `judge:NAME`, `end_state`, or `none` where nobody may say.
    pub source: String,
    /// Paired cases.
    pub cases: u64,
}

/// Where `success` comes from, and what is known of those who say it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OutcomeResult {
    /// The sources by how many paired cases each decided.
    pub decided_by: Vec<SourceCount>,
    /// The evaluators with their measured agreement with labels.
    pub evaluators: Vec<EvaluatorResult>,
}

/// How well an evaluator agrees with labels, in one slice or over all trials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Agreement {
    /// `NAME=VALUE`; absent over all trials.
    pub slice: Option<String>,
    /// Trials that have both a label and its word.
    pub labels: u64,
    /// Cases of these trials.
    pub cases: u64,
    /// Labels that are successes.
    pub successes: u64,
    /// Of these, how many it passed.
    pub successes_passed: u64,
    /// Labels that are failures.
    pub failures: u64,
    /// Of these, how many it caught.
    pub failures_caught: u64,
    /// Share of the trials in which both agree; absent without any.
    pub agreement: Option<f64>,
    /// Lower bound of it.
    pub agreement_lower: Option<f64>,
    /// Cohen's kappa; absent where chance alone would agree always.
    pub kappa: Option<f64>,
    /// Lower bound of it.
    pub kappa_lower: Option<f64>,
    /// Whether its word may decide here.
    pub qualified: bool,
    /// Why, with the numbers.
    pub reason: String,
}

/// An evaluator and what its word is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EvaluatorResult {
    /// Its name.
    pub name: String,
    /// `label`, `command`, `http` or `judge`.
    pub kind: String,
    /// Digest of its configuration; both where the runs were scored by two versions.
    pub digest: String,
    /// Trials of both runs that it scored, recordings apart.
    pub scored: u64,
    /// Trials of both runs that it was asked of and could not score.
    pub errors: u64,
    /// Whether its word may decide anywhere.
    pub qualified: bool,
    /// Its agreement with labels over all trials.
    pub overall: Agreement,
    /// Its agreement in each slice that it is measured in, by name; empty where that is all trials together.
    pub slices: Vec<Agreement>,
}
