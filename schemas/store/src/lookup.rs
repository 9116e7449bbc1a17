//! Point look-ups: rows of some sessions, and chunks, in files with many more.
//!
//! Rows of a session are found by minimum and maximum, bloom filter and then the column itself; chunks by row number. A
//! look-up reads the end of each file, and a few pages of the files that have the session.

use std::collections::BTreeSet;

use crate::commit::CommittedFile;
use crate::table::Table;
use futures::{StreamExt as _, TryStreamExt as _};
use schemas::id::SessionId;
use serde::de::DeserializeOwned;

use crate::error::StoreError;
use crate::objects::{CONCURRENT_REQUESTS, Store};
use crate::range_read::{ranges, tail_bytes};
use crate::snapshot::Snapshot;

/// Snapshots tried by a read whose files maintenance keeps replacing.
pub(crate) const SNAPSHOT_TRIES: usize = 5;

impl Store {
    /// Calls `read` with a snapshot, and again with a new one if a file was replaced meanwhile; five times at most.
    ///
    /// # Errors
    /// The error of `read`; [`StoreError::FileReplaced`] if a file is missing from the last snapshot too.
    pub async fn with_snapshot<T>(
        &self,
        mut snapshot: Snapshot,
        mut read: impl AsyncFnMut(&Snapshot) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        for _ in 1..SNAPSHOT_TRIES {
            match read(&snapshot).await {
                Err(StoreError::FileReplaced { .. }) => snapshot = self.snapshot().await?,
                other => return other,
            }
        }
        read(&snapshot).await
    }

    /// Reads the rows of some sessions from all files of a table, in commit order; `columns` as in [`Self::read`].
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn rows_of_sessions<T: DeserializeOwned>(
        &self,
        snapshot: &Snapshot,
        table: Table,
        wanted: &BTreeSet<SessionId>,
        columns: Option<&[&str]>,
    ) -> Result<Vec<T>, StoreError> {
        let files: Vec<&CommittedFile> = snapshot.files(table).collect();
        let found: Vec<Vec<T>> = futures::stream::iter(files)
            .map(|file| self.rows_of(file, wanted, columns))
            .buffered(CONCURRENT_REQUESTS)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Reads the rows of some sessions from one file.
    pub(crate) async fn rows_of<T: DeserializeOwned>(
        &self,
        file: &CommittedFile,
        wanted: &BTreeSet<SessionId>,
        columns: Option<&[&str]>,
    ) -> Result<Vec<T>, StoreError> {
        let open = self.open_file(file, tail_bytes(file.table)).await?;
        let sorted: Vec<&[u8]> = wanted.iter().map(|session| session.as_str().as_bytes()).collect();
        let rows = open.find("session", &sorted).await?;
        open.pages(self.options(columns), &rows).await
    }

    /// Reads chunks by row number from a chunks file.
    pub(crate) async fn chunks_of<T: DeserializeOwned>(
        &self,
        file: &CommittedFile,
        numbers: &BTreeSet<u32>,
        columns: Option<&[&str]>,
    ) -> Result<Vec<T>, StoreError> {
        let open = self.open_file(file, tail_bytes(file.table)).await?;
        open.pages(self.options(columns), &ranges(numbers.iter().copied())).await
    }

    /// Reads chunks by digest from a chunks file; the digests are sorted.
    pub(crate) async fn chunks_named<T: DeserializeOwned>(
        &self,
        file: &CommittedFile,
        sorted: &[&[u8]],
        columns: Option<&[&str]>,
    ) -> Result<Vec<T>, StoreError> {
        let open = self.open_file(file, tail_bytes(file.table)).await?;
        let rows = open.find("digest", sorted).await?;
        open.pages(self.options(columns), &rows).await
    }
}
