//! Keeping a store: small files merged, old sessions expired, sessions and tenants erased.
//!
//! Every change is a commit under [`UPKEEP`] that names the files it replaces; they are deleted right after it. A crash
//! leaves the old state or the new one, and the next maintenance deletes what it left behind. Archivers may go on meanwhile:
//! they only add. A second maintenance fences the first, whose commit is then refused. Runs are left alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::commit::{CommittedFile, UPKEEP};
use crate::table::{self, Level, Row, Table, TableError};
use schemas::id::TenantId;
use serde::{Deserialize, Serialize};

use crate::commits::{Claim, Snapshot, file_name};
use crate::objects::{Store, StoreError};

mod compact;
mod erase;
mod expire;
mod merge;
mod rewrite;

pub use compact::{CompactOptions, DEFAULT_TARGET_BYTES};
pub use erase::{Erasure, ErasureProof, ErasureReport};
pub use expire::ExpiryReport;
pub use rewrite::RemovedRows;

/// Files that one commit replaces at most: so that it stays small, and its files do not wait long for it.
const MAX_REPLACED_FILES: usize = 2_000;

/// Bytes that are written at most before they are committed, beside the file that passes the bound.
const MAX_UNCOMMITTED_BYTES: u64 = 512 << 20;

/// An maintenance that did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another maintenance was started.
    #[error(
        "another compaction, expiry or erasure of {location} was started meanwhile, so this one stopped; \
         nothing is lost: run it again when the other has ended"
    )]
    Superseded {
        /// The store.
        location: String,
    },
    /// A run is not a store of sessions.
    #[error(
        "{location} is a run, not a store of sessions: delete it as a whole where it is not needed any more"
    )]
    Run {
        /// The run.
        location: String,
    },
    /// Nothing of what is to be erased is there.
    #[error("{location} holds nothing of {what}; `foreshadow sessions list` names what it holds")]
    NothingFound {
        /// The store.
        location: String,
        /// Which sessions or tenants.
        what: String,
    },
    /// What was to be erased is still there.
    #[error(
        "{location} still holds something of what was erased after {passes} passes: {what}; an archiver seems to \
         bring more of it: wait until the session is closed and archived, then erase again"
    )]
    NotErased {
        /// The store.
        location: String,
        /// How often it was tried.
        passes: usize,
        /// What was found, and where.
        what: String,
    },
}

/// The files, rows and bytes of a table that exist.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TableSize {
    /// Files.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Their length, bytes.
    pub bytes: u64,
}

/// A table before and after an maintenance. What archivers added meanwhile is in neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TableChange {
    /// The table.
    pub table: Table,
    /// What it was.
    pub before: TableSize,
    /// What it is; under a dry run what it would be, as far as that is known without doing it.
    pub after: TableSize,
}

/// What an maintenance changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MaintenanceReport {
    /// Each table.
    pub tables: Vec<TableChange>,
    /// Commits that were made.
    pub commits: u64,
    /// Files that an interrupted maintenance had replaced and not deleted, and that are deleted now.
    pub leftovers_deleted: u64,
}

/// Where a file lies below its table, from its path: the Hive-style parts as they are escaped there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct PartitionDir<'a> {
    /// `tenant=…`
    tenant: &'a str,
    /// All of it: `tenant=…/agent=…/date=…`
    folder: &'a str,
    /// `YYYY-MM-DD`
    date: &'a str,
}

impl<'a> PartitionDir<'a> {
    fn of(path: &'a str) -> Result<Self, StoreError> {
        let odd = || StoreError::Metadata {
            path: path.to_owned(),
            detail: "is not TABLE/tenant=…/agent=…/date=…/FILE, as every file of a store is".to_owned(),
        };
        let (_, below) = path.split_once('/').ok_or_else(odd)?;
        let (folder, _) = below.rsplit_once('/').ok_or_else(odd)?;
        let mut parts = folder.split('/');
        let mut part = |key: &str| parts.next().filter(|part| part.starts_with(key)).ok_or_else(odd);
        let (tenant, _, date) = (part("tenant=")?, part("agent=")?, part("date=")?);
        Ok(Self { tenant, folder, date: &date["date=".len()..] })
    }
}

/// An exchanges file and the chunks file of the same name, where its bodies have pieces.
#[derive(Debug, Clone, Copy)]
struct Pair<'a> {
    exchanges: &'a CommittedFile,
    chunks: Option<&'a CommittedFile>,
}

impl Pair<'_> {
    fn bytes(&self) -> u64 {
        self.exchanges.bytes + self.chunks.map_or(0, |file| file.bytes)
    }
}

/// The pairs of a snapshot, in the order of the commits.
fn pairs(snapshot: &Snapshot) -> Vec<Pair<'_>> {
    let chunks: HashMap<&str, &CommittedFile> =
        snapshot.files(Table::Chunks).map(|file| (below_table(&file.path), file)).collect();
    let pair = |exchanges| Pair { exchanges, chunks: chunks.get(below_table(&exchanges.path)).copied() };
    snapshot.files(Table::Exchanges).map(pair).collect()
}

/// The path without its table: the same for the files of a pair.
fn below_table(path: &str) -> &str {
    path.split_once('/').map_or(path, |(_, below)| below)
}

fn table_size(snapshot: &Snapshot, table: Table) -> TableSize {
    snapshot.files(table).fold(TableSize::default(), |sum, file| TableSize {
        files: sum.files + 1,
        rows: sum.rows + file.rows,
        bytes: sum.bytes + file.bytes,
    })
}

/// The tables of a store of sessions.
const TABLES: [Table; 3] = [Table::Exchanges, Table::Chunks, Table::Sessions];

fn changes(before: &Snapshot, after: &Snapshot) -> Vec<TableChange> {
    let change =
        |table| TableChange { table, before: table_size(before, table), after: table_size(after, table) };
    TABLES.into_iter().map(change).collect()
}

/// The session of a row, of any table.
#[derive(Deserialize)]
struct SessionOf {
    session: schemas::id::SessionId,
}

/// The column that [`SessionOf`] reads.
const SESSION: [&str; 1] = ["session"];

/// An maintenance under way.
struct Maintenance<'a> {
    store: &'a Store,
    claim: Claim,
    /// What there was when it began, and its own commits.
    snapshot: Snapshot,
    files: Vec<CommittedFile>,
    replaces: BTreeMap<String, Option<String>>,
    commits: u64,
    leftovers_deleted: u64,
}

impl<'a> Maintenance<'a> {
    /// Fences other upkeeps, and deletes what an interrupted one left.
    async fn begin(store: &'a Store) -> Result<Self, MaintenanceError> {
        refuse_runs(store).await?;
        let claim = store.claim(UPKEEP).await?;
        let snapshot = store.snapshot().await?;
        let mut maintenance = Self {
            store,
            claim,
            snapshot,
            files: Vec::new(),
            replaces: BTreeMap::new(),
            commits: 0,
            leftovers_deleted: 0,
        };
        for path in maintenance.replaced_and_there().await? {
            maintenance.leftovers_deleted += u64::from(store.delete(&path).await?);
        }
        Ok(maintenance)
    }

    /// The files that a commit has replaced and that still lie there.
    async fn replaced_and_there(&self) -> Result<Vec<String>, StoreError> {
        let replaced: BTreeSet<&str> = self.snapshot.replaced().collect();
        let mut found = Vec::new();
        if !replaced.is_empty() {
            for table in TABLES {
                let there = self.store.list(table.as_str()).await?;
                found.extend(there.into_iter().filter(|path| replaced.contains(path.as_str())));
            }
        }
        Ok(found)
    }

    /// A name for files that come next.
    fn name(&self) -> String {
        file_name(UPKEEP, self.claim.position())
    }

    /// Writes a file that the next commit will bring, of a tenant and in a folder below the table. Returns its path.
    async fn add<T: Row>(
        &mut self,
        table: Table,
        dir: (&TenantId, &str),
        name: &str,
        rows: &[T],
    ) -> Result<String, MaintenanceError> {
        let (tenant, folder) = dir;
        let path = format!("{}/{folder}/{name}", table.as_str());
        let encoded = self.store.keys.write_options(tenant, Level::Compact).map_err(TableError::from);
        let encoded = encoded.and_then(|options| table::encode(table, rows, &options));
        let encoded = encoded
            .map_err(|source| MaintenanceError::Store(StoreError::Table { path: path.clone(), source }))?;
        let bytes = encoded.len() as u64;
        self.store.create(&path, encoded).await?;
        self.files.push(CommittedFile { table, path: path.clone(), rows: rows.len() as u64, bytes });
        Ok(path)
    }

    /// Notes that the next commit replaces a file.
    fn replace(&mut self, old: &CommittedFile, new: Option<&str>) {
        self.replaces.insert(old.path.clone(), new.map(str::to_owned));
    }

    /// What it has changed.
    fn report(&self, before: &Snapshot) -> MaintenanceReport {
        MaintenanceReport {
            tables: changes(before, &self.snapshot),
            commits: self.commits,
            leftovers_deleted: self.leftovers_deleted,
        }
    }

    fn superseded(&self) -> MaintenanceError {
        MaintenanceError::Superseded { location: self.store.location().to_owned() }
    }

    /// Why the work failed: where another maintenance was started, it has deleted files under this one.
    async fn explain(&self, error: MaintenanceError) -> MaintenanceError {
        match error {
            MaintenanceError::Store(cause) => match self.store.holds(&self.claim).await {
                Ok(false) => self.superseded(),
                Ok(true) | Err(_) => MaintenanceError::Store(cause),
            },
            other @ (MaintenanceError::Superseded { .. }
            | MaintenanceError::Run { .. }
            | MaintenanceError::NothingFound { .. }
            | MaintenanceError::NotErased { .. }) => other,
        }
    }

    /// Commits where enough has gathered.
    async fn commit_if_due(&mut self) -> Result<(), MaintenanceError> {
        let bytes: u64 = self.files.iter().map(|file| file.bytes).sum();
        if self.replaces.len() >= MAX_REPLACED_FILES || bytes >= MAX_UNCOMMITTED_BYTES {
            self.commit().await?;
        }
        Ok(())
    }

    /// Commits what has gathered, and deletes the files it replaces.
    async fn commit(&mut self) -> Result<(), MaintenanceError> {
        if self.replaces.is_empty() {
            return Ok(());
        }
        let (files, replaces) = (std::mem::take(&mut self.files), std::mem::take(&mut self.replaces));
        let commit = match self.store.commit_replacing(&mut self.claim, files, replaces).await {
            Ok(commit) => commit,
            Err(StoreError::LostPartition { .. }) => return Err(self.superseded()),
            Err(error) => return Err(error.into()),
        };
        self.commits += 1;
        for path in commit.replaces.keys() {
            self.store.delete(path).await?;
        }
        self.snapshot.push(commit);
        Ok(())
    }
}

async fn refuse_runs(store: &Store) -> Result<(), MaintenanceError> {
    match store.manifest().await? {
        Some(_) => Err(MaintenanceError::Run { location: store.location().to_owned() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_read_from_the_path() {
        let dir =
            PartitionDir::of("exchanges/tenant=a%2Fb/agent=c/date=2025-01-02/x.parquet").expect("is one");
        assert_eq!((dir.tenant, dir.date), ("tenant=a%2Fb", "2025-01-02"));
        assert_eq!(dir.folder, "tenant=a%2Fb/agent=c/date=2025-01-02");
        for odd in ["x.parquet", "exchanges/x.parquet", "exchanges/tenant=a/date=b/agent=c/x.parquet"] {
            assert!(PartitionDir::of(odd).is_err(), "{odd}");
        }
    }
}
