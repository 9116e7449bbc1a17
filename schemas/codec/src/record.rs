//! What travels from the tap to the archive: the frames of the journal and the values of the Kafka topic.
//!
//! MessagePack with named fields behind one version byte, so that a field can be added without breaking a reader. A
//! [`MessageValue`] is the value of a Kafka message: the records of one exchange, as they lie in the journal.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use schemas::exchange::Exchange;
use schemas::id::{SessionId, TenantId};
use schemas::keys::Digest;
use schemas::session::SessionClose;

mod as_written;

/// The version byte that every record starts with; it changes with the record part of [`schemas::FORMAT`].
pub const RECORD_VERSION: u8 = 2;

/// One record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A piece of a body, sent once per session before the first exchange that refers to it.
    Chunk {
        /// The session that it belongs to.
        session: SessionId,
        /// Its name.
        digest: Digest,
        /// Its bytes, redacted.
        bytes: Bytes,
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
    /// The content of a parcel ends within a record, or its part number is past its parts.
    #[error("parcel is cut short")]
    Truncated,
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
        as_written::record(bytes, &mut as_written::Known::default())
            .map_or_else(|| Self::decode_any(bytes), Ok)
    }

    fn decode_any(bytes: &[u8]) -> Result<Self, RecordError> {
        match bytes.split_first() {
            None => Err(RecordError::Empty),
            Some((&RECORD_VERSION, rest)) => Ok(rmp_serde::from_slice(rest)?),
            Some((&found, _)) => Err(RecordError::Version { found }),
        }
    }
}

/// Reads many records, which share what they repeat: identifiers the last ones, pieces those that other sessions sent.
#[derive(Debug, Clone)]
pub struct RecordDecoder {
    known: as_written::Known,
}

impl Default for RecordDecoder {
    fn default() -> Self {
        Self { known: as_written::Known::with_pieces() }
    }
}

impl RecordDecoder {
    /// Reads a record.
    ///
    /// # Errors
    /// As [`Record::decode`].
    pub fn record(&mut self, bytes: &[u8]) -> Result<Record, RecordError> {
        as_written::record(bytes, &mut self.known).map_or_else(|| Record::decode_any(bytes), Ok)
    }

    /// Reads the records in the content of a whole parcel.
    ///
    /// # Errors
    /// It ends within a record, or one of them is of another version, or broken.
    pub fn records(&mut self, content: &[u8]) -> Result<Vec<Record>, RecordError> {
        read_framed(content).map(|record| self.record(record?)).collect()
    }
}

/// The version byte that every parcel starts with.
pub const MESSAGE_VERSION: u8 = 1;

/// The value of one Kafka message: an exchange with the pieces it brings, or a close row, or a part of one that is too
/// long for the broker.
///
/// A message stands for itself, so a batch may be cut after any of them. Position and part order the messages of one
/// journal, so one that was sent again is told from a new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageValue {
    /// The journal it comes from.
    pub journal: String,
    /// Position in that journal of the exchange or close row; grows within the journal.
    pub position: u64,
    /// Which part, from 0.
    pub part: u32,
    /// How many parts there are, at least 1.
    pub parts: u32,
    /// The encoded records, each behind its length (4 bytes, little-endian); of a part, a span of that.
    #[serde(with = "serde_bytes")]
    pub content: Vec<u8>,
}

/// A [`MessageValue`] as it lies in the bytes of its message: what a reader of many looks at without a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct MessageValueView<'a> {
    /// [`MessageValue::journal`].
    pub journal: &'a str,
    /// [`MessageValue::position`].
    pub position: u64,
    /// [`MessageValue::part`].
    pub part: u32,
    /// [`MessageValue::parts`].
    pub parts: u32,
    /// [`MessageValue::content`].
    #[serde(with = "serde_bytes")]
    pub content: &'a [u8],
}

impl<'a> MessageValueView<'a> {
    /// Reads a parcel.
    ///
    /// # Errors
    /// Says whether it is empty, of another version, or broken.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let parcel: Self = match bytes.split_first() {
            None => return Err(RecordError::Empty),
            Some((&MESSAGE_VERSION, rest)) => match as_written::parcel(rest) {
                Some(parcel) => parcel,
                None => rmp_serde::from_slice(rest)?,
            },
            Some((&found, _)) => return Err(RecordError::Version { found }),
        };
        if parcel.part < parcel.parts { Ok(parcel) } else { Err(RecordError::Truncated) }
    }

    /// The parcel by itself.
    #[must_use]
    pub fn to_owned_value(self) -> MessageValue {
        let Self { journal, position, part, parts, content } = self;
        MessageValue { journal: journal.to_owned(), position, part, parts, content: content.to_vec() }
    }
}

/// The key of a Kafka message: messages of one session stay in order. Tenant and session with a zero byte between them.
#[must_use]
pub fn message_key(tenant: &TenantId, session: &SessionId) -> Vec<u8> {
    [tenant.as_str().as_bytes(), &[0], session.as_str().as_bytes()].concat()
}

/// Appends an encoded record to the content of a parcel.
pub fn write_framed(content: &mut Vec<u8>, record: &[u8]) {
    content.extend_from_slice(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes());
    content.extend_from_slice(record);
}

/// Takes the content of a whole parcel apart into encoded records; [`RecordError::Truncated`] stands last where it ends
/// within one.
pub fn read_framed(mut content: &[u8]) -> impl Iterator<Item = Result<&[u8], RecordError>> {
    std::iter::from_fn(move || {
        if content.is_empty() {
            return None;
        }
        let record = content
            .split_first_chunk::<4>()
            .and_then(|(length, rest)| rest.split_at_checked(u32::from_le_bytes(*length) as usize));
        let Some((record, rest)) = record else {
            content = &[];
            return Some(Err(RecordError::Truncated));
        };
        content = rest;
        Some(Ok(record))
    })
}

impl MessageValue {
    /// Writes the parcel.
    ///
    /// # Errors
    /// Does not happen for values of this type; kept because the encoder can say so.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let mut out = Vec::with_capacity(self.content.len() + 128);
        out.push(MESSAGE_VERSION);
        self.serialize(&mut rmp_serde::Serializer::new(&mut out).with_struct_map())?;
        Ok(out)
    }

    /// Reads a parcel.
    ///
    /// # Errors
    /// Says whether it is empty, of another version, or broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        MessageValueView::decode(bytes).map(MessageValueView::to_owned_value)
    }

    /// The records of a parcel of one part.
    ///
    /// # Errors
    /// One of them is of another version, or broken.
    pub fn records(&self) -> Result<Vec<Record>, RecordError> {
        RecordDecoder::default().records(&self.content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parcels_come_back_and_broken_ones_are_refused() {
        let session = SessionId::parse("s").expect("id");
        let piece = Record::Chunk { session, digest: Digest([7; 16]), bytes: vec![1, 2, 3].into() };
        let mut content = Vec::new();
        for _ in 0..2 {
            write_framed(&mut content, &piece.encode().expect("encodes"));
        }
        let parcel = MessageValue { journal: "j".to_owned(), position: 9, part: 0, parts: 1, content };
        let bytes = parcel.encode().expect("encodes");
        let back = MessageValue::decode(&bytes).expect("decodes");
        assert_eq!(back, parcel);
        assert_eq!(back.records().expect("decodes"), [piece.clone(), piece]);
        for end in 0..bytes.len() {
            assert!(MessageValue::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        for end in 1..parcel.content.len() {
            let short = MessageValue { content: parcel.content[..end].to_vec(), ..parcel.clone() };
            assert!(short.records().is_err() || short.records().is_ok_and(|records| records.len() == 1));
        }
        assert!(matches!(MessageValue::decode(&[9, 0]), Err(RecordError::Version { found: 9 })));
    }
}
