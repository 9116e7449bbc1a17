//! Range reads of data files: the end of a file first, then the bytes that the wanted rows need.
//!
//! [`crate::table`] decides which bytes are needed; this module fetches them and counts them.

use std::ops::Range;

use crate::commit::CommittedFile;
use crate::table::point_lookup::{Footer, FooterReader, RowsReader, Step, bloom_may_hold};
use crate::table::{self, ReadOptions, Table, TableError};
use arrow_array::cast::AsArray as _;
use arrow_array::{Array as _, RecordBatch};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{GetOptions, GetRange, ObjectStore as _};
use serde::de::DeserializeOwned;

use crate::error::StoreError;
use crate::objects::{CONCURRENT_REQUESTS, Store};
use crate::snapshot::Snapshot;

/// Bytes read first at the end of a file if only parts of it are wanted: the footer and a little more. The footer of an
/// exchanges file, with its many columns, has about 8 KiB.
pub(crate) fn tail_bytes(table: Table) -> u64 {
    match table {
        Table::Exchanges => 10 * 1024,
        Table::Sessions | Table::Trials | Table::Scores | Table::Embeddings => 4 * 1024,
        Table::Chunks => 2 * 1024,
    }
}

/// Size up to which a file is read in one request if all of its columns are wanted, bytes.
const WHOLE_BYTES: u64 = 1024 * 1024;

/// Gap up to which two ranges are read in one request, bytes.
const GAP_BYTES: u64 = 4 * 1024;

/// Values up to which a bloom filter is read: with more, one of them nearly always matches.
const BLOOM_VALUES: usize = 32;

/// A data file with its footer.
pub(crate) struct OpenFile<'a> {
    store: &'a Store,
    file: &'a CommittedFile,
    footer: Footer,
    tail: Tail,
}

/// The last bytes of a file.
struct Tail {
    start: u64,
    bytes: Bytes,
}

impl Tail {
    fn slice(&self, range: &Range<u64>) -> Option<Bytes> {
        let start = usize::try_from(range.start.checked_sub(self.start)?).ok()?;
        let end = usize::try_from(range.end.checked_sub(self.start)?).ok()?;
        (start <= end && end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }
}

impl Store {
    /// Reads the rows of a file; `columns` selects columns ([`ReadOptions::columns`]), `None` all.
    ///
    /// # Errors
    /// [`StoreError::FileReplaced`] if the file does not exist; else it is truncated, foreign, damaged, encrypted without a
    /// key or of another version.
    pub async fn read<T: DeserializeOwned>(
        &self,
        file: &CommittedFile,
        columns: Option<&[&str]>,
    ) -> Result<Vec<T>, StoreError> {
        let mut rows = Vec::with_capacity(usize::try_from(file.rows).unwrap_or(0).min(1 << 20));
        self.read_each(file, columns, |mut batch| rows.append(&mut batch)).await?;
        Ok(rows)
    }

    /// Reads the rows of a file in batches, in file order. Needs memory for the selected columns of one row group.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_each<T: DeserializeOwned>(
        &self,
        file: &CommittedFile,
        columns: Option<&[&str]>,
        each: impl FnMut(Vec<T>),
    ) -> Result<(), StoreError> {
        let at_once = columns.is_none() && file.bytes <= WHOLE_BYTES;
        let open = self.open_file(file, if at_once { file.bytes } else { tail_bytes(file.table) }).await?;
        open.rows(self.options(columns), None, each).await
    }

    pub(crate) fn options<'a>(&'a self, columns: Option<&'a [&'a str]>) -> ReadOptions<'a> {
        ReadOptions { columns, keys: Some(self.keys.retriever()) }
    }

    /// Reads the rows of all files of a table, in commit order.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_table<T: DeserializeOwned>(
        &self,
        snapshot: &Snapshot,
        table: Table,
        columns: Option<&[&str]>,
    ) -> Result<Vec<T>, StoreError> {
        let mut rows = Vec::new();
        for file in snapshot.files(table) {
            rows.append(&mut self.read(file, columns).await?);
        }
        Ok(rows)
    }

    pub(crate) async fn open_file<'a>(
        &'a self,
        file: &'a CommittedFile,
        tail_bytes: u64,
    ) -> Result<OpenFile<'a>, StoreError> {
        let damaged = |source| StoreError::Table { path: self.display_path(&file.path), source };
        let start = file.bytes.saturating_sub(tail_bytes);
        let tail = Tail { start, bytes: self.tail(file, start).await? };
        let mut reader =
            FooterReader::new(file.table, file.bytes, Some(self.keys.retriever())).map_err(damaged)?;
        reader.push(start..file.bytes, tail.bytes.clone()).map_err(damaged)?;
        let footer = self.footer(file, reader, &tail).await?;
        Ok(OpenFile { store: self, file, footer, tail })
    }

    /// Reads a file from `start` to its end, and checks its length against the commit.
    async fn tail(&self, file: &CommittedFile, start: u64) -> Result<Bytes, StoreError> {
        let path = self.path(&file.path)?;
        let options = GetOptions { range: Some(GetRange::Offset(start)), ..GetOptions::default() };
        let found = match self.objects.get_opts(&path, options).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(StoreError::FileReplaced { path: self.display_path(&file.path) });
            }
            // An object store refuses a range that begins past the end.
            Err(error) => {
                let options = GetOptions { head: true, ..GetOptions::default() };
                let meta = self.objects.get_opts(&path, options).await.map(|found| found.meta.size);
                self.check_length(file, meta.unwrap_or(file.bytes))?;
                return Err(self.object_error(&file.path)(error));
            }
        };
        self.check_length(file, found.meta.size)?;
        let bytes = found.bytes().await.map_err(self.object_error(&file.path))?;
        self.reads.add(bytes.len() as u64);
        Ok(bytes)
    }

    fn check_length(&self, file: &CommittedFile, found: u64) -> Result<(), StoreError> {
        if found == file.bytes {
            return Ok(());
        }
        Err(StoreError::Length { path: self.display_path(&file.path), expected: file.bytes, found })
    }

    async fn footer(
        &self,
        file: &CommittedFile,
        mut reader: FooterReader,
        tail: &Tail,
    ) -> Result<Footer, StoreError> {
        let damaged = |source| StoreError::Table { path: self.display_path(&file.path), source };
        loop {
            match reader.step().map_err(damaged)? {
                Step::Done(footer) => return Ok(footer),
                Step::Needs(ranges) => {
                    let bytes = self.fetch(file, &ranges, tail).await?;
                    for (range, bytes) in ranges.into_iter().zip(bytes) {
                        reader.push(range, bytes).map_err(damaged)?;
                    }
                }
            }
        }
    }

    /// Fetches ranges of a file, near ones in one request. Ranges in the tail are not fetched again.
    async fn fetch(
        &self,
        file: &CommittedFile,
        ranges: &[Range<u64>],
        tail: &Tail,
    ) -> Result<Vec<Bytes>, StoreError> {
        let missing = ranges.iter().filter(|range| tail.slice(range).is_none()).cloned().collect();
        let spans = merge(missing);
        let path = &self.path(&file.path)?;
        let fetched: Vec<Tail> = futures::stream::iter(spans)
            .map(|span| async move {
                let options =
                    GetOptions { range: Some(GetRange::Bounded(span.clone())), ..GetOptions::default() };
                let found = self.objects.get_opts(path, options).await?;
                let bytes = found.bytes().await?;
                self.reads.add(bytes.len() as u64);
                Ok(Tail { start: span.start, bytes })
            })
            .buffered(CONCURRENT_REQUESTS)
            .try_collect()
            .await
            .map_err(|error| match error {
                object_store::Error::NotFound { .. } => {
                    StoreError::FileReplaced { path: self.display_path(&file.path) }
                }
                error => self.object_error(&file.path)(error),
            })?;
        let found = ranges.iter().map(|range| {
            let holding = fetched.iter().find_map(|span| span.slice(range));
            holding.or_else(|| tail.slice(range)).ok_or_else(|| StoreError::Length {
                path: self.display_path(&file.path),
                expected: range.end,
                found: fetched.iter().map(|span| span.start + span.bytes.len() as u64).max().unwrap_or(0),
            })
        });
        found.collect()
    }
}

/// Joins ranges that overlap or have a gap of at most [`GAP_BYTES`].
fn merge(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(GAP_BYTES) => {
                last.end = last.end.max(range.end);
            }
            _ => merged.push(range),
        }
    }
    merged
}

impl OpenFile<'_> {
    fn damaged(&self) -> impl Fn(TableError) -> StoreError {
        let path = self.store.display_path(&self.file.path);
        move |source| StoreError::Table { path: path.clone(), source }
    }

    /// Reads rows in batches: all, or those of these row numbers.
    pub(crate) async fn rows<T: DeserializeOwned>(
        &self,
        options: ReadOptions<'_>,
        rows: Option<&[Range<u64>]>,
        mut each: impl FnMut(Vec<T>),
    ) -> Result<(), StoreError> {
        let table = self.file.table;
        self.batches(&self.footer, options, rows, |batch| {
            each(table::decode_batch(table, batch)?);
            Ok(())
        })
        .await
    }

    /// Reads the rows of these numbers (ascending, not overlapping), and only the pages that contain them.
    pub(crate) async fn pages<T: DeserializeOwned>(
        &self,
        options: ReadOptions<'_>,
        rows: &[Range<u64>],
    ) -> Result<Vec<T>, StoreError> {
        let mut found = Vec::new();
        if rows.is_empty() {
            return Ok(found);
        }
        let pages = self.footer.clone().with_pages(options, rows).map_err(self.damaged())?;
        let footer = self.store.footer(self.file, pages, &self.tail).await?;
        let table = self.file.table;
        self.batches(&footer, options, Some(rows), |batch| {
            found.append(&mut table::decode_batch(table, batch)?);
            Ok(())
        })
        .await?;
        Ok(found)
    }

    async fn batches(
        &self,
        footer: &Footer,
        options: ReadOptions<'_>,
        rows: Option<&[Range<u64>]>,
        mut each: impl FnMut(&RecordBatch) -> Result<(), TableError>,
    ) -> Result<(), StoreError> {
        let damaged = self.damaged();
        let mut reader: RowsReader = footer.rows(options, rows).map_err(&damaged)?;
        loop {
            match reader.step().map_err(&damaged)? {
                Step::Done(None) => return Ok(()),
                Step::Done(Some(batch)) => each(&batch).map_err(&damaged)?,
                Step::Needs(ranges) => {
                    let bytes = self.store.fetch(self.file, &ranges, &self.tail).await?;
                    reader.push(ranges, bytes).map_err(&damaged)?;
                }
            }
        }
    }

    /// Finds the numbers of the rows whose column has one of these values (ascending). Minimum, maximum and bloom filter
    /// exclude row groups; of the others the column is read.
    pub(crate) async fn find(&self, column: &str, sorted: &[&[u8]]) -> Result<Vec<Range<u64>>, StoreError> {
        let mut groups = Vec::new();
        for (number, rows) in self.footer.row_groups().into_iter().enumerate() {
            if self.footer.may_hold(number, column, sorted) && self.bloom(number, column, sorted).await? {
                groups.push(rows);
            }
        }
        let mut found: Vec<Range<u64>> = Vec::new();
        if groups.is_empty() {
            return Ok(found);
        }
        let mut numbers = groups.iter().cloned().flatten();
        let columns = [column];
        let options = self.store.options(Some(&columns));
        self.batches(&self.footer, options, Some(&groups), |batch| {
            let values = batch.column(0);
            for (place, row) in (0..values.len()).zip(&mut numbers) {
                let value = match values.as_string_opt::<i32>() {
                    Some(texts) => texts.value(place).as_bytes(),
                    None => values.as_fixed_size_binary().value(place),
                };
                if sorted.binary_search(&value).is_ok() {
                    match found.last_mut() {
                        Some(last) if last.end == row => last.end += 1,
                        _ => found.push(row..row + 1),
                    }
                }
            }
            Ok(())
        })
        .await?;
        Ok(found)
    }

    async fn bloom(&self, row_group: usize, column: &str, values: &[&[u8]]) -> Result<bool, StoreError> {
        let range = match self.footer.bloom(row_group, column) {
            Some(range) if values.len() <= BLOOM_VALUES => range,
            _ => return Ok(true),
        };
        let filter = self.store.fetch(self.file, &[range], &self.tail).await?;
        bloom_may_hold(&filter.concat(), values).map_err(self.damaged())
    }
}

/// Joins ascending numbers to ranges.
pub(crate) fn ranges(numbers: impl IntoIterator<Item = u32>) -> Vec<Range<u64>> {
    let mut found: Vec<Range<u64>> = Vec::new();
    for number in numbers {
        let number = u64::from(number);
        match found.last_mut() {
            Some(last) if last.end == number => last.end += 1,
            _ => found.push(number..number + 1),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ranges_are_read_in_one_request() {
        let far = 10 * GAP_BYTES;
        assert_eq!(merge(vec![far..far + 1, 5..9, 0..4, 2..3]), [0..9, far..far + 1]);
        assert_eq!(merge(Vec::new()), []);
    }

    #[test]
    fn numbers_become_ranges() {
        assert_eq!(ranges([1, 2, 3, 7, 9, 10]), [1..4, 7..8, 9..11]);
    }

    #[test]
    fn a_tail_gives_only_what_it_holds() {
        let tail = Tail { start: 10, bytes: Bytes::from_static(b"abcd") };
        assert_eq!(tail.slice(&(11..13)).as_deref(), Some(&b"bc"[..]));
        assert_eq!(tail.slice(&(9..11)), None);
        assert_eq!(tail.slice(&(12..15)), None);
    }
}
