//! Keeping a store: small files merged, old sessions expired, sessions and tenants erased.
//!
//! Every change is a commit under [`UPKEEP`] that names the files it replaces; they are deleted right after it. A crash
//! leaves the old state or the new one, and the next upkeep deletes what it left behind. Archivers may go on meanwhile:
//! they only add. A second upkeep fences the first, whose commit is then refused. Runs are left alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use schemas::commit::{CommittedFile, UPKEEP};
use schemas::id::TenantId;
use schemas::table::{self, Level, Row, Table, TableError};
use serde::{Deserialize, Serialize};

use crate::commits::{Claim, Snapshot, file_name};
use crate::objects::{Lake, LakeError};

mod compact;
mod erase;
mod expire;
mod merge;
mod rewrite;

pub use compact::{CompactOptions, DEFAULT_TARGET_BYTES};
pub use erase::{Erased, Erasure, Proof};
pub use expire::Expired;
pub use rewrite::Stripped;

/// Files that one commit replaces at most: so that it stays small, and its files do not wait long for it.
const MAX_REPLACED_FILES: usize = 2_000;

/// Bytes that are written at most before they are committed, beside the file that passes the bound.
const MAX_UNCOMMITTED_BYTES: u64 = 512 << 20;

/// An upkeep that did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The store cannot be read or written.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// Another upkeep was started.
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
    NotThere {
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
    Remains {
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
pub struct Extent {
    /// Files.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Their length, bytes.
    pub bytes: u64,
}

/// A table before and after an upkeep. What archivers added meanwhile is in neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TableChange {
    /// The table.
    pub table: Table,
    /// What it was.
    pub before: Extent,
    /// What it is; under a dry run what it would be, as far as that is known without doing it.
    pub after: Extent,
}

/// What an upkeep changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Upkept {
    /// Each table.
    pub tables: Vec<TableChange>,
    /// Commits that were made.
    pub commits: u64,
    /// Files that an interrupted upkeep had replaced and not deleted, and that are deleted now.
    pub leftovers: u64,
}

/// Where a file lies below its table, from its path: the Hive-style parts as they are escaped there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Home<'a> {
    /// `tenant=…`
    tenant: &'a str,
    /// All of it: `tenant=…/agent=…/date=…`
    folder: &'a str,
    /// `YYYY-MM-DD`
    date: &'a str,
}

impl<'a> Home<'a> {
    fn of(path: &'a str) -> Result<Self, LakeError> {
        let odd = || LakeError::Metadata {
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

fn extent(snapshot: &Snapshot, table: Table) -> Extent {
    snapshot.files(table).fold(Extent::default(), |sum, file| Extent {
        files: sum.files + 1,
        rows: sum.rows + file.rows,
        bytes: sum.bytes + file.bytes,
    })
}

/// The tables of a store of sessions.
const TABLES: [Table; 3] = [Table::Exchanges, Table::Chunks, Table::Sessions];

fn changes(before: &Snapshot, after: &Snapshot) -> Vec<TableChange> {
    let change = |table| TableChange { table, before: extent(before, table), after: extent(after, table) };
    TABLES.into_iter().map(change).collect()
}

/// The session of a row, of any table.
#[derive(Deserialize)]
struct SessionOf {
    session: schemas::id::SessionId,
}

/// The column that [`SessionOf`] reads.
const SESSION: [&str; 1] = ["session"];

/// An upkeep under way.
struct Upkeep<'a> {
    lake: &'a Lake,
    claim: Claim,
    /// What there was when it began, and its own commits.
    snapshot: Snapshot,
    files: Vec<CommittedFile>,
    replaces: BTreeMap<String, Option<String>>,
    commits: u64,
    leftovers: u64,
}

impl<'a> Upkeep<'a> {
    /// Fences other upkeeps, and deletes what an interrupted one left.
    async fn begin(lake: &'a Lake) -> Result<Self, UpkeepError> {
        refuse_runs(lake).await?;
        let claim = lake.claim(UPKEEP).await?;
        let snapshot = lake.snapshot().await?;
        let mut upkeep = Self {
            lake,
            claim,
            snapshot,
            files: Vec::new(),
            replaces: BTreeMap::new(),
            commits: 0,
            leftovers: 0,
        };
        for path in upkeep.replaced_and_there().await? {
            upkeep.leftovers += u64::from(lake.delete(&path).await?);
        }
        Ok(upkeep)
    }

    /// The files that a commit has replaced and that still lie there.
    async fn replaced_and_there(&self) -> Result<Vec<String>, LakeError> {
        let replaced: BTreeSet<&str> = self.snapshot.replaced().collect();
        let mut found = Vec::new();
        if !replaced.is_empty() {
            for table in TABLES {
                let there = self.lake.list(table.as_str()).await?;
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
        home: (&TenantId, &str),
        name: &str,
        rows: &[T],
    ) -> Result<String, UpkeepError> {
        let (tenant, folder) = home;
        let path = format!("{}/{folder}/{name}", table.as_str());
        let encoded = self.lake.keys.write_options(tenant, Level::Compact).map_err(TableError::from);
        let encoded = encoded.and_then(|options| table::encode(table, rows, &options));
        let encoded =
            encoded.map_err(|source| UpkeepError::Lake(LakeError::Table { path: path.clone(), source }))?;
        let bytes = encoded.len() as u64;
        self.lake.create(&path, encoded).await?;
        self.files.push(CommittedFile { table, path: path.clone(), rows: rows.len() as u64, bytes });
        Ok(path)
    }

    /// Notes that the next commit replaces a file.
    fn replace(&mut self, old: &CommittedFile, new: Option<&str>) {
        self.replaces.insert(old.path.clone(), new.map(str::to_owned));
    }

    /// What it has changed.
    fn upkept(&self, before: &Snapshot) -> Upkept {
        Upkept { tables: changes(before, &self.snapshot), commits: self.commits, leftovers: self.leftovers }
    }

    fn superseded(&self) -> UpkeepError {
        UpkeepError::Superseded { location: self.lake.location().to_owned() }
    }

    /// Why the work failed: where another upkeep was started, it has deleted files under this one.
    async fn explain(&self, error: UpkeepError) -> UpkeepError {
        match error {
            UpkeepError::Lake(cause) => match self.lake.holds(&self.claim).await {
                Ok(false) => self.superseded(),
                Ok(true) | Err(_) => UpkeepError::Lake(cause),
            },
            other @ (UpkeepError::Superseded { .. }
            | UpkeepError::Run { .. }
            | UpkeepError::NotThere { .. }
            | UpkeepError::Remains { .. }) => other,
        }
    }

    /// Commits where enough has gathered.
    async fn commit_if_due(&mut self) -> Result<(), UpkeepError> {
        let bytes: u64 = self.files.iter().map(|file| file.bytes).sum();
        if self.replaces.len() >= MAX_REPLACED_FILES || bytes >= MAX_UNCOMMITTED_BYTES {
            self.commit().await?;
        }
        Ok(())
    }

    /// Commits what has gathered, and deletes the files it replaces.
    async fn commit(&mut self) -> Result<(), UpkeepError> {
        if self.replaces.is_empty() {
            return Ok(());
        }
        let (files, replaces) = (std::mem::take(&mut self.files), std::mem::take(&mut self.replaces));
        let commit = match self.lake.commit_replacing(&mut self.claim, files, replaces).await {
            Ok(commit) => commit,
            Err(LakeError::LostPartition { .. }) => return Err(self.superseded()),
            Err(error) => return Err(error.into()),
        };
        self.commits += 1;
        for path in commit.replaces.keys() {
            self.lake.delete(path).await?;
        }
        self.snapshot.push(commit);
        Ok(())
    }
}

async fn refuse_runs(lake: &Lake) -> Result<(), UpkeepError> {
    match lake.manifest().await? {
        Some(_) => Err(UpkeepError::Run { location: lake.location().to_owned() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_read_from_the_path() {
        let home = Home::of("exchanges/tenant=a%2Fb/agent=c/date=2025-01-02/x.parquet").expect("is one");
        assert_eq!((home.tenant, home.date), ("tenant=a%2Fb", "2025-01-02"));
        assert_eq!(home.folder, "tenant=a%2Fb/agent=c/date=2025-01-02");
        for odd in ["x.parquet", "exchanges/x.parquet", "exchanges/tenant=a/date=b/agent=c/x.parquet"] {
            assert!(Home::of(odd).is_err(), "{odd}");
        }
    }
}
