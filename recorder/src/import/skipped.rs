//! Items of an import file that cannot be read.

use serde::Serialize;

/// An item that import skips, with the position and the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SkippedItem {
    /// Path of the file as given on the command line.
    pub file: String,
    /// Line from 1; in a file that is one JSON document, the number of the item from 1.
    pub line: u64,
    /// Path of the field (`traj[3].tool_calls[0].function`); empty for the whole item.
    pub field: String,
    /// The expected and the found value.
    pub detail: String,
}

impl std::fmt::Display for SkippedItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, line, field, detail } = self;
        if field.is_empty() {
            write!(f, "{file}:{line}: {detail}")
        } else {
            write!(f, "{file}:{line}: {field}: {detail}")
        }
    }
}
