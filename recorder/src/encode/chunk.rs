//! Splits redacted bodies into a template and content-addressed chunks, and tells which chunks a session still needs.
//!
//! Requests of one session repeat each other: every model call sends the history again. A session therefore stores each
//! chunk once, as far as the bounded caches remember.

use std::num::NonZeroUsize;

use bytes::Bytes;
use codec::Record;
use lru::LruCache;
use schemas::body::Body;
use schemas::id::SessionId;
use schemas::keys::{Digest, TenantKeys};

/// Chunks that are remembered of one session. A chunk that left the cache is stored again.
const MAX_CHUNKS_OF_SESSION: NonZeroUsize = NonZeroUsize::new(8192).expect("above zero");

/// Sessions whose chunks are remembered.
const MAX_SESSIONS: NonZeroUsize = NonZeroUsize::new(65_536).expect("above zero");

/// Chunks of a session, by digest.
type StoredChunks = LruCache<Digest, ()>;

/// Splits bodies and remembers the stored chunks of each open session.
#[derive(Debug)]
pub(super) struct Chunker {
    keys: TenantKeys,
    stored: LruCache<SessionId, StoredChunks>,
}

impl Chunker {
    pub(super) fn new(keys: TenantKeys) -> Self {
        let mut stored = LruCache::unbounded();
        // A cache that starts unbounded allocates as it fills.
        stored.resize(MAX_SESSIONS);
        Self { keys, stored }
    }

    /// Splits a body; appends a record for each chunk that the session does not have.
    pub(super) fn split(&mut self, session: &SessionId, body: &[u8], records: &mut Vec<Record>) -> Body {
        let stored = self.stored.get_or_insert_mut_ref(session, || {
            let mut chunks = LruCache::unbounded();
            chunks.resize(MAX_CHUNKS_OF_SESSION);
            chunks
        });
        Body::split(body, &self.keys, |(digest, chunk)| {
            if stored.put(digest, ()).is_none() {
                records.push(Record::Chunk {
                    session: session.clone(),
                    digest,
                    bytes: Bytes::copy_from_slice(chunk),
                });
            }
        })
    }

    /// Forgets the chunks of a closed session; the session stores them again if it comes back.
    pub(super) fn forget(&mut self, session: &SessionId) {
        self.stored.pop(session);
    }
}

#[cfg(test)]
mod tests {
    use schemas::id::TenantId;
    use schemas::keys::RootKey;

    use super::*;

    #[test]
    fn a_session_stores_each_chunk_once() {
        let keys = RootKey::new([3; 32]).tenant(&TenantId::parse("t").expect("id"));
        let mut chunker = Chunker::new(keys);
        let body = format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "long text ".repeat(20));
        let mut stored = |session: &str, forget: bool| {
            let session = SessionId::parse(session).expect("id");
            if forget {
                chunker.forget(&session);
            }
            let mut records = Vec::new();
            let split = chunker.split(&session, body.as_bytes(), &mut records);
            assert!(!split.chunks.is_empty());
            records.len()
        };
        assert_eq!(stored("one", false), 1);
        assert_eq!(stored("one", false), 0);
        assert_eq!(stored("two", false), 1);
        assert_eq!(stored("one", true), 1);
    }
}
