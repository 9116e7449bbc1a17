//! Keys of a tenant: for the digests of chunks, and for the tokens of redacted values.
//!
//! A plain hash of a card number can be reversed by trying every card number; a keyed one cannot. The caller supplies the root
//! key, which is never stored with the data.

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::columns::{ChunkReference, ColumnBuilder, ColumnValue, LogicalType};
use crate::id::TenantId;

/// Length of a [`Digest`] in bytes.
pub const DIGEST_BYTES: usize = 16;

/// The first 16 bytes of the keyed BLAKE3 hash of a chunk.
///
/// Digests do not compress and every chunk has one, so their length affects the size of a store. Without the tenant's key
/// nobody can search for collisions, and 2^40 chunks of one tenant collide by chance with probability 2^-49.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub [u8; DIGEST_BYTES]);

/// Uses half of the digest, which is a hash already.
impl std::hash::Hash for Digest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let (half, _) = self.0.split_at(DIGEST_BYTES / 2);
        state.write_u64(half.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.hex())
    }
}

impl Digest {
    /// 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_bytes::ByteArray::deserialize(deserializer).map(|array| Self(array.into_array()))
    }
}

impl ColumnValue for Digest {
    const TYPE: LogicalType = LogicalType::FixedBinary(DIGEST_BYTES);

    fn build<B: ColumnBuilder>(builder: &mut B, values: &[Option<&Self>]) -> Result<B::Array, B::Error> {
        builder.fixed_binary(values.iter().map(|value| value.map(|Self(bytes)| bytes)))
    }
}

impl ChunkReference for Digest {
    fn build<B: ColumnBuilder>(builder: &mut B, bodies: &[Option<&Vec<Self>>]) -> Result<B::Array, B::Error> {
        builder.chunk_rows(bodies.len())
    }
}

/// The root key of a deployment: 32 random bytes, from which the keys of every tenant are derived.
#[derive(Clone)]
pub struct RootKey([u8; 32]);

impl std::fmt::Debug for RootKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RootKey(hidden)")
    }
}

/// A key file without 64 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("key is not 64 hexadecimal digits (32 bytes)")]
pub struct KeyError;

impl RootKey {
    /// Wraps 32 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Parses 64 hexadecimal digits; surrounding white space is ignored.
    ///
    /// # Errors
    /// The text is not 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let bytes = hex::decode(text.trim()).map_err(|_| KeyError)?;
        bytes.try_into().map(Self).map_err(|_| KeyError)
    }

    /// Formats the key as 64 hexadecimal digits, as [`Self::parse`] reads them.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Derives the keys of one tenant (BLAKE3 key derivation, one context string per purpose).
    #[must_use]
    pub fn tenant(&self, tenant: &TenantId) -> TenantKeys {
        let mut material = self.0.to_vec();
        material.extend_from_slice(tenant.as_str().as_bytes());
        TenantKeys {
            chunk: blake3::derive_key("foreshadow 2026 chunk digest v2", &material),
            token: blake3::derive_key("foreshadow 2026 redaction token v1", &material),
        }
    }
}

/// The keys of one tenant.
#[derive(Clone)]
pub struct TenantKeys {
    chunk: [u8; 32],
    token: [u8; 32],
}

impl std::fmt::Debug for TenantKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TenantKeys(hidden)")
    }
}

impl TenantKeys {
    /// The keyed digest of a chunk.
    #[must_use]
    pub fn digest(&self, chunk: &[u8]) -> Digest {
        let mut digest = [0; DIGEST_BYTES];
        digest.copy_from_slice(&blake3::keyed_hash(&self.chunk, chunk).as_bytes()[..DIGEST_BYTES]);
        Digest(digest)
    }

    /// The token that replaces a secret value: `⟦kind:token⟧` with the first 16 hexadecimal digits of HMAC-SHA-256 under the
    /// tenant's key.
    ///
    /// Equal values have equal tokens, so session linking and replay matching still work.
    #[must_use]
    pub fn token(&self, kind: &str, value: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.token).expect("HMAC takes a key of any length");
        mac.update(value);
        let tag = mac.finalize().into_bytes();
        format!("⟦{kind}:{}⟧", hex::encode(&tag[..8]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_do_not_share_digests_or_tokens() {
        let root = RootKey::new([7; 32]);
        let a = root.tenant(&TenantId::parse("a").expect("id"));
        let b = root.tenant(&TenantId::parse("b").expect("id"));
        assert_eq!(a.digest(b"x"), a.digest(b"x"));
        assert_ne!(a.digest(b"x"), b.digest(b"x"));
        assert_ne!(a.token("email", b"x"), b.token("email", b"x"));
        assert!(a.token("email", b"x").starts_with("⟦email:"));
        assert_eq!(RootKey::parse(&root.hex()).expect("round trip").hex(), root.hex());
    }
}
