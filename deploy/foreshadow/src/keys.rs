//! Key files: the root key of a deployment, created on first use, and the tenants' keys of an encrypted store.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use recorder::config::EncryptionConfig;
use schemas::keys::RootKey;
use store::keyring::KeyRing;

/// Path of the root key if neither `--key-file` nor FORESHADOW_KEY_FILE names one.
pub(crate) fn default_path() -> anyhow::Result<PathBuf> {
    let data = std::env::var_os("XDG_DATA_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let folder = data
        .or(home)
        .context("neither XDG_DATA_HOME nor HOME is set; name the root key with --key-file FILE")?;
    Ok(folder.join("foreshadow/root.key"))
}

/// Reads the keys that `[encryption]` of a configuration names; ignores the rest of the configuration.
pub(crate) fn key_ring(config: &Path, may_be_missing: bool) -> anyhow::Result<KeyRing> {
    let text = match std::fs::read_to_string(config) {
        Ok(text) => text,
        Err(error) if may_be_missing && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(KeyRing::default());
        }
        Err(error) => {
            return Err(error).with_context(|| {
                format!("configuration {} cannot be read; name another with --config FILE", config.display())
            });
        }
    };
    let coordinates = || format!("configuration {} is refused", config.display());
    let Some(encryption) = EncryptionConfig::find(&text).with_context(coordinates)? else {
        return Ok(KeyRing::default());
    };
    let folder = config.parent().unwrap_or(Path::new(""));
    encryption.below(folder).load().with_context(coordinates)
}

/// Reads the root key, or creates one that only its owner can read.
pub(crate) fn load_or_create(path: &Path) -> anyhow::Result<RootKey> {
    match std::fs::read_to_string(path) {
        Ok(text) => RootKey::parse(&text).with_context(|| {
            format!("key file {} is damaged; restore the key that the store was written with", path.display())
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => create(path),
        Err(error) => Err(error).with_context(|| format!("key file {} cannot be read", path.display())),
    }
}

fn create(path: &Path) -> anyhow::Result<RootKey> {
    // Two version 4 UUIDs contain 244 random bits of the operating system.
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    bytes[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    let key = RootKey::new(bytes);
    let folder = path.parent().with_context(|| format!("key file {} has no folder", path.display()))?;
    std::fs::create_dir_all(folder)
        .with_context(|| format!("folder {} cannot be created", folder.display()))?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(mut file) => {
            writeln!(file, "{}", key.hex())
                .and_then(|()| file.sync_all())
                .with_context(|| format!("key file {} cannot be written", path.display()))?;
            Ok(key)
        }
        // Another process created it since the read.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => load_or_create(path),
        Err(error) => Err(error).with_context(|| format!("key file {} cannot be created", path.display())),
    }
}
