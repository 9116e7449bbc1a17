//! Erasure: all rows and pieces of some sessions or tenants taken out, and the proof that none is left.
//!
//! Reaches the files of the store. What lies elsewhere (a Kafka topic until its retention ends, journals that are not
//! archived yet, runs replayed from the sessions, backups and old object versions) is the caller's to name.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::commit::{CommittedFile, escape};
use crate::table::Table;
use schemas::id::{SessionId, TenantId};
use schemas::keys::Digest;
use serde::{Deserialize, Serialize};

use super::rewrite::RemovedRows;
use super::{
    Maintenance, MaintenanceError, MaintenanceReport, Pair, PartitionDir, TABLES, changes, pairs, refuse_runs,
};
use crate::commits::Snapshot;
use crate::objects::{Store, StoreError};

/// How often what an archiver brings meanwhile is taken out again before it is given up.
const MAX_PASSES: usize = 5;

/// Finds that are named in an error.
const NAMED_FINDS: usize = 5;

/// What is to be erased.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Erasure {
    /// Sessions, of whichever tenant.
    pub sessions: BTreeSet<SessionId>,
    /// Everything of these tenants.
    pub tenants: BTreeSet<TenantId>,
}

/// What an erasure did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErasureReport {
    /// Sessions that were there: those asked for, and those of the tenants.
    pub sessions: BTreeSet<SessionId>,
    /// Sessions and tenants that were asked for and of which nothing was there.
    pub absent: BTreeSet<String>,
    /// What went.
    pub removed: RemovedRows,
    /// The tables.
    pub report: MaintenanceReport,
    /// What was looked at afterwards; absent under a dry run.
    pub proof: Option<ErasureProof>,
}

/// What was looked at to see that nothing is left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ErasureProof {
    /// Files that exist, all of which were read again.
    pub files_read: u64,
    /// Rows in them.
    pub rows_read: u64,
    /// Distinct pieces of the erased sessions that were searched for. Those that other sessions use themselves stay.
    pub chunks_searched: u64,
    /// Replaced files that were looked for and are gone.
    pub replaced_gone: u64,
    /// Files that no commit names: an archiver's batch under way, or what a crash left. They were not read.
    pub uncommitted: u64,
    /// Passes over the store that it took.
    pub passes: u64,
}

/// The session of an exchange, and the pieces it refers to.
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
    /// The tenant whose folder this is, where all of it is meant.
    fn tenant_of(&self, dir: PartitionDir<'_>) -> Option<&TenantId> {
        let name = dir.tenant.strip_prefix("tenant=")?;
        self.tenants.iter().find(|tenant| escape(tenant.as_str()) == name)
    }

    /// What of these sessions of one folder is meant.
    fn taken<'s>(
        &self,
        dir: PartitionDir<'_>,
        sessions: &'s [SessionId],
    ) -> impl Iterator<Item = &'s SessionId> {
        let whole = self.tenant_of(dir).is_some();
        sessions.iter().filter(move |session| whole || self.sessions.contains(*session))
    }

    fn words(&self) -> String {
        let sessions = self.sessions.iter().map(|id| format!("session {id}"));
        let tenants = self.tenants.iter().map(|id| format!("tenant {id}"));
        sessions.chain(tenants).collect::<Vec<_>>().join(", ")
    }
}

/// What of the erasure was found in the store.
#[derive(Debug, Default)]
struct Found {
    sessions: BTreeSet<SessionId>,
    tenants: BTreeSet<TenantId>,
    digests: HashSet<Digest>,
    /// Rows of exchanges and sessions.
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
    /// Takes out sessions and tenants, and reads the whole store again to see that nothing of them is left.
    ///
    /// # Errors
    /// The store cannot be read or written, is a run, holds nothing of them, or goes on getting more of them; or another
    /// maintenance was started meanwhile.
    pub async fn erase(&self, erasure: &Erasure) -> Result<ErasureReport, MaintenanceError> {
        let mut maintenance = Maintenance::begin(self).await?;
        let before = maintenance.snapshot.clone();
        match maintenance.erase(erasure).await {
            Ok((found, removed, proof)) => Ok(ErasureReport {
                absent: found.absent(erasure),
                sessions: found.sessions,
                removed,
                report: maintenance.report(&before),
                proof: Some(proof),
            }),
            Err(error) => Err(maintenance.explain(error).await),
        }
    }

    /// Says what [`Self::erase`] would do, without doing it: sessions and their rows.
    ///
    /// # Errors
    /// The store cannot be read, is a run, or holds nothing of them.
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
            report: MaintenanceReport { tables, commits: 0, leftovers_deleted: 0 },
            proof: None,
        })
    }

    fn nothing_found(&self, erasure: &Erasure) -> MaintenanceError {
        MaintenanceError::NothingFound { location: self.location().to_owned(), what: erasure.words() }
    }

    /// Finds the sessions, how many rows they have, and the digests of their pieces. Of tenants that are taken as a whole
    /// only the session column is read, which is never encrypted: whoever has lost their keys can still erase them.
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
        for session in erasure.taken(dir, &sessions) {
            number += 1;
            if !found.sessions.contains(session) {
                found.sessions.insert(session.clone());
            }
        }
        found.tenants.extend(erasure.tenant_of(dir).cloned());
        Ok(number)
    }

    async fn digests(&self, pair: Pair<'_>) -> Result<HashMap<u32, Digest>, StoreError> {
        let Some(file) = pair.chunks else { return Ok(HashMap::new()) };
        let names: Vec<ChunkName> = self.read(file, Some(&CHUNK_NAME)).await?;
        Ok(names.into_iter().map(|name| (name.chunk, name.digest)).collect())
    }

    /// Lists the store and reads every file that exists again; what of the erasure is still there is said in words.
    ///
    /// A piece of an erased session may stay only in a file in which an exchange of another session refers to it.
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
            let left = erasure.taken(PartitionDir::of(&file.path)?, &sessions).next();
            finds.extend(left.map(|session| format!("{} holds session {session}", file.path)));
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
            finds.extend(
                names.values().next().map(|digest| format!("{} holds piece {digest:?}", chunks.path)),
            );
        }
        Ok(if finds.is_empty() { Ok(proof) } else { Err(finds) })
    }

    /// Looks for replaced files that still lie there.
    async fn list_again(
        &self,
        snapshot: &Snapshot,
        proof: &mut ErasureProof,
    ) -> Result<Vec<String>, StoreError> {
        let replaced: HashSet<&str> = snapshot.replaced().collect();
        let exists: HashSet<&str> = TABLES
            .into_iter()
            .flat_map(|table| snapshot.files(table))
            .map(|file| file.path.as_str())
            .collect();
        let mut finds = Vec::new();
        proof.replaced_gone = replaced.len() as u64;
        for table in TABLES {
            for path in self.list(table.as_str()).await? {
                if replaced.contains(path.as_str()) {
                    finds.push(format!("{path} was replaced and still lies there"));
                } else if !exists.contains(path.as_str()) {
                    proof.uncommitted += 1;
                }
            }
        }
        Ok(finds)
    }
}

impl Maintenance<'_> {
    /// Takes out and searches again, until nothing is found; what archivers add meanwhile is in the next pass.
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
            if found.sessions.is_empty() {
                return Err(self.store.nothing_found(erasure));
            }
            self.take_out(erasure, &mut removed).await?;
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

    /// Takes out what the snapshot holds of the erasure.
    async fn take_out(
        &mut self,
        erasure: &Erasure,
        removed: &mut RemovedRows,
    ) -> Result<(), MaintenanceError> {
        let snapshot = self.snapshot.clone();
        let gone = |whole: bool| move |id: &SessionId| whole || erasure.sessions.contains(id);
        for pair in pairs(&snapshot) {
            let whole = erasure.tenant_of(PartitionDir::of(&pair.exchanges.path)?).is_some();
            self.rewrite_pair_without(pair, gone(whole), removed).await?;
        }
        for file in snapshot.files(Table::Sessions) {
            let whole = erasure.tenant_of(PartitionDir::of(&file.path)?).is_some();
            self.rewrite_closes_without(file, gone(whole), removed).await?;
        }
        self.commit().await
    }
}
