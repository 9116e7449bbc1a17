//! `foreshadow sessions verify`: reads every session with all bodies and prints what is missing.

use std::collections::BTreeMap;

use anyhow::anyhow;
use schemas::exchange::{Edge, Exchange, OperationKind};
use schemas::id::SessionId;
use serde::{Deserialize, Serialize};
use store::table::Table;
use store::{SessionGroup, Snapshot, Store, StoreError, StoredSession};

use crate::command::sessions::overview::State;
use crate::context::Context;
use crate::exit::{Failure, Status};
use crate::format::{self, escape_control};

/// Sessions whose bodies are in memory at the same time; this bounds the memory for a store of any size.
const GROUP_SESSIONS: usize = 500;

/// Causes on the terminal; `--json` lists all.
const MAX_CAUSES: usize = 10;

/// Sessions of one cause on the terminal; `--json` lists all.
const MAX_NAMED: usize = 5;

const AFTER_HELP: &str = "\
Example:
  foreshadow sessions verify --strict --store foreshadow-demo/store";

/// Arguments of `foreshadow sessions verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Store or run to read.
    #[arg(long, visible_alias = "run", value_name = "STORE")]
    store: String,
    /// Exit with code 1 if a session is incomplete or open.
    #[arg(long)]
    strict: bool,
}

#[derive(Serialize)]
struct Verification<'a> {
    store: &'a str,
    sessions: usize,
    complete: usize,
    exchanges: usize,
    /// Trials of an outcome table: they have nothing to verify.
    without_transcript: usize,
    incomplete: Vec<SessionGaps>,
    /// Sessions without a close row and without any other gap.
    open: Vec<SessionGaps>,
    /// Sessions with turns of which no model or tool call was decoded; a replay refuses them.
    undecoded: Vec<SessionId>,
}

#[derive(Deserialize)]
struct TrialRow {
    has_transcript: bool,
}

#[derive(Serialize)]
struct SessionGaps {
    session: SessionId,
    gaps: Vec<String>,
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
        complete: 0,
        exchanges: 0,
        without_transcript: plan.without_transcript,
        incomplete: Vec::new(),
        open: Vec::new(),
        undecoded: Vec::new(),
    };
    for group in &plan.groups {
        for session in store.load_group(&mut plan.snapshot, group).await.map_err(Failure::work)? {
            bar.inc(1);
            found.exchanges += session.exchanges.len();
            if !plan.is_run && is_undecoded(&session) {
                found.undecoded.push(session.session.clone());
            }
            let tears = session.gaps();
            let state = State::of(&tears);
            let gaps = tears.iter().map(ToString::to_string).collect();
            match state {
                State::Complete => found.complete += 1,
                State::Open => found.open.push(SessionGaps { session: session.session, gaps }),
                State::Incomplete => found.incomplete.push(SessionGaps { session: session.session, gaps }),
            }
        }
    }
    found.incomplete.sort_by(|a, b| a.session.cmp(&b.session));
    found.open.sort_by(|a, b| a.session.cmp(&b.session));
    found.undecoded.sort();
    bar.finish_and_clear();
    show(&found, context);
    match (found.incomplete.len(), found.open.len()) {
        (0, 0) => Ok(Status::Success),
        (incomplete, open) if args.strict => Err(Failure::work(anyhow!(
            "{} incomplete and {open} open in {}; a replay uses complete sessions only",
            format::count(incomplete, "session"),
            args.store
        ))),
        _ => Ok(Status::Success),
    }
}

/// Whether the session has a turn, and no model or tool call that a replay could answer.
fn is_undecoded(session: &StoredSession) -> bool {
    let is_call = |exchange: &Exchange| {
        matches!(exchange.operation.kind, OperationKind::Chat | OperationKind::CallTool)
    };
    session.exchanges.iter().any(|exchange| exchange.edge == Edge::Turn)
        && !session.exchanges.iter().any(is_call)
}

/// The sessions to verify, in groups.
struct Plan {
    snapshot: Snapshot,
    groups: Vec<SessionGroup>,
    /// The sessions are trials, which no replay reads.
    is_run: bool,
    without_transcript: usize,
}

async fn plan(store: &Store, snapshot: &Snapshot) -> Result<Plan, StoreError> {
    let groups = store.session_groups(snapshot, GROUP_SESSIONS).await?;
    let (mut without_transcript, mut is_run) = (0, false);
    for file in snapshot.files(Table::Trials) {
        is_run = true;
        let count = |rows: Vec<TrialRow>| {
            without_transcript += rows.iter().filter(|trial| !trial.has_transcript).count();
        };
        store.read_each(file, Some(&["has_transcript"]), count).await?;
    }
    Ok(Plan { snapshot: snapshot.clone(), groups, is_run, without_transcript })
}

fn show(found: &Verification<'_>, context: &Context<'_>) {
    let console = context.console;
    let mut causes = by_cause("incomplete", &found.incomplete);
    causes.extend(by_cause("open", &found.open));
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
        number => {
            format!("; {} without a transcript, nothing to verify", format::count(number, "trial"))
        }
    };
    console.line(format!(
        "{} with {}: {} complete, {} incomplete, {} open{outcomes}",
        format::count(found.sessions, "session"),
        format::count(found.exchanges, "exchange"),
        found.complete,
        found.incomplete.len(),
        found.open.len()
    ));
    if let Some(first) = found.undecoded.first() {
        let has = if found.undecoded.len() == 1 { "has" } else { "have" };
        console.line(format!(
            "{} {has} turns and no decoded model or tool call, such as {}: `replay` refuses them without --allow-undecoded",
            format::count(found.undecoded.len(), "session"),
            escape_control(first.as_str())
        ));
    }
    console.result(found);
}

/// The lines of each cause: the sessions, then their gaps. The cause with the most sessions comes first.
fn by_cause(state: &str, sessions: &[SessionGaps]) -> Vec<Vec<String>> {
    let mut groups: BTreeMap<&[String], Vec<&SessionId>> = BTreeMap::new();
    for one in sessions {
        groups.entry(&one.gaps).or_default().push(&one.session);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, of)| std::cmp::Reverse(of.len()));
    let lines = groups.into_iter().map(|(gaps, of)| {
        let names: Vec<String> = of.iter().take(MAX_NAMED).map(|id| escape_control(id.as_str())).collect();
        let more = of.len() - names.len();
        let more = if more > 0 { format!(" and {more} more (--json lists them)") } else { String::new() };
        let mut lines = vec![format!("{} {state}: {}{more}", of.len(), names.join(", "))];
        lines.extend(gaps.iter().map(|gap| format!("  {}", escape_control(gap))));
        lines
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_with_the_same_gaps_form_one_group() {
        let one = |n: usize, gap: &str| SessionGaps {
            session: SessionId::parse(&format!("s-{n}")).expect("id"),
            gaps: vec![gap.to_owned()],
        };
        let mut sessions: Vec<SessionGaps> = (0..7).map(|n| one(n, "no close row")).collect();
        sessions.insert(0, one(9, "a gap"));
        let lines = by_cause("open", &sessions);
        assert_eq!(
            lines,
            [
                vec![
                    "7 open: s-0, s-1, s-2, s-3, s-4 and 2 more (--json lists them)".to_owned(),
                    "  no close row".to_owned(),
                ],
                vec!["1 open: s-9".to_owned(), "  a gap".to_owned()],
            ]
        );
    }
}
