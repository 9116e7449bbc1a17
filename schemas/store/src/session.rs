//! A session as it was read back: its exchanges, the pieces of their bodies, its close rows, and whether it is whole.

use std::collections::HashMap;

use bytes::Bytes;
use schemas::body::{Body, ReassembleError};
use schemas::exchange::Exchange;
use schemas::id::SessionId;
use schemas::keys::Digest;
use schemas::session::{Gap, SessionClose, gaps};

/// A session as it was read back.
#[derive(Debug, Clone)]
pub struct StoredSession {
    /// The session.
    pub session: SessionId,
    /// Its close rows, superseded ones included.
    pub closes: Vec<SessionClose>,
    /// Its exchanges, by start, then incarnation and seq.
    pub exchanges: Vec<Exchange>,
    /// The pieces that are at hand.
    pub pieces: HashMap<Digest, Bytes>,
}

impl StoredSession {
    /// Puts a request's or a response's body together.
    ///
    /// # Errors
    /// A piece is missing.
    pub fn body(&self, body: &Body) -> Result<Vec<u8>, ReassembleError> {
        body.reassemble(|digest| self.pieces.get(digest).map(Bytes::as_ref))
    }

    /// Finds what is missing: numbers, close rows, pieces of bodies. Empty means whole.
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
