//! `foreshadow sessions verify`: reads every session with all its bodies, and says what is missing.

use std::collections::BTreeMap;

use anyhow::anyhow;
use schemas::id::SessionId;
use serde::{Deserialize, Serialize};
use store::table::Table;
use store::{SessionGroup, Snapshot, Store, StoreError};

use crate::command::sessions::overview::State;
use crate::context::Context;
use crate::exit::{Failure, Status};
use crate::format::{self, escape_control};

/// Sessions whose bodies are in memory at a time, beside the ids of all; a store of any size is verified within that.
const SESSIONS_AT_A_TIME: usize = 500;

/// Causes that are shown on the terminal; `--json` has all.
const MAX_CAUSES: usize = 10;

/// Sessions of one cause that are named on the terminal; `--json` names all.
const MAX_NAMED: usize = 5;

#[derive(Serialize)]
struct Verification<'a> {
    store: &'a str,
    sessions: usize,
    whole: usize,
    exchanges: usize,
    /// Trials of an outcome table: there is nothing to verify.
    without_transcript: usize,
    torn: Vec<Torn>,
    /// Not closed (they go on, or their recorder was killed), and nothing else is missing.
    open: Vec<Torn>,
}

#[derive(Deserialize)]
struct TrialRow {
    has_transcript: bool,
}

#[derive(Serialize)]
struct Torn {
    session: SessionId,
    tears: Vec<String>,
}

/// Arguments of `foreshadow sessions verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Store or run to look at.
    #[arg(long, visible_alias = "run", value_name = "STORE")]
    store: String,
    /// Exit with 1 where a session is torn or open.
    #[arg(long)]
    strict: bool,
}

/// Runs `foreshadow sessions verify`.
pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    let (store, snapshot) = context.open_committed(&args.store).await?;
    let plan = store.with_snapshot(snapshot, async |snapshot| plan(&store, snapshot).await);
    let mut plan = plan.await.map_err(Failure::work)?;
    let sessions = plan.groups.iter().map(|group| group.sessions().len()).sum();
    let bar = context.console.progress("verifying", sessions as u64);
    let mut found = Verification {
        store: &args.store,
        sessions,
        whole: 0,
        exchanges: 0,
        without_transcript: plan.without_transcript,
        torn: Vec::new(),
        open: Vec::new(),
    };
    for group in &plan.groups {
        for session in store.load_group(&mut plan.snapshot, group).await.map_err(Failure::work)? {
            bar.inc(1);
            found.exchanges += session.exchanges.len();
            let tears = session.tears();
            let state = State::of(&tears);
            let tears = tears.iter().map(ToString::to_string).collect();
            match state {
                State::Whole => found.whole += 1,
                State::Open => found.open.push(Torn { session: session.session, tears }),
                State::Torn => found.torn.push(Torn { session: session.session, tears }),
            }
        }
    }
    found.torn.sort_by(|a, b| a.session.cmp(&b.session));
    found.open.sort_by(|a, b| a.session.cmp(&b.session));
    bar.finish_and_clear();
    show(&found, context);
    match (found.torn.len(), found.open.len()) {
        (0, 0) => Ok(Status::Success),
        (torn, open) if args.strict => Err(Failure::work(anyhow!(
            "{} torn and {open} open in {}; only whole sessions vote",
            format::count(torn, "session"),
            args.store
        ))),
        _ => Ok(Status::Success),
    }
}

/// What there is to verify.
struct Plan {
    snapshot: Snapshot,
    groups: Vec<SessionGroup>,
    without_transcript: usize,
}

async fn plan(store: &Store, snapshot: &Snapshot) -> Result<Plan, StoreError> {
    let groups = store.session_groups(snapshot, SESSIONS_AT_A_TIME).await?;
    let mut without_transcript = 0;
    for file in snapshot.files(Table::Trials) {
        let count = |rows: Vec<TrialRow>| {
            without_transcript += rows.iter().filter(|trial| !trial.has_transcript).count();
        };
        store.read_each(file, Some(&["has_transcript"]), count).await?;
    }
    Ok(Plan { snapshot: snapshot.clone(), groups, without_transcript })
}

fn show(found: &Verification<'_>, context: &Context<'_>) {
    let console = context.console;
    let mut causes = grouped("torn", &found.torn);
    causes.extend(grouped("open", &found.open));
    for (number, lines) in causes.iter().enumerate().take(MAX_CAUSES) {
        for (depth, line) in lines.iter().enumerate() {
            console.line(if depth == 0 { console.paint(line, "33") } else { line.clone() });
        }
        if number + 1 == MAX_CAUSES && causes.len() > MAX_CAUSES {
            let more = format::count(causes.len() - MAX_CAUSES, "more cause");
            console.line(format!("and {more} (--json lists them)"));
        }
    }
    let outcomes = match found.without_transcript {
        0 => String::new(),
        number => format!("; {} without a transcript, nothing to verify", format::count(number, "trial")),
    };
    console.line(format!(
        "{} with {}: {} whole, {} torn, {} open{outcomes}",
        format::count(found.sessions, "session"),
        format::count(found.exchanges, "exchange"),
        found.whole,
        found.torn.len(),
        found.open.len()
    ));
    console.result(found);
}

/// The lines of each cause: what is missing, and of which sessions; the cause of most sessions first.
fn grouped(state: &str, sessions: &[Torn]) -> Vec<Vec<String>> {
    let mut groups: BTreeMap<&[String], Vec<&SessionId>> = BTreeMap::new();
    for one in sessions {
        groups.entry(&one.tears).or_default().push(&one.session);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, of)| std::cmp::Reverse(of.len()));
    let lines = groups.into_iter().map(|(tears, of)| {
        let names: Vec<String> = of.iter().take(MAX_NAMED).map(|id| escape_control(id.as_str())).collect();
        let more = of.len() - names.len();
        let more = if more > 0 { format!(" and {more} more (--json names them)") } else { String::new() };
        let mut lines = vec![format!("{} {state}: {}{more}", of.len(), names.join(", "))];
        lines.extend(tears.iter().map(|tear| format!("  {}", escape_control(tear))));
        lines
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_of_one_cause_are_told_together() {
        let torn = |n: usize, tear: &str| Torn {
            session: SessionId::parse(&format!("s-{n}")).expect("id"),
            tears: vec![tear.to_owned()],
        };
        let mut sessions: Vec<Torn> = (0..7).map(|n| torn(n, "no close row")).collect();
        sessions.insert(0, torn(9, "a gap"));
        let lines = grouped("open", &sessions);
        assert_eq!(
            lines,
            [
                vec![
                    "7 open: s-0, s-1, s-2, s-3, s-4 and 2 more (--json names them)".to_owned(),
                    "  no close row".to_owned(),
                ],
                vec!["1 open: s-9".to_owned(), "  a gap".to_owned()],
            ]
        );
    }
}
