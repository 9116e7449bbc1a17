//! Encodes rows as the bytes of a Parquet file: encodings, compression, statistics, bloom filters and encryption.

use std::sync::Arc;

use arrow_schema::Schema;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, Encoding, Type, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::{ColumnDescriptor, ColumnPath, SchemaDescriptor};

use super::arrays::TableRow;
use super::definition::{FORMAT_KEY, TABLE_KEY, Table};
use super::encryption::{self, FileKeys};
use super::error::TableError;
use super::pages;
use schemas::FORMAT;
use schemas::columns::ColumnClass;

/// Rows of one row group.
const ROW_GROUP_ROWS: usize = 64 * 1024;

/// Rows of one page, except pages of bodies. A point lookup reads a page or two of each column, so a page has few sessions.
const PAGE_ROWS: usize = 4096;

/// Rows converted to arrays at a time: few, so that the arrays are still in the processor's cache when they are written.
const ARRAY_ROWS: usize = 1024;

/// Bytes of rows encoded at a time; one row may have more.
const BATCH_BYTES: usize = 256 << 20;

/// The compression level of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Level {
    /// For files written while traffic arrives.
    #[default]
    Archive,
    /// For files that compaction writes once and keeps.
    Compact,
}

impl Level {
    /// zstd level. Level 5 makes archived files 4 % smaller than level 3 and the archiver 25 % slower; compaction rewrites them.
    fn zstd(self) -> i32 {
        match self {
            Self::Archive => 3,
            Self::Compact => 15,
        }
    }

    /// Compressed bytes of one page of bodies. A point lookup reads entire pages, of several files before compaction.
    fn body_page_bytes(self) -> usize {
        match self {
            Self::Archive => 384 << 10,
            Self::Compact => 3 << 19,
        }
    }

    fn compression(self) -> Compression {
        Compression::ZSTD(ZstdLevel::try_new(self.zstd()).unwrap_or_default())
    }
}

/// Options of [`encode`].
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Compression level.
    pub level: Level,
    /// Data keys for an encrypted file; no other file may use them.
    pub keys: Option<FileKeys>,
}

/// Encodes rows as the bytes of one Parquet file. The caller sorts them (by session and seq).
///
/// # Errors
/// A row does not fit the columns of the table.
pub fn encode<T: TableRow>(table: Table, rows: &[T], options: &WriteOptions) -> Result<Vec<u8>, TableError> {
    let fields = table.fields();
    let schema = Arc::new(Schema::new(fields.clone()));
    let leaves = ArrowSchemaConverter::new().convert(&schema)?;
    let body_page_bytes = pages::page_bytes(rows.iter().map(TableRow::body), options.level.body_page_bytes());
    let properties = properties(table, &leaves, rows.len(), body_page_bytes, options)?;
    // Without a copy of the Arrow schema, which repeats the columns and would be a third of the footer of a small file.
    let writer_options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema, writer_options)?;
    for part in parts(rows) {
        writer.write(&T::batch(&fields, part)?)?;
    }
    Ok(writer.into_inner()?)
}

/// Splits rows into batches of at most [`ARRAY_ROWS`] rows and [`BATCH_BYTES`] bytes.
fn parts<T: TableRow>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |row: &&T| {
            bytes += row.payload_bytes();
            bytes <= BATCH_BYTES
        };
        let count = rows.iter().take(ARRAY_ROWS).take_while(fits).count().max(1);
        let (part, rest) = rows.split_at_checked(count)?;
        rows = rest;
        Some(part)
    })
}

fn properties(
    table: Table,
    leaves: &SchemaDescriptor,
    rows: usize,
    body_page_bytes: usize,
    options: &WriteOptions,
) -> Result<WriterProperties, TableError> {
    let metadata = vec![
        KeyValue::new(FORMAT_KEY.to_owned(), FORMAT.to_string()),
        KeyValue::new(TABLE_KEY.to_owned(), table.as_str().to_owned()),
    ];
    let mut builder = WriterProperties::builder()
        .set_compression(options.level.compression())
        .set_sorting_columns(sorting(table, leaves))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_created_by(format!("foreshadow {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(metadata));
    for leaf in leaves.columns() {
        builder = column_properties(builder, table, leaf, body_page_bytes);
    }
    // Bloom filters are not encrypted: only columns that are never encrypted may have one.
    for column in table.lookup_columns() {
        let path = ColumnPath::from(column);
        builder = builder
            .set_column_statistics_enabled(path.clone(), EnabledStatistics::Page)
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_max_ndv(path, rows.clamp(16, ROW_GROUP_ROWS) as u64);
    }
    if let Some(keys) = &options.keys {
        builder = builder.with_file_encryption_properties(encryption::properties(table, leaves, keys)?);
    }
    Ok(builder.build())
}

/// Columns whose values share a prefix with the row before.
const PREFIX_CODED: [&str; 2] = ["exchange", "links.list.element.to"];

/// Chooses the encoding of a column: differences for numbers, no dictionary for distinct values.
fn column_properties(
    builder: WriterPropertiesBuilder,
    table: Table,
    leaf: &ColumnDescriptor,
    body_page_bytes: usize,
) -> WriterPropertiesBuilder {
    let path = leaf.path().clone();
    let name = path.string();
    let last = path.parts().last().map_or("", String::as_str);
    let is_list = leaf.max_rep_level() > 0;
    let builder = match leaf.physical_type() {
        // A list that repeats and extends the one before, such as the references of a history: zstd finds the repetition in
        // plain numbers, but neither in differences nor in packed dictionary indexes.
        Type::INT32 | Type::INT64 if is_list => builder.set_column_dictionary_enabled(path.clone(), false),
        Type::INT32 | Type::INT64 => builder
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED),
        Type::BYTE_ARRAY if PREFIX_CODED.contains(&name.as_str()) => builder
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path.clone(), Encoding::DELTA_BYTE_ARRAY),
        Type::FIXED_LEN_BYTE_ARRAY => builder.set_column_dictionary_enabled(path.clone(), false),
        // Components of vectors rarely repeat.
        Type::FLOAT => builder.set_column_dictionary_enabled(path.clone(), false),
        Type::BYTE_ARRAY if table == Table::Chunks && name == "bytes" => builder
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_data_page_size_limit(path.clone(), body_page_bytes)
            .set_column_data_page_row_count_limit(path.clone(), ROW_GROUP_ROWS),
        Type::BOOLEAN | Type::INT96 | Type::DOUBLE | Type::BYTE_ARRAY => builder,
    };
    // Minimum and maximum of payload and digests help no query, and the footer would show payload.
    let is_opaque = table.class_of(&name) == ColumnClass::Payload || last == "arguments_digest";
    if is_list || is_opaque {
        builder.set_column_statistics_enabled(path, EnabledStatistics::None)
    } else {
        builder
    }
}

/// The order in which the caller sorted the rows.
fn sorting(table: Table, leaves: &SchemaDescriptor) -> Option<Vec<SortingColumn>> {
    let names: &[&str] = match table {
        Table::Exchanges => &["session", "incarnation", "seq"],
        Table::Chunks => &["chunk"],
        Table::Sessions => &["session", "incarnation", "closed_at"],
        Table::Trials | Table::Scores | Table::Embeddings => &[],
    };
    let sorted_by = |name: &&str| {
        let index = leaves.columns().iter().position(|leaf| leaf.path().string() == **name)?;
        Some(SortingColumn { column_idx: i32::try_from(index).ok()?, descending: false, nulls_first: false })
    };
    let columns: Vec<_> = names.iter().filter_map(sorted_by).collect();
    (!columns.is_empty()).then_some(columns)
}

#[cfg(test)]
mod tests {
    use arrow_array::RecordBatch;
    use arrow_schema::{ArrowError, FieldRef};

    use super::*;

    struct Sized(usize);

    impl TableRow for Sized {
        fn batch(_: &[FieldRef], _: &[Self]) -> Result<RecordBatch, ArrowError> {
            unreachable!("the test only splits rows")
        }

        fn payload_bytes(&self) -> usize {
            self.0
        }
    }

    fn lengths(rows: &[Sized]) -> Vec<usize> {
        parts(rows).map(<[Sized]>::len).collect()
    }

    #[test]
    fn batches_are_limited_by_rows_and_by_bytes() {
        let rows = |sizes: &[usize]| sizes.iter().copied().map(Sized).collect::<Vec<_>>();
        assert_eq!(lengths(&[]), [0_usize; 0]);
        assert_eq!(lengths(&rows(&vec![1; ARRAY_ROWS * 2 + 3])), [ARRAY_ROWS, ARRAY_ROWS, 3]);
        let most = BATCH_BYTES;
        assert_eq!(lengths(&rows(&[1, most - 1, 1, most + 1, most + 1, 0, most])), [2, 1, 1, 1, 2]);
    }
}
