//! Reading whole sessions back, and finding the earlier files that a session leans on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use schemas::commit::CommittedFile;
use schemas::exchange::Exchange;
use schemas::id::SessionId;
use schemas::keys::Digest;
use schemas::session::SessionClose;
use schemas::table::{Chunk, Table};
use serde::Deserialize;

use super::{Lake, LakeError, Snapshot};
use crate::batch::{Batch, Leaning, exchange_folder};
use crate::session::StoredSession;

/// The columns of a chunks file without the bytes.
#[derive(Deserialize)]
struct ChunkName {
    chunk: u32,
    digest: Digest,
    leans_on: Option<String>,
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

fn chunks_path(exchanges_path: &str) -> String {
    exchanges_path.replacen(Table::Exchanges.as_str(), Table::Chunks.as_str(), 1)
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

impl Lake {
    /// Looks up where sessions of the batch keep the pieces that the batch does not bring.
    pub(super) async fn find_leaning(&self, batch: &Batch, leaning: &mut Leaning) -> Result<(), LakeError> {
        let brought: HashSet<(&SessionId, &Digest)> = batch.pieces.iter().map(|(s, d, _)| (s, d)).collect();
        let mut wanted: BTreeMap<String, BTreeSet<SessionId>> = BTreeMap::new();
        for exchange in &batch.exchanges {
            let all = exchange.request.chunks.iter().chain(&exchange.response.chunks);
            let mut missing = all.filter(|digest| !brought.contains(&(&exchange.session, digest)));
            if missing.any(|digest| leaning.find(&exchange.session, digest).is_none()) {
                wanted.entry(exchange_folder(exchange)).or_default().insert(exchange.session.clone());
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let snapshot = self.snapshot().await?;
        for file in snapshot.files(Table::Exchanges) {
            if let Some(sessions) = wanted.get(folder_of(&file.path)) {
                self.lean_on(&snapshot, file, sessions, leaning).await?;
            }
        }
        wanted.values().flatten().for_each(|session| leaning.mark(session));
        Ok(())
    }

    async fn lean_on(
        &self,
        snapshot: &Snapshot,
        exchanges: &CommittedFile,
        sessions: &BTreeSet<SessionId>,
        leaning: &mut Leaning,
    ) -> Result<(), LakeError> {
        let columns = ["session", "request.chunks", "response.chunks"];
        let rows: Vec<References> = self.read(exchanges, Some(&columns)).await?;
        let path = chunks_path(&exchanges.path);
        let Some(chunks) = snapshot.files(Table::Chunks).find(|file| file.path == path) else {
            return Ok(());
        };
        let names: Vec<ChunkName> = self.read(chunks, Some(&["chunk", "digest", "leans_on"])).await?;
        let by_number: HashMap<u32, &ChunkName> = names.iter().map(|name| (name.chunk, name)).collect();
        let file: Arc<str> = Arc::from(name_of(&path));
        for row in rows.into_iter().filter(|row| sessions.contains(&row.session)) {
            for number in row.request.chunks.iter().chain(&row.response.chunks) {
                if let Some(name) = by_number.get(number) {
                    let lies_in = name.leans_on.as_deref().map_or_else(|| file.clone(), Arc::from);
                    leaning.insert(&row.session, name.digest, lies_in);
                }
            }
        }
        Ok(())
    }

    /// Reads sessions with all their bodies: those wanted, or all; sorted by session id.
    ///
    /// Sessions of which only a close row is there are included.
    ///
    /// # Errors
    /// A file is missing, truncated, foreign or of another version.
    pub async fn load_sessions(
        &self,
        snapshot: &Snapshot,
        wanted: Option<&BTreeSet<SessionId>>,
    ) -> Result<Vec<StoredSession>, LakeError> {
        let is_wanted = |session: &SessionId| wanted.is_none_or(|wanted| wanted.contains(session));
        let mut sessions: BTreeMap<SessionId, StoredSession> = BTreeMap::new();
        for file in snapshot.files(Table::Sessions) {
            let rows: Vec<SessionClose> = self.read(file, None).await?;
            for close in rows.into_iter().filter(|close| is_wanted(&close.session)) {
                entry(&mut sessions, &close.session).closes.push(close);
            }
        }
        // Pieces that lie in an earlier file: its path, the piece, the sessions that want it.
        let mut leaned: BTreeMap<String, BTreeMap<Digest, BTreeSet<SessionId>>> = BTreeMap::new();
        for file in snapshot.files(Table::Exchanges) {
            let rows: Vec<Exchange<u32>> = self.read(file, None).await?;
            let rows: Vec<_> = rows.into_iter().filter(|row| is_wanted(&row.session)).collect();
            if !rows.is_empty() {
                self.resolve(snapshot, file, rows, &mut sessions, &mut leaned).await?;
            }
        }
        for (path, digests) in leaned {
            let Some(current) = snapshot.current(&path) else { continue };
            let Some(file) = snapshot.files(Table::Chunks).find(|file| file.path == current) else {
                continue;
            };
            let chunks: Vec<Chunk> = self.read(file, None).await?;
            for chunk in chunks {
                let (Some(bytes), Some(ids)) = (chunk.bytes, digests.get(&chunk.digest)) else { continue };
                let bytes = Bytes::from(bytes);
                for session in ids {
                    entry(&mut sessions, session).pieces.insert(chunk.digest, bytes.clone());
                }
            }
        }
        let mut sessions: Vec<_> = sessions.into_values().collect();
        for session in &mut sessions {
            session.exchanges.sort_by_key(|x| (x.started_at, x.incarnation.clone(), x.seq));
        }
        Ok(sessions)
    }

    async fn resolve(
        &self,
        snapshot: &Snapshot,
        file: &CommittedFile,
        rows: Vec<Exchange<u32>>,
        sessions: &mut BTreeMap<SessionId, StoredSession>,
        leaned: &mut BTreeMap<String, BTreeMap<Digest, BTreeSet<SessionId>>>,
    ) -> Result<(), LakeError> {
        let path = chunks_path(&file.path);
        let mut chunks: HashMap<u32, (Digest, Option<Bytes>, Option<String>)> = HashMap::new();
        if let Some(file) = snapshot.files(Table::Chunks).find(|file| file.path == path) {
            let found: Vec<Chunk> = self.read(file, None).await?;
            chunks = found
                .into_iter()
                .map(|chunk| (chunk.chunk, (chunk.digest, chunk.bytes.map(Bytes::from), chunk.leans_on)))
                .collect();
        }
        for row in rows {
            let id = row.session.clone();
            let session = entry(sessions, &id);
            let exchange = row.try_map(|number| {
                let (digest, bytes, leans_on) = chunks.get(&number).ok_or(number)?;
                match (bytes, leans_on) {
                    (Some(bytes), _) => {
                        session.pieces.insert(*digest, bytes.clone());
                    }
                    (None, Some(name)) => {
                        let earlier = format!("{}/{name}", folder_of(&path));
                        leaned.entry(earlier).or_default().entry(*digest).or_default().insert(id.clone());
                    }
                    (None, None) => {}
                }
                Ok::<Digest, u32>(*digest)
            });
            let exchange = exchange.map_err(|number| LakeError::Metadata {
                path: self.shown(&file.path),
                detail: format!("refers to chunk {number}, which {path} does not hold"),
            })?;
            session.exchanges.push(exchange);
        }
        Ok(())
    }
}

fn entry<'a>(sessions: &'a mut BTreeMap<SessionId, StoredSession>, id: &SessionId) -> &'a mut StoredSession {
    sessions.entry(id.clone()).or_insert_with(|| StoredSession {
        session: id.clone(),
        closes: Vec::new(),
        exchanges: Vec::new(),
        pieces: HashMap::new(),
    })
}
