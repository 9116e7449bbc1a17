//! Compaction: merges small files of a folder; readers see the same sessions.
//!
//! Memory is bounded by the rows merged at a time, not by the store.

use std::collections::BTreeMap;

use schemas::session::SessionClose;

use super::merge::{Merge, Rows};
use super::partition::{FilePair, PartitionDir, pairs};
use super::report::{MaintenanceError, MaintenanceReport, TableSize, changes};
use super::task::{MaintenanceTask, refuse_runs};
use crate::commit::CommittedFile;
use crate::error::StoreError;
use crate::objects::Store;
use crate::snapshot::Snapshot;
use crate::table::Table;

/// Default size of merged files, bytes.
pub const DEFAULT_TARGET_BYTES: u64 = 128 << 20;

/// Decoded rows merged at a time, bytes; further rows go to another file. With the encoding of the new file, compaction needs
/// about three times this memory, and the largest row group of its inputs.
const MERGE_BYTES: usize = 256 << 20;

/// Assumed size of a close row at least, bytes: it needs more in memory than in a file.
const MIN_CLOSE_BYTES: u64 = 256;

/// Options of [`Store::compact`].
#[derive(Debug, Clone, Copy)]
pub struct CompactOptions {
    /// Files of this size or more are not merged, and merged ones are not much larger. Bytes, default
    /// [`DEFAULT_TARGET_BYTES`].
    pub target_bytes: u64,
}

impl Default for CompactOptions {
    fn default() -> Self {
        Self { target_bytes: DEFAULT_TARGET_BYTES }
    }
}

/// Files to merge, by folder below the table; each group has at least two.
struct Plan<'a> {
    pairs: Vec<(&'a str, Vec<FilePair<'a>>)>,
    sessions: Vec<(&'a str, Vec<&'a CommittedFile>)>,
}

fn plan(snapshot: &Snapshot, options: CompactOptions) -> Result<Plan<'_>, StoreError> {
    let mut by_folder: BTreeMap<&str, Vec<FilePair<'_>>> = BTreeMap::new();
    for pair in pairs(snapshot) {
        by_folder.entry(PartitionDir::of(&pair.exchanges.path)?.folder).or_default().push(pair);
    }
    let mut closes: BTreeMap<&str, Vec<&CommittedFile>> = BTreeMap::new();
    for file in snapshot.files(Table::Sessions) {
        closes.entry(PartitionDir::of(&file.path)?.folder).or_default().push(file);
    }
    Ok(Plan {
        pairs: groups(by_folder, options, FilePair::bytes),
        sessions: groups(closes, options, |file| file.bytes.max(file.rows * MIN_CLOSE_BYTES)),
    })
}

/// Packs small files, in their order, into groups of at most the target size.
fn groups<F>(
    folders: BTreeMap<&str, Vec<F>>,
    options: CompactOptions,
    bytes: impl Fn(&F) -> u64,
) -> Vec<(&str, Vec<F>)> {
    let mut groups = Vec::new();
    for (folder, files) in folders {
        let mut group: Vec<F> = Vec::new();
        let mut group_bytes = 0;
        for file in files {
            let more = bytes(&file);
            if more >= options.target_bytes {
                continue;
            }
            if group_bytes + more > options.target_bytes {
                groups.push((folder, std::mem::take(&mut group)));
                group_bytes = 0;
            }
            group_bytes += more;
            group.push(file);
        }
        groups.push((folder, group));
    }
    groups.retain(|(_, group)| group.len() > 1);
    groups
}

impl Store {
    /// Merges small files of each folder. Archivers may run meanwhile.
    ///
    /// # Errors
    /// The store cannot be read or written, is a run, or other maintenance was started meanwhile.
    pub async fn compact(&self, options: CompactOptions) -> Result<MaintenanceReport, MaintenanceError> {
        let mut task = MaintenanceTask::begin(self).await?;
        let before = task.snapshot.clone();
        match task.compact(&before, options).await {
            Ok(()) => {
                task.finish().await;
                Ok(task.report(&before))
            }
            Err(error) => Err(task.explain(error).await),
        }
    }

    /// Returns the report that [`Self::compact`] would return, with the smallest possible number of files. Sizes in bytes are
    /// not estimated.
    ///
    /// # Errors
    /// The commits cannot be read, or the store is a run.
    pub async fn plan_compaction(
        &self,
        options: CompactOptions,
    ) -> Result<MaintenanceReport, MaintenanceError> {
        refuse_runs(self).await?;
        let snapshot = self.snapshot().await?;
        let plan = plan(&snapshot, options)?;
        let mut tables = changes(&snapshot, &snapshot);
        let drop = |after: &mut TableSize, merged: usize| after.files -= merged.saturating_sub(1) as u64;
        for change in &mut tables {
            let after = &mut change.after;
            match change.table {
                Table::Exchanges => plan.pairs.iter().for_each(|(_, group)| drop(after, group.len())),
                Table::Chunks => plan.pairs.iter().for_each(|(_, group)| {
                    drop(after, group.iter().filter(|pair| pair.chunks.is_some()).count());
                }),
                Table::Sessions => plan.sessions.iter().for_each(|(_, group)| drop(after, group.len())),
                Table::Trials | Table::Scores | Table::Embeddings => {}
            }
        }
        Ok(MaintenanceReport::of_dry_run(tables))
    }

    pub(super) async fn read_pair(&self, pair: FilePair<'_>) -> Result<Rows, StoreError> {
        let exchanges = self.read(pair.exchanges, None).await?;
        let chunks = match pair.chunks {
            Some(file) => self.read(file, None).await?,
            None => Vec::new(),
        };
        Ok(Rows { exchanges, chunks })
    }
}

impl MaintenanceTask<'_> {
    async fn compact(&mut self, before: &Snapshot, options: CompactOptions) -> Result<(), MaintenanceError> {
        let plan = plan(before, options)?;
        for (folder, group) in &plan.pairs {
            self.merge_pairs(before, folder, group).await?;
        }
        for (folder, group) in &plan.sessions {
            self.merge_sessions(folder, group).await?;
        }
        self.commit().await
    }

    /// Merges a group into one pair, or several if their rows have more than [`MERGE_BYTES`].
    async fn merge_pairs(
        &mut self,
        snapshot: &Snapshot,
        folder: &str,
        group: &[FilePair<'_>],
    ) -> Result<(), MaintenanceError> {
        let replacements = self.store.replacements(snapshot, Some(&[folder.to_owned()].into())).await?;
        let mut merge = Merge::new(&replacements, folder);
        let mut merged: Vec<FilePair<'_>> = Vec::new();
        for pair in group {
            let rows = self.store.read_pair(*pair).await?;
            if !merged.is_empty() && merge.memory_bytes() + rows.memory_bytes() > MERGE_BYTES {
                let full = std::mem::replace(&mut merge, Merge::new(&replacements, folder));
                self.write_merged(full, folder, &std::mem::take(&mut merged)).await?;
            }
            let pushed = merge.push(pair.chunks.map(|file| file.path.as_str()), rows);
            pushed.map_err(|error| error.at(&pair.exchanges.path))?;
            merged.push(*pair);
        }
        self.write_merged(merge, folder, &merged).await?;
        Ok(())
    }

    /// Replaces the inputs by a merged pair; a single input stays.
    async fn write_merged(
        &mut self,
        merge: Merge<'_>,
        folder: &str,
        inputs: &[FilePair<'_>],
    ) -> Result<(), MaintenanceError> {
        if inputs.len() < 2 {
            return Ok(());
        }
        let path = &inputs[0].exchanges.path;
        let rows = merge.finish().map_err(|error| error.at(path))?;
        self.write_pair(folder, rows, inputs).await
    }

    /// Replaces pairs by one with these rows, or by none if there are no rows.
    pub(super) async fn write_pair(
        &mut self,
        folder: &str,
        rows: Rows,
        replaced: &[FilePair<'_>],
    ) -> Result<(), MaintenanceError> {
        let name = self.name();
        let (mut exchanges, mut chunks) = (None, None);
        if let Some(first) = rows.exchanges.first() {
            let dir = (&first.tenant.clone(), folder);
            if !rows.chunks.is_empty() {
                chunks = Some(self.add(Table::Chunks, dir, &name, &rows.chunks).await?);
            }
            exchanges = Some(self.add(Table::Exchanges, dir, &name, &rows.exchanges).await?);
        }
        for pair in replaced {
            self.replace(pair.exchanges, exchanges.as_deref());
            if let Some(file) = pair.chunks {
                self.replace(file, chunks.as_deref());
            }
        }
        self.commit_if_due().await
    }

    async fn merge_sessions(
        &mut self,
        folder: &str,
        group: &[&CommittedFile],
    ) -> Result<(), MaintenanceError> {
        let mut rows: Vec<SessionClose> = Vec::new();
        for file in group {
            rows.append(&mut self.store.read(file, None).await?);
        }
        rows.sort_by(|a, b| {
            (&a.session, &a.incarnation, a.closed_at).cmp(&(&b.session, &b.incarnation, b.closed_at))
        });
        let Some(first) = rows.first() else { return Ok(()) };
        let path = self.add(Table::Sessions, (&first.tenant, folder), &self.name(), &rows).await?;
        for file in group {
            self.replace(file, Some(&path));
        }
        self.commit_if_due().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_at_least_two_small_files_and_stay_under_the_target() {
        let folders = BTreeMap::from([("a", vec![40, 50, 120, 20, 90, 5]), ("b", vec![10])]);
        let found = groups(folders, CompactOptions { target_bytes: 100 }, |bytes| *bytes);
        assert_eq!(found, [("a", vec![40, 50]), ("a", vec![90, 5])]);
    }
}
