//! The transcripts of one file.

use super::skipped::SkippedItem;
use super::transcript::Transcript;

/// The content of an import file.
#[derive(Debug, Default)]
pub struct ParsedFile {
    /// The sessions, in file order.
    pub transcripts: Vec<Transcript>,
    /// Items that cannot be read.
    pub skipped: Vec<SkippedItem>,
    /// Columns of an outcome table that import does not use.
    pub ignored_columns: Vec<String>,
}
