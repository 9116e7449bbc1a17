//! Sources of `success` in a verdict, with the measured agreement of each evaluator.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Number of cases that a source decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceCount {
    /// `label`, `label:NAME`, `evaluator:NAME`, `judge:NAME`, `end_state`, or `none` without a source.
    pub source: String,
    /// Number of paired cases.
    pub cases: u64,
}

/// Sources of `success` and their measured quality.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OutcomeResult {
    /// Sources by the number of paired cases that each decided.
    pub decided_by: Vec<SourceCount>,
    /// Evaluators with their measured agreement with labels.
    pub evaluators: Vec<EvaluatorResult>,
    /// Paired cases that nothing scores because the built-in end-state check cannot fail there.
    #[serde(default)]
    pub vacuous_cases: u64,
}

/// Agreement of an evaluator with labels, in one slice or over all trials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Agreement {
    /// Slice as `NAME=VALUE`; absent over all trials.
    pub slice: Option<String>,
    /// Number of trials with both a label and a score.
    pub labels: u64,
    /// Number of cases of these trials.
    pub cases: u64,
    /// Number of labelled successes.
    pub successes: u64,
    /// Labelled successes that the evaluator passed.
    pub successes_passed: u64,
    /// Number of labelled failures.
    pub failures: u64,
    /// Labelled failures that the evaluator caught.
    pub failures_caught: u64,
    /// Share of the trials in which both agree; absent without trials.
    pub agreement: Option<f64>,
    /// Lower bound of the agreement.
    pub agreement_lower: Option<f64>,
    /// Cohen's kappa; absent if chance alone would always agree.
    pub kappa: Option<f64>,
    /// Lower bound of kappa.
    pub kappa_lower: Option<f64>,
    /// Gwet's AC1: agreement beyond chance, which stays near the raw agreement where almost all labels are alike.
    #[serde(default)]
    pub ac1: Option<f64>,
    /// AC1 at the lower bound of the agreement.
    #[serde(default)]
    pub ac1_lower: Option<f64>,
    /// Share of successes passed plus share of failures caught, minus 1: the share of a true change that shows in the
    /// scores; absent if all labels are alike.
    #[serde(default)]
    pub discrimination: Option<f64>,
    /// One-sided p of "the scores do not depend on the labels": permutation between cases.
    #[serde(default)]
    pub discrimination_p: Option<f64>,
    /// Counts of each lane.
    #[serde(default)]
    pub lanes: Vec<LaneAgreement>,
    /// Two-sided p of "errs equally often in both lanes": permutation of lanes by case; absent without labels in both.
    #[serde(default)]
    pub equal_error_p: Option<f64>,
    /// Whether the evaluator's scores can decide here.
    pub qualified: bool,
    /// Reason for `qualified`, with the numbers.
    pub reason: String,
}

/// Agreement of an evaluator with the labels of one lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LaneAgreement {
    /// `baseline` or `candidate`.
    pub lane: String,
    /// Number of cases with a label and a score in this lane.
    pub cases: u64,
    /// Number of labelled successes.
    pub successes: u64,
    /// Labelled successes that the evaluator passed.
    pub successes_passed: u64,
    /// Number of labelled failures.
    pub failures: u64,
    /// Labelled failures that the evaluator caught.
    pub failures_caught: u64,
}

/// An evaluator and its agreement with labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EvaluatorResult {
    /// Name of the evaluator.
    pub name: String,
    /// Kind: `label`, `command`, `http` or `judge`.
    pub kind: String,
    /// Digest of the evaluator's configuration; two digests if the runs were scored by two versions.
    pub digest: String,
    /// Trials of both runs that it scored, recordings excluded.
    pub scored: u64,
    /// Trials of both runs for which it returned an error.
    pub errors: u64,
    /// Whether its scores can decide anywhere.
    pub qualified: bool,
    /// Agreement with labels over all trials.
    pub overall: Agreement,
    /// Agreement by slice; empty if it is measured over all trials together.
    pub slices: Vec<Agreement>,
}
