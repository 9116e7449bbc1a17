//! The global options, which every command gets besides its own arguments.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use schemas::keys::RootKey;
use store::keyring::KeyRing;
use store::{Snapshot, Store};

use crate::console::Console;
use crate::exit::Failure;
use crate::keys;

/// Value of `--config` if the flag is absent. A command that reads only the keys of it accepts that the file is missing.
pub(crate) const DEFAULT_CONFIG: &str = "foreshadow.toml";

/// Global options of the command line.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// Receives results, notes and progress.
    pub(crate) console: &'a Console,
    /// `--config`.
    pub(crate) config: PathBuf,
    /// `--key-file`.
    pub(crate) key_file: Option<PathBuf>,
    /// Number of `-v` flags.
    pub(crate) verbose: u8,
}

impl Context<'_> {
    /// Reads the file of `--config`.
    pub(crate) fn read_config_text(&self) -> Result<String, Failure> {
        let path = self.config.display();
        std::fs::read_to_string(&self.config)
            .with_context(|| format!("configuration {path} cannot be read; name another with --config FILE"))
            .map_err(Failure::usage)
    }

    /// Reads the root key; creates it on first use.
    pub(crate) fn root_key(&self) -> Result<RootKey, Failure> {
        let path = match &self.key_file {
            Some(path) => path.clone(),
            None => keys::default_path().map_err(Failure::usage)?,
        };
        keys::load_or_create(&path).map_err(Failure::usage)
    }

    /// Opens a store or run with the keys of `[encryption]`.
    pub(crate) fn open_store(&self, location: &str) -> Result<Store, Failure> {
        Ok(Store::open(location).map_err(Failure::usage)?.with_keys(self.key_ring()?))
    }

    /// Opens a store or run that has at least one commit, and reads its commits.
    pub(crate) async fn open_committed(&self, location: &str) -> Result<(Store, Snapshot), Failure> {
        let store = self.open_store(location)?;
        let snapshot = store.snapshot().await.map_err(Failure::work)?;
        if snapshot.is_empty() {
            let error =
                anyhow::anyhow!("{location} contains no sessions: the store has no commit; check the path");
            return Err(Failure::usage(error));
        }
        Ok((store, snapshot))
    }

    /// Reads the tenants' keys; empty without `[encryption]`.
    pub(crate) fn key_ring(&self) -> Result<KeyRing, Failure> {
        keys::key_ring(&self.config, self.config == Path::new(DEFAULT_CONFIG)).map_err(Failure::usage)
    }
}

/// Looks up `${NAME}` of a configuration file in the environment.
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
