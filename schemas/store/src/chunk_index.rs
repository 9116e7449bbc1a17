//! Index from a session's chunks to the files that store them, kept in memory between batches.
//!
//! Bounded: the least recently used sessions leave first. The store answers for what is not in it (`stored_chunks`).

use std::collections::HashMap;
use std::sync::Arc;

use lru::LruCache;
use schemas::id::SessionId;
use schemas::keys::Digest;

/// Chunks that the index keeps from one batch to the next.
const DEFAULT_CAPACITY: usize = 1_000_000;

/// A map for look-ups made for every reference of every body.
pub(crate) type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Maps each chunk of a session to the committed file that stores its bytes.
#[derive(Debug)]
pub struct ChunkIndex {
    sessions: LruCache<SessionId, FastMap<Digest, Arc<str>>, foldhash::fast::RandomState>,
    chunks: usize,
    capacity: usize,
}

impl Default for ChunkIndex {
    fn default() -> Self {
        Self::with_capacity(DEFAULT_CAPACITY)
    }
}

impl ChunkIndex {
    /// Creates an index that keeps at most `chunks` entries between two batches.
    #[must_use]
    pub fn with_capacity(chunks: usize) -> Self {
        let sessions = LruCache::unbounded_with_hasher(foldhash::fast::RandomState::default());
        Self { sessions, chunks: 0, capacity: chunks }
    }

    /// Evicts sessions down to the capacity.
    ///
    /// Only between batches: entries found for a batch must stay until it is encoded, however many they are.
    pub(crate) fn evict(&mut self) {
        while self.chunks > self.capacity {
            let Some((_, chunks)) = self.sessions.pop_lru() else { break };
            self.chunks -= chunks.len();
        }
    }

    /// Marks a session as used by the current batch.
    pub(crate) fn touch(&mut self, session: &SessionId) {
        self.sessions.promote(session);
    }

    /// Returns the name of the file, in the session's folder, that stores the chunk.
    pub(crate) fn find(&self, session: &SessionId, digest: &Digest) -> Option<Arc<str>> {
        self.sessions.peek(session)?.get(digest).cloned()
    }

    /// Records that `file` stores these chunks of a session.
    pub(crate) fn insert(
        &mut self,
        session: &SessionId,
        digests: impl IntoIterator<Item = Digest>,
        file: &Arc<str>,
    ) {
        let known = self.sessions.get_or_insert_mut_ref(session, FastMap::default);
        let digests = digests.into_iter();
        known.reserve(digests.size_hint().0);
        for digest in digests {
            if known.insert(digest, file.clone()).is_none() {
                self.chunks += 1;
            }
        }
    }

    /// Removes a session: no later batch has more of it.
    pub(crate) fn remove(&mut self, session: &SessionId) {
        if let Some(chunks) = self.sessions.pop(session) {
            self.chunks -= chunks.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_sessions_leave_first() {
        let session = |name: &str| SessionId::parse(name).expect("id");
        let digests = |from: u8| (from..from + 3).map(|byte| Digest([byte; 16]));
        let file: Arc<str> = Arc::from("f.parquet");
        let mut index = ChunkIndex::with_capacity(7);
        for (name, from) in [("a", 0), ("b", 10), ("c", 20)] {
            index.insert(&session(name), digests(from), &file);
        }
        assert_eq!(index.chunks, 9, "nothing leaves within a batch");
        index.touch(&session("a"));
        index.evict();
        let known =
            |index: &ChunkIndex, name: &str, byte| index.find(&session(name), &Digest([byte; 16])).is_some();
        assert!(known(&index, "a", 2) && !known(&index, "b", 12) && known(&index, "c", 22));
        assert_eq!(index.chunks, 6);
        index.insert(&session("a"), digests(0), &file);
        assert_eq!(index.chunks, 6, "a known chunk counts once");
        index.remove(&session("a"));
        assert_eq!(index.chunks, 3);
    }
}
