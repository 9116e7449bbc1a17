//! A maintenance task under way: its claim, the files written for the next commit, and clean-up before and after.

use std::collections::{BTreeMap, HashMap, HashSet};

use schemas::id::TenantId;

use super::report::{MaintenanceError, MaintenanceReport, TABLES, changes};
use crate::checkpoint::write::Purpose;
use crate::commit::{CommittedFile, MAINTENANCE, escape};
use crate::commits::Claim;
use crate::error::StoreError;
use crate::objects::Store;
use crate::plan::{PLANS, file_name, parse_file_name, planned_name};
use crate::snapshot::{Replacements, Snapshot, name_of};
use crate::table::{self, Level, Table, TableError, TableRow};

/// Files that one commit replaces at most. Bounds the commit, and the time that replaced files wait for it.
const MAX_REPLACED_FILES: usize = 2_000;

/// Bytes written before they are committed; the file that passes the bound is committed with them.
const MAX_UNCOMMITTED_BYTES: u64 = 512 << 20;

/// A maintenance task under way.
pub(super) struct MaintenanceTask<'a> {
    pub(super) store: &'a Store,
    claim: Claim,
    /// State at the beginning, and the task's own commits.
    pub(super) snapshot: Snapshot,
    files: Vec<CommittedFile>,
    replaces: BTreeMap<String, Option<String>>,
    commits: u64,
    leftovers_deleted: u64,
}

impl<'a> MaintenanceTask<'a> {
    /// Fences other maintenance, and deletes the files that interrupted tasks and batches left.
    pub(super) async fn begin(store: &'a Store) -> Result<Self, MaintenanceError> {
        refuse_runs(store).await?;
        let claim = store.claim(MAINTENANCE).await?;
        let snapshot = store.snapshot().await?;
        let leftovers_deleted = store.leftovers(&snapshot).await?.delete(store).await?;
        Ok(Self {
            store,
            claim,
            snapshot,
            files: Vec::new(),
            replaces: BTreeMap::new(),
            commits: 0,
            leftovers_deleted,
        })
    }

    /// Makes a checkpoint, so that readers need not read the task's commits. A failure is logged: the work is done.
    pub(super) async fn finish(&self) {
        if let Err(error) = Box::pin(self.store.write_checkpoint(Purpose::Maintenance)).await {
            tracing::warn!(%error, "no checkpoint was written after maintenance; the next one covers its commits");
        }
    }

    /// Creates a name for new files of the next commit.
    pub(super) fn name(&self) -> String {
        file_name(MAINTENANCE, self.claim.position())
    }

    /// Writes a file for the next commit, of a tenant and in a folder below the table. Returns its path.
    pub(super) async fn add<T: TableRow>(
        &mut self,
        table: Table,
        (tenant, folder): (&TenantId, &str),
        name: &str,
        rows: &[T],
    ) -> Result<String, MaintenanceError> {
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

    /// Replaces a file with the next commit; `None` if all of its rows are deleted.
    pub(super) fn replace(&mut self, old: &CommittedFile, new: Option<&str>) {
        self.replaces.insert(old.path.clone(), new.map(str::to_owned));
    }

    /// Returns the changes since `before`.
    pub(super) fn report(&self, before: &Snapshot) -> MaintenanceReport {
        MaintenanceReport {
            tables: changes(before, &self.snapshot),
            commits: self.commits,
            leftovers_deleted: self.leftovers_deleted,
        }
    }

    fn superseded(&self) -> MaintenanceError {
        MaintenanceError::Superseded { location: self.store.location().to_owned() }
    }

    /// Finds the cause of a failure: other maintenance that was started has deleted files that this task wrote.
    pub(super) async fn explain(&self, error: MaintenanceError) -> MaintenanceError {
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

    /// Commits if enough files were written or replaced.
    pub(super) async fn commit_if_due(&mut self) -> Result<(), MaintenanceError> {
        let bytes: u64 = self.files.iter().map(|file| file.bytes).sum();
        if self.replaces.len() >= MAX_REPLACED_FILES || bytes >= MAX_UNCOMMITTED_BYTES {
            self.commit().await?;
        }
        Ok(())
    }

    /// Commits the files written so far, and deletes the files they replace.
    pub(super) async fn commit(&mut self) -> Result<(), MaintenanceError> {
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

/// Objects that no reader needs.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// Replaced files that still exist.
    pub(super) replaced: Vec<String>,
    /// Files that no commit can name any more.
    pub(super) orphans: Vec<String>,
    /// Plans of batches that cannot be committed any more.
    pub(super) plans: Vec<String>,
    /// Number of files that no commit names yet: batches under way, or the last batch of an interrupted writer.
    pub(super) uncommitted: u64,
    /// Number of files replaced so far, whether they exist or not.
    pub(super) replaced_so_far: u64,
}

impl Leftovers {
    /// Deletes the leftovers; returns how many data files existed.
    pub(super) async fn delete(&self, store: &Store) -> Result<u64, StoreError> {
        store.delete_all(&self.plans).await?;
        store.delete_all(self.replaced.iter().chain(&self.orphans)).await
    }
}

impl Store {
    /// Lists the objects that no reader of the snapshot needs. The caller has claimed maintenance.
    ///
    /// A file outside the snapshot is an orphan if its source has gone past its position: the slot of each commit that could
    /// name it is taken. Files of interrupted maintenance are orphans as well.
    pub(super) async fn leftovers(&self, snapshot: &Snapshot) -> Result<Leftovers, StoreError> {
        let replacements: Replacements = self.replacements(snapshot, None).await?;
        let exists: HashSet<&str> = snapshot.all_files().map(|file| file.path.as_str()).collect();
        // A commit that was not listed yet may name a file of its position.
        let gapless = snapshot.heads().iter().filter(|(source, _)| snapshot.is_gapless(source));
        let positions: HashMap<String, u64> =
            gapless.map(|(source, head)| (escape(source), head.next_slot().0)).collect();
        let maintenance = escape(MAINTENANCE);
        let is_past = |name: &str| {
            parse_file_name(name).is_some_and(|(source, first)| {
                source == maintenance || positions.get(source).is_some_and(|position| first < *position)
            })
        };
        let mut found = Leftovers { replaced_so_far: replacements.len() as u64, ..Leftovers::default() };
        for table in TABLES {
            for path in self.list(table.as_str()).await? {
                if exists.contains(path.as_str()) {
                    continue;
                }
                if replacements.contains(&path) {
                    found.replaced.push(path);
                } else if is_past(name_of(&path)) {
                    found.orphans.push(path);
                } else {
                    found.uncommitted += 1;
                }
            }
        }
        // The plan of a committed batch is deleted by the checkpoint that covers it.
        let committed: HashSet<&str> =
            exists.iter().copied().chain(replacements.replaced()).map(name_of).collect();
        for path in self.list(PLANS).await? {
            let is_leftover =
                planned_name(&path).is_some_and(|name| !committed.contains(name) && is_past(name));
            if is_leftover {
                found.plans.push(path);
            }
        }
        Ok(found)
    }
}

/// Refuses the location of a run.
pub(super) async fn refuse_runs(store: &Store) -> Result<(), MaintenanceError> {
    match store.manifest().await? {
        Some(_) => Err(MaintenanceError::Run { location: store.location().to_owned() }),
        None => Ok(()),
    }
}
