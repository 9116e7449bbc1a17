//! `foreshadow sessions`: what a store or a run holds, one session as a readable trace, and whether all is there.
//!
//! Only looks: writes nothing, and prints recorded text with its control characters escaped.

use clap::Subcommand;

use crate::context::Context;
use crate::exit::{Failure, Status};

mod list;
mod overview;
mod show;
mod trace;
mod verify;
mod view;

/// Arguments of `foreshadow sessions`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to look at.
    #[command(subcommand)]
    command: Subcommands,
}

/// What to look at.
#[derive(Debug, Subcommand)]
enum Subcommands {
    /// One line a session.
    List(list::Args),
    /// One session as a trace: turns, model calls, tool calls, timings, how each ended.
    Show(show::Args),
    /// Whether every session is whole, and what is missing where it is not.
    Verify(verify::Args),
}

/// Runs `foreshadow sessions`.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    match args.command {
        Subcommands::List(args) => list::run(args, context).await,
        Subcommands::Show(args) => show::run(args, context).await,
        Subcommands::Verify(args) => verify::run(args, context).await,
    }
}
