//! Erasure: deletes all rows and chunks of sessions or tenants, and proves that none is left.
//!
//! Erasure covers the files of the store. The caller names the rest: the Kafka topic until its retention ends, journals that
//! are not archived yet, runs of these sessions, backups and old object versions.

use std::collections::{BTreeSet, HashMap, HashSet};

use schemas::id::{SessionId, TenantId};
use schemas::keys::Digest;
use serde::{Deserialize, Serialize};

use super::partition::{FilePair, PartitionDir, pairs};
use super::report::{MaintenanceError, MaintenanceReport, changes};
use super::rewrite::RemovedRows;
use super::task::{MaintenanceTask, refuse_runs};
use crate::checkpoint::segment::SessionHash;
use crate::checkpoint::write::Purpose;
use crate::commit::{CommittedFile, escape};
use crate::error::StoreError;
use crate::objects::Store;
use crate::snapshot::Snapshot;
use crate::table::Table;

/// Passes over the store while an archiver keeps adding rows to erase.
const MAX_PASSES: usize = 5;

/// Remaining rows that an error names.
const NAMED_FINDS: usize = 5;

/// Sessions and tenants to erase.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Erasure {
    /// Sessions, of any tenant.
    pub sessions: BTreeSet<SessionId>,
    /// Tenants to erase with all their sessions.
    pub tenants: BTreeSet<TenantId>,
}

/// Result of [`Store::erase`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErasureReport {
    /// Erased sessions: the requested ones, and those of the requested tenants.
    pub sessions: BTreeSet<SessionId>,
    /// Requested sessions and tenants that the store did not have.
    pub absent: BTreeSet<String>,
    /// Deleted rows.
    pub removed: RemovedRows,
    /// Changes of the tables.
    pub report: MaintenanceReport,
    /// Evidence that nothing is left; `None` for a dry run.
    pub proof: Option<ErasureProof>,
}

/// Evidence that nothing of an erasure is left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ErasureProof {
    /// Existing files, all read again after the erasure.
    pub files_read: u64,
    /// Rows of these files.
    pub rows_read: u64,
    /// Distinct chunks of the erased sessions searched for. A chunk that another session uses stays.
    pub chunks_searched: u64,
    /// Replaced files that no longer exist.
    pub replaced_gone: u64,
    /// Files that no commit names: a batch under way, or one that a crash interrupted. They were not read.
    pub uncommitted: u64,
    /// Passes over the store until nothing was left.
    pub passes: u64,
}

/// The session of an exchange, and the chunks that it refers to.
#[derive(Deserialize)]
struct References {
    session: SessionId,
    request: Chunks,
    response: Chunks,
}

const REFERENCES: [&str; 3] = ["session", "request.chunks", "response.chunks"];

#[derive(Deserialize)]
struct Chunks {
    chunks: Vec<u32>,
}

impl References {
    fn numbers(&self) -> impl Iterator<Item = &u32> {
        self.request.chunks.iter().chain(&self.response.chunks)
    }
}

#[derive(Deserialize)]
struct ChunkName {
    chunk: u32,
    digest: Digest,
}

const CHUNK_NAME: [&str; 2] = ["chunk", "digest"];

impl Erasure {
    /// Returns the tenant of a folder if it is to be erased.
    fn tenant_of(&self, dir: PartitionDir<'_>) -> Option<&TenantId> {
        let name = dir.tenant.strip_prefix("tenant=")?;
        self.tenants.iter().find(|tenant| escape(tenant.as_str()) == name)
    }

    /// Returns the sessions of a folder that are to be erased.
    fn selected<'s>(
        &self,
        dir: PartitionDir<'_>,
        sessions: &'s [SessionId],
    ) -> impl Iterator<Item = &'s SessionId> {
        let whole = self.tenant_of(dir).is_some();
        sessions.iter().filter(move |session| whole || self.sessions.contains(*session))
    }

    fn describe(&self) -> String {
        let sessions = self.sessions.iter().map(|id| format!("session {id}"));
        let tenants = self.tenants.iter().map(|id| format!("tenant {id}"));
        sessions.chain(tenants).collect::<Vec<_>>().join(", ")
    }
}

/// Rows found in the store.
#[derive(Debug, Default)]
struct Found {
    sessions: BTreeSet<SessionId>,
    tenants: BTreeSet<TenantId>,
    digests: HashSet<Digest>,
    /// Number of rows in `exchanges` and `sessions`.
    removed: RemovedRows,
}

impl Found {
    fn absent(&self, erasure: &Erasure) -> BTreeSet<String> {
        let sessions = erasure.sessions.difference(&self.sessions).map(|id| format!("session {id}"));
        let tenants = erasure.tenants.difference(&self.tenants).map(|id| format!("tenant {id}"));
        sessions.chain(tenants).collect()
    }
}

impl Store {
    /// Erases sessions and tenants, then reads the whole store again to prove that nothing of them is left.
    ///
    /// # Errors
    /// The store cannot be read or written, is a run, has nothing of them, or keeps getting more of them; or other
    /// maintenance was started meanwhile.
    pub async fn erase(&self, erasure: &Erasure) -> Result<ErasureReport, MaintenanceError> {
        let mut task = MaintenanceTask::begin(self).await?;
        let before = task.snapshot.clone();
        match task.erase(erasure).await {
            Ok((found, removed, proof)) => Ok(ErasureReport {
                absent: found.absent(erasure),
                sessions: found.sessions,
                removed,
                report: task.report(&before),
                proof: Some(proof),
            }),
            Err(error) => Err(task.explain(error).await),
        }
    }

    /// Returns the report that [`Self::erase`] would return, without proof.
    ///
    /// # Errors
    /// The store cannot be read, is a run, or has nothing of them.
    pub async fn plan_erasure(&self, erasure: &Erasure) -> Result<ErasureReport, MaintenanceError> {
        refuse_runs(self).await?;
        let snapshot = self.snapshot().await?;
        let mut found = Found::default();
        self.find(&snapshot, erasure, &mut found).await?;
        if found.sessions.is_empty() {
            return Err(self.nothing_found(erasure));
        }
        let tables = changes(&snapshot, &snapshot);
        Ok(ErasureReport {
            absent: found.absent(erasure),
            sessions: found.sessions,
            removed: found.removed,
            report: MaintenanceReport::of_dry_run(tables),
            proof: None,
        })
    }

    fn nothing_found(&self, erasure: &Erasure) -> MaintenanceError {
        MaintenanceError::NothingFound { location: self.location().to_owned(), what: erasure.describe() }
    }

    /// Finds the sessions, the number of their rows, and the digests of their chunks. Of tenants to erase only the session
    /// column is read, which is never encrypted: their keys are not needed.
    async fn find(
        &self,
        snapshot: &Snapshot,
        erasure: &Erasure,
        found: &mut Found,
    ) -> Result<(), StoreError> {
        for pair in pairs(snapshot) {
            let number = self.find_in(pair.exchanges, erasure, found).await?;
            found.removed.exchanges += number;
            let whole = erasure.tenant_of(PartitionDir::of(&pair.exchanges.path)?).is_some();
            if number > 0 && !whole {
                let rows: Vec<References> = self.read(pair.exchanges, Some(&REFERENCES)).await?;
                let digests = self.digests(pair).await?;
                let rows = rows.iter().filter(|row| erasure.sessions.contains(&row.session));
                found.digests.extend(rows.flat_map(References::numbers).filter_map(|one| digests.get(one)));
            }
        }
        for file in snapshot.files(Table::Sessions) {
            found.removed.closes += self.find_in(file, erasure, found).await?;
        }
        Ok(())
    }

    async fn find_in(
        &self,
        file: &CommittedFile,
        erasure: &Erasure,
        found: &mut Found,
    ) -> Result<u64, StoreError> {
        let dir = PartitionDir::of(&file.path)?;
        let sessions = self.sessions_in(file).await?;
        let mut number = 0;
        for session in erasure.selected(dir, &sessions) {
            number += 1;
            if !found.sessions.contains(session) {
                found.sessions.insert(session.clone());
            }
        }
        found.tenants.extend(erasure.tenant_of(dir).cloned());
        Ok(number)
    }

    async fn digests(&self, pair: FilePair<'_>) -> Result<HashMap<u32, Digest>, StoreError> {
        let Some(file) = pair.chunks else { return Ok(HashMap::new()) };
        let names: Vec<ChunkName> = self.read(file, Some(&CHUNK_NAME)).await?;
        Ok(names.into_iter().map(|name| (name.chunk, name.digest)).collect())
    }

    /// Lists the store and reads every existing file again. The inner error describes the rows that are left.
    ///
    /// A chunk of an erased session may stay only in a file with an exchange of another session that refers to it.
    async fn prove(
        &self,
        snapshot: &Snapshot,
        erasure: &Erasure,
        digests: &HashSet<Digest>,
    ) -> Result<Result<ErasureProof, Vec<String>>, StoreError> {
        let mut proof = ErasureProof { chunks_searched: digests.len() as u64, ..ErasureProof::default() };
        let mut finds = self.list_again(snapshot, &mut proof).await?;
        let exchanges_and_sessions = snapshot.files(Table::Exchanges).chain(snapshot.files(Table::Sessions));
        for file in exchanges_and_sessions {
            let sessions = self.sessions_in(file).await?;
            proof.files_read += 1;
            proof.rows_read += sessions.len() as u64;
            let left = erasure.selected(PartitionDir::of(&file.path)?, &sessions).next();
            finds.extend(left.map(|session| format!("{} has session {session}", file.path)));
        }
        for pair in pairs(snapshot) {
            let Some(chunks) = pair.chunks else { continue };
            let mut names = self.digests(pair).await?;
            proof.files_read += 1;
            proof.rows_read += names.len() as u64;
            names.retain(|_, digest| digests.contains(digest));
            if names.is_empty() {
                continue;
            }
            let rows: Vec<References> = self.read(pair.exchanges, Some(&REFERENCES)).await?;
            for number in rows.iter().flat_map(References::numbers) {
                names.remove(number);
            }
            finds.extend(names.values().next().map(|digest| format!("{} has chunk {digest:?}", chunks.path)));
        }
        Ok(if finds.is_empty() { Ok(proof) } else { Err(finds) })
    }

    /// Returns replaced files that still exist.
    async fn list_again(
        &self,
        snapshot: &Snapshot,
        proof: &mut ErasureProof,
    ) -> Result<Vec<String>, StoreError> {
        let leftovers = self.leftovers(snapshot).await?;
        proof.replaced_gone = leftovers.replaced_so_far;
        proof.uncommitted = leftovers.uncommitted + leftovers.orphans.len() as u64;
        Ok(leftovers.replaced.iter().map(|path| format!("{path} was replaced and still exists")).collect())
    }
}

impl MaintenanceTask<'_> {
    /// Deletes rows and searches again until nothing is found. Rows that archivers add meanwhile are in the next pass.
    async fn erase(
        &mut self,
        erasure: &Erasure,
    ) -> Result<(Found, RemovedRows, ErasureProof), MaintenanceError> {
        let mut found = Found::default();
        let mut removed = RemovedRows::default();
        let mut passes = 0;
        loop {
            passes += 1;
            self.store.find(&self.snapshot, erasure, &mut found).await?;
            if !found.sessions.is_empty() {
                self.delete_rows(erasure, &mut removed).await?;
            }
            // Also if no rows are left: an erasure may have been interrupted between its last commit and this.
            let hashes = erasure.sessions.union(&found.sessions).map(SessionHash::of).collect();
            Box::pin(self.store.write_checkpoint(Purpose::Erasure(&hashes))).await?;
            if found.sessions.is_empty() {
                return Err(self.store.nothing_found(erasure));
            }
            self.snapshot = self.store.snapshot().await?;
            match self.store.prove(&self.snapshot, erasure, &found.digests).await? {
                Ok(proof) => return Ok((found, removed, ErasureProof { passes: passes as u64, ..proof })),
                Err(finds) if passes == MAX_PASSES => {
                    let location = self.store.location().to_owned();
                    let what = finds[..finds.len().min(NAMED_FINDS)].join("; ");
                    return Err(MaintenanceError::NotErased { location, passes, what });
                }
                Err(_) => {}
            }
        }
    }

    /// Deletes the rows that the snapshot has of the erasure.
    async fn delete_rows(
        &mut self,
        erasure: &Erasure,
        removed: &mut RemovedRows,
    ) -> Result<(), MaintenanceError> {
        let snapshot = self.snapshot.clone();
        let is_erased = |whole: bool| move |id: &SessionId| whole || erasure.sessions.contains(id);
        for pair in pairs(&snapshot) {
            let whole = erasure.tenant_of(PartitionDir::of(&pair.exchanges.path)?).is_some();
            self.rewrite_pair_without(pair, is_erased(whole), removed).await?;
        }
        for file in snapshot.files(Table::Sessions) {
            let whole = erasure.tenant_of(PartitionDir::of(&file.path)?).is_some();
            self.rewrite_closes_without(file, is_erased(whole), removed).await?;
        }
        self.commit().await
    }
}
