//! Decodes the bytes of a Parquet file to rows. Version, table, keys and projection are checked first.

use std::sync::Arc;

use arrow_array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::encryption::decrypt::{FileDecryptionProperties, KeyRetriever};
use parquet::file::column_crypto_metadata::ColumnCryptoMetaData;
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::reader::ChunkReader;
use serde::de::DeserializeOwned;

use super::definition::{FORMAT_KEY, TABLE_KEY, Table};
use super::encryption::{KeyError, KeyMaterial};
use super::error::TableError;
use schemas::FORMAT;

/// Rows decoded at a time.
pub(super) const BATCH_ROWS: usize = 4096;

/// Which columns of a file to read, and the keys for encrypted ones.
#[derive(Clone, Copy, Default)]
pub struct ReadOptions<'a> {
    /// Columns to read: leaf paths with dots (`operation.tool`) or entire columns; `None` reads all.
    pub columns: Option<&'a [&'a str]>,
    /// Source of the data keys of encrypted files; without it only their unencrypted columns can be read.
    pub keys: Option<&'a Arc<dyn KeyRetriever>>,
}

impl std::fmt::Debug for ReadOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadOptions")
            .field("columns", &self.columns)
            .field("keys", &self.keys.is_some())
            .finish()
    }
}

/// Opens a file of this table: bytes in memory, or any reader of byte ranges.
///
/// # Errors
/// The file is foreign, of another version or table, or damaged, or the key of a requested column is missing.
pub fn open<R: ChunkReader + 'static>(
    table: Table,
    file: R,
    options: ReadOptions<'_>,
) -> Result<ParquetRecordBatchReaderBuilder<R>, TableError> {
    let metadata = load(table, &file, ArrowReaderOptions::new(), options.keys)?;
    let mask = match options.columns {
        Some(names) => ProjectionMask::columns(metadata.parquet_schema(), names.iter().copied()),
        None => ProjectionMask::all(),
    };
    check_keys(metadata.metadata(), &mask, options.keys)?;
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
    Ok(builder.with_projection(mask).with_batch_size(BATCH_ROWS))
}

/// Reads and checks the footer, with the options of `arrow`.
///
/// # Errors
/// The file is foreign, of another version or table, or damaged.
pub fn load<R: ChunkReader>(
    table: Table,
    file: &R,
    arrow: ArrowReaderOptions,
    keys: Option<&Arc<dyn KeyRetriever>>,
) -> Result<ArrowReaderMetadata, TableError> {
    let metadata = match keys {
        None => ArrowReaderMetadata::load(file, arrow)?,
        Some(keys) => {
            let properties = FileDecryptionProperties::with_key_retriever(Arc::clone(keys)).build()?;
            let sealed = arrow.clone().with_file_decryption_properties(properties);
            match ArrowReaderMetadata::load(file, sealed).map_err(TableError::from) {
                // Unencrypted columns stay readable; the error for an encrypted one names its key.
                Err(TableError::Key(_)) => ArrowReaderMetadata::load(file, arrow)?,
                other => other?,
            }
        }
    };
    let footer = metadata.metadata().file_metadata();
    check_metadata(table, footer.key_value_metadata(), footer.created_by())?;
    Ok(metadata)
}

/// Reads the rows of a file in batches and passes them to `each` in file order. `T` may have fewer fields than the table.
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

/// Decodes one record batch to rows.
///
/// # Errors
/// The columns do not fit `T`.
pub fn decode_batch<T: DeserializeOwned>(table: Table, batch: &RecordBatch) -> Result<Vec<T>, TableError> {
    serde_arrow::from_record_batch(batch).map_err(|source| TableError::Rows { table: table.as_str(), source })
}

/// Reads all rows of a file that is not encrypted.
///
/// # Errors
/// As [`decode`].
pub fn decode_all<T: DeserializeOwned>(table: Table, file: Bytes) -> Result<Vec<T>, TableError> {
    let mut rows = Vec::new();
    decode(table, file, ReadOptions::default(), |mut batch| rows.append(&mut batch))?;
    Ok(rows)
}

pub(super) fn check_metadata(
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

/// Refuses a projection onto encrypted columns without a key, before a page is read.
///
/// # Errors
/// [`TableError::Key`] names the key.
pub fn check_keys(
    metadata: &ParquetMetaData,
    mask: &ProjectionMask,
    keys: Option<&Arc<dyn KeyRetriever>>,
) -> Result<(), TableError> {
    let mut opened: Vec<&[u8]> = Vec::new();
    let leaves = metadata.row_groups().iter().flat_map(|group| group.columns().iter().enumerate());
    for (_, column) in leaves.filter(|(leaf, _)| mask.leaf_included(*leaf)) {
        let sealed = match column.crypto_metadata() {
            None => continue,
            Some(ColumnCryptoMetaData::ENCRYPTION_WITH_FOOTER_KEY) => &[][..],
            Some(ColumnCryptoMetaData::ENCRYPTION_WITH_COLUMN_KEY(key)) => {
                key.key_metadata.as_deref().unwrap_or_default()
            }
        };
        if opened.contains(&sealed) {
            continue;
        }
        match keys {
            Some(keys) => drop(keys.retrieve_key(sealed)?),
            None => return Err(KeyError::missing(&KeyMaterial::parse(sealed)?.key).into()),
        }
        opened.push(sealed);
    }
    Ok(())
}
