//! Reading whole sessions back, some at a time, and finding the earlier files that a session leans on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::commit::CommittedFile;
use crate::table::{Chunk, Table};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use schemas::exchange::Exchange;
use schemas::id::SessionId;
use schemas::keys::Digest;
use schemas::session::SessionClose;
use serde::Deserialize;

use crate::chunk_index::ChunkIndex;
use crate::commits::Snapshot;
use crate::lookup::SNAPSHOT_TRIES;
use crate::objects::{Store, StoreError};
use crate::session::StoredSession;

/// Files that are decoded at a time: each has its wanted rows and their pieces in memory.
const CONCURRENT_FILES: usize = 4;

/// The columns of a chunks file without the bytes.
#[derive(Deserialize)]
struct ChunkName {
    chunk: u32,
    digest: Digest,
    stored_in: Option<String>,
}

/// A piece without its place.
#[derive(Deserialize)]
struct NamedBytes {
    digest: Digest,
    bytes: Option<Bytes>,
}

/// Which pieces a session's exchange refers to.
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

#[derive(Deserialize)]
struct IdRow {
    session: SessionId,
}

fn chunks_path(exchanges_path: &str) -> String {
    exchanges_path.replacen(Table::Exchanges.as_str(), Table::Chunks.as_str(), 1)
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Sessions that lie near one another in a store, to be read together ([`Store::session_groups`]).
#[derive(Debug, Clone)]
pub struct SessionGroup {
    sessions: BTreeSet<SessionId>,
    files: HashSet<Arc<str>>,
}

impl SessionGroup {
    /// The sessions.
    #[must_use]
    pub fn sessions(&self) -> &BTreeSet<SessionId> {
        &self.sessions
    }
}

impl Store {
    /// Looks up in which files sessions keep their pieces; the sessions are named by folder of exchanges.
    pub(crate) async fn find_chunks(
        &self,
        wanted: &BTreeMap<String, BTreeSet<SessionId>>,
        chunk_index: &mut ChunkIndex,
    ) -> Result<(), StoreError> {
        let mut tries = 1;
        loop {
            match self.index_chunks_of(wanted, chunk_index).await {
                // Compaction replaced a file since the commits were read.
                Err(StoreError::FileReplaced { .. }) if tries < SNAPSHOT_TRIES => tries += 1,
                other => return other,
            }
        }
    }

    async fn index_chunks_of(
        &self,
        wanted: &BTreeMap<String, BTreeSet<SessionId>>,
        chunk_index: &mut ChunkIndex,
    ) -> Result<(), StoreError> {
        let snapshot = self.snapshot().await?;
        let chunk_files = by_path(&snapshot);
        for file in snapshot.files(Table::Exchanges) {
            let chunks = chunk_files.get(chunks_path(&file.path).as_str());
            if let (Some(sessions), Some(chunks)) = (wanted.get(folder_of(&file.path)), chunks) {
                self.index_file(file, chunks, sessions, chunk_index).await?;
            }
        }
        Ok(())
    }

    async fn index_file(
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
                    let lies_in = name.stored_in.as_deref().map_or_else(|| file.clone(), Arc::from);
                    chunk_index.insert(&row.session, [name.digest], &lies_in);
                }
            }
        }
        Ok(())
    }

    /// Divides all sessions into groups of at most `at_a_time`, so that a group's sessions lie in few files; a group holds
    /// the ids and the names of files. So whoever reads group by group has in memory the ids of all sessions (about 150
    /// bytes each) and the bodies of one group.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn session_groups(
        &self,
        snapshot: &Snapshot,
        at_a_time: usize,
    ) -> Result<Vec<SessionGroup>, StoreError> {
        let mut names: Vec<Arc<str>> = Vec::new();
        let mut places: BTreeMap<SessionId, Vec<u32>> = BTreeMap::new();
        for commit in snapshot.commits() {
            for file in &commit.files {
                let has_sessions = matches!(file.table, Table::Exchanges | Table::Sessions);
                if !has_sessions || snapshot.current(&file.path) != Some(&file.path) {
                    continue;
                }
                let number = u32::try_from(names.len()).unwrap_or(u32::MAX);
                names.push(Arc::from(file.path.as_str()));
                let each = |rows: Vec<IdRow>| {
                    for row in rows {
                        let files = places.entry(row.session).or_default();
                        if files.last() != Some(&number) {
                            files.push(number);
                        }
                    }
                };
                self.read_each(file, Some(&["session"]), each).await?;
            }
        }
        let mut order: Vec<(SessionId, Vec<u32>)> = places.into_iter().collect();
        order.sort_by(|a, b| (a.1.last(), &a.0).cmp(&(b.1.last(), &b.0)));
        let groups = order.chunks(at_a_time.max(1)).map(|part| SessionGroup {
            sessions: part.iter().map(|(session, _)| session.clone()).collect(),
            files: part.iter().flat_map(|(_, files)| files).map(|at| names[*at as usize].clone()).collect(),
        });
        Ok(groups.collect())
    }

    /// Reads the sessions of a group with all their bodies. Where a file was replaced since the groups were made, the
    /// snapshot is taken anew.
    ///
    /// # Errors
    /// As [`Self::load_sessions`].
    pub async fn load_group(
        &self,
        snapshot: &mut Snapshot,
        group: &SessionGroup,
    ) -> Result<Vec<StoredSession>, StoreError> {
        match self.load(snapshot, Some(&group.sessions), Some(&group.files)).await {
            Err(StoreError::FileReplaced { .. }) => {
                *snapshot = self.snapshot().await?;
                self.load_wanted(snapshot, &group.sessions).await
            }
            other => other,
        }
    }

    /// Reads some sessions with all their bodies. Where a file was replaced since, the snapshot is taken anew.
    ///
    /// # Errors
    /// As [`Self::load_sessions`].
    pub async fn load_wanted(
        &self,
        snapshot: &mut Snapshot,
        wanted: &BTreeSet<SessionId>,
    ) -> Result<Vec<StoredSession>, StoreError> {
        for _ in 1..SNAPSHOT_TRIES {
            match self.load(snapshot, Some(wanted), None).await {
                Err(StoreError::FileReplaced { .. }) => *snapshot = self.snapshot().await?,
                other => return other,
            }
        }
        self.load(snapshot, Some(wanted), None).await
    }

    /// Reads sessions with all their bodies: those wanted, or all, which are then all in memory; sorted by session id.
    ///
    /// Sessions of which only a close row is there are included.
    ///
    /// # Errors
    /// [`StoreError::FileReplaced`] where a file of the snapshot is no more ([`Self::with_snapshot`] tries again); else a file is
    /// truncated, foreign, damaged or of another version.
    pub async fn load_sessions(
        &self,
        snapshot: &Snapshot,
        wanted: Option<&BTreeSet<SessionId>>,
    ) -> Result<Vec<StoredSession>, StoreError> {
        self.load(snapshot, wanted, None).await
    }

    async fn load(
        &self,
        snapshot: &Snapshot,
        wanted: Option<&BTreeSet<SessionId>>,
        files: Option<&HashSet<Arc<str>>>,
    ) -> Result<Vec<StoredSession>, StoreError> {
        let of = |table: Table| -> Vec<&CommittedFile> {
            let known = |file: &&CommittedFile| files.is_none_or(|files| files.contains(file.path.as_str()));
            snapshot.files(table).filter(known).collect()
        };
        let mut loaded = Loaded::default();
        let mut closes = futures::stream::iter(of(Table::Sessions))
            .map(|file| self.closes_in(file, wanted))
            .buffered(CONCURRENT_FILES);
        while let Some(rows) = closes.try_next().await? {
            for close in rows {
                let id = close.session.clone();
                loaded.session(&id).closes.push(close);
            }
        }
        let chunk_files = &by_path(snapshot);
        let mut parts = futures::stream::iter(of(Table::Exchanges))
            .map(|file| self.part(file, chunk_files, wanted))
            .buffered(CONCURRENT_FILES);
        while let Some(part) = parts.try_next().await? {
            loaded
                .add(part)
                .map_err(|(path, detail)| StoreError::Metadata { path: self.display_path(&path), detail })?;
        }
        self.find_leaned(snapshot, chunk_files, &mut loaded).await?;
        Ok(loaded.finish())
    }

    async fn closes_in(
        &self,
        file: &CommittedFile,
        wanted: Option<&BTreeSet<SessionId>>,
    ) -> Result<Vec<SessionClose>, StoreError> {
        match wanted {
            Some(wanted) => self.rows_of(file, wanted, None).await,
            None => self.read(file, None).await,
        }
    }

    /// Reads the wanted exchanges of a file, and the pieces that they refer to.
    async fn part(
        &self,
        file: &CommittedFile,
        chunk_files: &HashMap<&str, &CommittedFile>,
        wanted: Option<&BTreeSet<SessionId>>,
    ) -> Result<Part, StoreError> {
        let rows: Vec<Exchange<u32>> = match wanted {
            Some(wanted) => self.rows_of(file, wanted, None).await?,
            None => self.read(file, None).await?,
        };
        let numbers = rows.iter().flat_map(|row| row.request.chunks.iter().chain(&row.response.chunks));
        let numbers: BTreeSet<u32> = numbers.copied().collect();
        let path = chunks_path(&file.path);
        let chunks: Vec<Chunk> = match chunk_files.get(path.as_str()) {
            Some(chunks) if wanted.is_none() => self.read(chunks, None).await?,
            Some(chunks) if !numbers.is_empty() => self.chunks_of(chunks, &numbers, None).await?,
            Some(_) | None => Vec::new(),
        };
        Ok(Part { exchanges: file.path.clone(), path, rows, chunks })
    }

    /// Finds the pieces that lie in earlier files and were not met there: of a session whose exchanges in that file are
    /// not among those read.
    async fn find_leaned(
        &self,
        snapshot: &Snapshot,
        chunk_files: &HashMap<&str, &CommittedFile>,
        loaded: &mut Loaded,
    ) -> Result<(), StoreError> {
        let Loaded { sessions, leaned } = loaded;
        for (path, digests) in leaned {
            digests.retain(|digest, ids| {
                ids.retain(|id| sessions.get(id).is_some_and(|one| !one.pieces.contains_key(digest)));
                !ids.is_empty()
            });
            let current = snapshot.current(path).and_then(|current| chunk_files.get(current));
            let Some(file) = current.filter(|_| !digests.is_empty()) else { continue };
            let sorted: Vec<&[u8]> = digests.keys().map(|digest| &digest.0[..]).collect();
            let columns = ["digest", "bytes"];
            let chunks: Vec<NamedBytes> = self.chunks_named(file, &sorted, Some(&columns)).await?;
            for chunk in chunks {
                let (Some(bytes), Some(ids)) = (chunk.bytes, digests.get(&chunk.digest)) else { continue };
                for id in ids {
                    if let Some(session) = sessions.get_mut(id) {
                        session.pieces.insert(chunk.digest, bytes.clone());
                    }
                }
            }
        }
        Ok(())
    }
}

fn by_path(snapshot: &Snapshot) -> HashMap<&str, &CommittedFile> {
    snapshot.files(Table::Chunks).map(|file| (file.path.as_str(), file)).collect()
}

/// What was read of one file of exchanges.
struct Part {
    /// Its path.
    exchanges: String,
    /// Path of its chunks.
    path: String,
    rows: Vec<Exchange<u32>>,
    chunks: Vec<Chunk>,
}

/// Sessions under way, and the pieces that lie in an earlier file: its path, the piece, the sessions that want it.
#[derive(Default)]
struct Loaded {
    sessions: BTreeMap<SessionId, StoredSession>,
    leaned: BTreeMap<String, BTreeMap<Digest, BTreeSet<SessionId>>>,
}

impl Loaded {
    fn session(&mut self, id: &SessionId) -> &mut StoredSession {
        self.sessions.entry(id.clone()).or_insert_with(|| StoredSession {
            session: id.clone(),
            closes: Vec::new(),
            exchanges: Vec::new(),
            pieces: HashMap::new(),
        })
    }

    /// Adds what was read; fails with the file and what is wrong in it.
    fn add(&mut self, part: Part) -> Result<(), (String, String)> {
        let chunks = part.chunks.into_iter();
        let chunks: HashMap<u32, (Digest, Option<Bytes>, Option<String>)> =
            chunks.map(|chunk| (chunk.chunk, (chunk.digest, chunk.bytes, chunk.stored_in))).collect();
        for row in part.rows {
            let id = row.session.clone();
            let mut own = Vec::new();
            let leaned = &mut self.leaned;
            let exchange = row.try_map(|number| {
                let (digest, bytes, stored_in) = chunks.get(&number).ok_or(number)?;
                match (bytes, stored_in) {
                    (Some(bytes), _) => own.push((*digest, bytes.clone())),
                    (None, Some(name)) => {
                        let earlier = format!("{}/{name}", folder_of(&part.path));
                        leaned.entry(earlier).or_default().entry(*digest).or_default().insert(id.clone());
                    }
                    (None, None) => {}
                }
                Ok::<Digest, u32>(*digest)
            });
            let exchange = exchange.map_err(|number| {
                let path = &part.path;
                (part.exchanges.clone(), format!("refers to chunk {number}, which {path} does not hold"))
            })?;
            let session = self.session(&id);
            session.pieces.extend(own);
            session.exchanges.push(exchange);
        }
        Ok(())
    }

    fn finish(self) -> Vec<StoredSession> {
        let mut sessions: Vec<_> = self.sessions.into_values().collect();
        for session in &mut sessions {
            session.exchanges.sort_by_key(|x| (x.started_at, x.incarnation.clone(), x.seq));
        }
        sessions
    }
}
