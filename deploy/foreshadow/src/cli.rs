//! The command line, as DESIGN.md names it; one `Args` per command, beside the code of the command.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::command::{
    analyze, archive, calibrate, demo, gate, import, record, replay, score, sessions, upkeep,
};
use crate::screen::Color;

/// The configuration that is taken where none is named; it need not exist for commands that only look for keys in it.
pub(crate) const DEFAULT_CONFIG: &str = "foreshadow.toml";

/// Replays production agent sessions against a candidate build and says approve, block or inconclusive.
#[derive(Debug, Parser)]
#[command(
    name = "foreshadow",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 approve or success, 1 the work failed, 2 wrong usage or configuration, 3 block, 4 inconclusive."
)]
pub(crate) struct Cli {
    /// Configuration of `foreshadow record`, `archive` and `score`, and of the keys of an encrypted store.
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        default_value = DEFAULT_CONFIG,
        value_name = "FILE"
    )]
    pub(crate) config: PathBuf,
    /// File with the root key of this deployment (made on first use; default: the user's data folder).
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        env = "FORESHADOW_KEY_FILE",
        value_name = "FILE"
    )]
    pub(crate) key_file: Option<PathBuf>,
    /// Machine-readable result on stdout.
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// More log lines on stderr; twice for all of them.
    #[arg(short, long, global = true, help_heading = "Global options", action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// When to colour.
    #[arg(long, global = true, help_heading = "Global options", value_enum, default_value = "auto")]
    pub(crate) color: Color,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do. Exit codes: 0 approve or success, 1 the work failed, 2 wrong usage or configuration, 3 block,
/// 4 inconclusive.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the whole loop on embedded defaults: record, replay a good and a regressed build, decide.
    Demo(demo::Args),
    /// Run the tap at a gateway and record what passes.
    Record(record::Args),
    /// Turn the recorders' Kafka topic into a store, exactly once.
    Archive(archive::Args),
    /// Turn files of sessions into a store, or into the trials of a run.
    Import(import::Args),
    /// Look at recorded sessions.
    Sessions(sessions::Args),
    /// Keep a store: merge small files, delete old sessions, erase some.
    Store(upkeep::Args),
    /// Replay recorded sessions against a candidate, with every side effect virtualised.
    Replay(replay::Args),
    /// Ask evaluators, judges and a sentence model about the trials of a run.
    Score(score::Args),
    /// Compare two runs and decide.
    Analyze(analyze::Args),
    /// Replay both builds in waves and decide after each: what a pipeline calls.
    Gate(gate::Args),
    /// Measure how the decision does on your own sessions when nothing changed.
    Calibrate(calibrate::Args),
}
