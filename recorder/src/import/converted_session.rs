//! The rows of one converted session: exchanges, chunks, close row, trial and embedding.

use bytes::Bytes;
use schemas::embedding::Embedding;
use schemas::exchange::Exchange;
use schemas::id::SessionId;
use schemas::keys::Digest;
use schemas::session::SessionClose;
use schemas::trial::Trial;

use super::stats::ImportStats;

/// One session, ready to be stored.
#[derive(Debug)]
pub struct ConvertedSession {
    /// Exchanges, by seq; empty for a trial without a transcript.
    pub exchanges: Vec<Exchange>,
    /// Distinct chunks of their bodies.
    pub chunks: Vec<(SessionId, Digest, Bytes)>,
    /// Close row; absent for a trial without a transcript.
    pub close: Option<SessionClose>,
    /// Trial; absent if the destination is a store.
    pub trial: Option<Trial>,
    /// Embedding of the answer; absent if the file has none, or the destination is a store.
    pub embedding: Option<Embedding>,
    /// Counts of this session.
    pub stats: ImportStats,
}
