//! The analyzer: from the trials of two runs to approve, block or inconclusive.
//!
//! Pure and synchronous: it opens no file, reads no clock, and draws only randomness that is keyed by the seed it is
//! given. The same runs, policy and seed give the same bytes of verdict, whatever the order of the trials or the
//! number of threads.
//!
//! A [`Run`] is paired by case, its [declared invariants](policy::InvariantPolicy) are checked, its metrics become one
//! bounded contrast per case each, every contrast is tested twice (is there harm? is harm beyond the margin ruled
//! out?), and the rule of the tests is the [`Verdict`].

mod analysis;
mod calibrate;
mod cast;
mod decide;
mod drift;
mod embedding;
mod exchangeability;
mod fidelity;
mod finding;
#[cfg(test)]
mod fixture;
mod format;
mod invariants;
mod metrics;
pub mod outcome;
mod pairs;
pub mod policy;
pub mod report;
mod run;
mod sample_size;
mod schedule;
mod scores;
pub mod stats;
mod subgroup_search;
mod tools;
pub mod verdict;
mod writes;

pub use analysis::{
    Analysis, AnalysisRequest, AnalyzeError, CaseContrast, MetricDetail, MonitoringPlan, PLANNED_ALPHA_SHARE,
    Waves, analyze, analyze_once,
};
pub use calibrate::{CalibrateError, CalibrateRequest, calibrate};
pub use drift::{DriftMap, DriftPoint};
pub use embedding::{AnswerEmbedding, EmbeddingError};
pub use finding::{Example, FINDINGS_PER_SUBJECT, Finding};
pub use format::{escape_control, format_effect, metric_cells, verdict_sentence};
pub use policy::{Policy, PolicyError};
pub use run::{Run, ToolCall, TrialRecord, UserTurn, unify_effects};
pub use schedule::seeded_order;
pub use verdict::{Decision, Verdict};
