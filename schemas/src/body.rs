//! Bodies cut along their JSON structure, and put together again byte for byte.
//!
//! A chat request repeats its whole history and its tool list every turn. Each element of `messages`, `input`,
//! `tools` and `system` becomes a piece of its own, named by its digest and kept once; what stands between the
//! pieces is the template. Cutting never parses numbers or re-encodes anything: it only finds byte spans.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::keys::{Digest, TenantKeys};

/// Top-level keys whose array elements are cut into pieces of their own.
pub const CHUNKED_KEYS: [&str; 4] = ["messages", "input", "tools", "system"];

/// A span shorter than this stays in the template: a reference would cost as much as the bytes.
pub const MIN_CHUNK_BYTES: usize = 48;

/// A piece longer than this is split, to stay well under a Kafka broker's message limit (1 MiB by default).
pub const MAX_CHUNK_BYTES: usize = 512 * 1024;

/// A body as a template with chunk_offsets; `R` is what a piece is named by (a digest in flight, a row number in a file).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body<R = Digest> {
    /// The bytes that are not in a piece.
    #[serde(with = "serde_bytes")]
    pub template: Vec<u8>,
    /// For each piece, the offset in the template before which it is inserted, ascending.
    pub chunk_offsets: Vec<u32>,
    /// For each cut, its piece.
    pub chunks: Vec<R>,
    /// Length of the whole body in bytes, after redaction.
    pub bytes: u64,
}

impl<R> Default for Body<R> {
    fn default() -> Self {
        Self { template: Vec::new(), chunk_offsets: Vec::new(), chunks: Vec::new(), bytes: 0 }
    }
}

/// A piece that a body refers to: its name and its bytes.
pub type BodyChunk<'a> = (Digest, &'a [u8]);

/// The body refers to a piece that is not at hand, or its chunk_offsets do not fit its template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReassembleError {
    /// A piece is not at hand.
    #[error("piece {place} of {count} is missing")]
    MissingChunk {
        /// Which piece, from 0.
        place: usize,
        /// How many the body has.
        count: usize,
    },
    /// The chunk_offsets are out of order, past the end, or not as many as the pieces.
    #[error("chunk_offsets do not fit a template of {template_bytes} bytes")]
    BadOffsets {
        /// Length of the template.
        template_bytes: usize,
    },
    /// The pieces add up to another length than was stored.
    #[error("reassembled {found} bytes, expected {expected}")]
    WrongLength {
        /// What was stored.
        expected: u64,
        /// What came out.
        found: u64,
    },
}

impl Body<Digest> {
    /// Cuts the bytes; every piece of the body is handed to `keep` in order, repeated ones too.
    #[must_use]
    pub fn split<'a>(bytes: &'a [u8], keys: &TenantKeys, mut keep: impl FnMut(BodyChunk<'a>)) -> Self {
        let mut body = Self { bytes: bytes.len() as u64, ..Self::default() };
        let mut done = 0;
        for span in piece_spans(bytes) {
            body.template.extend_from_slice(&bytes[done..span.start]);
            done = span.end;
            for part in bytes[span].chunks(MAX_CHUNK_BYTES) {
                let digest = keys.digest(part);
                body.chunk_offsets.push(u32::try_from(body.template.len()).unwrap_or(u32::MAX));
                body.chunks.push(digest);
                keep((digest, part));
            }
        }
        body.template.extend_from_slice(&bytes[done..]);
        body
    }
}

impl<R> Body<R> {
    /// Puts the body together; `piece` finds the bytes of a reference.
    ///
    /// # Errors
    /// A piece is missing, or the stored chunk_offsets are not those of this template.
    pub fn reassemble<'p>(
        &self,
        mut piece: impl FnMut(&R) -> Option<&'p [u8]>,
    ) -> Result<Vec<u8>, ReassembleError> {
        let bad = || ReassembleError::BadOffsets { template_bytes: self.template.len() };
        if self.chunk_offsets.len() != self.chunks.len() {
            return Err(bad());
        }
        let mut out = Vec::with_capacity(usize::try_from(self.bytes).unwrap_or(0).min(64 << 20));
        let mut done = 0;
        for (place, (cut, chunk)) in self.chunk_offsets.iter().zip(&self.chunks).enumerate() {
            let cut = *cut as usize;
            out.extend_from_slice(self.template.get(done..cut).ok_or_else(bad)?);
            done = cut;
            let missing = || ReassembleError::MissingChunk { place, count: self.chunks.len() };
            out.extend_from_slice(piece(chunk).ok_or_else(missing)?);
        }
        out.extend_from_slice(self.template.get(done..).ok_or_else(bad)?);
        if out.len() as u64 == self.bytes {
            Ok(out)
        } else {
            Err(ReassembleError::WrongLength { expected: self.bytes, found: out.len() as u64 })
        }
    }

    /// Renames every reference, keeping template and chunk_offsets; the first failing one ends it.
    ///
    /// # Errors
    /// Whatever `rename` says.
    pub fn try_map<S, E>(self, rename: impl FnMut(R) -> Result<S, E>) -> Result<Body<S>, E> {
        let chunks = self.chunks.into_iter().map(rename).collect::<Result<_, E>>()?;
        Ok(Body { template: self.template, chunk_offsets: self.chunk_offsets, chunks, bytes: self.bytes })
    }
}

/// Finds the spans to cut out: elements of the arrays under [`CHUNKED_KEYS`], or the whole body where there are none.
fn piece_spans(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut spans: Vec<_> = element_spans(bytes)
        .unwrap_or_default()
        .into_iter()
        .filter(|span| span.len() >= MIN_CHUNK_BYTES && u32::try_from(bytes.len()).is_ok())
        .collect();
    if spans.is_empty() && bytes.len() >= MIN_CHUNK_BYTES {
        spans.push(0..bytes.len());
    }
    spans
}

fn element_spans(bytes: &[u8]) -> Option<Vec<std::ops::Range<usize>>> {
    let text = std::str::from_utf8(bytes).ok()?;
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let fields: Fields<'_> = serde_json::from_str(text).ok()?;
    let mut spans = Vec::new();
    for array in fields.0 {
        let elements: Vec<&RawValue> = serde_json::from_str(array.get()).unwrap_or_default();
        for element in elements {
            // A raw value borrows from `text`, so its address gives its place.
            let start = (element.get().as_ptr() as usize).checked_sub(bytes.as_ptr() as usize)?;
            spans.push(start..start + element.get().len());
        }
    }
    spans.sort_by_key(|span| span.start);
    Some(spans)
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
        let mut pieces = HashMap::new();
        let body = Body::split(bytes, &keys, |(digest, piece)| {
            pieces.insert(digest, piece.to_vec());
        });
        let back =
            body.reassemble(|digest| pieces.get(digest).map(Vec::as_slice)).expect("all pieces are at hand");
        (body, back)
    }

    #[test]
    fn cuts_messages_and_tools_apart() {
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
    fn keeps_what_is_not_json() {
        for bytes in [&b""[..], b"{", &[0xff; 100], b"data: {}\n\n", &[b'a'; 2_000_000]] {
            assert_eq!(round_trip(bytes).1, bytes);
        }
    }

    #[test]
    fn says_which_piece_is_missing() {
        let (body, _) = round_trip(&[b'a'; 100]);
        let error = body.reassemble(|_| None).expect_err("no piece at hand");
        assert_eq!(error, ReassembleError::MissingChunk { place: 0, count: 1 });
    }
}
