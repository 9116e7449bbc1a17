//! The tables: their columns, and rows to and from the bytes of a Parquet file.
//!
//! Works on bytes in memory; where files lie and how they are put there is `store`'s. Every file carries the format
//! version; a reader refuses a version it does not know. Columns that a reader does not know are ignored.

pub use arrow_schema::DataType;
use arrow_schema::FieldRef;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use schemas::FORMAT;
use schemas::keys::Digest;

mod arrays;
mod columns;
pub mod encryption;
mod pages;
pub mod point_lookup;
mod read;
mod write;

pub use arrays::{ExchangeWithChunkRows, Row};
pub use read::{ReadOptions, check_keys, decode, decode_all, decode_batch, load, open};
pub use write::{Level, WriteOptions, encode};

/// Key of the format version in a file's metadata.
pub const FORMAT_KEY: &str = "foreshadow.format";

/// Key of the table's name in a file's metadata.
pub const TABLE_KEY: &str = "foreshadow.table";

/// Rows decoded at a time.
const BATCH_ROWS: usize = 4096;

/// Bytes of rows encoded at a time; one row may have more.
const BATCH_BYTES: usize = 256 << 20;

/// A table of a store or a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// [`schemas::exchange::Exchange`] with `u32` references into the chunks file of the same name.
    Exchanges,
    /// [`Chunk`].
    Chunks,
    /// [`schemas::session::SessionClose`].
    Sessions,
    /// [`schemas::trial::Trial`].
    Trials,
    /// [`schemas::score::Score`].
    Scores,
    /// [`schemas::embedding::Embedding`].
    Embeddings,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 6] =
        [Self::Exchanges, Self::Chunks, Self::Sessions, Self::Trials, Self::Scores, Self::Embeddings];

    /// Its name, which is its folder's too.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exchanges => "exchanges",
            Self::Chunks => "chunks",
            Self::Sessions => "sessions",
            Self::Trials => "trials",
            Self::Scores => "scores",
            Self::Embeddings => "embeddings",
        }
    }

    /// Its columns.
    #[must_use]
    pub fn columns(self) -> Vec<FieldRef> {
        match self {
            Self::Exchanges => columns::exchanges(),
            Self::Chunks => columns::chunks(),
            Self::Sessions => columns::sessions(),
            Self::Trials => columns::trials(),
            Self::Scores => columns::scores(),
            Self::Embeddings => columns::embeddings(),
        }
    }

    /// Columns that look-ups go by: they have a bloom filter and are never encrypted.
    fn lookup_columns(self) -> &'static [&'static str] {
        match self {
            Self::Exchanges | Self::Sessions | Self::Trials | Self::Scores | Self::Embeddings => &["session"],
            Self::Chunks => &["digest"],
        }
    }
}

/// A distinct piece of the bodies in the exchanges file of the same name; its row number is its reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Row number in this file, from 0.
    pub chunk: u32,
    /// Its name.
    pub digest: Digest,
    /// Its bytes; absent where it lies in an earlier file of the same session.
    pub bytes: Option<Bytes>,
    /// The earlier file, by its name in the same folder; present just where the bytes are not.
    pub stored_in: Option<String>,
}

/// A file that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Not Parquet, or cut short.
    #[error(
        "not a readable Parquet file ({0}); it may be truncated: restore it, or remove its commit to leave it out"
    )]
    Parquet(parquet::errors::ParquetError),
    /// Encrypted, and its key is not at hand.
    #[error(transparent)]
    Key(#[from] encryption::KeyError),
    /// A batch that the reader could not build.
    #[error("broken column data ({0}); the file may be damaged: restore it from a copy")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// Rows that do not fit the columns.
    #[error("rows of table {table} do not fit its columns: {source}")]
    Rows {
        /// The table.
        table: &'static str,
        /// What does not fit.
        source: serde_arrow::Error,
    },
    /// A Parquet file of somebody else.
    #[error("Parquet file without `{FORMAT_KEY}`: it was not written by foreshadow")]
    Foreign,
    /// Another version.
    #[error("format version {found}, this build reads version {FORMAT}; read it with foreshadow {needed}")]
    Version {
        /// The file's version.
        found: String,
        /// Which build can.
        needed: String,
    },
    /// A file of another table.
    #[error("file holds table {found}, expected {expected}")]
    OtherTable {
        /// The file's table.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
}
