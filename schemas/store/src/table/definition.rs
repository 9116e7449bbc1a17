//! The tables and the metadata keys of their files.

use arrow_schema::FieldRef;
use schemas::body::Chunk;
use schemas::columns::{Column, ColumnClass, Columns, LogicalType};
use schemas::embedding::Embedding;
use schemas::exchange::Exchange;
use schemas::score::Score;
use schemas::session::SessionClose;
use schemas::trial::Trial;
use serde::{Deserialize, Serialize};

use super::fields;

/// Key of the format version in a file's metadata.
pub const FORMAT_KEY: &str = "foreshadow.format";

/// Key of the table's name in a file's metadata.
pub const TABLE_KEY: &str = "foreshadow.table";

/// A table of a store or a run.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Table {
    /// Requests and responses ([`Exchange`]) with `u32` references into the chunks file of the same name.
    Exchanges,
    /// Chunks of bodies ([`Chunk`]).
    Chunks,
    /// Close rows of sessions ([`SessionClose`]).
    Sessions,
    /// Trials of a run ([`Trial`]).
    Trials,
    /// Scores of trials ([`Score`]).
    Scores,
    /// Embeddings of answers ([`Embedding`]).
    Embeddings,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 6] =
        [Self::Exchanges, Self::Chunks, Self::Sessions, Self::Trials, Self::Scores, Self::Embeddings];

    /// The name, which is also the name of the table's folder.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The columns as the row type declares them, with their documentation.
    #[must_use]
    pub fn columns(self) -> &'static [Column] {
        match self {
            Self::Exchanges => Exchange::<u32>::COLUMNS,
            Self::Chunks => Chunk::COLUMNS,
            Self::Sessions => SessionClose::COLUMNS,
            Self::Trials => Trial::COLUMNS,
            Self::Scores => Score::COLUMNS,
            Self::Embeddings => Embedding::COLUMNS,
        }
    }

    /// The Arrow fields of the columns.
    #[must_use]
    pub fn fields(self) -> Vec<FieldRef> {
        fields::fields(self.columns())
    }

    /// Columns that point lookups search: they have a bloom filter and are never encrypted.
    pub(super) fn lookup_columns(self) -> impl Iterator<Item = &'static str> {
        self.columns().iter().filter(|column| column.class == ColumnClass::Lookup).map(|column| column.name)
    }

    /// The class of the leaf column with this path, such as `operation.input` or `labels.key_value.value`.
    #[must_use]
    pub fn class_of(self, leaf: &str) -> ColumnClass {
        let mut columns = self.columns();
        for name in leaf.split('.') {
            // `list.element` and `key_value.key` name no column of their own.
            let Some(column) = columns.iter().find(|column| column.name == name) else { continue };
            if column.class != ColumnClass::Metadata {
                return column.class;
            }
            columns = inner(&column.logical_type);
        }
        ColumnClass::Metadata
    }
}

/// The columns inside a column of this type.
fn inner(logical_type: &LogicalType) -> &'static [Column] {
    match logical_type {
        LogicalType::Struct(columns) => columns,
        LogicalType::List(item) => inner(item),
        LogicalType::Text
        | LogicalType::Binary
        | LogicalType::FixedBinary(_)
        | LogicalType::Boolean
        | LogicalType::UInt16
        | LogicalType::UInt32
        | LogicalType::UInt64
        | LogicalType::Float32
        | LogicalType::Float64
        | LogicalType::Timestamp
        | LogicalType::TextMap => &[],
    }
}
