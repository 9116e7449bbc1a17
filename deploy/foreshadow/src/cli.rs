//! The command line: global options and one `Args` struct per command.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::command::{
    analyze, archive, calibrate, demo, gate, import, record, replay, score, sessions, store,
};
use crate::console::Color;
use crate::context::DEFAULT_CONFIG;

const AFTER_HELP: &str = "\
Exit codes: 0 approve or success, 1 the work failed, 2 wrong usage or configuration, 3 block, 4 inconclusive.

Example:
  foreshadow demo --out foreshadow-demo";

/// Replays recorded agent sessions against a candidate build and decides: approve, block or inconclusive.
#[derive(Debug, Parser)]
#[command(name = "foreshadow", version, propagate_version = true, max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Configuration file of `record`, `archive`, `score` and `gate`; also names the keys of an encrypted store.
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        default_value = DEFAULT_CONFIG,
        value_name = "FILE"
    )]
    pub(crate) config: PathBuf,
    /// File with the root key of this deployment, created on first use [default: foreshadow/root.key in the user's data folder].
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        env = "FORESHADOW_KEY_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) key_file: Option<PathBuf>,
    /// Print the result as JSON on stdout.
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Log more to stderr: -v information, -vv everything.
    #[arg(short, long, global = true, help_heading = "Global options", action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Colours in the output.
    #[arg(long, global = true, help_heading = "Global options", value_enum, default_value = "auto")]
    pub(crate) color: Color,
    /// The command to run.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands, in the order of the help.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Record, replay and decide on made-up traffic: the complete loop, without any setup.
    Demo(demo::Args),
    /// Run the tap at a gateway and record the traffic.
    Record(record::Args),
    /// Archive the recorders' Kafka topic into a store, exactly once.
    Archive(archive::Args),
    /// Import session files into a store, or outcome files into a run.
    Import(import::Args),
    /// List, show and verify recorded sessions.
    Sessions(sessions::Args),
    /// Maintain a store: compact files, expire old sessions, erase sessions.
    Store(store::Args),
    /// Replay recorded sessions against a candidate; every side effect is simulated.
    Replay(replay::Args),
    /// Score the trials of a run with evaluators, judges and a sentence model.
    Score(score::Args),
    /// Compare two runs and decide.
    Analyze(analyze::Args),
    /// Replay both builds in waves and decide after each wave: the command for a pipeline.
    Gate(gate::Args),
    /// Measure the error rates of the decision on a run of one build.
    Calibrate(calibrate::Args),
}
