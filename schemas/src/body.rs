//! Content-addressed bodies: a template and chunks, which together give the original bytes.
//!
//! A chat request repeats its history and tool list every turn. Each element of `messages`, `input`, `tools` and `system`
//! becomes a chunk, named by its digest and stored once; the bytes between the chunks are the template. Chunking only finds
//! byte spans: it never parses numbers and never re-encodes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::columns;
use crate::columns::{ChunkReference, Column, ColumnBuilder, ColumnClass, ColumnValue, Columns, LogicalType};
use crate::keys::{Digest, TenantKeys};

/// Top-level keys whose array elements become chunks.
pub const CHUNKED_KEYS: [&str; 4] = ["messages", "input", "tools", "system"];

/// A shorter span stays in the template: its reference would be as long.
pub const MIN_CHUNK_BYTES: usize = 48;

/// A longer chunk is split, to stay well under a Kafka broker's message limit (1 MiB by default).
pub const MAX_CHUNK_BYTES: usize = 512 * 1024;

/// A body as a template with chunk references. `R` names a chunk: a digest in flight, a row number in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body<R = Digest> {
    /// The bytes outside chunks.
    #[serde(with = "serde_bytes")]
    pub template: Vec<u8>,
    /// Of each chunk, the offset in the template at which it is inserted, ascending.
    pub chunk_offsets: Vec<u32>,
    /// The chunk of each offset.
    pub chunks: Vec<R>,
    /// Length of the reassembled body in bytes, after redaction.
    pub bytes: u64,
}

impl<R> Default for Body<R> {
    fn default() -> Self {
        Self { template: Vec::new(), chunk_offsets: Vec::new(), chunks: Vec::new(), bytes: 0 }
    }
}

// Written out: on disk a reference is always a row number, whatever names the chunk in memory.
impl<R: ChunkReference> Columns for Body<R> {
    const COLUMNS: &'static [Column] = &[
        Column::new::<Vec<u8>>("template", ColumnClass::Payload, "Bytes outside chunks."),
        Column::new::<Vec<u32>>(
            "chunk_offsets",
            ColumnClass::Metadata,
            "Of each chunk, the offset in the template at which it is inserted, ascending.",
        ),
        Column::new::<Vec<u32>>(
            "chunks",
            ColumnClass::Metadata,
            "The chunk of each offset, as its row in the chunks file of the same name.",
        ),
        Column::new::<u64>(
            "bytes",
            ColumnClass::Metadata,
            "Length of the reassembled body, after redaction.",
        ),
    ];

    fn build<B: ColumnBuilder>(builder: &mut B, rows: &[Option<&Self>]) -> Result<Vec<B::Array>, B::Error> {
        let templates: Vec<_> = rows.iter().map(|row| row.map(|row| &row.template)).collect();
        let offsets: Vec<_> = rows.iter().map(|row| row.map(|row| &row.chunk_offsets)).collect();
        let chunks: Vec<_> = rows.iter().map(|row| row.map(|row| &row.chunks)).collect();
        let lengths: Vec<_> = rows.iter().map(|row| row.map(|row| &row.bytes)).collect();
        Ok(vec![
            ColumnValue::build(builder, &templates)?,
            ColumnValue::build(builder, &offsets)?,
            R::build(builder, &chunks)?,
            ColumnValue::build(builder, &lengths)?,
        ])
    }
}

impl<R: ChunkReference> ColumnValue for Body<R> {
    const TYPE: LogicalType = LogicalType::Struct(<Self as Columns>::COLUMNS);

    fn build<B: ColumnBuilder>(builder: &mut B, values: &[Option<&Self>]) -> Result<B::Array, B::Error> {
        let arrays = <Self as Columns>::build(builder, values)?;
        builder.structure(<Self as Columns>::COLUMNS, arrays, values.iter().map(Option::is_some))
    }
}

columns! {
    /// A distinct chunk of the bodies in the exchanges file of the same name. Its row number is its reference.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Chunk {
        /// Row number in the file, from 0.
        pub chunk: u32,
        /// Keyed digest of the bytes.
        #[column(lookup)]
        pub digest: Digest,
        /// The bytes; null if an earlier file of the same session stores them.
        #[column(payload)]
        pub bytes: Option<Bytes>,
        /// Name of the earlier file in the same folder; null if this file stores the bytes.
        pub stored_in: Option<String>,
    }
}

/// A chunk of a body: its digest and its bytes.
pub type BodyChunk<'a> = (Digest, &'a [u8]);

/// A body that cannot be reassembled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReassembleError {
    /// A chunk is not available.
    #[error("chunk {index} of {count} is missing")]
    MissingChunk {
        /// Index of the chunk, from 0.
        index: usize,
        /// Number of chunks of the body.
        count: usize,
    },
    /// The offsets are out of order, past the end, or not as many as the chunks.
    #[error("chunk offsets do not fit a template of {template_bytes} bytes")]
    BadOffsets {
        /// Length of the template.
        template_bytes: usize,
    },
    /// The chunks add up to another length than was stored.
    #[error("reassembled {found} bytes, expected {expected}")]
    WrongLength {
        /// The stored length in bytes.
        expected: u64,
        /// The reassembled length in bytes.
        found: u64,
    },
}

impl Body<Digest> {
    /// Splits the bytes into template and chunks, and passes every chunk to `keep` in order, repeated ones too.
    ///
    /// A body of 4 GiB or more becomes a template without chunks, because an offset has 32 bits.
    #[must_use]
    pub fn split<'a>(bytes: &'a [u8], keys: &TenantKeys, mut keep: impl FnMut(BodyChunk<'a>)) -> Self {
        let mut body = Self { bytes: bytes.len() as u64, ..Self::default() };
        let mut done = 0;
        for span in chunk_spans(bytes) {
            body.template.extend_from_slice(&bytes[done..span.start]);
            done = span.end;
            // `chunk_spans` finds none in a body past 32 bits, and a template is no longer than its body.
            let offset = u32::try_from(body.template.len()).expect("a chunked body is shorter than 4 GiB");
            for part in bytes[span].chunks(MAX_CHUNK_BYTES) {
                let digest = keys.digest(part);
                body.chunk_offsets.push(offset);
                body.chunks.push(digest);
                keep((digest, part));
            }
        }
        body.template.extend_from_slice(&bytes[done..]);
        body
    }
}

impl<R> Body<R> {
    /// Reassembles the body; `find` returns the bytes of a chunk.
    ///
    /// # Errors
    /// A chunk is missing, or the stored offsets do not fit the template.
    pub fn reassemble<'p>(
        &self,
        mut find: impl FnMut(&R) -> Option<&'p [u8]>,
    ) -> Result<Vec<u8>, ReassembleError> {
        let bad = || ReassembleError::BadOffsets { template_bytes: self.template.len() };
        if self.chunk_offsets.len() != self.chunks.len() {
            return Err(bad());
        }
        let mut out = Vec::with_capacity(usize::try_from(self.bytes).unwrap_or(0).min(64 << 20));
        let mut done = 0;
        for (index, (offset, chunk)) in self.chunk_offsets.iter().zip(&self.chunks).enumerate() {
            let offset = *offset as usize;
            out.extend_from_slice(self.template.get(done..offset).ok_or_else(bad)?);
            done = offset;
            let missing = || ReassembleError::MissingChunk { index, count: self.chunks.len() };
            out.extend_from_slice(find(chunk).ok_or_else(missing)?);
        }
        out.extend_from_slice(self.template.get(done..).ok_or_else(bad)?);
        if out.len() as u64 == self.bytes {
            Ok(out)
        } else {
            Err(ReassembleError::WrongLength { expected: self.bytes, found: out.len() as u64 })
        }
    }

    /// Converts every chunk reference, keeping template and offsets.
    ///
    /// # Errors
    /// The first error of `convert`.
    pub fn try_map<S, E>(self, convert: impl FnMut(R) -> Result<S, E>) -> Result<Body<S>, E> {
        let chunks = self.chunks.into_iter().map(convert).collect::<Result<_, E>>()?;
        Ok(Body { template: self.template, chunk_offsets: self.chunk_offsets, chunks, bytes: self.bytes })
    }
}

/// Finds the spans of chunks: elements of the arrays under [`CHUNKED_KEYS`], or the entire body if there are none.
fn chunk_spans(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    if u32::try_from(bytes.len()).is_err() {
        return Vec::new();
    }
    let mut spans = element_spans(bytes).unwrap_or_default();
    if spans.is_empty() && bytes.len() >= MIN_CHUNK_BYTES {
        spans.push(0..bytes.len());
    }
    spans
}

/// Spans of the elements of at least [`MIN_CHUNK_BYTES`]; an array of millions of short ones takes no memory.
fn element_spans(bytes: &[u8]) -> Option<Vec<std::ops::Range<usize>>> {
    let text = std::str::from_utf8(bytes).ok()?;
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let fields: Fields<'_> = serde_json::from_str(text).ok()?;
    let mut spans = Vec::new();
    for array in fields.0 {
        let elements: LongElements<'_> = serde_json::from_str(array.get()).unwrap_or_default();
        for element in elements.0 {
            // A raw value borrows from `text`, so its address gives its offset.
            let start = (element.get().as_ptr() as usize).checked_sub(bytes.as_ptr() as usize)?;
            spans.push(start..start + element.get().len());
        }
    }
    spans.sort_by_key(|span| span.start);
    Some(spans)
}

/// The raw elements of an array that are at least [`MIN_CHUNK_BYTES`] long.
#[derive(Default)]
struct LongElements<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for LongElements<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Vec<&'de RawValue>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON array")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut found = Vec::new();
                while let Some(element) = seq.next_element::<&'de RawValue>()? {
                    if element.get().len() >= MIN_CHUNK_BYTES {
                        found.push(element);
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_seq(Visitor).map(LongElements)
    }
}

/// The raw values of the top-level keys in [`CHUNKED_KEYS`], repeated keys included.
struct Fields<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Vec<&'de RawValue>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = Vec::new();
                while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    let value: &'de RawValue = map.next_value()?;
                    if CHUNKED_KEYS.contains(&key.as_ref()) && value.get().starts_with('[') {
                        found.push(value);
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(Visitor).map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::id::TenantId;
    use crate::keys::RootKey;

    fn round_trip(bytes: &[u8]) -> (Body, Vec<u8>) {
        let keys = RootKey::new([1; 32]).tenant(&TenantId::parse("t").expect("id"));
        let mut chunks = HashMap::new();
        let body = Body::split(bytes, &keys, |(digest, chunk)| {
            chunks.insert(digest, chunk.to_vec());
        });
        let back = body
            .reassemble(|digest| chunks.get(digest).map(Vec::as_slice))
            .expect("every chunk is available");
        (body, back)
    }

    #[test]
    fn messages_and_tools_become_chunks() {
        let long = "x".repeat(60);
        let text = format!(
            r#"{{"model":"m", "messages" : [ {{"role":"user","content":"{long}"}} , {{"role":"user","content":"é{long}"}}],"tools":[{{"name":"{long}"}}]}}"#
        );
        let (body, back) = round_trip(text.as_bytes());
        assert_eq!(back, text.as_bytes());
        assert_eq!(body.chunks.len(), 3);
        assert!(body.template.len() < 60);
    }

    #[test]
    fn bodies_that_are_not_json_come_back() {
        for bytes in [&b""[..], b"{", &[0xff; 100], b"data: {}\n\n", &[b'a'; 2_000_000]] {
            assert_eq!(round_trip(bytes).1, bytes);
        }
    }

    #[test]
    fn a_missing_chunk_is_named() {
        let (body, _) = round_trip(&[b'a'; 100]);
        let error = body.reassemble(|_| None).expect_err("no chunk is available");
        assert_eq!(error, ReassembleError::MissingChunk { index: 0, count: 1 });
    }
}
