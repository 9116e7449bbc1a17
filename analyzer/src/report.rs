//! Report files of a verdict: `report.html`, `summary.md`, `junit.xml` and `otlp.json`, as text.
//!
//! Pure functions: they read, write and request nothing, and no number of theirs decides anything. The page is one file
//! that makes no request. Text of sessions is hostile: the report shows it, control characters included, and never runs
//! it.

mod alignment;
mod anchor;
mod cases;
mod chart_data;
mod embed_data;
mod error;
mod escape;
#[cfg(test)]
mod fixture;
mod forbidden;
mod input;
mod junit;
mod number;
mod otlp;
mod page;
mod sections;
mod severity;
mod summary;
mod tool_table;
mod transcript;
mod trials;
mod wording;
mod write_changes;

pub use cases::transcript_sessions;
pub use error::ReportError;
pub use forbidden::hide_forbidden;
pub use input::{ReportInput, ReportMeta};
pub use junit::junit_xml;
pub use otlp::otlp_json;
pub use page::report_html;
pub use summary::summary_md;
pub use transcript::{Transcript, TranscriptTurn, Transcripts};
