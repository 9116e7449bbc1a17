//! What a transcript becomes: exchanges, the pieces of their bodies, a close row, a trial.

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
    /// Its exchanges, by seq; none where there was no transcript.
    pub exchanges: Vec<Exchange>,
    /// The pieces of their bodies, each once.
    pub pieces: Vec<(SessionId, Digest, Bytes)>,
    /// Its close row; absent where there was no transcript.
    pub close: Option<SessionClose>,
    /// Its trial, where it goes into a run.
    pub trial: Option<Trial>,
    /// Its answer as a vector, where the file brought one and it goes into a run.
    pub embedding: Option<Embedding>,
    /// What was made, converted and odd.
    pub stats: ImportStats,
}
