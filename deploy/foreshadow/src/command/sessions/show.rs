//! `foreshadow sessions show`.

use std::collections::BTreeSet;

use anyhow::anyhow;
use schemas::id::SessionId;
use schemas::trial::Trial;
use serde::Deserialize;
use store::table::Table;
use store::{Snapshot, Store, StoreError, StoredSession};

use crate::command::sessions::{trace, view};
use crate::context::Context;
use crate::exit::{Failure, Status};
use crate::format::Length;
use crate::format::escape_control;

/// Session ids that the error about an ambiguous id names.
const MAX_MATCHES: usize = 5;

const AFTER_HELP: &str = "\
Example:
  foreshadow sessions show chat-0000 --store foreshadow-demo/store";

/// Arguments of `foreshadow sessions show`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Session id, or a part of it that no other session id contains.
    id: String,
    /// Store or run to read.
    #[arg(long, visible_alias = "run", value_name = "STORE")]
    store: String,
    /// Print complete texts; without it, long texts are shortened.
    #[arg(long)]
    full: bool,
}

#[derive(Deserialize)]
struct IdRow {
    session: SessionId,
}

/// The sessions that match an id or a part of one.
enum Matches {
    /// One session, in a run with its trial.
    Session(Box<StoredSession>, Option<Box<Trial>>),
    /// A trial of an outcome table.
    OutcomeOnly(SessionId),
    /// No session among this many.
    Nothing(usize),
    /// These ids contain the part.
    Several(Vec<SessionId>),
}

/// Runs `foreshadow sessions show`.
pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    let (store, snapshot) = context.open_committed(&args.store).await?;
    let found = store.with_snapshot(snapshot, async |snapshot| find(&store, snapshot, &args.id).await);
    let (session, trial) = match found.await.map_err(Failure::work)? {
        Matches::Session(session, trial) => (session, trial),
        Matches::OutcomeOnly(id) => {
            return Err(Failure::work(anyhow!(
                "{id} is a trial of an outcome table and has no exchanges; `foreshadow sessions list` shows its outcome"
            )));
        }
        Matches::Nothing(among) => {
            return Err(Failure::usage(anyhow!(
                "{} has {among} sessions, none matches {:?}; `foreshadow sessions list` lists them",
                args.store,
                args.id
            )));
        }
        Matches::Several(ids) => {
            let names: Vec<String> =
                ids.iter().take(MAX_MATCHES).map(|id| escape_control(id.as_str())).collect();
            return Err(Failure::usage(anyhow!(
                "{:?} matches {} session ids, such as {}; give a longer part of the id",
                args.id,
                ids.len(),
                names.join(" and ")
            )));
        }
    };
    context.console.result(&view::session(&session, trial.as_deref(), store.read_stats()));
    let length = if args.full { Length::Full } else { Length::Short };
    for line in trace::lines(&session, trial.as_deref(), length, context.verbose > 0, context.console) {
        context.console.hanging(line, trace::INDENT.len());
    }
    if context.verbose > 0 {
        let stats = store.read_stats();
        context
            .console
            .line(format!("read {} bytes of the store in {} requests", stats.bytes, stats.requests));
    }
    Ok(Status::Success)
}

/// Looks up the exact id. Only if no session has it, reads all ids and searches for the part.
async fn find(store: &Store, snapshot: &Snapshot, text: &str) -> Result<Matches, StoreError> {
    if let Ok(id) = SessionId::parse(text)
        && let Some(found) = exact(store, snapshot, &id).await?
    {
        return Ok(found);
    }
    let mut ids = BTreeSet::new();
    for table in [Table::Exchanges, Table::Sessions, Table::Trials] {
        for file in snapshot.files(table) {
            let add = |rows: Vec<IdRow>| ids.extend(rows.into_iter().map(|row| row.session));
            store.read_each(file, Some(&["session"]), add).await?;
        }
    }
    let mut matches: Vec<&SessionId> = ids.iter().filter(|id| id.as_str().ends_with(text)).collect();
    if matches.is_empty() {
        matches = ids.iter().filter(|id| id.as_str().contains(text)).collect();
    }
    match &matches[..] {
        [] => Ok(Matches::Nothing(ids.len())),
        [only] => Ok(exact(store, snapshot, only).await?.unwrap_or(Matches::Nothing(ids.len()))),
        several => Ok(Matches::Several(several.iter().copied().cloned().collect())),
    }
}

async fn exact(store: &Store, snapshot: &Snapshot, id: &SessionId) -> Result<Option<Matches>, StoreError> {
    let wanted = BTreeSet::from([id.clone()]);
    let session = store.load_sessions(snapshot, Some(&wanted)).await?.pop();
    let trials: Vec<Trial> = store.rows_of_sessions(snapshot, Table::Trials, &wanted, None).await?;
    let trial = trials.into_iter().next().map(Box::new);
    Ok(match (session, trial) {
        (Some(session), trial) => Some(Matches::Session(Box::new(session), trial)),
        (None, Some(_)) => Some(Matches::OutcomeOnly(id.clone())),
        (None, None) => None,
    })
}
