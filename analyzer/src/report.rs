//! The verdict for people and pipelines: `report.html`, `summary.md`, `junit.xml` and `otlp.json`, as text.
//!
//! Pure functions of values: nothing is read, written or fetched here, and no number is computed that decides
//! anything. The page is one file that asks the network for nothing. Text that comes from sessions is hostile: it is
//! shown, control characters and all, and never run.

use crate::analysis::AnalyseError;
use crate::policy::Policy;
use crate::run::Run;

mod alignment;
mod anchor;
mod cases;
mod chart_data;
mod embed_data;
mod escape;
#[cfg(test)]
mod fixture;
mod junit;
mod number;
mod otlp;
mod page;
mod sections;
mod summary;
mod tool_table;
mod transcript;
mod wording;
mod write_changes;

pub use cases::transcript_sessions;
pub use junit::junit_xml;
pub use otlp::otlp_json;
pub use page::report_html;
pub use summary::summary_md;
pub use transcript::{Transcript, TranscriptTurn, Transcripts};

/// What was analyzed: the report shows the sessions behind the numbers.
#[derive(Debug, Clone, Copy)]
pub struct ReportInput<'a> {
    /// The run of the current build.
    pub baseline: &'a Run,
    /// The run of the new build.
    pub candidate: &'a Run,
    /// The recordings, where they were given apart.
    pub recorded: Option<&'a Run>,
    /// The policy that decided.
    pub policy: &'a Policy,
    /// What was said in the trials of [`transcript_sessions`], where it is known.
    pub transcripts: &'a Transcripts,
}

/// What the report is told of its surroundings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportMeta {
    /// What is compared, for the title; the builds where empty.
    pub title: String,
    /// Command lines that lead to the same verdict, one a line.
    pub commands: Vec<String>,
}

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The runs are not those that were analyzed: they cannot be paired.
    #[error("failed to pair the runs of the report")]
    Pairs(#[from] AnalyseError),
    /// The page's template and its values do not fit.
    #[error("failed to render report.html; this is a defect of foreshadow, verdict.json is not affected")]
    Page(#[from] minijinja::Error),
    /// The list of cases could not be written as JSON.
    #[error(
        "failed to write the cases of report.html; this is a defect of foreshadow, verdict.json is not affected"
    )]
    Cases(#[from] serde_json::Error),
    /// The XML could not be written.
    #[error("failed to write junit.xml; this is a defect of foreshadow, verdict.json is not affected")]
    Xml(#[from] quick_junit::SerializeError),
}
