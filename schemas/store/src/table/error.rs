//! The error of reading and writing tables.

use parquet::errors::ParquetError;
use schemas::FORMAT;

use super::definition::FORMAT_KEY;
use super::encryption::KeyError;

/// A file that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Not Parquet, or truncated.
    #[error(
        "not a readable Parquet file ({0}); it may be truncated: restore it, or remove its commit to leave it out"
    )]
    Parquet(ParquetError),
    /// Encrypted under a key that is not configured.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Column data that cannot be read or built.
    #[error("broken column data ({0}); the file may be damaged: restore it from a copy")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// Decoded columns that do not fit the row type.
    #[error("rows of table {table} do not fit its columns: {source}")]
    Rows {
        /// Name of the table.
        table: &'static str,
        /// The mismatch.
        source: serde_arrow::Error,
    },
    /// A Parquet file that foreshadow did not write.
    #[error("Parquet file without `{FORMAT_KEY}`: it was not written by foreshadow")]
    Foreign,
    /// Another format version.
    #[error("format version {found}, this build reads version {FORMAT}; read it with foreshadow {needed}")]
    Version {
        /// Version of the file.
        found: String,
        /// The build that reads it.
        needed: String,
    },
    /// A file of another table.
    #[error("file holds table {found}, expected {expected}")]
    OtherTable {
        /// Table of the file.
        found: String,
        /// Requested table.
        expected: &'static str,
    },
}

impl From<ParquetError> for TableError {
    fn from(error: ParquetError) -> Self {
        match error {
            ParquetError::External(inner) => match inner.downcast::<KeyError>() {
                Ok(key) => Self::Key(*key),
                Err(other) => Self::Parquet(ParquetError::External(other)),
            },
            other => Self::Parquet(other),
        }
    }
}
