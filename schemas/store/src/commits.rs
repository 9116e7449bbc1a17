//! Commits: what exists at a moment, where a source goes on, and who may go on there.
//!
//! Everything that makes or reads a commit is here; what lies in the files is not.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::commit::{COMMITS, Commit, CommittedFile, escape};
use crate::table::Table;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStoreExt as _;
use schemas::FORMAT;
use schemas::id::SessionId;

use crate::batch::{Batch, BatchLayout};
use crate::chunk_index::ChunkIndex;
use crate::objects::{CONCURRENT_REQUESTS, Store, StoreError, parse_versioned};

/// How often a claim is tried again where others claim the same source at the same moment.
const CLAIM_TRIES: usize = 8;

/// What exists at one moment: all commits, without the files that later ones have replaced.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    commits: Vec<Commit>,
    replaced: HashMap<String, Option<String>>,
}

impl Snapshot {
    /// Takes commits in the order of their names.
    #[must_use]
    pub fn new(commits: Vec<Commit>) -> Self {
        let replaced = commits
            .iter()
            .flat_map(|commit| &commit.replaces)
            .map(|(old, new)| (old.clone(), new.clone()))
            .collect();
        Self { commits, replaced }
    }

    /// Adds a commit that was made after the others.
    pub(crate) fn push(&mut self, commit: Commit) {
        self.replaced.extend(commit.replaces.iter().map(|(old, new)| (old.clone(), new.clone())));
        self.commits.push(commit);
    }

    /// The commits, by source and position.
    #[must_use]
    pub fn commits(&self) -> &[Commit] {
        &self.commits
    }

    /// The files of a table that exist.
    pub fn files(&self, table: Table) -> impl Iterator<Item = &CommittedFile> {
        self.commits
            .iter()
            .flat_map(|commit| &commit.files)
            .filter(move |file| file.table == table && !self.replaced.contains_key(&file.path))
    }

    /// The file that has the rows of this one now: itself, or what replaced it; `None` where they are gone.
    #[must_use]
    pub fn current<'a>(&'a self, path: &'a str) -> Option<&'a str> {
        let mut path = path;
        // A path is replaced at most once, so this ends.
        while let Some(newer) = self.replaced.get(path) {
            path = newer.as_deref()?;
        }
        Some(path)
    }

    /// The paths that later commits have replaced.
    pub fn replaced(&self) -> impl Iterator<Item = &str> {
        self.replaced.keys().map(String::as_str)
    }

    /// Whether nothing was ever committed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commits.iter().all(|commit| commit.files.is_empty())
    }
}

/// The right to go on with a source: whoever had it before is refused from now on.
#[derive(Debug)]
pub struct Claim {
    source: String,
    first: u64,
    epoch: u32,
    journals: BTreeMap<String, u64>,
}

impl Claim {
    /// The source.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The position from which the next batch begins.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.first
    }

    /// Of each journal, how far its records are stored through this source.
    #[must_use]
    pub fn journals(&self) -> &BTreeMap<String, u64> {
        &self.journals
    }
}

/// What a batch of files is committed as.
struct CommitSpec {
    source: String,
    first: u64,
    epoch: u32,
    next: u64,
    journals: BTreeMap<String, u64>,
}

/// The name of a new file of this source; no other file has it.
pub(crate) fn file_name(source: &str, first: u64) -> String {
    let tag = uuid::Uuid::new_v4().simple().to_string();
    format!("{}--{first:020}-{}.parquet", escape(source), &tag[..8])
}

impl Store {
    /// Reads all commits.
    ///
    /// # Errors
    /// One cannot be read or is of another version.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let paths = self.list(COMMITS).await?;
        let commits = futures::stream::iter(paths.into_iter().filter(|path| path.ends_with(".json")))
            .map(|path| async move { self.read_commit(&path).await })
            .buffered(CONCURRENT_REQUESTS)
            .try_collect()
            .await?;
        Ok(Snapshot::new(commits))
    }

    async fn read_commit(&self, path: &str) -> Result<Commit, StoreError> {
        let bytes = self.get(path).await?.unwrap_or_default();
        parse_versioned(path, &bytes)
    }

    async fn last_commit(&self, source: &str) -> Result<Option<Commit>, StoreError> {
        let paths = self.list(&format!("{COMMITS}/{}", escape(source))).await?;
        match paths.iter().rfind(|path| path.ends_with(".json")) {
            Some(path) => self.read_commit(path).await.map(Some),
            None => Ok(None),
        }
    }

    /// The position from which the next batch of this source must begin.
    ///
    /// # Errors
    /// The last commit cannot be read.
    pub async fn resume_position(&self, source: &str) -> Result<u64, StoreError> {
        Ok(self.last_commit(source).await?.map_or(0, |commit| commit.next))
    }

    /// Takes a source over: from now on whoever committed to it before is refused, and what they left half-written is
    /// deleted.
    ///
    /// The claim comes before the deletion, so that a paused process cannot come back and commit deleted files.
    ///
    /// # Errors
    /// The disk or object store said no, or others claim it without end.
    pub async fn claim(&self, source: &str) -> Result<Claim, StoreError> {
        for _ in 0..CLAIM_TRIES {
            let (first, epoch, journals) = next_claim(self.last_commit(source).await?);
            let spec = CommitSpec { source: source.to_owned(), first, epoch, next: first, journals };
            if let Some(claim) = self.create_commit(&commit_of(spec, Vec::new())).await? {
                self.delete_orphans(source).await?;
                return Ok(claim);
            }
        }
        Err(StoreError::LostPartition { commit_source: source.to_owned(), first: 0 })
    }

    /// Whether nobody has claimed the source or committed to it since.
    pub(crate) async fn holds(&self, claim: &Claim) -> Result<bool, StoreError> {
        let (first, epoch, _) = next_claim(self.last_commit(&claim.source).await?);
        Ok((first, epoch) == (claim.first, claim.epoch))
    }

    /// Writes a batch's files and commits them for a source that only this process can have, such as a locked journal.
    ///
    /// # Errors
    /// [`StoreError::LostPartition`] where this position is already committed (the files are deleted again); else the
    /// disk or object store said no, and the batch does not exist.
    pub async fn commit(
        &self,
        source: &str,
        first: u64,
        next: u64,
        batch: Batch,
        chunk_index: &mut ChunkIndex,
    ) -> Result<Commit, StoreError> {
        let spec = CommitSpec { source: source.to_owned(), first, epoch: 0, next, journals: BTreeMap::new() };
        self.commit_at(spec, batch, chunk_index).await.map(|(commit, _)| commit)
    }

    /// Writes a batch's files and commits them under a claim, which moves on; `journals` says how far the records of each
    /// journal are stored with it.
    ///
    /// # Errors
    /// [`StoreError::LostPartition`] where another process has claimed the source (the files are deleted again); else the
    /// disk or object store said no, and the batch does not exist.
    pub async fn commit_claimed(
        &self,
        claim: &mut Claim,
        next: u64,
        journals: BTreeMap<String, u64>,
        batch: Batch,
        chunk_index: &mut ChunkIndex,
    ) -> Result<Commit, StoreError> {
        let spec = CommitSpec {
            source: claim.source.clone(),
            first: claim.first,
            epoch: claim.epoch,
            next,
            journals,
        };
        let (commit, moved) = self.commit_at(spec, batch, chunk_index).await?;
        *claim = moved;
        Ok(commit)
    }

    async fn commit_at(
        &self,
        spec: CommitSpec,
        batch: Batch,
        chunk_index: &mut ChunkIndex,
    ) -> Result<(Commit, Claim), StoreError> {
        let closed: Vec<SessionId> = batch.closes.iter().map(|close| close.session.clone()).collect();
        let name = file_name(&spec.source, spec.first);
        let mut layout = BatchLayout::new(batch, name.clone(), chunk_index);
        let missing = layout.missing();
        if !missing.is_empty() {
            self.find_chunks(&missing, chunk_index).await?;
            layout.resolve_missing(chunk_index);
        }
        let encoded = layout
            .encode(&self.keys)
            .map_err(|error| StoreError::Table { path: name.clone(), source: error })?;
        let mut files = Vec::with_capacity(encoded.len());
        for file in encoded {
            let bytes = file.bytes.len() as u64;
            self.create(&file.path, file.bytes).await?;
            files.push(CommittedFile { table: file.table, path: file.path, rows: file.rows, bytes });
        }
        let (commit, claim) = self.commit_or_rollback(commit_of(spec, files)).await?;
        for session in &closed {
            chunk_index.forget(session);
        }
        Ok((commit, claim))
    }

    /// Commits files that lie there already, and the replacement of others, under a claim, which moves on by one.
    ///
    /// # Errors
    /// [`StoreError::LostPartition`] where another process has claimed the source (the files are deleted again); else the
    /// disk or object store said no.
    pub(crate) async fn commit_replacing(
        &self,
        claim: &mut Claim,
        files: Vec<CommittedFile>,
        replaces: BTreeMap<String, Option<String>>,
    ) -> Result<Commit, StoreError> {
        let Claim { source, first, epoch, journals } = &*claim;
        let spec = CommitSpec {
            source: source.clone(),
            first: *first,
            epoch: *epoch,
            next: first + 1,
            journals: journals.clone(),
        };
        let commit = Commit { replaces, ..commit_of(spec, files) };
        let (commit, moved) = self.commit_or_rollback(commit).await?;
        *claim = moved;
        Ok(commit)
    }

    /// Creates the commit, or deletes its files where its position is taken.
    async fn commit_or_rollback(&self, commit: Commit) -> Result<(Commit, Claim), StoreError> {
        if let Some(claim) = self.create_commit(&commit).await? {
            return Ok((commit, claim));
        }
        for file in &commit.files {
            self.delete(&file.path).await?;
        }
        Err(StoreError::LostPartition { commit_source: commit.source, first: commit.first })
    }

    /// Deletes an object; says whether it was there. Whoever takes a source over may have deleted it first.
    pub(crate) async fn delete(&self, below: &str) -> Result<bool, StoreError> {
        match self.objects.delete(&self.path(below)?).await {
            Ok(()) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.object_error(below)(error)),
        }
    }

    /// Creates a commit and returns the claim on what follows it; `None` where its position is taken.
    async fn create_commit(&self, commit: &Commit) -> Result<Option<Claim>, StoreError> {
        let text = serde_json::to_vec_pretty(commit)
            .map_err(|error| StoreError::Metadata { path: commit.path(), detail: error.to_string() })?;
        // An object store that was asked again after a lost answer refuses what it has already made. Two claims are
        // alike, so for a claim a refusal is a refusal.
        let made = self.create(&commit.path(), text).await?
            || (!commit.is_fence() && self.read_commit(&commit.path()).await? == *commit);
        let epoch = if commit.is_same_position() { commit.epoch + 1 } else { 0 };
        let claim = || Claim {
            source: commit.source.clone(),
            first: commit.next,
            epoch,
            journals: commit.journals.clone(),
        };
        Ok(made.then(claim))
    }

    /// Deletes the files of this source that have no commit: what a crash left half-written. Returns how many.
    ///
    /// Only for whoever has the source to himself: by a lock, or by [`Self::claim`], which does it.
    ///
    /// # Errors
    /// The disk or object store said no.
    pub async fn delete_orphans(&self, source: &str) -> Result<usize, StoreError> {
        let snapshot = self.snapshot().await?;
        let committed: BTreeSet<&str> =
            snapshot.commits.iter().flat_map(|commit| &commit.files).map(|file| file.path.as_str()).collect();
        let prefix = format!("{}--", escape(source));
        let mut deleted = 0;
        for table in Table::ALL {
            for path in self.list(table.as_str()).await? {
                let ours = path.rsplit('/').next().is_some_and(|name| name.starts_with(&prefix));
                if ours && !committed.contains(path.as_str()) {
                    deleted += usize::from(self.delete(&path).await?);
                }
            }
        }
        Ok(deleted)
    }
}

/// Position, epoch and journals of what comes after the last commit of a source.
fn next_claim(last: Option<Commit>) -> (u64, u32, BTreeMap<String, u64>) {
    match last {
        None => (0, 0, BTreeMap::new()),
        Some(last) if last.is_same_position() => (last.first, last.epoch + 1, last.journals),
        Some(last) => (last.next, 0, last.journals),
    }
}

fn commit_of(spec: CommitSpec, files: Vec<CommittedFile>) -> Commit {
    let CommitSpec { source, first, epoch, next, journals } = spec;
    Commit { format: FORMAT, source, first, epoch, next, files, replaces: BTreeMap::new(), journals }
}
