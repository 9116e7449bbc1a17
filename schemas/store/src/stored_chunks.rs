//! Finds the files that store the chunks of sessions, after a restart or when the chunk index has evicted a session.
//!
//! Reads the chunk segments of the folder and the plans of the commits after the checkpoint: a number of requests that does
//! not grow with the folder. Reads the files themselves only if a segment or plan is damaged.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use schemas::id::SessionId;
use schemas::keys::Digest;
use serde::Deserialize;

use crate::checkpoint::read::CheckpointScan;
use crate::checkpoint::segment::{Row, SessionHash};
use crate::chunk_index::ChunkIndex;
use crate::commit::{Commit, CommittedFile};
use crate::error::StoreError;
use crate::lookup::SNAPSHOT_TRIES;
use crate::objects::{CONCURRENT_REQUESTS, Store};
use crate::plan::{BatchPlan, plan_path};
use crate::snapshot::{Head, Snapshot, folder_of, name_of};
use crate::table::Table;

/// Sessions by folder below the tables.
type Wanted = BTreeMap<String, BTreeSet<SessionId>>;

/// Sessions and their hashes by folder below the tables.
type WantedHashes<'a> = BTreeMap<&'a str, BTreeMap<SessionHash, &'a SessionId>>;

/// The columns of a chunks file without the bytes.
#[derive(Deserialize)]
struct ChunkName {
    chunk: u32,
    digest: Digest,
    stored_in: Option<String>,
}

/// The session of an exchange, and the chunks that it refers to.
#[derive(Deserialize)]
struct References {
    session: SessionId,
    request: Chunks,
    response: Chunks,
}

#[derive(Deserialize)]
struct Chunks {
    chunks: Vec<u32>,
}

/// Rows that were found, and folders whose index misses some.
#[derive(Default)]
struct Indexed {
    rows: Vec<(String, Row)>,
    incomplete: BTreeSet<String>,
}

impl Store {
    /// Adds the chunks of sessions to the index; the sessions are wanted by folder below the tables.
    pub(crate) async fn find_chunks(
        &self,
        wanted: &Wanted,
        chunk_index: &mut ChunkIndex,
    ) -> Result<(), StoreError> {
        let hashes: WantedHashes<'_> = wanted
            .iter()
            .map(|(folder, sessions)| {
                (
                    folder.as_str(),
                    sessions.iter().map(|session| (SessionHash::of(session), session)).collect(),
                )
            })
            .collect();
        let found = self.indexed_chunks(&hashes).await?;
        let mut files: HashMap<String, Arc<str>> = HashMap::new();
        for (folder, (hash, digest, file)) in found.rows {
            let file = files.entry(file).or_insert_with_key(|name| Arc::from(name.as_str()));
            if let Some(session) = hashes.get(folder.as_str()).and_then(|sessions| sessions.get(&hash)) {
                chunk_index.insert(session, [digest], file);
            }
        }
        let mut rest = wanted.clone();
        rest.retain(|folder, _| found.incomplete.contains(folder));
        self.scan_for_chunks(&rest, chunk_index).await
    }

    async fn indexed_chunks(&self, wanted: &WantedHashes<'_>) -> Result<Indexed, StoreError> {
        let (heads, mut found) = self.covered_chunks(wanted).await?;
        let tail = self.commits_after(&heads).await?;
        let (mut folders, mut reads) = (Vec::new(), Vec::new());
        for commit in &tail {
            let stored = chunk_folders(commit, wanted);
            if !stored.is_empty() {
                folders.push(stored);
                reads.push(self.plan_of(commit));
            }
        }
        let plans: Vec<Option<(String, BatchPlan)>> =
            futures::stream::iter(reads).buffered(CONCURRENT_REQUESTS).try_collect().await?;
        for (plan, folders) in plans.into_iter().zip(folders) {
            for (folder, name) in folders {
                match plan.as_ref().map(|(path, plan)| plan.chunks_in(path, folder)) {
                    Some(Ok(chunks)) => {
                        let rows =
                            chunks.into_iter().map(|(session, digest)| (session, digest, name.to_owned()));
                        found.rows.extend(rows.map(|row| (folder.to_owned(), row)));
                    }
                    Some(Err(_)) | None => drop(found.incomplete.insert(folder.to_owned())),
                }
            }
        }
        Ok(found)
    }

    /// Reads the chunk segments of the newest valid checkpoint; returns the heads that it covers too.
    async fn covered_chunks(
        &self,
        wanted: &WantedHashes<'_>,
    ) -> Result<(BTreeMap<String, Head>, Indexed), StoreError> {
        let mut scan = CheckpointScan::default();
        'checkpoints: while let Some(checkpoint) = self.next_checkpoint(&mut scan).await? {
            let mut found = Indexed::default();
            for (folder, sessions) in wanted {
                let Some(entry) = checkpoint.table.manifests.get(*folder) else { continue };
                if entry.incomplete_index {
                    found.incomplete.insert((*folder).to_owned());
                    continue;
                }
                match self.segment_rows(entry, &sessions.keys().copied().collect()).await {
                    Ok(rows) => found.rows.extend(rows.into_iter().map(|row| ((*folder).to_owned(), row))),
                    Err(unusable) => {
                        unusable.skip(checkpoint.root.sequence)?;
                        continue 'checkpoints;
                    }
                }
            }
            return Ok((checkpoint.root.heads, found));
        }
        Ok((BTreeMap::new(), Indexed::default()))
    }

    /// Reads the plan of a commit; `None` if it is damaged or deleted.
    async fn plan_of(&self, commit: &Commit) -> Result<Option<(String, BatchPlan)>, StoreError> {
        let Some(file) = commit.files.first() else { return Ok(None) };
        let path = plan_path(&commit.source, name_of(&file.path));
        let plan = self.get(&path).await?.and_then(|bytes| BatchPlan::decode(&path, &bytes).ok());
        Ok(plan.map(|plan| (path, plan)))
    }

    /// Adds the chunks of sessions to the index by reading all files of their folders.
    async fn scan_for_chunks(&self, wanted: &Wanted, chunk_index: &mut ChunkIndex) -> Result<(), StoreError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let mut tries = 1;
        loop {
            let snapshot = self.snapshot().await?;
            match self.scan_folders(&snapshot, wanted, chunk_index).await {
                // Compaction replaced a file after the snapshot was read.
                Err(StoreError::FileReplaced { .. }) if tries < SNAPSHOT_TRIES => tries += 1,
                other => return other,
            }
        }
    }

    async fn scan_folders(
        &self,
        snapshot: &Snapshot,
        wanted: &Wanted,
        chunk_index: &mut ChunkIndex,
    ) -> Result<(), StoreError> {
        let chunk_files = snapshot.chunk_files();
        for file in snapshot.files(Table::Exchanges) {
            let chunks = chunk_files.get(chunks_path(&file.path).as_str());
            if let (Some(sessions), Some(chunks)) = (wanted.get(folder_of(&file.path)), chunks) {
                self.scan_file(file, chunks, sessions, chunk_index).await?;
            }
        }
        Ok(())
    }

    async fn scan_file(
        &self,
        exchanges: &CommittedFile,
        chunks: &CommittedFile,
        sessions: &BTreeSet<SessionId>,
        chunk_index: &mut ChunkIndex,
    ) -> Result<(), StoreError> {
        let columns = ["session", "request.chunks", "response.chunks"];
        let rows: Vec<References> = self.rows_of(exchanges, sessions, Some(&columns)).await?;
        let numbers = rows.iter().flat_map(|row| row.request.chunks.iter().chain(&row.response.chunks));
        let numbers: BTreeSet<u32> = numbers.copied().collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let columns = ["chunk", "digest", "stored_in"];
        let names: Vec<ChunkName> = self.chunks_of(chunks, &numbers, Some(&columns)).await?;
        let by_number: HashMap<u32, &ChunkName> = names.iter().map(|name| (name.chunk, name)).collect();
        let file: Arc<str> = Arc::from(name_of(&chunks.path));
        for row in rows {
            for number in row.request.chunks.iter().chain(&row.response.chunks) {
                if let Some(name) = by_number.get(number) {
                    let stored_in = name.stored_in.as_deref().map_or_else(|| file.clone(), Arc::from);
                    chunk_index.insert(&row.session, [name.digest], &stored_in);
                }
            }
        }
        Ok(())
    }
}

/// Returns the wanted folders in which a batch stored chunks, with the name of its files.
///
/// A maintenance commit stores no new chunks: the segments have them under the names of the replaced files.
fn chunk_folders<'a>(commit: &'a Commit, wanted: &WantedHashes<'_>) -> Vec<(&'a str, &'a str)> {
    if !commit.replaces.is_empty() {
        return Vec::new();
    }
    let files = commit.files.iter().filter(|file| file.table == Table::Chunks);
    let folders = files.map(|file| (folder_of(&file.path), name_of(&file.path)));
    folders.filter(|(folder, _)| wanted.contains_key(folder)).collect()
}

/// Returns the path of the chunks file of an exchanges file.
pub(crate) fn chunks_path(exchanges_path: &str) -> String {
    exchanges_path.replacen(Table::Exchanges.as_str(), Table::Chunks.as_str(), 1)
}
