//! Writes checkpoints, and deletes those that newer ones replaced.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::Ordering;

use schemas::FORMAT;

use super::format::{
    FolderTable, MANIFESTS, Manifest, ManifestEntry, ReplacedFiles, Root, encode, no_folders,
};
use super::read::{Checkpoint, CheckpointScan, Unusable, objects_of};
use super::segment::{self, Row, SessionHash};
use crate::commit::{Commit, CommittedFile};
use crate::error::StoreError;
use crate::objects::Store;
use crate::plan::{BatchPlan, plan_path};
use crate::snapshot::{CommitFiles, Head, folder_of, name_of};
use crate::table::Table;

/// Commits after the newest checkpoint at which a writer makes the next one.
///
/// A reader reads at most about this many commits per source; a writer spends the requests of a checkpoint once in as many
/// commits.
pub(crate) const CHECKPOINT_COMMITS: usize = 64;

/// Checkpoints that are kept: readers of an older one finish, and a damaged one has a predecessor.
const KEPT_CHECKPOINTS: u64 = 3;

/// Chunk segments of a folder at which they are merged into one.
const MAX_SEGMENTS: usize = 8;

/// Tries to make a checkpoint after another writer made one first.
const WRITE_TRIES: usize = 3;

/// Reasons to make a checkpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose<'a> {
    /// Enough commits were made.
    Due,
    /// Maintenance has ended: readers shall not read its commits again and again.
    Maintenance,
    /// Sessions were erased: no object may have their chunks any more, including those of older checkpoints.
    Erasure(&'a HashSet<SessionHash>),
}

/// Changes of one folder by the commits that a checkpoint covers.
#[derive(Default)]
struct FolderChanges {
    added: Vec<CommitFiles>,
    replaced: HashMap<String, Option<String>>,
    /// Plans of the commits that stored chunks in the folder: path, and the name of their files.
    plans: Vec<(String, String)>,
}

/// A checkpoint under construction.
struct Draft<'a> {
    store: &'a Store,
    /// Folder of the new objects.
    folder: String,
    /// Objects created so far.
    created: Vec<String>,
    /// Plans read so far.
    plans: HashMap<String, Option<BatchPlan>>,
}

impl Store {
    /// Counts a commit, and makes a checkpoint if one is due. A failure is logged: the commit itself is done.
    pub(crate) async fn checkpoint_if_due(&self) {
        let uncovered = self.uncovered.fetch_add(1, Ordering::Relaxed) + 1;
        if uncovered < CHECKPOINT_COMMITS {
            return;
        }
        self.uncovered.store(0, Ordering::Relaxed);
        if let Err(error) = Box::pin(self.write_checkpoint(Purpose::Due)).await {
            tracing::warn!(%error, "no checkpoint was written; reading the store takes longer until the next one");
        }
    }

    /// Makes a checkpoint of all commits.
    ///
    /// # Errors
    /// The commits or the last checkpoint cannot be read, or the disk or object store failed.
    pub(crate) async fn write_checkpoint(&self, purpose: Purpose<'_>) -> Result<(), StoreError> {
        for _ in 0..WRITE_TRIES {
            if self.try_checkpoint(purpose).await? {
                return Ok(());
            }
        }
        // Others made checkpoints meanwhile, and cover nearly the same commits.
        match purpose {
            Purpose::Due | Purpose::Maintenance => Ok(()),
            Purpose::Erasure(_) => Err(StoreError::Metadata {
                path: self.display_path(super::format::CHECKPOINTS),
                detail:
                    "is written by others without end, so erased chunks are still listed there; erase again"
                        .to_owned(),
            }),
        }
    }

    /// Makes a checkpoint; returns `false` if another writer made one first.
    async fn try_checkpoint(&self, purpose: Purpose<'_>) -> Result<bool, StoreError> {
        let newest = self.checkpoint_sequences().await?.first().copied();
        let base = self.next_checkpoint(&mut CheckpointScan::default()).await?;
        let is_based = base.is_some();
        match self.checkpoint_on(newest, base, purpose).await {
            // An object of the last checkpoint is damaged: the commits have all of it.
            Err(error @ StoreError::Metadata { .. }) if is_based => {
                tracing::warn!(%error, "the last checkpoint is damaged, a new one is made from all commits");
                self.checkpoint_on(newest, None, purpose).await
            }
            other => other,
        }
    }

    /// Makes the checkpoint after `newest`, based on a valid one.
    async fn checkpoint_on(
        &self,
        newest: Option<u64>,
        base: Option<Checkpoint>,
        purpose: Purpose<'_>,
    ) -> Result<bool, StoreError> {
        let (mut heads, had_files) = match &base {
            Some(base) => (base.root.heads.clone(), base.root.had_files),
            None => (BTreeMap::new(), false),
        };
        let tail = self.commits_after(&heads).await?;
        let wanted = match purpose {
            Purpose::Due => CHECKPOINT_COMMITS / 2,
            Purpose::Maintenance => 1,
            Purpose::Erasure(_) => 0,
        };
        if tail.len() < wanted {
            return Ok(true);
        }
        let (covered, is_cut) = cover(&mut heads, tail);
        let sequence = newest.map_or(0, |newest| newest + 1);
        let tag = uuid::Uuid::new_v4().simple().to_string();
        let mut draft = Draft {
            store: self,
            folder: format!("{MANIFESTS}/{sequence:020}-{}", &tag[..8]),
            created: Vec::new(),
            plans: HashMap::new(),
        };
        let had_files = had_files || covered.iter().any(|commit| !commit.files.is_empty());
        let before = base.map_or_else(no_folders, |base: Checkpoint| base.table);
        let made = draft.write(&before, &covered, purpose, is_cut).await;
        let (table, table_path) = match made {
            Ok(made) => made,
            Err(error) => {
                draft.discard().await;
                return Err(error);
            }
        };
        let kept = objects_of(&table);
        let dropped = objects_of(&before).into_iter().filter(|object| !kept.contains(object)).collect();
        let root = Root { format: FORMAT, sequence, had_files, heads, folders: table_path, dropped };
        let path = Root::path(sequence);
        let text = serde_json::to_vec(&root)
            .map_err(|error| StoreError::Metadata { path: path.clone(), detail: error.to_string() })?;
        if !self.create(&path, text).await? {
            draft.discard().await;
            return Ok(false);
        }
        // The plans of covered commits have served their purpose.
        let plans: Vec<String> = covered.iter().filter_map(plan_of).collect();
        self.delete_all(&plans).await?;
        match purpose {
            Purpose::Due => self.delete_old_checkpoints(sequence).await?,
            Purpose::Maintenance | Purpose::Erasure(_) => self.delete_other_checkpoints(&root, kept).await?,
        }
        Ok(true)
    }

    /// Deletes the checkpoints before the [`KEPT_CHECKPOINTS`] newest, with the objects that only they use.
    async fn delete_old_checkpoints(&self, newest: u64) -> Result<(), StoreError> {
        let Some(first_kept) = (newest + 1).checked_sub(KEPT_CHECKPOINTS) else { return Ok(()) };
        let mut old: Vec<u64> = self.checkpoint_sequences().await?;
        old.retain(|sequence| *sequence < first_kept);
        for sequence in old.into_iter().rev() {
            if let Some(after) = self.checkpoint_root(sequence + 1).await? {
                self.delete_all(&after.dropped).await?;
            }
            if let Some(root) = self.checkpoint_root(sequence).await? {
                self.delete(&root.folders).await?;
            }
            self.delete(&Root::path(sequence)).await?;
        }
        Ok(())
    }

    /// Deletes all older checkpoints, and all objects that this one does not use.
    async fn delete_other_checkpoints(&self, root: &Root, kept: HashSet<String>) -> Result<(), StoreError> {
        for sequence in self.checkpoint_sequences().await? {
            if sequence < root.sequence {
                self.delete(&Root::path(sequence)).await?;
            }
        }
        let newer = format!("{MANIFESTS}/{:020}", root.sequence + 1);
        let mut unused = self.list(MANIFESTS).await?;
        unused.retain(|path| *path < newer && *path != root.folders && !kept.contains(path));
        self.delete_all(&unused).await?;
        Ok(())
    }
}

/// Advances the heads over the commits that follow each other without a gap; returns these commits, and whether a source has
/// a gap.
///
/// A listing of a directory that changes meanwhile may show a commit and miss the one before it. A checkpoint that covered
/// the later one would hide the earlier one for good.
fn cover(heads: &mut BTreeMap<String, Head>, tail: Vec<Commit>) -> (Vec<Commit>, bool) {
    let mut covered = Vec::with_capacity(tail.len());
    let mut cut: BTreeSet<String> = BTreeSet::new();
    for commit in tail {
        let expected = heads.get(&commit.source).map_or((0, 0), Head::next_slot);
        if cut.contains(&commit.source) || (commit.first, commit.epoch) != expected {
            cut.insert(commit.source);
            continue;
        }
        heads.insert(commit.source.clone(), Head::of(&commit));
        covered.push(commit);
    }
    (covered, !cut.is_empty())
}

/// Returns the path of the plan of a commit; `None` if it has none: maintenance, and commits without files.
fn plan_of(commit: &Commit) -> Option<String> {
    let file = commit.files.first().filter(|_| commit.replaces.is_empty())?;
    Some(plan_path(&commit.source, name_of(&file.path)))
}

/// Sorts the changes of commits by folder.
fn by_folder(commits: &[Commit]) -> BTreeMap<String, FolderChanges> {
    let mut folders: BTreeMap<String, FolderChanges> = BTreeMap::new();
    for commit in commits {
        let path = commit.path();
        let mut files: BTreeMap<&str, Vec<CommittedFile>> = BTreeMap::new();
        for file in &commit.files {
            files.entry(folder_of(&file.path)).or_default().push(file.clone());
        }
        for (folder, files) in files {
            let changes = folders.entry(folder.to_owned()).or_default();
            // Maintenance moves chunks that are in the segments already, under the names of the replaced files.
            let stored = files.iter().find(|file| file.table == Table::Chunks);
            if let (Some(file), Some(plan)) = (stored, plan_of(commit)) {
                changes.plans.push((plan, name_of(&file.path).to_owned()));
            }
            let (source, commit) = (commit.source.clone(), path.clone());
            changes.added.push(CommitFiles { source, commit, files });
        }
        for (old, new) in &commit.replaces {
            let changes = folders.entry(folder_of(old).to_owned()).or_default();
            changes.replaced.insert(old.clone(), new.clone());
        }
    }
    folders
}

impl Draft<'_> {
    /// Writes all objects but the root; returns the folder table and its path.
    async fn write(
        &mut self,
        before: &FolderTable,
        covered: &[Commit],
        purpose: Purpose<'_>,
        is_cut: bool,
    ) -> Result<(FolderTable, String), StoreError> {
        let mut table = before.clone();
        for (folder, changes) in by_folder(covered) {
            let entry = table.manifests.remove(&folder);
            if let Some(entry) = self.folder(&folder, entry, changes, is_cut).await? {
                table.manifests.insert(folder, entry);
            }
        }
        if let Purpose::Erasure(sessions) = purpose {
            for entry in table.manifests.values_mut() {
                self.purge(entry, sessions).await?;
            }
        }
        let path = format!("{}/folders", self.folder);
        self.put(&path, encode(&path, &table)?).await?;
        Ok((table, path))
    }

    /// Writes the manifest of a changed folder; `None` if it has no files any more.
    async fn folder(
        &mut self,
        folder: &str,
        entry: Option<ManifestEntry>,
        changes: FolderChanges,
        is_cut: bool,
    ) -> Result<Option<ManifestEntry>, StoreError> {
        let (mut manifest, mut replaced) =
            (Manifest { format: FORMAT, ..Manifest::default() }, HashMap::new());
        if let Some(entry) = &entry {
            manifest = self.read(&entry.manifest).await?;
            if let Some(path) = &entry.replaced {
                replaced = self.read::<ReplacedFiles>(path).await?.files;
            }
        }
        let FolderChanges { added, replaced: newly, plans } = changes;
        let was_replaced = !newly.is_empty();
        replaced.extend(newly);
        let mut commits: BTreeMap<String, CommitFiles> = BTreeMap::new();
        for mut commit in manifest.commits.into_iter().chain(added) {
            commit.files.retain(|file| !replaced.contains_key(&file.path));
            if !commit.files.is_empty() {
                commits.insert(commit.commit.clone(), commit);
            }
        }
        // With a gap a file may be replaced here and added by a commit that is not covered yet.
        if commits.is_empty() && !is_cut {
            return Ok(None);
        }
        let number = self.created.len();
        let manifest = Manifest { format: FORMAT, commits: commits.into_values().collect() };
        let path = format!("{}/{number}.manifest", self.folder);
        self.put(&path, encode(&path, &manifest)?).await?;
        let mut made = ManifestEntry {
            manifest: path,
            segments: Vec::new(),
            replaced: entry.as_ref().and_then(|entry| entry.replaced.clone()),
            incomplete_index: false,
        };
        if was_replaced {
            let path = format!("{}/{number}.replaced", self.folder);
            self.put(&path, encode(&path, &ReplacedFiles { format: FORMAT, files: replaced })?).await?;
            made.replaced = Some(path);
        }
        if let Some(entry) = entry {
            made.segments = entry.segments;
            made.incomplete_index = entry.incomplete_index;
        }
        self.index(folder, &mut made, &plans).await?;
        Ok(Some(made))
    }

    /// Adds the chunks of planned batches to the segments of a folder.
    async fn index(
        &mut self,
        folder: &str,
        entry: &mut ManifestEntry,
        plans: &[(String, String)],
    ) -> Result<(), StoreError> {
        let mut rows: Vec<Row> = Vec::new();
        for (path, name) in plans {
            let Some(plan) = self.plan(path).await? else {
                entry.incomplete_index = true;
                continue;
            };
            let Ok(chunks) = plan.chunks_in(path, folder) else {
                entry.incomplete_index = true;
                continue;
            };
            rows.extend(chunks.into_iter().map(|(session, digest)| (session, digest, name.clone())));
        }
        if rows.is_empty() {
            return Ok(());
        }
        if entry.segments.len() + 1 >= MAX_SEGMENTS {
            for path in std::mem::take(&mut entry.segments) {
                rows.extend(self.segment(&path).await?);
            }
        }
        let path = self.put_segment(rows).await?;
        entry.segments.push(path);
        Ok(())
    }

    /// Writes the segments of a folder again without some sessions.
    async fn purge(
        &mut self,
        entry: &mut ManifestEntry,
        sessions: &HashSet<SessionHash>,
    ) -> Result<(), StoreError> {
        let mut rows: Vec<Row> = Vec::new();
        for path in &entry.segments {
            rows.extend(self.segment(path).await?);
        }
        let before = rows.len();
        rows.retain(|(session, ..)| !sessions.contains(session));
        if rows.len() < before {
            entry.segments = if rows.is_empty() { Vec::new() } else { vec![self.put_segment(rows).await?] };
        }
        Ok(())
    }

    async fn put_segment(&mut self, rows: Vec<Row>) -> Result<String, StoreError> {
        let path = format!("{}/{}.chunks", self.folder, self.created.len());
        let bytes = segment::build(&path, rows)?;
        self.put(&path, bytes).await?;
        Ok(path)
    }

    async fn segment(&self, path: &str) -> Result<Vec<Row>, StoreError> {
        self.store.all_segment_rows(path).await.map_err(cause)
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, StoreError> {
        self.store.checkpoint_object(path).await.map_err(cause)
    }

    /// Reads a plan; `None` if it is damaged or deleted.
    async fn plan(&mut self, path: &str) -> Result<Option<BatchPlan>, StoreError> {
        if let Some(known) = self.plans.get(path) {
            return Ok(known.clone());
        }
        let found = self.store.get(path).await?;
        let plan = found.and_then(|bytes| BatchPlan::decode(path, &bytes).ok());
        self.plans.insert(path.to_owned(), plan.clone());
        Ok(plan)
    }

    async fn put(&mut self, path: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.created.push(path.to_owned());
        self.store.create(path, bytes).await?;
        Ok(())
    }

    /// Deletes what was written. What cannot be deleted stays until maintenance finds that no checkpoint uses it.
    async fn discard(self) {
        if let Err(error) = self.store.delete_all(&self.created).await {
            tracing::warn!(%error, "objects of a checkpoint that was not made cannot be deleted");
        }
    }
}

fn cause(unusable: Unusable) -> StoreError {
    match unusable {
        Unusable::Damaged(error) | Unusable::Failed(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(source: &str, first: u64, epoch: u32, next: u64) -> Commit {
        let (replaces, journals) = (BTreeMap::new(), BTreeMap::new());
        Commit { format: 2, source: source.to_owned(), first, epoch, next, files: vec![], replaces, journals }
    }

    #[test]
    fn a_gap_in_a_listing_is_not_covered() {
        let mut heads = BTreeMap::new();
        let tail = vec![
            commit("a", 0, 0, 5),
            commit("a", 5, 0, 5),
            commit("a", 5, 1, 9),
            commit("b", 0, 0, 4),
            commit("b", 6, 0, 8),
            commit("b", 8, 0, 9),
        ];
        let (covered, is_cut) = cover(&mut heads, tail);
        assert_eq!((covered.len(), is_cut), (4, true));
        assert_eq!((heads["a"].next, heads["b"].next), (9, 4));
        let (covered, is_cut) =
            cover(&mut heads, vec![commit("a", 9, 0, 10), commit("b", 4, 0, 6), commit("b", 6, 0, 8)]);
        assert_eq!((covered.len(), is_cut), (3, false));
    }
}
