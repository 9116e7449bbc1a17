//! Claims and commits: who may add to a source, and batches that become visible at once.
//!
//! A batch's plan and files are written durably first; then its commit is created with a conditional put. A writer whose
//! slot is taken has lost the source and must stop.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;

use futures::{StreamExt as _, TryStreamExt as _};
use schemas::FORMAT;
use schemas::id::SessionId;

use crate::batch::{Batch, BatchLayout, EncodedFile};
use crate::chunk_index::ChunkIndex;
use crate::commit::{Commit, CommittedFile};
use crate::error::StoreError;
use crate::objects::Store;
use crate::plan::{BatchPlan, file_name, plan_folder, plan_path, planned_name, plans_from};
use crate::snapshot::{Head, name_of};

/// Tries of a claim while other writers claim the same source.
const CLAIM_TRIES: usize = 8;

/// Files of a batch that are written at a time.
const CONCURRENT_FILES: usize = 4;

/// The right to make the next commit of a source. A later claim by another writer revokes it.
#[derive(Debug)]
pub struct Claim {
    source: String,
    first: u64,
    epoch: u32,
    journals: BTreeMap<String, u64>,
}

impl Claim {
    /// Returns the claimed source.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Returns the position at which the next batch begins.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.first
    }

    /// Returns, per journal, the position up to which its records are stored through this source.
    #[must_use]
    pub fn journals(&self) -> &BTreeMap<String, u64> {
        &self.journals
    }
}

/// Everything of a commit but its files.
struct CommitSpec {
    source: String,
    first: u64,
    epoch: u32,
    next: u64,
    journals: BTreeMap<String, u64>,
}

impl Store {
    /// Reads the last commit of a source.
    async fn head(&self, source: &str) -> Result<Option<Head>, StoreError> {
        let covered = self.newest_root().await?.and_then(|mut root| root.heads.remove(source));
        let paths = self.commit_paths_after(source, covered.as_ref()).await?;
        self.uncovered.fetch_max(paths.len(), Ordering::Relaxed);
        match paths.last() {
            Some(path) => Ok(Some(Head::of(&self.read_commit(path).await?))),
            None => Ok(covered),
        }
    }

    /// Returns the position at which the next batch of a source must begin; 0 for a new source.
    ///
    /// # Errors
    /// The last commit cannot be read.
    pub async fn resume_position(&self, source: &str) -> Result<u64, StoreError> {
        Ok(self.head(source).await?.map_or(0, |head| head.next))
    }

    /// Claims a source: fences whoever committed to it before, then deletes the files of their interrupted batch.
    ///
    /// The fence comes first, so that a paused writer cannot commit files that this deletes.
    ///
    /// # Errors
    /// The disk or object store failed, or [`StoreError::LostPartition`] if others keep claiming the source.
    pub async fn claim(&self, source: &str) -> Result<Claim, StoreError> {
        for _ in 0..CLAIM_TRIES {
            let (first, epoch, journals) = next_claim(self.head(source).await?);
            let spec = CommitSpec { source: source.to_owned(), first, epoch, next: first, journals };
            if let Some(claim) = self.create_commit(&commit_of(spec, Vec::new())).await? {
                self.delete_orphans(source).await?;
                return Ok(claim);
            }
        }
        Err(StoreError::LostPartition { commit_source: source.to_owned(), first: 0 })
    }

    /// Returns whether no other writer has claimed the source or committed to it since.
    pub(crate) async fn holds(&self, claim: &Claim) -> Result<bool, StoreError> {
        let (first, epoch, _) = next_claim(self.head(&claim.source).await?);
        Ok((first, epoch) == (claim.first, claim.epoch))
    }

    /// Commits a batch to a source that only this process can have, such as that of a locked journal.
    ///
    /// # Errors
    /// [`StoreError::LostPartition`] if the position is already committed; the batch's files are deleted. Else the disk or
    /// object store failed, and the batch is not visible.
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

    /// Commits a batch under a claim and moves the claim to the next slot. `journals` has, per journal, the position up to
    /// which its records are stored with this batch.
    ///
    /// # Errors
    /// [`StoreError::LostPartition`] if another writer claimed the source; the batch's files are deleted. Else the disk or
    /// object store failed, and the batch is not visible.
    pub async fn commit_claimed(
        &self,
        claim: &mut Claim,
        next: u64,
        journals: BTreeMap<String, u64>,
        batch: Batch,
        chunk_index: &mut ChunkIndex,
    ) -> Result<Commit, StoreError> {
        let Claim { source, first, epoch, .. } = &*claim;
        let spec = CommitSpec { source: source.clone(), first: *first, epoch: *epoch, next, journals };
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
        let mut layout = BatchLayout::new(batch, name.clone(), chunk_index)?;
        let missing = layout.missing();
        if !missing.is_empty() {
            self.find_chunks(&missing, chunk_index).await?;
            layout.resolve_missing(chunk_index);
        }
        let files = self.write_files(&spec.source, layout, &name).await?;
        let (commit, claim) = self.commit_or_rollback(commit_of(spec, files)).await?;
        for session in &closed {
            chunk_index.remove(session);
        }
        self.checkpoint_if_due().await;
        Ok((commit, claim))
    }

    /// Writes the plan of a batch, then its files.
    async fn write_files(
        &self,
        source: &str,
        layout: BatchLayout,
        name: &str,
    ) -> Result<Vec<CommittedFile>, StoreError> {
        let plan = layout.plan();
        if plan.files.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.keys.clone();
        let encode = async {
            let encoded = run_blocking(move || layout.encode(&keys)).await;
            encoded.map_err(|error| StoreError::Table { path: name.to_owned(), source: error })
        };
        let (encoded, ()) = futures::try_join!(encode, self.write_plan(source, name, &plan))?;
        let writes: Vec<_> = encoded.into_iter().map(|file| self.write_file(file)).collect();
        futures::stream::iter(writes).buffered(CONCURRENT_FILES).try_collect().await
    }

    async fn write_file(&self, file: EncodedFile) -> Result<CommittedFile, StoreError> {
        let EncodedFile { table, path, rows, bytes } = file;
        let length = bytes.len() as u64;
        self.create(&path, bytes).await?;
        Ok(CommittedFile { table, path, rows, bytes: length })
    }

    async fn write_plan(&self, source: &str, name: &str, plan: &BatchPlan) -> Result<(), StoreError> {
        let path = plan_path(source, name);
        self.create(&path, plan.encode(&path)?).await?;
        Ok(())
    }

    /// Commits files that maintenance has written and the replacement of others, and moves the claim by one position.
    ///
    /// # Errors
    /// [`StoreError::LostPartition`] if other maintenance claimed the source; the new files are deleted. Else the disk or
    /// object store failed.
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

    /// Creates the commit; if its slot is taken, deletes its files and plan.
    async fn commit_or_rollback(&self, commit: Commit) -> Result<(Commit, Claim), StoreError> {
        if let Some(claim) = self.create_commit(&commit).await? {
            return Ok((commit, claim));
        }
        for file in &commit.files {
            self.delete(&file.path).await?;
        }
        if let Some(file) = commit.files.first() {
            self.delete(&plan_path(&commit.source, name_of(&file.path))).await?;
        }
        Err(StoreError::LostPartition { commit_source: commit.source, first: commit.first })
    }

    /// Creates a commit and returns the claim on the slot after it; `None` if its slot is taken.
    async fn create_commit(&self, commit: &Commit) -> Result<Option<Claim>, StoreError> {
        let text = serde_json::to_vec_pretty(commit)
            .map_err(|error| StoreError::Metadata { path: commit.path(), detail: error.to_string() })?;
        // An object store that repeats a put after a lost answer refuses the object it has created itself. Two fences are
        // alike, so a refused fence stays refused.
        let created = self.create(&commit.path(), text).await?
            || (!commit.is_fence() && self.read_commit(&commit.path()).await? == *commit);
        let (first, epoch) = Head::of(commit).next_slot();
        let claim =
            || Claim { source: commit.source.clone(), first, epoch, journals: commit.journals.clone() };
        Ok(created.then(claim))
    }

    /// Deletes the files of interrupted batches of a source, found through their plans. Returns the number of files.
    ///
    /// Only for a process that has the source to itself: by a lock, or by [`Self::claim`], which calls this. Maintenance
    /// finds orphans that have no plan.
    ///
    /// # Errors
    /// The disk or object store failed, or a commit cannot be read.
    pub async fn delete_orphans(&self, source: &str) -> Result<u64, StoreError> {
        // A batch that was never committed was planned at the position that the next batch has.
        let position = self.resume_position(source).await?;
        let mut plans = self.list_after(&plan_folder(source), &plans_from(source, position)).await?;
        if plans.is_empty() {
            return Ok(0);
        }
        let committed = self.commits_from(source, position).await?;
        let committed: HashSet<&str> =
            committed.iter().flat_map(|commit| &commit.files).map(|file| name_of(&file.path)).collect();
        plans.retain(|path| planned_name(path).is_some_and(|name| !committed.contains(name)));
        let mut deleted = 0;
        for path in &plans {
            match self.get(path).await?.map(|bytes| BatchPlan::decode(path, &bytes)) {
                Some(Ok(plan)) => deleted += self.delete_all(&plan.files).await?,
                Some(Err(error)) => {
                    tracing::warn!(%error, "the plan of an interrupted batch is damaged; maintenance will find its files");
                }
                None => {}
            }
            self.delete(path).await?;
        }
        Ok(deleted)
    }
}

/// Returns position, epoch and journals of the commit after the last one of a source.
fn next_claim(head: Option<Head>) -> (u64, u32, BTreeMap<String, u64>) {
    match head {
        None => (0, 0, BTreeMap::new()),
        Some(head) => {
            let (first, epoch) = head.next_slot();
            (first, epoch, head.journals)
        }
    }
}

fn commit_of(spec: CommitSpec, files: Vec<CommittedFile>) -> Commit {
    let CommitSpec { source, first, epoch, next, journals } = spec;
    Commit { format: FORMAT, source, first, epoch, next, files, replaces: BTreeMap::new(), journals }
}

/// Runs work that takes long on a thread for blocking work, so that other tasks of the runtime go on.
async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return work() };
    match runtime.spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down and drops this task too.
            Err(_) => std::future::pending().await,
        },
    }
}
