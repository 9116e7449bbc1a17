//! Looking up: the rows of some sessions, and the pieces that they refer to, out of files that hold many more.
//!
//! Rows of a session are found by its id (least and greatest value, bloom filter, then the column itself), pieces by
//! their row number. So a look-up reads the end of each file, and of the files that hold the session a few pages.

use std::collections::BTreeSet;

use crate::commit::CommittedFile;
use crate::table::Table;
use futures::{StreamExt as _, TryStreamExt as _};
use schemas::id::SessionId;
use serde::de::DeserializeOwned;

use crate::commits::Snapshot;
use crate::objects::{CONCURRENT_REQUESTS, Store, StoreError};
use crate::range_read::{ranges, tail_bytes};

/// How often something is read again from a newer snapshot because a file of the older one was replaced meanwhile.
pub(crate) const SNAPSHOT_TRIES: usize = 5;

impl Store {
    /// Reads what a snapshot says; where a file of it was replaced meanwhile, takes another one and reads again, at most
    /// four times.
    ///
    /// # Errors
    /// What `read` says; [`StoreError::FileReplaced`] only where a file stays away.
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

    /// Reads the rows of some sessions out of all files of a table, in commit order; `columns` as in [`Self::read`].
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

    /// Reads the rows of some sessions out of one file.
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

    /// Reads the pieces of these numbers out of a chunks file, in which a piece's number is that of its row.
    pub(crate) async fn chunks_of<T: DeserializeOwned>(
        &self,
        file: &CommittedFile,
        numbers: &BTreeSet<u32>,
        columns: Option<&[&str]>,
    ) -> Result<Vec<T>, StoreError> {
        let open = self.open_file(file, tail_bytes(file.table)).await?;
        open.pages(self.options(columns), &ranges(numbers.iter().copied())).await
    }

    /// Reads the pieces of these names out of a chunks file.
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
