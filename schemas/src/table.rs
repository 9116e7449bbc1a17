//! The tables: their columns, and rows to and from the bytes of a Parquet file.
//!
//! Works on bytes in memory; where files lie and how they are put there is `store`'s. Every file carries the format
//! version; a reader refuses a version it does not know. Columns that a reader does not know are ignored.

use arrow_array::RecordBatch;
use arrow_schema::{DataType, FieldRef, Schema};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::ChunkReader;
use parquet::schema::types::ColumnPath;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::FORMAT;
use crate::keys::Digest;

mod columns;

/// Key of the format version in a file's metadata.
pub const FORMAT_KEY: &str = "foreshadow.format";

/// Key of the table's name in a file's metadata.
pub const TABLE_KEY: &str = "foreshadow.table";

/// Rows decoded at a time.
const BATCH_ROWS: usize = 4096;

/// Rows of one row group.
const ROW_GROUP_ROWS: usize = 64 * 1024;

/// zstd level of the columns: 3 compresses chat bodies about as well as 9 at a third of the time.
const ZSTD_LEVEL: i32 = 3;

/// A table of a store or a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// [`crate::exchange::Exchange`] with `u32` references into the chunks file of the same name.
    Exchanges,
    /// [`Chunk`].
    Chunks,
    /// [`crate::session::SessionClose`].
    Sessions,
    /// [`crate::trial::Trial`].
    Trials,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 4] = [Self::Exchanges, Self::Chunks, Self::Sessions, Self::Trials];

    /// Its name, which is its folder's too.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exchanges => "exchanges",
            Self::Chunks => "chunks",
            Self::Sessions => "sessions",
            Self::Trials => "trials",
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
        }
    }

    /// Columns that look-ups go by, which get a bloom filter.
    fn look_up_columns(self) -> &'static [&'static str] {
        match self {
            Self::Exchanges | Self::Sessions | Self::Trials => &["session"],
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
    #[serde(with = "serde_bytes")]
    pub bytes: Option<Vec<u8>>,
    /// The earlier file, by its name in the same folder; present just where the bytes are not.
    pub leans_on: Option<String>,
}

/// A file that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Not Parquet, or cut short.
    #[error(
        "not a readable Parquet file ({0}); it may be truncated: restore it, or remove its commit to leave it out"
    )]
    Parquet(#[from] parquet::errors::ParquetError),
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

/// Writes rows as the bytes of one Parquet file. The caller sorts them (by session and seq).
///
/// # Errors
/// A row does not fit the table's columns.
pub fn encode<T: Serialize>(table: Table, rows: &[T]) -> Result<Vec<u8>, TableError> {
    let fields = table.columns();
    let schema = std::sync::Arc::new(Schema::new(fields.clone()));
    let options = ArrowWriterOptions::new().with_properties(properties(table, rows.len()));
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema, options)?;
    for part in rows.chunks(BATCH_ROWS) {
        let batch = serde_arrow::to_record_batch(&fields, &part)
            .map_err(|source| TableError::Rows { table: table.as_str(), source })?;
        writer.write(&batch)?;
    }
    Ok(writer.into_inner()?)
}

fn properties(table: Table, rows: usize) -> WriterProperties {
    let zstd = ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default();
    let metadata = vec![
        KeyValue::new(FORMAT_KEY.to_owned(), FORMAT.to_string()),
        KeyValue::new(TABLE_KEY.to_owned(), table.as_str().to_owned()),
    ];
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(zstd))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(format!("foreshadow {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(metadata));
    for column in table.look_up_columns() {
        let path = ColumnPath::from(*column);
        builder = builder
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_max_ndv(path, rows.clamp(16, ROW_GROUP_ROWS) as u64);
    }
    builder.build()
}

/// What is wanted of a file.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOptions<'a> {
    /// Keeps only these columns (leaf paths with dots, `operation.tool`, or whole columns); `None` keeps all.
    pub columns: Option<&'a [&'a str]>,
}

/// Opens a file of this table: bytes in memory, or anything that gives ranges of them.
///
/// # Errors
/// The file is foreign, of another version or table, or damaged.
pub fn open<R: ChunkReader + 'static>(
    table: Table,
    file: R,
    options: ReadOptions<'_>,
) -> Result<ParquetRecordBatchReaderBuilder<R>, TableError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, ArrowReaderOptions::new())?;
    check_metadata(
        table,
        builder.metadata().file_metadata().key_value_metadata(),
        builder.metadata().file_metadata().created_by(),
    )?;
    let mask = match options.columns {
        Some(names) => ProjectionMask::columns(builder.parquet_schema(), names.iter().copied()),
        None => ProjectionMask::all(),
    };
    Ok(builder.with_projection(mask).with_batch_size(BATCH_ROWS))
}

/// Reads the rows of a file, a batch at a time; `each` gets them in file order. `T` may have fewer fields than the table.
///
/// # Errors
/// As [`open`].
pub fn decode<T: DeserializeOwned, R: ChunkReader + 'static>(
    table: Table,
    file: R,
    options: ReadOptions<'_>,
    mut each: impl FnMut(Vec<T>),
) -> Result<(), TableError> {
    for batch in open(table, file, options)?.build()? {
        each(decode_batch(table, &batch?)?);
    }
    Ok(())
}

/// Turns one record batch into rows.
///
/// # Errors
/// The columns do not fit `T`.
pub fn decode_batch<T: DeserializeOwned>(table: Table, batch: &RecordBatch) -> Result<Vec<T>, TableError> {
    serde_arrow::from_record_batch(batch).map_err(|source| TableError::Rows { table: table.as_str(), source })
}

/// Reads all rows of a file.
///
/// # Errors
/// As [`decode`].
pub fn decode_all<T: DeserializeOwned>(table: Table, file: Bytes) -> Result<Vec<T>, TableError> {
    let mut rows = Vec::new();
    decode(table, file, ReadOptions::default(), |mut batch| rows.append(&mut batch))?;
    Ok(rows)
}

fn check_metadata(
    table: Table,
    pairs: Option<&Vec<KeyValue>>,
    created_by: Option<&str>,
) -> Result<(), TableError> {
    let find = |key: &str| pairs?.iter().find(|pair| pair.key == key)?.value.clone();
    let found = find(FORMAT_KEY).ok_or(TableError::Foreign)?;
    if found != FORMAT.to_string() {
        let needed =
            created_by.map_or_else(|| "of a newer version".to_owned(), |by| format!("as new as \"{by}\""));
        return Err(TableError::Version { found, needed });
    }
    match find(TABLE_KEY) {
        Some(name) if name == table.as_str() => Ok(()),
        other => Err(TableError::OtherTable { found: other.unwrap_or_default(), expected: table.as_str() }),
    }
}

/// Says whether a column of the table is of this type; used by tests of other readers.
#[must_use]
pub fn column_type(table: Table, name: &str) -> Option<DataType> {
    table.columns().into_iter().find(|field| field.name() == name).map(|field| field.data_type().clone())
}
