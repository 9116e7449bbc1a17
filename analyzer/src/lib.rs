//! Analyzer: compares the trials of two runs and decides approve, block or inconclusive.
//!
//! The crate is pure and synchronous. It opens no file and reads no clock. All randomness is keyed by the request's
//! seed. The same runs, policy and seed give a byte-identical verdict, whatever the order of the trials or the number
//! of threads.
//!
//! The analyzer pairs the trials of both [`Run`]s by case and checks the [declared
//! invariants](policy::InvariantPolicy). Each metric becomes one bounded contrast per case. Each contrast is tested
//! twice: for harm, and for harm beyond the margin. The decision rule turns the test results into the [`Verdict`].

mod analysis;
mod calibrate;
mod cast;
mod decide;
mod drift;
mod embedding;
mod equality;
mod exchangeability;
mod fidelity;
mod finding;
#[cfg(test)]
mod fixture;
mod format;
mod infrastructure;
mod invariants;
mod metrics;
mod model_inputs;
pub mod outcome;
mod pairs;
mod plain;
pub mod policy;
pub mod report;
mod run;
mod sample_size;
mod schedule;
mod scores;
pub mod stats;
mod subgroup_search;
mod tools;
mod units;
pub mod verdict;
mod writes;

pub use analysis::{
    Analysis, AnalysisRequest, AnalyzeError, CaseContrast, MetricDetail, MonitoringPlan, PLANNED_ALPHA_SHARE,
    Waves, analyze, analyze_once,
};
pub use calibrate::{CalibrateError, CalibrateRequest, calibrate};
pub use drift::{DriftMap, DriftPoint};
pub use embedding::{AnswerEmbedding, EmbeddingError};
pub use equality::compare_arguments;
pub use finding::{Example, FINDINGS_PER_SUBJECT, Finding};
pub use format::{escape_control, format_effect, metric_cells};
pub use plain::verdict_sentence;
pub use plain::{comparison_lines, is_in_comparison};
pub use policy::{Policy, PolicyError};
pub use run::{ComparedArguments, Run, ToolCall, TrialRecord, UserTurn, unify_effects};
pub use schedule::{planned_order, seeded_order};
pub use verdict::{Decision, Verdict};
