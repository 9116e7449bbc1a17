//! Files written again without the rows of some sessions.

use std::collections::HashMap;

use crate::commit::CommittedFile;
use crate::table::{Chunk, Table};
use schemas::id::SessionId;
use schemas::session::SessionClose;

use super::merge::Rows;
use super::{Maintenance, MaintenanceError, Pair, PartitionDir, SESSION, SessionOf};
use crate::objects::{Store, StoreError};

/// How much was taken out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct RemovedRows {
    /// Exchanges.
    pub exchanges: u64,
    /// Close rows.
    pub closes: u64,
    /// Pieces of bodies that no other session of the file uses.
    pub pieces: u64,
}

impl Store {
    /// The sessions of a file, row by row.
    pub(super) async fn sessions_in(&self, file: &CommittedFile) -> Result<Vec<SessionId>, StoreError> {
        let rows: Vec<SessionOf> = self.read(file, Some(&SESSION)).await?;
        Ok(rows.into_iter().map(|row| row.session).collect())
    }
}

impl Maintenance<'_> {
    /// Takes sessions out of a pair; nothing is written where it holds none of them.
    pub(super) async fn rewrite_pair_without(
        &mut self,
        pair: Pair<'_>,
        gone: impl Fn(&SessionId) -> bool,
        removed: &mut RemovedRows,
    ) -> Result<(), MaintenanceError> {
        let sessions = self.store.sessions_in(pair.exchanges).await?;
        let leaving = sessions.iter().filter(|session| gone(session)).count();
        if leaving == 0 {
            return Ok(());
        }
        removed.exchanges += leaving as u64;
        if leaving == sessions.len() {
            removed.pieces += pair.chunks.map_or(0, |file| file.rows);
            self.drop_pair(pair);
            return self.commit_if_due().await;
        }
        let mut rows = self.store.read_pair(pair).await?;
        rows.exchanges.retain(|exchange| !gone(&exchange.session));
        let before = rows.chunks.len();
        let rows = without_unused(rows).map_err(|number| StoreError::Metadata {
            path: pair.exchanges.path.clone(),
            detail: format!("refers to chunk {number}, which its chunks file does not hold"),
        })?;
        removed.pieces += (before - rows.chunks.len()) as u64;
        let folder = PartitionDir::of(&pair.exchanges.path)?.folder;
        self.write_pair(folder, rows, &[pair]).await
    }

    /// Takes sessions out of a sessions file.
    pub(super) async fn rewrite_closes_without(
        &mut self,
        file: &CommittedFile,
        gone: impl Fn(&SessionId) -> bool,
        removed: &mut RemovedRows,
    ) -> Result<(), MaintenanceError> {
        let sessions = self.store.sessions_in(file).await?;
        let leaving = sessions.iter().filter(|session| gone(session)).count();
        if leaving == 0 {
            return Ok(());
        }
        removed.closes += leaving as u64;
        if leaving == sessions.len() {
            self.replace(file, None);
        } else {
            let mut rows: Vec<SessionClose> = self.store.read(file, None).await?;
            rows.retain(|close| !gone(&close.session));
            let folder = PartitionDir::of(&file.path)?.folder;
            if let Some(first) = rows.first() {
                let path = self.add(Table::Sessions, (&first.tenant, folder), &self.name(), &rows).await?;
                self.replace(file, Some(&path));
            }
        }
        self.commit_if_due().await
    }

    /// Takes a pair out as a whole.
    pub(super) fn drop_pair(&mut self, pair: Pair<'_>) {
        self.replace(pair.exchanges, None);
        if let Some(file) = pair.chunks {
            self.replace(file, None);
        }
    }
}

/// Leaves out the chunk rows that no exchange refers to, and numbers the others anew, in their order.
///
/// No later file misses them: a session leans on a file only for pieces that its own exchanges in that file refer to.
fn without_unused(rows: Rows) -> Result<Rows, u32> {
    let used = |exchange: &schemas::exchange::Exchange<u32>| {
        exchange.request.chunks.iter().chain(&exchange.response.chunks).copied().collect::<Vec<_>>()
    };
    let used: std::collections::HashSet<u32> = rows.exchanges.iter().flat_map(used).collect();
    let mut numbers: HashMap<u32, u32> = HashMap::with_capacity(used.len());
    let mut chunks: Vec<Chunk> = Vec::with_capacity(used.len());
    for mut chunk in rows.chunks {
        if used.contains(&chunk.chunk) {
            let number = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
            numbers.insert(chunk.chunk, number);
            chunk.chunk = number;
            chunks.push(chunk);
        }
    }
    let rename = |number| numbers.get(&number).copied().ok_or(number);
    let exchanges: Result<Vec<_>, u32> = rows.exchanges.into_iter().map(|row| row.try_map(rename)).collect();
    Ok(Rows { exchanges: exchanges?, chunks })
}
