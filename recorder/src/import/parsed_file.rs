//! The transcripts of one file.

use super::skipped::SkippedItem;
use super::transcript::Transcript;

/// The content of an import file.
#[derive(Debug, Default)]
pub struct ParsedFile {
    /// The sessions, in file order.
    pub transcripts: Vec<Transcript>,
    /// Items that name no trial that can be read.
    pub skipped: Vec<SkippedItem>,
    /// Further lost rows: those of a damaged file, of which one item of `skipped` names the first.
    pub more_lost_rows: u64,
    /// Columns of an outcome table that import does not use.
    pub ignored_columns: Vec<String>,
}
