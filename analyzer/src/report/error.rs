//! Errors of the report files.

use crate::analysis::AnalyzeError;

/// A report file could not be made. `verdict.json` never depends on these files.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The runs differ from the analyzed ones: they cannot be paired.
    #[error("failed to pair the runs of the report")]
    Pairs(#[from] AnalyzeError),
    /// Template and view model do not fit each other.
    #[error("failed to render report.html; this is a defect of foreshadow, verdict.json is not affected")]
    Template(#[from] minijinja::Error),
    /// A view model could not be written as JSON.
    #[error(
        "failed to write the data of report.html as JSON; this is a defect of foreshadow, verdict.json is not affected"
    )]
    Json(#[from] serde_json::Error),
    /// The XML could not be written.
    #[error("failed to write junit.xml; this is a defect of foreshadow, verdict.json is not affected")]
    Xml(#[from] quick_junit::SerializeError),
}
