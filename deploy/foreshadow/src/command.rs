//! The commands, one file each.

use std::path::{Path, PathBuf};

use store::Store;
use store::keyring::KeyRing;

use crate::cli::{Cli, Command, DEFAULT_CONFIG};
use crate::keys;
use crate::outcome::{Failure, Outcome};
use crate::screen::Screen;

pub(crate) mod analyze;
pub(crate) mod archive;
pub(crate) mod calibrate;
pub(crate) mod demo;
pub(crate) mod gate;
pub(crate) mod import;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod score;
pub(crate) mod sessions;
pub(crate) mod upkeep;

/// What every command gets besides its own arguments.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// Where results, notes and progress go.
    pub(crate) screen: &'a Screen,
    /// `--config`.
    pub(crate) config: PathBuf,
    /// `--key-file`, where given.
    pub(crate) key_file: Option<PathBuf>,
    /// How often `-v` was given.
    pub(crate) verbose: u8,
}

impl Context<'_> {
    /// The root key, made on first use.
    pub(crate) fn root_key(&self) -> Result<schemas::keys::RootKey, Failure> {
        let path = match &self.key_file {
            Some(path) => path.clone(),
            None => keys::default_path().map_err(Failure::usage)?,
        };
        keys::load_or_create(&path).map_err(Failure::usage)
    }

    /// Opens a store or run with the keys that `[encryption]` of the configuration names, where there is one.
    pub(crate) fn open_store(&self, location: &str) -> Result<Store, Failure> {
        Ok(Store::open(location).map_err(Failure::usage)?.with_keys(self.key_ring()?))
    }

    /// The keys of tenants; none where the configuration names none.
    pub(crate) fn key_ring(&self) -> Result<KeyRing, Failure> {
        keys::key_ring(&self.config, self.config == Path::new(DEFAULT_CONFIG)).map_err(Failure::usage)
    }
}

/// Runs the command.
pub(crate) async fn run(cli: Cli, screen: &Screen) -> Result<Outcome, Failure> {
    let context = Context { screen, config: cli.config, key_file: cli.key_file, verbose: cli.verbose };
    match cli.command {
        Command::Demo(args) => Box::pin(demo::run(args, &context)).await,
        Command::Record(args) => Box::pin(record::run(args, &context)).await,
        Command::Archive(args) => Box::pin(archive::run(args, &context)).await,
        Command::Import(args) => Box::pin(import::run(args, &context)).await,
        Command::Sessions(args) => Box::pin(sessions::run(args, &context)).await,
        Command::Store(args) => Box::pin(upkeep::run(args, &context)).await,
        Command::Replay(args) => Box::pin(replay::run(args, &context)).await,
        Command::Score(args) => Box::pin(score::run(args, &context)).await,
        Command::Analyze(args) => Box::pin(analyze::run(args, &context)).await,
        Command::Calibrate(args) => Box::pin(calibrate::run(args, &context)).await,
        Command::Gate(args) => Box::pin(gate::run(args, &context)).await,
    }
}
