//! One record: a chunk, an exchange or a close row.
//!
//! MessagePack with named fields behind one version byte, so that a field can be added without breaking a reader.

use bytes::Bytes;
use schemas::exchange::Exchange;
use schemas::id::SessionId;
use schemas::keys::Digest;
use schemas::session::SessionClose;
use serde::{Deserialize, Serialize};

use crate::error::{RecordError, strip_version};

/// The version byte that every record starts with. It changes with the record part of [`schemas::FORMAT`].
pub const RECORD_VERSION: u8 = 2;

/// One record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A chunk of a body. Each session sends it once, before the first exchange that refers to it.
    Chunk {
        /// The session.
        session: SessionId,
        /// Keyed digest of the bytes.
        digest: Digest,
        /// The bytes, redacted.
        bytes: Bytes,
    },
    /// An exchange, after every chunk that it refers to.
    Exchange(Box<Exchange>),
    /// The close row of a session.
    Close(Box<SessionClose>),
}

impl Record {
    /// Encodes the record.
    ///
    /// # Errors
    /// The encoder refuses the value; no value of this type causes it.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let mut out = vec![RECORD_VERSION];
        self.serialize(&mut rmp_serde::Serializer::new(&mut out).with_struct_map())?;
        Ok(out)
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// The bytes are empty, of another version, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        Ok(rmp_serde::from_slice(strip_version(bytes, RECORD_VERSION)?)?)
    }
}

#[cfg(test)]
mod tests;
