//! Reads parts of a file: which byte ranges a point lookup needs, and their content.
//!
//! Nothing here does I/O: each reader returns the ranges that it needs, and the caller fetches them from a disk or an object
//! store and pushes the bytes.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::RecordBatch;
use bytes::Bytes;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::bloom_filter::Sbbf;
use parquet::encryption::decrypt::{FileDecryptionProperties, KeyRetriever};
use parquet::file::metadata::{
    ColumnChunkMask, ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder,
};

use super::definition::Table;
use super::error::TableError;
use super::read::{BATCH_ROWS, ReadOptions, check_keys, check_metadata};

/// The result of one step of a reader.
#[derive(Debug)]
pub enum Step<T> {
    /// The reader needs these byte ranges of the file.
    Needs(Vec<Range<u64>>),
    /// The reader is done.
    Done(T),
}

fn step<T: std::fmt::Debug>(decoded: DecodeResult<T>) -> Step<Option<T>> {
    match decoded {
        DecodeResult::NeedsData(ranges) => Step::Needs(ranges),
        DecodeResult::Data(value) => Step::Done(Some(value)),
        DecodeResult::Finished => Step::Done(None),
    }
}

/// Reads the footer of a file, or its page index.
#[derive(Debug)]
pub struct FooterReader {
    table: Table,
    length: u64,
    decoder: ParquetMetaDataPushDecoder,
    /// Pushed bytes, kept while the reader may have to start over without keys.
    given: Option<Vec<(Range<u64>, Bytes)>>,
}

fn footer_decoder(length: u64) -> Result<ParquetMetaDataPushDecoder, TableError> {
    Ok(ParquetMetaDataPushDecoder::try_new(length)?.with_page_index_policy(PageIndexPolicy::Skip))
}

impl FooterReader {
    /// Starts with a file of this length in bytes; `keys` as in [`ReadOptions::keys`].
    ///
    /// # Errors
    /// The file is too short to be Parquet.
    pub fn new(table: Table, length: u64, keys: Option<&Arc<dyn KeyRetriever>>) -> Result<Self, TableError> {
        let mut decoder = footer_decoder(length)?;
        if let Some(keys) = keys {
            let properties = FileDecryptionProperties::with_key_retriever(Arc::clone(keys)).build()?;
            decoder = decoder.with_file_decryption_properties(Some(properties));
        }
        Ok(Self { table, length, decoder, given: keys.map(|_| Vec::new()) })
    }

    /// Pushes bytes of the file, requested or not.
    ///
    /// # Errors
    /// The bytes are not as long as their range.
    pub fn push(&mut self, range: Range<u64>, bytes: Bytes) -> Result<(), TableError> {
        if let Some(given) = &mut self.given {
            given.push((range.clone(), bytes.clone()));
        }
        Ok(self.decoder.push_range(range, bytes)?)
    }

    /// Decodes, or requests more bytes.
    ///
    /// # Errors
    /// The file is foreign, of another version or table, or damaged.
    pub fn step(&mut self) -> Result<Step<Footer>, TableError> {
        let decoded = match self.decoder.try_decode().map_err(TableError::from) {
            // Unencrypted columns stay readable; the error for an encrypted one names its key.
            Err(TableError::Key(_)) if self.given.is_some() => {
                self.decoder = footer_decoder(self.length)?;
                for (range, bytes) in self.given.take().unwrap_or_default() {
                    self.decoder.push_range(range, bytes)?;
                }
                self.decoder.try_decode()?
            }
            other => other?,
        };
        let metadata = match step(decoded) {
            Step::Needs(ranges) => return Ok(Step::Needs(ranges)),
            Step::Done(Some(metadata)) => metadata,
            Step::Done(None) => {
                let again = "the footer reader was used after its end".to_owned();
                return Err(parquet::errors::ParquetError::General(again).into());
            }
        };
        let file = metadata.file_metadata();
        check_metadata(self.table, file.key_value_metadata(), file.created_by())?;
        Ok(Step::Done(Footer { table: self.table, length: self.length, metadata: Arc::new(metadata) }))
    }
}

/// The decoded footer of a file.
#[derive(Debug, Clone)]
pub struct Footer {
    table: Table,
    length: u64,
    metadata: Arc<ParquetMetaData>,
}

impl Footer {
    /// The row numbers of each row group.
    #[must_use]
    pub fn row_groups(&self) -> Vec<Range<u64>> {
        let mut first = 0;
        let mut groups = Vec::with_capacity(self.metadata.num_row_groups());
        for group in self.metadata.row_groups() {
            let next = first + u64::try_from(group.num_rows()).unwrap_or(0);
            groups.push(first..next);
            first = next;
        }
        groups
    }

    fn column(&self, row_group: usize, name: &str) -> Option<&ColumnChunkMetaData> {
        let columns = self.metadata.row_groups().get(row_group)?.columns();
        columns.iter().find(|column| column.column_path().string() == name)
    }

    /// Whether a row group may contain one of these values, by its minimum and maximum; `sorted` is ascending.
    #[must_use]
    pub fn may_hold(&self, row_group: usize, column: &str, sorted: &[&[u8]]) -> bool {
        let Some(statistics) = self.column(row_group, column).and_then(ColumnChunkMetaData::statistics)
        else {
            return true;
        };
        let (Some(least), Some(greatest)) = (statistics.min_bytes_opt(), statistics.max_bytes_opt()) else {
            return true;
        };
        let first = sorted.partition_point(|value| *value < least);
        sorted.get(first).is_some_and(|value| *value <= greatest)
    }

    /// Byte range of the bloom filter of a column in a row group; `None` if it has none.
    #[must_use]
    pub fn bloom(&self, row_group: usize, column: &str) -> Option<Range<u64>> {
        let column = self.column(row_group, column)?;
        let start = u64::try_from(column.bloom_filter_offset()?).ok()?;
        let length = u64::try_from(column.bloom_filter_length()?).ok()?;
        Some(start..start.checked_add(length)?)
    }

    /// Reads the page index of the requested columns, for the row groups that contain these rows.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn with_pages(
        self,
        options: ReadOptions<'_>,
        rows: &[Range<u64>],
    ) -> Result<FooterReader, TableError> {
        let groups = self.row_groups();
        let holds = |group: &Range<u64>| rows.iter().any(|r| r.start < group.end && group.start < r.end);
        let groups: Vec<usize> = (0..groups.len()).filter(|group| holds(&groups[*group])).collect();
        let schema = self.metadata.file_metadata().schema_descr_ptr();
        let mask = projection(&schema, options);
        let columns = (0..schema.num_columns()).filter(|column| mask.leaf_included(*column));
        let wanted = ColumnChunkMask::row_groups_and_columns(groups, columns);
        check_keys(&self.metadata, &mask, options.keys)?;
        let metadata = Arc::unwrap_or_clone(self.metadata);
        let decoder = ParquetMetaDataPushDecoder::try_new_with_metadata(self.length, metadata)?
            .with_column_index_policy(PageIndexPolicy::Skip)
            .with_offset_index_policy(PageIndexPolicy::Optional)
            .with_offset_index_mask(wanted);
        Ok(FooterReader { table: self.table, length: self.length, decoder, given: None })
    }

    /// Reads all rows, or the rows in these ranges (ascending, not overlapping). Pages are skipped only after
    /// [`Self::with_pages`] has read the page index.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn rows(
        &self,
        options: ReadOptions<'_>,
        rows: Option<&[Range<u64>]>,
    ) -> Result<RowsReader, TableError> {
        let metadata = ArrowReaderMetadata::try_new(self.metadata.clone(), ArrowReaderOptions::new())?;
        let mask = projection(metadata.parquet_schema(), options);
        check_keys(&self.metadata, &mask, options.keys)?;
        let mut builder = ParquetPushDecoderBuilder::new_with_metadata(metadata)
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS);
        if let Some(rows) = rows {
            let number = |row: u64| usize::try_from(row).unwrap_or(usize::MAX);
            let total = number(self.row_groups().last().map_or(0, |group| group.end));
            let clipped = rows.iter().map(|rows| number(rows.start).min(total)..number(rows.end).min(total));
            let clipped = clipped.filter(|rows| !rows.is_empty());
            builder = builder.with_row_selection(RowSelection::from_consecutive_ranges(clipped, total));
        }
        Ok(RowsReader { decoder: builder.build()? })
    }
}

fn projection(schema: &parquet::schema::types::SchemaDescriptor, options: ReadOptions<'_>) -> ProjectionMask {
    match options.columns {
        Some(names) => ProjectionMask::columns(schema, names.iter().copied()),
        None => ProjectionMask::all(),
    }
}

/// Whether a bloom filter, as stored in the file, may contain one of these values.
///
/// # Errors
/// The filter is damaged.
pub fn bloom_may_hold(filter: &[u8], values: &[&[u8]]) -> Result<bool, TableError> {
    let filter = Sbbf::from_bytes(filter)?;
    Ok(values.iter().any(|value| filter.check(*value)))
}

/// Reads rows in batches.
#[derive(Debug)]
pub struct RowsReader {
    decoder: ParquetPushDecoder,
}

impl RowsReader {
    /// Pushes the requested bytes, one item for each range.
    ///
    /// # Errors
    /// The bytes are not as long as their ranges.
    pub fn push(&mut self, ranges: Vec<Range<u64>>, bytes: Vec<Bytes>) -> Result<(), TableError> {
        Ok(self.decoder.push_ranges(ranges, bytes)?)
    }

    /// Decodes the next rows, or requests more bytes; `None` at the end.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn step(&mut self) -> Result<Step<Option<RecordBatch>>, TableError> {
        Ok(step(self.decoder.try_decode()?))
    }
}
