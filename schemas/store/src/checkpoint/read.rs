//! Reads the newest valid checkpoint and the commits after it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::Ordering;

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::GetRange;

use super::format::{CHECKPOINTS, FolderTable, Manifest, ManifestEntry, ReplacedFiles, Root, decode};
use super::segment::{self, Footer, Row, SessionHash, TAIL_BYTES, Tail};
use crate::commit::{COMMITS, Commit, MAINTENANCE, escape};
use crate::error::StoreError;
use crate::objects::{CONCURRENT_REQUESTS, Store, parse_versioned};
use crate::snapshot::{CommitFiles, FolderReplacements, Head, Replacements, Snapshot};

/// Why a checkpoint, or an object of one, was not used.
pub(crate) enum Unusable {
    /// Damaged, half-written or deleted: an older checkpoint or the commits serve instead.
    Damaged(StoreError),
    /// The store failed, or the object is of another format version.
    Failed(StoreError),
}

impl Unusable {
    /// Logs that a checkpoint is damaged, so that an older one is read.
    ///
    /// # Errors
    /// The store failed, or the object is of another format version.
    pub(crate) fn skip(self, sequence: u64) -> Result<(), StoreError> {
        match self {
            Self::Damaged(error) => {
                tracing::warn!(sequence, %error, "checkpoint is damaged, an older one is used");
                Ok(())
            }
            Self::Failed(error) => Err(error),
        }
    }

    /// Sorts an error by whether something else can be read instead.
    fn of(error: StoreError) -> Self {
        match error {
            StoreError::Metadata { .. } => Self::Damaged(error),
            other => Self::Failed(other),
        }
    }
}

/// A checkpoint: its root and its folder table.
pub(crate) struct Checkpoint {
    pub(crate) root: Root,
    pub(crate) table: FolderTable,
}

/// Checkpoints tried by a reader, from the newest on.
///
/// Starts again at a newer checkpoint: its writer may have deleted the objects that the reader missed.
#[derive(Debug, Default)]
pub(crate) struct CheckpointScan {
    newest: Option<u64>,
    before: Option<u64>,
}

impl Store {
    /// Reads all commits: the newest valid checkpoint, and the commits after it.
    ///
    /// # Errors
    /// A commit cannot be read or has another format version, or the disk or object store failed.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let mut snapshot = self.checkpoint_snapshot().await?;
        let heads = snapshot.heads().clone();
        let tail = self.commits_after(&heads).await?;
        self.uncovered.store(tail.len(), Ordering::Relaxed);
        tail.into_iter().for_each(|commit| snapshot.push(commit));
        Ok(snapshot)
    }

    /// Lists the sequence numbers of the checkpoints, newest first.
    pub(crate) async fn checkpoint_sequences(&self) -> Result<Vec<u64>, StoreError> {
        let paths = self.list(CHECKPOINTS).await?;
        Ok(paths.iter().rev().filter_map(|path| Root::sequence_of(path)).collect())
    }

    /// Reads a root; `None` if it is damaged or deleted.
    pub(crate) async fn checkpoint_root(&self, sequence: u64) -> Result<Option<Root>, StoreError> {
        let path = Root::path(sequence);
        let Some(bytes) = self.get(&path).await? else { return Ok(None) };
        match parse_versioned(&path, &bytes).map_err(Unusable::of) {
            Ok(root) => Ok(Some(root)),
            Err(Unusable::Damaged(error)) => {
                tracing::warn!(%error, "checkpoint is damaged, an older one is used");
                Ok(None)
            }
            Err(Unusable::Failed(error)) => Err(error),
        }
    }

    /// Reads the newest valid root.
    pub(crate) async fn newest_root(&self) -> Result<Option<Root>, StoreError> {
        for sequence in self.checkpoint_sequences().await? {
            if let Some(root) = self.checkpoint_root(sequence).await? {
                return Ok(Some(root));
            }
        }
        Ok(None)
    }

    /// Reads the next older checkpoint of a scan whose root and folder table are valid.
    ///
    /// `None` if no checkpoint is usable: then the commits alone are read.
    pub(crate) async fn next_checkpoint(
        &self,
        scan: &mut CheckpointScan,
    ) -> Result<Option<Checkpoint>, StoreError> {
        loop {
            let sequences = self.checkpoint_sequences().await?;
            if sequences.first() > scan.newest.as_ref() {
                *scan = CheckpointScan { newest: sequences.first().copied(), before: None };
            }
            let next = sequences.into_iter().find(|next| scan.before.is_none_or(|before| *next < before));
            let Some(sequence) = next else { return Ok(None) };
            scan.before = Some(sequence);
            let Some(root) = self.checkpoint_root(sequence).await? else { continue };
            match self.checkpoint_object(&root.folders).await {
                Ok(table) => return Ok(Some(Checkpoint { root, table })),
                Err(unusable) => unusable.skip(sequence)?,
            }
        }
    }

    /// Reads a compressed object of a checkpoint.
    pub(crate) async fn checkpoint_object<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<T, Unusable> {
        match self.get(path).await.map_err(Unusable::of)? {
            Some(bytes) => decode(path, &bytes).map_err(Unusable::of),
            None => Err(Unusable::Damaged(absent(path))),
        }
    }

    async fn checkpoint_snapshot(&self) -> Result<Snapshot, StoreError> {
        let mut scan = CheckpointScan::default();
        while let Some(Checkpoint { root, table }) = self.next_checkpoint(&mut scan).await? {
            let commits = match self.manifests(&table).await {
                Ok(commits) => commits,
                Err(unusable) => {
                    unusable.skip(root.sequence)?;
                    continue;
                }
            };
            let replaced = table
                .manifests
                .into_iter()
                .filter_map(|(folder, entry)| Some((folder, FolderReplacements { object: entry.replaced? })));
            return Ok(Snapshot::from_checkpoint(root.heads, root.had_files, commits, replaced.collect()));
        }
        Ok(Snapshot::default())
    }

    /// Reads the manifests of all folders.
    async fn manifests(&self, table: &FolderTable) -> Result<Vec<CommitFiles>, Unusable> {
        let reads: Vec<_> = table
            .manifests
            .values()
            .map(|entry| self.checkpoint_object::<Manifest>(&entry.manifest))
            .collect();
        let manifests: Vec<Manifest> =
            futures::stream::iter(reads).buffered(CONCURRENT_REQUESTS).try_collect().await?;
        Ok(manifests.into_iter().flat_map(|manifest| manifest.commits).collect())
    }

    /// Reads the commits after these heads, sorted by source and position.
    ///
    /// Maintenance commits are listed first: each file that one of them replaces was committed before, so the commit that
    /// added it is in the later listing or covered.
    pub(crate) async fn commits_after(
        &self,
        heads: &BTreeMap<String, Head>,
    ) -> Result<Vec<Commit>, StoreError> {
        let mut paths = self.commit_paths_after(MAINTENANCE, heads.get(MAINTENANCE)).await?;
        let maintenance = escape(MAINTENANCE);
        if heads.is_empty() {
            let own = format!("{COMMITS}/{maintenance}/");
            let others = self.list(COMMITS).await?;
            paths
                .extend(others.into_iter().filter(|path| path.ends_with(".json") && !path.starts_with(&own)));
        } else {
            let known: HashMap<String, String> =
                heads.iter().map(|(source, head)| (escape(source), head.path(source))).collect();
            let sources = self.list_folders(COMMITS).await?;
            let others = sources.into_iter().filter(|source| *source != maintenance);
            let lists: Vec<_> = others
                .map(|source| {
                    let after = known.get(&source).cloned();
                    self.commits_in(format!("{COMMITS}/{source}"), after)
                })
                .collect();
            let lists: Vec<Vec<String>> =
                futures::stream::iter(lists).buffered(CONCURRENT_REQUESTS).try_collect().await?;
            paths.extend(lists.into_iter().flatten());
        }
        paths.sort();
        self.read_commits(&paths).await
    }

    async fn read_commits(&self, paths: &[String]) -> Result<Vec<Commit>, StoreError> {
        let reads: Vec<_> = paths.iter().map(|path| self.read_commit(path)).collect();
        futures::stream::iter(reads).buffered(CONCURRENT_REQUESTS).try_collect().await
    }

    /// Lists the commits of a source after its head.
    pub(crate) async fn commit_paths_after(
        &self,
        source: &str,
        head: Option<&Head>,
    ) -> Result<Vec<String>, StoreError> {
        let after = head.map(|head| head.path(source));
        self.commits_in(format!("{COMMITS}/{}", escape(source)), after).await
    }

    /// Reads the commits of a source that begin at this position or later.
    pub(crate) async fn commits_from(&self, source: &str, first: u64) -> Result<Vec<Commit>, StoreError> {
        let folder = format!("{COMMITS}/{}", escape(source));
        let from = format!("{folder}/{first:020}");
        let paths = self.commits_in(folder, Some(from)).await?;
        self.read_commits(&paths).await
    }

    async fn commits_in(&self, folder: String, after: Option<String>) -> Result<Vec<String>, StoreError> {
        let mut paths = match after {
            Some(after) => self.list_after(&folder, &after).await?,
            None => self.list(&folder).await?,
        };
        paths.retain(|path| path.ends_with(".json"));
        Ok(paths)
    }

    /// Reads one commit.
    ///
    /// # Errors
    /// [`StoreError::CommitMissing`] if it does not exist; else it cannot be parsed or has another format version.
    pub(crate) async fn read_commit(&self, path: &str) -> Result<Commit, StoreError> {
        match self.get(path).await? {
            Some(bytes) => parse_versioned(&self.display_path(path), &bytes),
            None => Err(StoreError::CommitMissing { path: self.display_path(path) }),
        }
    }

    /// Reads the replacements of some folders, or of all.
    ///
    /// # Errors
    /// The disk or object store failed, or a commit cannot be read.
    pub(crate) async fn replacements(
        &self,
        snapshot: &Snapshot,
        folders: Option<&BTreeSet<String>>,
    ) -> Result<Replacements, StoreError> {
        let mut older = HashMap::new();
        for path in snapshot.older_replacements(folders) {
            match self.checkpoint_object::<ReplacedFiles>(&path).await {
                Ok(replaced) => older.extend(replaced.files),
                // Damaged, or deleted because the snapshot is old: the maintenance commits have the same.
                Err(Unusable::Damaged(error)) => {
                    tracing::warn!(%error, "replacements of a checkpoint cannot be read, the commits are read instead");
                    for path in self.commit_paths_after(MAINTENANCE, None).await? {
                        older.extend(self.read_commit(&path).await?.replaces);
                    }
                    break;
                }
                Err(Unusable::Failed(error)) => return Err(error),
            }
        }
        Ok(snapshot.replacements(older))
    }

    /// Reads the rows of some sessions from the chunk segments of a folder; later segments come later.
    pub(crate) async fn segment_rows(
        &self,
        entry: &ManifestEntry,
        sessions: &BTreeSet<SessionHash>,
    ) -> Result<Vec<Row>, Unusable> {
        let mut rows = Vec::new();
        for path in &entry.segments {
            let footer = self.segment_footer(path).await?;
            for (first, range) in merge_adjacent(footer.ranges(sessions)) {
                let bytes = self.segment_bytes(path, range).await?;
                for (block, bytes) in footer.split(&bytes) {
                    rows.extend(footer.rows(path, first + block, bytes).map_err(Unusable::of)?);
                }
            }
        }
        rows.retain(|(session, ..)| sessions.contains(session));
        Ok(rows)
    }

    /// Reads all rows of a chunk segment.
    pub(crate) async fn all_segment_rows(&self, path: &str) -> Result<Vec<Row>, Unusable> {
        let footer = self.segment_footer(path).await?;
        let range = footer.all_rows();
        let bytes =
            if range.is_empty() { Default::default() } else { self.segment_bytes(path, range).await? };
        let mut rows = Vec::new();
        for (block, bytes) in footer.split(&bytes) {
            rows.extend(footer.rows(path, block, bytes).map_err(Unusable::of)?);
        }
        Ok(rows)
    }

    async fn segment_footer(&self, path: &str) -> Result<Footer, Unusable> {
        let mut wanted = TAIL_BYTES;
        loop {
            let tail = self.get_part(path, Some(GetRange::Suffix(wanted))).await.map_err(Unusable::of)?;
            let tail = tail.ok_or_else(|| Unusable::Damaged(absent(path)))?;
            match segment::parse_tail(path, &tail).map_err(Unusable::of)? {
                Tail::Footer(footer) => return Ok(footer),
                Tail::NeedsBytes(bytes) if bytes > wanted && tail.len() as u64 == wanted => wanted = bytes,
                Tail::NeedsBytes(_) => return Err(Unusable::Damaged(truncated(path))),
            }
        }
    }

    async fn segment_bytes(&self, path: &str, range: std::ops::Range<u64>) -> Result<bytes::Bytes, Unusable> {
        let expected = range.end - range.start;
        let bytes = self.get_range(path, range).await.map_err(Unusable::of)?;
        let bytes = bytes.ok_or_else(|| Unusable::Damaged(absent(path)))?;
        if bytes.len() as u64 == expected { Ok(bytes) } else { Err(Unusable::Damaged(truncated(path))) }
    }
}

fn absent(path: &str) -> StoreError {
    StoreError::Metadata { path: path.to_owned(), detail: "does not exist".to_owned() }
}

fn truncated(path: &str) -> StoreError {
    StoreError::Metadata { path: path.to_owned(), detail: "is truncated".to_owned() }
}

/// Joins the ranges of adjacent blocks; each with its first block.
fn merge_adjacent(ranges: Vec<(usize, std::ops::Range<u64>)>) -> Vec<(usize, std::ops::Range<u64>)> {
    let mut merged: Vec<(usize, std::ops::Range<u64>)> = Vec::new();
    for (block, range) in ranges {
        match merged.last_mut() {
            Some((_, last)) if last.end == range.start => last.end = range.end,
            _ => merged.push((block, range)),
        }
    }
    merged
}

/// Lists the objects that a folder table refers to.
pub(crate) fn objects_of(table: &FolderTable) -> HashSet<String> {
    table.manifests.values().flat_map(ManifestEntry::objects).cloned().collect()
}
