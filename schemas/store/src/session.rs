//! A session read from a store, and its gaps.

use std::collections::HashMap;

use bytes::Bytes;
use schemas::body::{Body, ReassembleError};
use schemas::exchange::Exchange;
use schemas::id::SessionId;
use schemas::keys::Digest;
use schemas::session::{Gap, SessionClose, gaps};

/// A session read from a store.
#[derive(Debug, Clone)]
pub struct StoredSession {
    /// Id of the session.
    pub session: SessionId,
    /// Close rows, superseded ones included.
    pub closes: Vec<SessionClose>,
    /// Exchanges, sorted by start, then incarnation and seq.
    pub exchanges: Vec<Exchange>,
    /// Chunks of the bodies that were found, by digest.
    pub chunks: HashMap<Digest, Bytes>,
}

impl StoredSession {
    /// Assembles the body of a request or response from its chunks.
    ///
    /// # Errors
    /// A chunk is missing.
    pub fn body(&self, body: &Body) -> Result<Vec<u8>, ReassembleError> {
        body.reassemble(|digest| self.chunks.get(digest).map(Bytes::as_ref))
    }

    /// Returns the gaps: missing exchanges, close rows and chunks. A complete session has none.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        let mut found = gaps(&self.closes, self.exchanges.iter().map(|x| (&x.incarnation, x.seq)));
        for exchange in &self.exchanges {
            for (what, body) in [("request", &exchange.request), ("response", &exchange.response)] {
                if let Err(error) = self.body(body) {
                    let detail = format!("{what} body: {error}");
                    found.push(Gap::Body {
                        incarnation: exchange.incarnation.clone(),
                        seq: exchange.seq,
                        detail,
                    });
                }
            }
        }
        found
    }
}
