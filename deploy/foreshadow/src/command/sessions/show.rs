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

/// Ids that an ambiguous part is answered with.
const SHOWN_MATCHES: usize = 5;

#[derive(Deserialize)]
struct IdRow {
    session: SessionId,
}

/// What an id, or a part of one, leads to.
enum Found {
    /// A session, and in a run its trial.
    Session(Box<StoredSession>, Option<Box<Trial>>),
    /// A trial of an outcome table.
    OutcomeOnly(SessionId),
    /// No session among so many.
    Nothing(usize),
    /// These have it in them.
    Several(Vec<SessionId>),
}

/// Arguments of `foreshadow sessions show`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The session's id, or a part of it that only one session has.
    id: String,
    /// Store or run to look at.
    #[arg(long, visible_alias = "run", value_name = "STORE")]
    store: String,
    /// Whole texts instead of their beginnings.
    #[arg(long)]
    full: bool,
}

/// Runs `foreshadow sessions show`.
pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    let (store, snapshot) = context.open_committed(&args.store).await?;
    let found = store.with_snapshot(snapshot, async |snapshot| look(&store, snapshot, &args.id).await);
    let (session, trial) = match found.await.map_err(Failure::work)? {
        Found::Session(session, trial) => (session, trial),
        Found::OutcomeOnly(id) => {
            let error = anyhow!(
                "{id} is a trial of an outcome table: it has no exchanges to show; `sessions list` has its outcome"
            );
            return Err(Failure::work(error));
        }
        Found::Nothing(among) => {
            let error = anyhow!(
                "no session {:?} among {among} in {}; `sessions list` names them",
                args.id,
                args.store
            );
            return Err(Failure::usage(error));
        }
        Found::Several(ids) => {
            let names: Vec<String> =
                ids.iter().take(SHOWN_MATCHES).map(|id| escape_control(id.as_str())).collect();
            let number = ids.len();
            return Err(Failure::usage(anyhow!(
                "{:?} is part of {number} session ids, among them {}; give more of it",
                args.id,
                names.join(" and ")
            )));
        }
    };
    context.console.result(&view::session(&session, trial.as_deref(), store.read_stats()));
    let length = if args.full { Length::Full } else { Length::Short };
    for line in trace::lines(&session, trial.as_deref(), length, context.verbose > 0, context.console) {
        context.console.line(line);
    }
    if context.verbose > 0 {
        let reads = store.read_stats();
        context
            .console
            .line(format!("read {} bytes of the store in {} requests", reads.bytes, reads.requests));
    }
    Ok(Status::Success)
}

/// Looks the id up; only where there is no such session, every id is read to find those that it is part of.
async fn look(store: &Store, snapshot: &Snapshot, text: &str) -> Result<Found, StoreError> {
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
        [] => Ok(Found::Nothing(ids.len())),
        [only] => Ok(exact(store, snapshot, only).await?.unwrap_or(Found::Nothing(ids.len()))),
        several => Ok(Found::Several(several.iter().copied().cloned().collect())),
    }
}

async fn exact(store: &Store, snapshot: &Snapshot, id: &SessionId) -> Result<Option<Found>, StoreError> {
    let wanted = BTreeSet::from([id.clone()]);
    let session = store.load_sessions(snapshot, Some(&wanted)).await?.pop();
    let trials: Vec<Trial> = store.rows_of_sessions(snapshot, Table::Trials, &wanted, None).await?;
    let trial = trials.into_iter().next().map(Box::new);
    Ok(match (session, trial) {
        (Some(session), trial) => Some(Found::Session(Box::new(session), trial)),
        (None, Some(_)) => Some(Found::OutcomeOnly(id.clone())),
        (None, None) => None,
    })
}
