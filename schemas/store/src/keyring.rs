//! Tenant keys, which wrap and unwrap the data keys of files (envelope encryption).
//!
//! A tenant has two keys: one for metadata, one for payload (bodies and decoded texts), so that a service that counts and
//! routes needs no access to texts. The caller provides the keys; this module reads no files and keeps no data keys.

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

/// Key-encryption key of a tenant: 32 bytes for AES-256-GCM. `Debug` hides it.
#[derive(Clone)]
pub struct WrappingKey([u8; 32]);

impl std::fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WrappingKey(hidden)")
    }
}

impl WrappingKey {
    /// Creates a key from 32 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &self.0).expect("32 bytes are a key of AES-256");
        LessSafeKey::new(key)
    }

    /// Returns Base64 of a fresh nonce and the sealed data key. The key's name is authenticated too.
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

/// Keys of one tenant. A reader of metadata alone needs no payload key.
#[derive(Debug, Clone)]
pub struct TenantKeyPair {
    /// Wraps the data keys of metadata columns and of footers.
    pub metadata: WrappingKey,
    /// Wraps the data keys of payload columns; required for writing.
    pub payload: Option<WrappingKey>,
}

/// Keys of all encrypted tenants. Clones share them.
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

/// Use of a tenant's key; part of the key's name in files.
#[derive(Debug, Clone, Copy, strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
enum KeyPurpose {
    Metadata,
    Payload,
}

impl KeyRing {
    /// Creates a ring from the keys by tenant.
    #[must_use]
    pub fn new(pairs: BTreeMap<TenantId, TenantKeyPair>) -> Self {
        let pairs = Arc::new(pairs);
        Self { retriever: Arc::new(KeyUnwrapper(Arc::clone(&pairs))), pairs }
    }

    /// Creates the data keys of one new file; `None` if the tenant has no keys and its files are not encrypted.
    ///
    /// # Errors
    /// The system has no randomness, or the ring has no payload key of the tenant.
    pub fn file_keys(&self, tenant: &TenantId) -> Result<Option<FileKeys>, KeyError> {
        let Some(pair) = self.pairs.get(tenant) else { return Ok(None) };
        let payload_name = name(tenant, KeyPurpose::Payload);
        let payload = pair.payload.as_ref().ok_or_else(|| KeyError::missing(&payload_name))?;
        let metadata_name = name(tenant, KeyPurpose::Metadata);
        let footer: [u8; DATA_KEY_BYTES] = random()?;
        let column: [u8; DATA_KEY_BYTES] = random()?;
        let payload_column: [u8; DATA_KEY_BYTES] = random()?;
        Ok(Some(FileKeys {
            footer: data_key(&pair.metadata, &metadata_name, &footer, true)?,
            metadata: data_key(&pair.metadata, &metadata_name, &column, false)?,
            payload: data_key(payload, &payload_name, &payload_column, false)?,
        }))
    }

    /// Creates the options for writing one new file of a tenant.
    ///
    /// # Errors
    /// As [`Self::file_keys`].
    pub fn write_options(&self, tenant: &TenantId, level: Level) -> Result<WriteOptions, KeyError> {
        Ok(WriteOptions { level, keys: self.file_keys(tenant)? })
    }

    /// Returns the unwrapper of data keys for Parquet readers.
    #[must_use]
    pub fn retriever(&self) -> &Arc<dyn KeyRetriever> {
        &self.retriever
    }
}

fn name(tenant: &TenantId, purpose: KeyPurpose) -> String {
    format!("{tenant}/{}", <&str>::from(purpose))
}

fn data_key(key: &WrappingKey, name: &str, data: &[u8], is_footer: bool) -> Result<DataKey, KeyError> {
    let wrapped = key.wrap(name, data)?;
    let metadata = KeyMaterial::new(name.to_owned(), wrapped, is_footer).encode();
    Ok(DataKey { key: data.to_vec(), metadata })
}

/// Unwraps data keys by the key metadata in a file.
struct KeyUnwrapper(Arc<BTreeMap<TenantId, TenantKeyPair>>);

impl KeyUnwrapper {
    fn find(&self, name: &str) -> Option<&WrappingKey> {
        let (tenant, purpose) = name.rsplit_once('/')?;
        let pair = self.0.get(&TenantId::parse(tenant).ok()?)?;
        match purpose.parse().ok()? {
            KeyPurpose::Metadata => Some(&pair.metadata),
            KeyPurpose::Payload => pair.payload.as_ref(),
        }
    }
}

impl KeyRetriever for KeyUnwrapper {
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
    fn a_missing_and_a_wrong_key_are_different_errors() {
        let tenant = TenantId::parse("t").expect("id");
        let keys = ring("t", 1, Some(2)).file_keys(&tenant).expect("keys").expect("has keys");
        let open = |ring: KeyRing| ring.retriever().retrieve_key(&keys.payload.metadata);
        let error = |ring: KeyRing| open(ring).expect_err("no key").to_string();
        assert!(open(ring("t", 9, Some(2))).is_ok());
        assert!(error(ring("t", 1, Some(3))).contains("does not open it"));
        assert!(error(ring("t", 1, None)).contains("\"t/payload\", which is not configured"));
        assert!(error(ring("u", 1, Some(2))).contains("tenant = \"t\""));
        assert!(error(KeyRing::default()).contains("not configured"));
        assert!(ring("t", 1, None).file_keys(&tenant).is_err());
    }

    #[test]
    fn a_wrapped_key_opens_only_under_its_own_name() {
        let key = WrappingKey::new([1; 32]);
        let wrapped = key.wrap("t/metadata", &[7; 32]).expect("wraps");
        assert_eq!(key.unwrap("t/metadata", &wrapped).expect("opens"), [7; 32]);
        assert!(matches!(key.unwrap("t/payload", &wrapped), Err(KeyError::Wrong { .. })));
        for bad in ["", "AAAA", "not base64!"] {
            assert!(matches!(key.unwrap("t/metadata", bad), Err(KeyError::Foreign { .. })), "{bad}");
        }
    }
}
