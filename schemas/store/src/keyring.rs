//! The keys of tenants: they wrap the data keys of files, and open them again.
//!
//! Each tenant has two: one opens what is not payload, the other bodies and decoded texts, so that whoever counts and
//! routes need not be able to read. Keys come from the caller; nothing is read from disk here and nothing is remembered
//! of a data key.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::table::encryption::{DataKey, FileKeys, KeyError, KeyMaterial};
use crate::table::{Level, WriteOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parquet::encryption::decrypt::KeyRetriever;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use schemas::id::TenantId;

/// Bytes of a data key: AES-256.
const DATA_KEY_BYTES: usize = 32;

/// A key of a tenant: 32 bytes for AES-256-GCM.
#[derive(Clone)]
pub struct WrappingKey([u8; 32]);

impl std::fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WrappingKey(hidden)")
    }
}

impl WrappingKey {
    /// Takes 32 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &self.0).expect("32 bytes are a key of AES-256");
        LessSafeKey::new(key)
    }

    /// Base64 of a fresh nonce and the sealed data key.
    fn wrap(&self, name: &str, data_key: &[u8]) -> Result<String, KeyError> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut sealed = data_key.to_vec();
        self.cipher()
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(name.as_bytes()),
                &mut sealed,
            )
            .map_err(|_| KeyError::Randomness)?;
        Ok(STANDARD.encode([&nonce[..], &sealed].concat()))
    }

    fn unwrap(&self, name: &str, wrapped: &str) -> Result<Vec<u8>, KeyError> {
        let foreign = |detail: &str| KeyError::Foreign { detail: detail.to_owned() };
        let bytes = STANDARD.decode(wrapped).map_err(|_| foreign("wrapped key is not base64"))?;
        let (nonce, sealed) =
            bytes.split_first_chunk::<NONCE_LEN>().ok_or_else(|| foreign("wrapped key is too short"))?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self
            .cipher()
            .open_in_place(nonce, Aad::from(name.as_bytes()), &mut opened)
            .map_err(|_| KeyError::Wrong { key: name.to_owned() })?;
        Ok(opened.to_vec())
    }
}

fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::Randomness)?;
    Ok(bytes)
}

/// The keys of one tenant; whoever only reads what is not payload can leave the other away.
#[derive(Debug, Clone)]
pub struct TenantKeyPair {
    /// Opens what is not payload.
    pub metadata: WrappingKey,
    /// Opens payload; needed to write.
    pub payload: Option<WrappingKey>,
}

/// The keys of all tenants that have some. Clones share them.
#[derive(Clone)]
pub struct KeyRing {
    pairs: Arc<BTreeMap<TenantId, TenantKeyPair>>,
    retriever: Arc<dyn KeyRetriever>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KeyRing").field(&self.pairs.keys().collect::<Vec<_>>()).finish()
    }
}

impl Default for KeyRing {
    fn default() -> Self {
        Self::new(BTreeMap::new())
    }
}

/// Which of a tenant's keys.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Metadata,
    Payload,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Payload => "payload",
        }
    }
}

impl KeyRing {
    /// Takes the keys.
    #[must_use]
    pub fn new(pairs: BTreeMap<TenantId, TenantKeyPair>) -> Self {
        let pairs = Arc::new(pairs);
        Self { retriever: Arc::new(Opener(Arc::clone(&pairs))), pairs }
    }

    /// Makes the data keys of one new file; `None` where the tenant has no keys and its files are plain.
    ///
    /// # Errors
    /// The system has no randomness, or the tenant's payload key is not there.
    pub fn file_keys(&self, tenant: &TenantId) -> Result<Option<FileKeys>, KeyError> {
        let Some(pair) = self.pairs.get(tenant) else { return Ok(None) };
        let payload_name = name(tenant, Purpose::Payload);
        let payload = pair.payload.as_ref().ok_or_else(|| KeyError::missing(&payload_name))?;
        let metadata_name = name(tenant, Purpose::Metadata);
        let footer: [u8; DATA_KEY_BYTES] = random()?;
        let column: [u8; DATA_KEY_BYTES] = random()?;
        let payload_column: [u8; DATA_KEY_BYTES] = random()?;
        Ok(Some(FileKeys {
            footer: data_key(&pair.metadata, &metadata_name, &footer, true)?,
            metadata: data_key(&pair.metadata, &metadata_name, &column, false)?,
            payload: data_key(payload, &payload_name, &payload_column, false)?,
        }))
    }

    /// How one new file of this tenant is written.
    ///
    /// # Errors
    /// As [`Self::file_keys`].
    pub fn write_options(&self, tenant: &TenantId, level: Level) -> Result<WriteOptions, KeyError> {
        Ok(WriteOptions { level, keys: self.file_keys(tenant)? })
    }

    /// Opens data keys for the readers of Parquet files.
    #[must_use]
    pub fn retriever(&self) -> &Arc<dyn KeyRetriever> {
        &self.retriever
    }
}

fn name(tenant: &TenantId, purpose: Purpose) -> String {
    format!("{tenant}/{}", purpose.as_str())
}

fn data_key(key: &WrappingKey, name: &str, data: &[u8], is_footer: bool) -> Result<DataKey, KeyError> {
    let wrapped = key.wrap(name, data)?;
    let metadata = KeyMaterial::new(name.to_owned(), wrapped, is_footer).encode();
    Ok(DataKey { key: data.to_vec(), metadata })
}

/// Opens data keys by the metadata they have in the file.
struct Opener(Arc<BTreeMap<TenantId, TenantKeyPair>>);

impl Opener {
    fn find(&self, name: &str) -> Option<&WrappingKey> {
        let (tenant, purpose) = name.rsplit_once('/')?;
        let pair = self.0.get(&TenantId::parse(tenant).ok()?)?;
        match purpose {
            "metadata" => Some(&pair.metadata),
            "payload" => pair.payload.as_ref(),
            _ => None,
        }
    }
}

impl KeyRetriever for Opener {
    fn retrieve_key(&self, key_metadata: &[u8]) -> parquet::errors::Result<Vec<u8>> {
        let material = KeyMaterial::parse(key_metadata)?;
        let key = self.find(&material.key).ok_or_else(|| KeyError::missing(&material.key))?;
        Ok(key.unwrap(&material.key, &material.wrapped)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(tenant: &str, metadata: u8, payload: Option<u8>) -> KeyRing {
        let pair = TenantKeyPair {
            metadata: WrappingKey::new([metadata; 32]),
            payload: payload.map(|byte| WrappingKey::new([byte; 32])),
        };
        KeyRing::new(BTreeMap::from([(TenantId::parse(tenant).expect("id"), pair)]))
    }

    #[test]
    fn data_keys_are_fresh_and_open_again() {
        let tenant = TenantId::parse("a/b").expect("id");
        let ring = ring("a/b", 1, Some(2));
        let (one, two) = (ring.file_keys(&tenant).expect("keys"), ring.file_keys(&tenant).expect("keys"));
        let (one, two) = (one.expect("has keys"), two.expect("has keys"));
        let all = [&one.footer, &one.metadata, &one.payload, &two.footer, &two.metadata, &two.payload];
        for (place, key) in all.iter().enumerate() {
            assert_eq!(ring.retriever().retrieve_key(&key.metadata).expect("opens"), key.key);
            assert!(all[..place].iter().all(|other| other.key != key.key), "data key {place} is not fresh");
        }
        assert!(ring.file_keys(&TenantId::parse("c").expect("id")).expect("no error").is_none());
    }

    #[test]
    fn a_missing_and_a_wrong_key_are_told_apart() {
        let tenant = TenantId::parse("t").expect("id");
        let keys = ring("t", 1, Some(2)).file_keys(&tenant).expect("keys").expect("has keys");
        let open = |ring: KeyRing| ring.retriever().retrieve_key(&keys.payload.metadata);
        let said = |ring: KeyRing| open(ring).expect_err("no key").to_string();
        assert!(open(ring("t", 9, Some(2))).is_ok());
        assert!(said(ring("t", 1, Some(3))).contains("does not open it"));
        assert!(said(ring("t", 1, None)).contains("\"t/payload\", which is not configured"));
        assert!(said(ring("u", 1, Some(2))).contains("tenant = \"t\""));
        assert!(said(KeyRing::default()).contains("not configured"));
        assert!(ring("t", 1, None).file_keys(&tenant).is_err());
    }

    #[test]
    fn a_wrapped_key_serves_only_under_its_own_name() {
        let key = WrappingKey::new([1; 32]);
        let wrapped = key.wrap("t/metadata", &[7; 32]).expect("wraps");
        assert_eq!(key.unwrap("t/metadata", &wrapped).expect("opens"), [7; 32]);
        assert!(matches!(key.unwrap("t/payload", &wrapped), Err(KeyError::Wrong { .. })));
        for bad in ["", "AAAA", "not base64!"] {
            assert!(matches!(key.unwrap("t/metadata", bad), Err(KeyError::Foreign { .. })), "{bad}");
        }
    }
}
