//! Rewrites files without the rows of some sessions.

use std::collections::HashMap;

use schemas::id::SessionId;
use schemas::session::SessionClose;
use serde::Deserialize;

use super::merge::{MergeError, Rows};
use super::partition::{FilePair, PartitionDir};
use super::report::MaintenanceError;
use super::task::MaintenanceTask;
use crate::commit::CommittedFile;
use crate::error::StoreError;
use crate::objects::Store;
use crate::row_number::row_number;
use crate::table::{Chunk, Table};

/// The session of a row of any table.
#[derive(Deserialize)]
struct SessionOf {
    session: SessionId,
}

/// Rows that were deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct RemovedRows {
    /// Rows of table `exchanges`.
    pub exchanges: u64,
    /// Rows of table `sessions`.
    pub closes: u64,
    /// Rows of table `chunks` that no other session of the file refers to.
    pub chunks: u64,
}

impl Store {
    /// Reads the session of each row of a file.
    pub(super) async fn sessions_in(&self, file: &CommittedFile) -> Result<Vec<SessionId>, StoreError> {
        let rows: Vec<SessionOf> = self.read(file, Some(&["session"])).await?;
        Ok(rows.into_iter().map(|row| row.session).collect())
    }
}

impl MaintenanceTask<'_> {
    /// Rewrites a pair without some sessions; does nothing if it has none of them.
    pub(super) async fn rewrite_pair_without(
        &mut self,
        pair: FilePair<'_>,
        is_removed: impl Fn(&SessionId) -> bool,
        removed: &mut RemovedRows,
    ) -> Result<(), MaintenanceError> {
        let sessions = self.store.sessions_in(pair.exchanges).await?;
        let leaving = sessions.iter().filter(|session| is_removed(session)).count();
        if leaving == 0 {
            return Ok(());
        }
        removed.exchanges += leaving as u64;
        if leaving == sessions.len() {
            removed.chunks += pair.chunks.map_or(0, |file| file.rows);
            self.drop_pair(pair);
            return self.commit_if_due().await;
        }
        let mut rows = self.store.read_pair(pair).await?;
        rows.exchanges.retain(|exchange| !is_removed(&exchange.session));
        let before = rows.chunks.len();
        let rows = without_unused(rows).map_err(|error| error.at(&pair.exchanges.path))?;
        removed.chunks += (before - rows.chunks.len()) as u64;
        let folder = PartitionDir::of(&pair.exchanges.path)?.folder;
        self.write_pair(folder, rows, &[pair]).await
    }

    /// Rewrites a sessions file without some sessions; does nothing if it has none of them.
    pub(super) async fn rewrite_closes_without(
        &mut self,
        file: &CommittedFile,
        is_removed: impl Fn(&SessionId) -> bool,
        removed: &mut RemovedRows,
    ) -> Result<(), MaintenanceError> {
        let sessions = self.store.sessions_in(file).await?;
        let leaving = sessions.iter().filter(|session| is_removed(session)).count();
        if leaving == 0 {
            return Ok(());
        }
        removed.closes += leaving as u64;
        if leaving == sessions.len() {
            self.replace(file, None);
        } else {
            let mut rows: Vec<SessionClose> = self.store.read(file, None).await?;
            rows.retain(|close| !is_removed(&close.session));
            let folder = PartitionDir::of(&file.path)?.folder;
            if let Some(first) = rows.first() {
                let path = self.add(Table::Sessions, (&first.tenant, folder), &self.name(), &rows).await?;
                self.replace(file, Some(&path));
            }
        }
        self.commit_if_due().await
    }

    /// Deletes a pair.
    pub(super) fn drop_pair(&mut self, pair: FilePair<'_>) {
        self.replace(pair.exchanges, None);
        if let Some(file) = pair.chunks {
            self.replace(file, None);
        }
    }
}

/// Drops the chunk rows that no exchange refers to, and renumbers the others in their order.
///
/// No later file needs them: a session uses chunks of an earlier file only if its own exchanges there refer to them.
fn without_unused(rows: Rows) -> Result<Rows, MergeError> {
    let used = |exchange: &schemas::exchange::Exchange<u32>| {
        exchange.request.chunks.iter().chain(&exchange.response.chunks).copied().collect::<Vec<_>>()
    };
    let used: std::collections::HashSet<u32> = rows.exchanges.iter().flat_map(used).collect();
    let mut numbers: HashMap<u32, u32> = HashMap::with_capacity(used.len());
    let mut chunks: Vec<Chunk> = Vec::with_capacity(used.len());
    for mut chunk in rows.chunks {
        if used.contains(&chunk.chunk) {
            let number = row_number(chunks.len())?;
            numbers.insert(chunk.chunk, number);
            chunk.chunk = number;
            chunks.push(chunk);
        }
    }
    let rename = |number| numbers.get(&number).copied().ok_or(MergeError::MissingChunk(number));
    let exchanges: Result<Vec<_>, MergeError> =
        rows.exchanges.into_iter().map(|row| row.try_map(rename)).collect();
    Ok(Rows { exchanges: exchanges?, chunks })
}
