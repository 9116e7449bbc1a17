//! `foreshadow sessions`: what a store or a run holds, one session as a readable trace, and whether all is there.
//!
//! Only looks: writes nothing, and prints recorded text with its control characters escaped.

use clap::Subcommand;
use schemas::id::AgentId;
use store::{Snapshot, Store, StoreError};

use crate::command::Context;
use crate::outcome::{Failure, Outcome};

mod list;
mod overview;
mod show;
pub(super) mod text;
mod trace;
mod verify;
mod view;

/// Arguments of `foreshadow sessions`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to look at.
    #[command(subcommand)]
    look: Look,
}

/// What to look at.
#[derive(Debug, Subcommand)]
enum Look {
    /// One line a session.
    List(ListArgs),
    /// One session as a trace: turns, model calls, tool calls, timings, how each ended.
    Show(ShowArgs),
    /// Whether every session is whole, and what is missing where it is not.
    Verify(VerifyArgs),
}

/// Arguments of `foreshadow sessions list`.
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Store or run to look at.
    #[arg(long, visible_alias = "run", value_name = "STORE")]
    store: String,
    /// Only sessions of this agent.
    #[arg(long, value_name = "ID")]
    agent: Option<AgentId>,
    /// At most this many sessions.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Torn and open sessions before whole ones.
    #[arg(long)]
    torn_first: bool,
}

/// Arguments of `foreshadow sessions show`.
#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The session's id, or a part of it that only one session has.
    id: String,
    /// Store or run to look at.
    #[arg(long, visible_alias = "run", value_name = "STORE")]
    store: String,
    /// Whole texts instead of their beginnings.
    #[arg(long)]
    full: bool,
}

/// Arguments of `foreshadow sessions verify`.
#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// Store or run to look at.
    #[arg(long, visible_alias = "run", value_name = "STORE")]
    store: String,
    /// Exit with 1 where a session is torn or open.
    #[arg(long)]
    strict: bool,
}

/// Runs `foreshadow sessions`.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Outcome, Failure> {
    match args.look {
        Look::List(args) => list::run(args, context).await,
        Look::Show(args) => show::run(args, context).await,
        Look::Verify(args) => verify::run(args, context).await,
    }
}

/// Opens the place and reads its commits.
async fn open(location: &str, context: &Context<'_>) -> Result<(Store, Snapshot), Failure> {
    let store = context.open_store(location)?;
    let snapshot = store.snapshot().await.map_err(Failure::work)?;
    if snapshot.is_empty() {
        let error =
            anyhow::anyhow!("{location} holds no sessions: nothing was ever committed there; check the path");
        return Err(Failure::usage(error));
    }
    Ok((store, snapshot))
}

fn work(error: StoreError) -> Failure {
    Failure::work(error)
}
