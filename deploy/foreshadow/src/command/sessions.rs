//! `foreshadow sessions`: lists sessions, shows one as a trace, verifies that all are complete. Never writes.

use clap::Subcommand;

use crate::context::Context;
use crate::exit::{Failure, Status};

mod list;
mod overview;
mod show;
mod trace;
mod verify;
mod view;

const AFTER_HELP: &str = "\
Example:
  foreshadow sessions list --store foreshadow-demo/store --limit 10";

/// Arguments of `foreshadow sessions`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The subcommand.
    #[command(subcommand)]
    command: SessionsCommand,
}

/// The subcommands of `foreshadow sessions`.
#[derive(Debug, Subcommand)]
enum SessionsCommand {
    /// List sessions, one line each.
    List(list::Args),
    /// Show one session as a trace: turns, model calls, tool calls, durations, endings.
    Show(show::Args),
    /// Verify that every session is complete, and print what is missing.
    Verify(verify::Args),
}

/// Runs `foreshadow sessions`.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    match args.command {
        SessionsCommand::List(args) => list::run(args, context).await,
        SessionsCommand::Show(args) => show::run(args, context).await,
        SessionsCommand::Verify(args) => verify::run(args, context).await,
    }
}
