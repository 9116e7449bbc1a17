//! The value of one Kafka message: the records of one exchange as they are in the journal.

use schemas::id::{SessionId, TenantId};
use serde::{Deserialize, Serialize};

use crate::error::{RecordError, strip_version};
use crate::record::Record;

/// The version byte that every message value starts with.
pub const MESSAGE_VERSION: u8 = 1;

/// The value of one Kafka message: an exchange with the chunks it adds, or a close row, or a part of one that exceeds the
/// broker's message limit.
///
/// A message depends on no other, so a batch may end after any of them. Position and part order the messages of one journal,
/// so that a reader recognises a message that was sent twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageValue {
    /// Name of the journal.
    pub journal: String,
    /// Position of the exchange or close row in the journal; ascending within the journal.
    pub position: u64,
    /// Number of this part, from 0.
    pub part: u32,
    /// Number of parts, at least 1.
    pub parts: u32,
    /// The framed records ([`write_framed`]); of a part, a span of them.
    #[serde(with = "serde_bytes")]
    pub content: Vec<u8>,
}

/// A [`MessageValue`] that borrows from the bytes of its message.
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
    /// Decodes a message value.
    ///
    /// # Errors
    /// The bytes are empty, of another version, or damaged.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let value: Self = rmp_serde::from_slice(strip_version(bytes, MESSAGE_VERSION)?)?;
        if value.part < value.parts { Ok(value) } else { Err(RecordError::Truncated) }
    }
}

impl MessageValue {
    /// Encodes the message value.
    ///
    /// # Errors
    /// The encoder refuses the value; no value of this type causes it.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let mut out = Vec::with_capacity(self.content.len() + 128);
        out.push(MESSAGE_VERSION);
        self.serialize(&mut rmp_serde::Serializer::new(&mut out).with_struct_map())?;
        Ok(out)
    }

    /// Decodes a message value into one that owns its bytes.
    ///
    /// # Errors
    /// As [`MessageValueView::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let MessageValueView { journal, position, part, parts, content } = MessageValueView::decode(bytes)?;
        Ok(Self { journal: journal.to_owned(), position, part, parts, content: content.to_vec() })
    }

    /// Decodes the records of a message with one part.
    ///
    /// # Errors
    /// As [`decode_framed`].
    pub fn records(&self) -> Result<Vec<Record>, RecordError> {
        decode_framed(&self.content)
    }
}

/// The key of a Kafka message, tenant and session with a zero byte between them, so that the messages of a session stay in
/// order.
#[must_use]
pub fn message_key(tenant: &TenantId, session: &SessionId) -> Vec<u8> {
    [tenant.as_str().as_bytes(), &[0], session.as_str().as_bytes()].concat()
}

/// Appends an encoded record behind its length (4 bytes, little-endian).
///
/// # Errors
/// The record has 4 GiB or more.
pub fn write_framed(content: &mut Vec<u8>, record: &[u8]) -> Result<(), RecordError> {
    let length = u32::try_from(record.len()).map_err(|_| RecordError::TooLong { bytes: record.len() })?;
    content.extend_from_slice(&length.to_le_bytes());
    content.extend_from_slice(record);
    Ok(())
}

/// Iterates over the encoded records of a complete content; the last item is [`RecordError::Truncated`] if the content ends
/// within a record.
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

/// Decodes the records of a complete content.
///
/// # Errors
/// The content ends within a record, or a record is of another version or damaged.
pub fn decode_framed(content: &[u8]) -> Result<Vec<Record>, RecordError> {
    read_framed(content).map(|record| Record::decode(record?)).collect()
}

#[cfg(test)]
mod tests {
    use schemas::keys::Digest;

    use super::*;

    fn message() -> (MessageValue, [Record; 2]) {
        let session = SessionId::parse("s").expect("id");
        let chunk = |byte| Record::Chunk {
            session: session.clone(),
            digest: Digest([byte; 16]),
            bytes: vec![byte; 3].into(),
        };
        let records = [chunk(1), chunk(2)];
        let mut content = Vec::new();
        for record in &records {
            write_framed(&mut content, &record.encode().expect("encodes")).expect("is short");
        }
        (MessageValue { journal: "j".to_owned(), position: 9, part: 0, parts: 1, content }, records)
    }

    #[test]
    fn message_values_come_back() {
        let (message, records) = message();
        let decoded = MessageValue::decode(&message.encode().expect("encodes")).expect("decodes");
        assert_eq!(decoded, message);
        assert_eq!(decoded.records().expect("decodes"), records);
    }

    #[test]
    fn every_truncated_message_value_is_refused() {
        let bytes = message().0.encode().expect("encodes");
        for end in 0..bytes.len() {
            assert!(MessageValue::decode(&bytes[..end]).is_err(), "truncated at {end}");
        }
    }

    #[test]
    fn a_content_truncated_within_a_record_is_refused() {
        let (message, records) = message();
        let first = 4 + records[0].encode().expect("encodes").len();
        for end in 1..message.content.len() {
            let decoded = decode_framed(&message.content[..end]);
            if end == first {
                assert_eq!(decoded.expect("one complete record"), records[..1]);
            } else {
                assert!(matches!(decoded, Err(RecordError::Truncated)), "truncated at {end}");
            }
        }
    }

    #[test]
    fn other_versions_and_part_numbers_are_refused() {
        let version = MessageValue::decode(&[9, 0]);
        assert!(matches!(version, Err(RecordError::Version { found: 9, supported: MESSAGE_VERSION })));
        let part = MessageValue { part: 1, ..message().0 };
        let decoded = MessageValue::decode(&part.encode().expect("encodes"));
        assert!(matches!(decoded, Err(RecordError::Truncated)));
    }
}
