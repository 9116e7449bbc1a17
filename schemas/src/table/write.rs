//! Rows to the bytes of a Parquet file: encodings, compression, statistics, bloom filters and encryption.

use std::sync::Arc;

use arrow_schema::Schema;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::{ColumnPath, SchemaDescriptor};
use serde::Serialize;

use super::encryption::{self, FileKeys};
use super::{BATCH_ROWS, FORMAT_KEY, TABLE_KEY, Table, TableError};
use crate::FORMAT;

/// Rows of one row group.
const ROW_GROUP_ROWS: usize = 64 * 1024;

/// How much time goes into making a file small.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Level {
    /// For files that are written while traffic comes in.
    #[default]
    Archive,
    /// For files that are written once more and then kept.
    Compact,
}

impl Level {
    /// zstd level of the columns: 3 compresses chat bodies about as well as 9 at a third of the time.
    fn zstd(self) -> i32 {
        match self {
            Self::Archive => 3,
            Self::Compact => 9,
        }
    }
}

/// How a file is written.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// How much time goes into making it small.
    pub level: Level,
    /// Where present, it is encrypted under these, which serve no other file.
    pub keys: Option<FileKeys>,
}

/// Writes rows as the bytes of one Parquet file. The caller sorts them (by session and seq).
///
/// # Errors
/// A row does not fit the table's columns.
pub fn encode<T: Serialize>(table: Table, rows: &[T], options: &WriteOptions) -> Result<Vec<u8>, TableError> {
    let fields = table.columns();
    let schema = Arc::new(Schema::new(fields.clone()));
    let leaves = ArrowSchemaConverter::new().convert(&schema)?;
    let properties = properties(table, &leaves, rows.len(), options)?;
    let writer_options = ArrowWriterOptions::new().with_properties(properties);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema, writer_options)?;
    for part in rows.chunks(BATCH_ROWS) {
        let batch = serde_arrow::to_record_batch(&fields, &part)
            .map_err(|source| TableError::Rows { table: table.as_str(), source })?;
        writer.write(&batch)?;
    }
    Ok(writer.into_inner()?)
}

fn properties(
    table: Table,
    leaves: &SchemaDescriptor,
    rows: usize,
    options: &WriteOptions,
) -> Result<WriterProperties, TableError> {
    let zstd = ZstdLevel::try_new(options.level.zstd()).unwrap_or_default();
    let metadata = vec![
        KeyValue::new(FORMAT_KEY.to_owned(), FORMAT.to_string()),
        KeyValue::new(TABLE_KEY.to_owned(), table.as_str().to_owned()),
    ];
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(zstd))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(format!("foreshadow {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(metadata));
    // Bloom filters are written in clear: only columns that are never encrypted may have one.
    for column in table.look_up_columns() {
        let path = ColumnPath::from(*column);
        builder = builder
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_max_ndv(path, rows.clamp(16, ROW_GROUP_ROWS) as u64);
    }
    if let Some(keys) = &options.keys {
        builder = builder.with_file_encryption_properties(encryption::properties(table, leaves, keys)?);
    }
    Ok(builder.build())
}
