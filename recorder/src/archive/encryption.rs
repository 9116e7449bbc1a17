//! Encryption keys of a store: the `[encryption]` table and its key files.
//!
//! This module only reads key files. The `store` crate assigns columns to keys and wraps data keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use store::keyring::{KeyRing, TenantKeyPair, WrappingKey};

use crate::config::{ConfigError, EncryptionConfig};

/// Keys that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    /// A key file cannot be read.
    #[error(
        "encryption.key[{index}].{key} {path} cannot be read: {source}; create one with `openssl rand -hex 32 >FILE`"
    )]
    File {
        /// Index of the entry, from 0.
        index: usize,
        /// Key of the entry, such as `metadata-key-file`.
        key: &'static str,
        /// Path of the key file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A key file does not contain 64 hexadecimal digits.
    #[error(
        "encryption.key[{index}].{key} {path}: expected 64 hexadecimal digits (32 bytes), found something else; restore the key file, or create one with `openssl rand -hex 32 >FILE`"
    )]
    Content {
        /// Index of the entry, from 0.
        index: usize,
        /// Key of the entry, such as `metadata-key-file`.
        key: &'static str,
        /// Path of the key file.
        path: PathBuf,
    },
    /// A tenant has two entries.
    #[error("encryption.key[{index}].tenant: {tenant:?} already has an entry; remove one of them")]
    Duplicate {
        /// Index of the entry, from 0.
        index: usize,
        /// Id of the tenant.
        tenant: String,
    },
    /// Both keys of a tenant are equal, so the metadata key would decrypt the payload.
    #[error("encryption.key[{index}]: metadata and payload of {tenant:?} have the same key; use two keys")]
    SameKey {
        /// Index of the entry, from 0.
        index: usize,
        /// Id of the tenant.
        tenant: String,
    },
}

impl EncryptionConfig {
    /// Parses `[encryption]` of any configuration file; `None` if the file has no such table.
    ///
    /// # Errors
    /// The text is not TOML, or the table has a wrong key or value.
    pub fn find(text: &str) -> Result<Option<Self>, ConfigError> {
        let wrong =
            |key: String, detail: &str| ConfigError { key, detail: detail.trim().replace('\n', "; ") };
        let mut file: toml::Table =
            toml::from_str(text).map_err(|error| wrong("(file)".to_owned(), error.message()))?;
        let Some(table) = file.remove("encryption") else { return Ok(None) };
        serde_path_to_error::deserialize(table).map(Some).map_err(|error| {
            let key = format!("encryption.{}", error.path());
            wrong(key, error.inner().message())
        })
    }

    /// Resolves relative paths of key files against `folder`.
    #[must_use]
    pub fn below(mut self, folder: &Path) -> Self {
        for key in &mut self.keys {
            key.metadata_key_file = folder.join(&key.metadata_key_file);
            key.payload_key_file = key.payload_key_file.as_ref().map(|file| folder.join(file));
        }
        self
    }

    /// Reads the key files.
    ///
    /// # Errors
    /// The error has the entry and the file.
    pub fn load(&self) -> Result<KeyRing, EncryptionError> {
        let mut pairs = BTreeMap::new();
        for (index, entry) in self.keys.iter().enumerate() {
            let tenant = entry.tenant.to_string();
            let metadata = read(index, "metadata-key-file", &entry.metadata_key_file)?;
            let payload = entry.payload_key_file.as_deref();
            let payload = payload.map(|file| read(index, "payload-key-file", file)).transpose()?;
            if payload == Some(metadata) {
                return Err(EncryptionError::SameKey { index, tenant });
            }
            let pair = TenantKeyPair {
                metadata: WrappingKey::new(metadata),
                payload: payload.map(WrappingKey::new),
            };
            if pairs.insert(entry.tenant.clone(), pair).is_some() {
                return Err(EncryptionError::Duplicate { index, tenant });
            }
        }
        Ok(KeyRing::new(pairs))
    }
}

fn read(index: usize, key: &'static str, path: &Path) -> Result<[u8; 32], EncryptionError> {
    let text = std::fs::read_to_string(path).map_err(|source| EncryptionError::File {
        index,
        key,
        path: path.to_owned(),
        source,
    })?;
    let bytes = hex::decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| EncryptionError::Content { index, key, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use schemas::id::TenantId;

    use super::*;

    const TEXT: &str = r#"
        unknown = { to = "this" }
        [[encryption.key]]
        tenant = "acme"
        metadata-key-file = "m.hex"
        payload-key-file = "p.hex"
    "#;

    fn load(text: &str, files: &[(&str, &str)]) -> Result<KeyRing, String> {
        let folder = tempfile::tempdir().expect("temp");
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).expect("writes");
        }
        let config = EncryptionConfig::find(text).map_err(|error| error.to_string())?.expect("has the table");
        config.below(folder.path()).load().map_err(|error| error.to_string())
    }

    #[test]
    fn keys_are_loaded_from_any_configuration() {
        let (m, p) = ("01".repeat(32), format!("{}\n", "02".repeat(32)));
        let ring = load(TEXT, &[("m.hex", &m), ("p.hex", &p)]).expect("the keys are valid");
        assert!(ring.file_keys(&TenantId::parse("acme").expect("id")).expect("keys").is_some());
        assert!(ring.file_keys(&TenantId::parse("other").expect("id")).expect("no error").is_none());
        assert!(EncryptionConfig::find("agent = \"a\"").expect("TOML").is_none());
    }

    #[test]
    fn errors_name_the_entry_and_the_file() {
        let good = "01".repeat(32);
        let refused = |text: &str, files: &[(&str, &str)]| load(text, files).expect_err("is rejected");
        let missing = refused(TEXT, &[("m.hex", &good)]);
        assert!(missing.contains("key[0].payload-key-file") && missing.contains("p.hex"), "{missing}");
        let short = refused(TEXT, &[("m.hex", "0102"), ("p.hex", &good)]);
        assert!(short.contains("metadata-key-file") && short.contains("64 hexadecimal digits"), "{short}");
        let same = refused(TEXT, &[("m.hex", &good), ("p.hex", &good)]);
        assert!(same.contains("have the same key"), "{same}");
        let twice = format!("{TEXT}{}", TEXT.split_once("}\n").expect("two parts").1);
        let other = "02".repeat(32);
        let twice = refused(&twice, &[("m.hex", &good), ("p.hex", &other)]);
        assert!(twice.contains("key[1].tenant"), "{twice}");
        let typo = refused(&TEXT.replace("payload-key-file", "payload-key"), &[]);
        assert!(typo.contains("encryption.key[0]") && typo.contains("payload-key"), "{typo}");
        assert!(refused("a = ", &[]).contains("(file)"));
    }
}
