//! What travels from the tap to the archive: the frames of the journal and the values of the Kafka topic.
//!
//! MessagePack with named fields behind one version byte, so that a field can be added without breaking a reader.

use serde::{Deserialize, Serialize};

use crate::exchange::Exchange;
use crate::id::SessionId;
use crate::keys::Digest;
use crate::session::SessionClose;

/// The version byte that every record starts with.
pub const RECORD_VERSION: u8 = 1;

/// One record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A piece of a body, sent once per session before the first exchange that refers to it.
    Piece {
        /// The session that it belongs to.
        session: SessionId,
        /// Its name.
        digest: Digest,
        /// Its bytes, redacted.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// An exchange; every piece it refers to was sent before.
    Exchange(Box<Exchange>),
    /// A session was closed.
    Close(Box<SessionClose>),
}

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// No bytes at all.
    #[error("record is empty")]
    Empty,
    /// Written by another version.
    #[error(
        "record has version {found}, this build reads {RECORD_VERSION}; read it with the build that wrote it"
    )]
    Version {
        /// The version byte.
        found: u8,
    },
    /// The bytes are not a record.
    #[error("record cannot be decoded: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// The value cannot be written.
    #[error("record cannot be encoded: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
}

impl Record {
    /// Writes the record.
    ///
    /// # Errors
    /// Does not happen for values of this type; kept because the encoder can say so.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let mut out = vec![RECORD_VERSION];
        self.serialize(&mut rmp_serde::Serializer::new(&mut out).with_struct_map())?;
        Ok(out)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Says whether it is empty, of another version, or broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        match bytes.split_first() {
            None => Err(RecordError::Empty),
            Some((&RECORD_VERSION, rest)) => Ok(rmp_serde::from_slice(rest)?),
            Some((&found, _)) => Err(RecordError::Version { found }),
        }
    }
}
