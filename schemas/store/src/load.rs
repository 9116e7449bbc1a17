//! Reads whole sessions: exchanges, close rows and the chunks of their bodies.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use schemas::exchange::Exchange;
use schemas::id::SessionId;
use schemas::keys::Digest;
use schemas::session::SessionClose;
use serde::Deserialize;

use crate::commit::CommittedFile;
use crate::error::StoreError;
use crate::lookup::SNAPSHOT_TRIES;
use crate::objects::Store;
use crate::session::StoredSession;
use crate::snapshot::{Snapshot, folder_of};
use crate::stored_chunks::chunks_path;
use crate::table::{Chunk, Table};

/// Files decoded at a time; the wanted rows and chunks of each are in memory.
const CONCURRENT_FILES: usize = 4;

/// The columns of a chunks file for a look-up by digest.
#[derive(Deserialize)]
struct NamedBytes {
    digest: Digest,
    bytes: Option<Bytes>,
}

#[derive(Deserialize)]
struct IdRow {
    session: SessionId,
}

/// Sessions with files in common, to be read together ([`Store::session_groups`]).
#[derive(Debug, Clone)]
pub struct SessionGroup {
    sessions: BTreeSet<SessionId>,
    files: HashSet<Arc<str>>,
}

impl SessionGroup {
    /// Returns the ids of the sessions.
    #[must_use]
    pub fn sessions(&self) -> &BTreeSet<SessionId> {
        &self.sessions
    }
}

impl Store {
    /// Divides all sessions into groups of at most `at_a_time` whose sessions share files.
    ///
    /// A reader that loads group by group has in memory the ids of all sessions (about 150 bytes each) and the bodies of one
    /// group.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn session_groups(
        &self,
        snapshot: &Snapshot,
        at_a_time: usize,
    ) -> Result<Vec<SessionGroup>, StoreError> {
        let mut names: Vec<Arc<str>> = Vec::new();
        let mut files_of: BTreeMap<SessionId, Vec<usize>> = BTreeMap::new();
        for file in snapshot.all_files() {
            if !matches!(file.table, Table::Exchanges | Table::Sessions) {
                continue;
            }
            let number = names.len();
            names.push(Arc::from(file.path.as_str()));
            let each = |rows: Vec<IdRow>| {
                for row in rows {
                    let files = files_of.entry(row.session).or_default();
                    if files.last() != Some(&number) {
                        files.push(number);
                    }
                }
            };
            self.read_each(file, Some(&["session"]), each).await?;
        }
        let mut order: Vec<(SessionId, Vec<usize>)> = files_of.into_iter().collect();
        order.sort_by(|a, b| (a.1.last(), &a.0).cmp(&(b.1.last(), &b.0)));
        let groups = order.chunks(at_a_time.max(1)).map(|part| SessionGroup {
            sessions: part.iter().map(|(session, _)| session.clone()).collect(),
            files: part.iter().flat_map(|(_, files)| files).map(|number| names[*number].clone()).collect(),
        });
        Ok(groups.collect())
    }

    /// Reads the sessions of a group with all their bodies. If a file was replaced after the snapshot, reads a new snapshot.
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

    /// Reads some sessions with all their bodies. If a file was replaced after the snapshot, reads a new snapshot.
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

    /// Reads the wanted sessions, or all, with all their bodies, sorted by session id. All of them are in memory.
    ///
    /// A session with a close row and no exchange is included.
    ///
    /// # Errors
    /// [`StoreError::FileReplaced`] if a file was replaced after the snapshot ([`Self::with_snapshot`] tries again); else a
    /// file is truncated, foreign, damaged, encrypted without a key or of another version.
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
        let chunk_files = &snapshot.chunk_files();
        let mut parts = futures::stream::iter(of(Table::Exchanges))
            .map(|file| self.part(file, chunk_files, wanted))
            .buffered(CONCURRENT_FILES);
        while let Some(part) = parts.try_next().await? {
            loaded
                .add(part)
                .map_err(|(path, detail)| StoreError::Metadata { path: self.display_path(&path), detail })?;
        }
        self.load_from_earlier_files(snapshot, chunk_files, &mut loaded).await?;
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

    /// Reads the wanted exchanges of a file, and the chunks that they refer to.
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
        Ok(Part { exchanges_path: file.path.clone(), chunks_path: path, rows, chunks })
    }

    /// Reads the chunks in earlier files that [`Self::part`] has not read: those of exchanges that are not wanted.
    async fn load_from_earlier_files(
        &self,
        snapshot: &Snapshot,
        chunk_files: &HashMap<&str, &CommittedFile>,
        loaded: &mut Loaded,
    ) -> Result<(), StoreError> {
        let Loaded { sessions, in_earlier_files } = loaded;
        in_earlier_files.retain(|_, digests| {
            digests.retain(|digest, ids| {
                ids.retain(|id| sessions.get(id).is_some_and(|one| !one.chunks.contains_key(digest)));
                !ids.is_empty()
            });
            !digests.is_empty()
        });
        let replaced = in_earlier_files.keys().filter(|path| !chunk_files.contains_key(path.as_str()));
        let folders: BTreeSet<String> = replaced.map(|path| folder_of(path).to_owned()).collect();
        let replacements = self.replacements(snapshot, Some(&folders)).await?;
        for (path, digests) in in_earlier_files {
            let current = replacements.current(path).and_then(|current| chunk_files.get(current));
            let Some(file) = current else { continue };
            let sorted: Vec<&[u8]> = digests.keys().map(|digest| &digest.0[..]).collect();
            let columns = ["digest", "bytes"];
            let chunks: Vec<NamedBytes> = self.chunks_named(file, &sorted, Some(&columns)).await?;
            for chunk in chunks {
                let (Some(bytes), Some(ids)) = (chunk.bytes, digests.get(&chunk.digest)) else { continue };
                for id in ids {
                    if let Some(session) = sessions.get_mut(id) {
                        session.chunks.insert(chunk.digest, bytes.clone());
                    }
                }
            }
        }
        Ok(())
    }
}

/// Rows read from one exchanges file and its chunks file.
struct Part {
    exchanges_path: String,
    chunks_path: String,
    rows: Vec<Exchange<u32>>,
    chunks: Vec<Chunk>,
}

/// Sessions read so far.
#[derive(Default)]
struct Loaded {
    sessions: BTreeMap<SessionId, StoredSession>,
    /// Sessions that need a chunk of an earlier file, by path and digest.
    in_earlier_files: BTreeMap<String, BTreeMap<Digest, BTreeSet<SessionId>>>,
}

impl Loaded {
    fn session(&mut self, id: &SessionId) -> &mut StoredSession {
        self.sessions.entry(id.clone()).or_insert_with(|| StoredSession {
            session: id.clone(),
            closes: Vec::new(),
            exchanges: Vec::new(),
            chunks: HashMap::new(),
        })
    }

    /// Adds the rows of a part; an error is the path of the damaged file and the reason.
    fn add(&mut self, part: Part) -> Result<(), (String, String)> {
        let chunks = part.chunks.into_iter();
        let chunks: HashMap<u32, (Digest, Option<Bytes>, Option<String>)> =
            chunks.map(|chunk| (chunk.chunk, (chunk.digest, chunk.bytes, chunk.stored_in))).collect();
        for row in part.rows {
            let id = row.session.clone();
            let mut own = Vec::new();
            let in_earlier_files = &mut self.in_earlier_files;
            let exchange = row.try_map(|number| {
                let (digest, bytes, stored_in) = chunks.get(&number).ok_or(number)?;
                match (bytes, stored_in) {
                    (Some(bytes), _) => own.push((*digest, bytes.clone())),
                    (None, Some(name)) => {
                        let path =
                            format!("{}/{}/{name}", Table::Chunks.as_str(), folder_of(&part.chunks_path));
                        let sessions = in_earlier_files.entry(path).or_default().entry(*digest).or_default();
                        sessions.insert(id.clone());
                    }
                    (None, None) => {}
                }
                Ok::<Digest, u32>(*digest)
            });
            let exchange = exchange.map_err(|number| {
                let path = &part.chunks_path;
                (part.exchanges_path.clone(), format!("refers to chunk {number}, which is not in {path}"))
            })?;
            let session = self.session(&id);
            session.chunks.extend(own);
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
