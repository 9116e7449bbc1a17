//! `foreshadow sessions show`.

use std::collections::BTreeSet;

use anyhow::anyhow;
use schemas::id::SessionId;
use schemas::table::Table;
use schemas::trial::Trial;
use serde::Deserialize;
use store::lake::{Lake, Snapshot};

use super::text::Length;
use super::{ShowArgs, open, trace, view, work};
use crate::command::Context;
use crate::outcome::{Failure, Outcome};
use crate::screen::plain;

/// Ids that an ambiguous part is answered with.
const SHOWN_MATCHES: usize = 5;

#[derive(Deserialize)]
struct IdRow {
    session: SessionId,
}

/// Runs `foreshadow sessions show`.
pub(super) async fn run(args: ShowArgs, context: &Context<'_>) -> Result<Outcome, Failure> {
    let (lake, snapshot) = open(&args.store, context).await?;
    let id = find(&lake, &snapshot, &args).await?;
    let wanted = BTreeSet::from([id.clone()]);
    let session = lake.load_sessions(&snapshot, Some(&wanted)).await.map_err(work)?.pop();
    let trials: Vec<Trial> = lake.read_table(&snapshot, Table::Trials, None).await.map_err(work)?;
    let trial = trials.into_iter().find(|trial| trial.session == id);
    let Some(session) = session else {
        let error = anyhow!(
            "{id} is a trial of an outcome table: it has no exchanges to show; `sessions list` has its outcome"
        );
        return Err(Failure::work(error));
    };
    context.screen.result(&view::session(&session, trial.as_ref()));
    let length = if args.full { Length::Full } else { Length::Short };
    for line in trace::lines(&session, trial.as_ref(), length, context.verbose > 0, context.screen) {
        context.screen.line(line);
    }
    Ok(Outcome::Success)
}

async fn find(lake: &Lake, snapshot: &Snapshot, args: &ShowArgs) -> Result<SessionId, Failure> {
    let mut ids = BTreeSet::new();
    for table in [Table::Exchanges, Table::Sessions, Table::Trials] {
        let rows: Vec<IdRow> = lake.read_table(snapshot, table, Some(&["session"])).await.map_err(work)?;
        ids.extend(rows.into_iter().map(|row| row.session));
    }
    if let Some(id) = ids.iter().find(|id| id.as_str() == args.id) {
        return Ok(id.clone());
    }
    let mut matches: Vec<&SessionId> = ids.iter().filter(|id| id.as_str().ends_with(&args.id)).collect();
    if matches.is_empty() {
        matches = ids.iter().filter(|id| id.as_str().contains(&args.id)).collect();
    }
    match &matches[..] {
        [only] => Ok((*only).clone()),
        [] => {
            let error = anyhow!(
                "no session {:?} among {} in {}; `sessions list` names them",
                args.id,
                ids.len(),
                args.store
            );
            Err(Failure::usage(error))
        }
        several => {
            let names: Vec<String> =
                several.iter().take(SHOWN_MATCHES).map(|id| plain(id.as_str())).collect();
            let number = several.len();
            Err(Failure::usage(anyhow!(
                "{:?} is part of {number} session ids, among them {}; give more of it",
                args.id,
                names.join(" and ")
            )))
        }
    }
}
