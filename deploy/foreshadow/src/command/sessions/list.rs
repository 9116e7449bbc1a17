//! `foreshadow sessions list`.

use schemas::id::AgentId;
use serde::Serialize;

use crate::command::sessions::overview::{self, Overview, State};
use crate::console::Console;
use crate::context::Context;
use crate::exit::{Failure, Status};
use crate::format::{self, escape_control};

const AFTER_HELP: &str = "\
Example:
  foreshadow sessions list --store foreshadow-demo/store --limit 10";

/// Arguments of `foreshadow sessions list`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Store or run to read.
    #[arg(long, visible_alias = "run", value_name = "STORE")]
    store: String,
    /// List only sessions of this agent.
    #[arg(long, value_name = "ID")]
    agent: Option<AgentId>,
    /// List at most N sessions.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// List incomplete and open sessions before complete ones.
    #[arg(long)]
    incomplete_first: bool,
}

#[derive(Serialize)]
struct Listing<'a> {
    store: &'a str,
    /// All sessions that match, listed or not.
    sessions: usize,
    complete: usize,
    incomplete: usize,
    /// Sessions without a close row and without any other gap.
    open: usize,
    shown: &'a [Overview],
}

/// Runs `foreshadow sessions list`.
pub(super) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    let (store, snapshot) = context.open_committed(&args.store).await?;
    let read = store.with_snapshot(snapshot, async |snapshot| overview::read(&store, snapshot).await);
    let mut sessions = read.await.map_err(Failure::work)?;
    sessions.retain(|one| args.agent.as_ref().is_none_or(|agent| one.agent == *agent));
    // Oldest first, as in a log; sessions without a start time keep the order of their file.
    sessions.sort_by(|a, b| (a.started_at, &a.session).cmp(&(b.started_at, &b.session)));
    if args.incomplete_first {
        sessions.sort_by_key(Overview::state);
    }
    let number = |state: State| sessions.iter().filter(|one| one.state() == state).count();
    let (complete, incomplete, open) =
        (number(State::Complete), number(State::Incomplete), number(State::Open));
    let shown = &sessions[..sessions.len().min(args.limit.unwrap_or(usize::MAX))];
    context.console.result(&Listing {
        store: &args.store,
        sessions: sessions.len(),
        complete,
        incomplete,
        open,
        shown,
    });
    table(context.console, shown);
    let more = sessions.len() - shown.len();
    let more = if more > 0 { format!("; {more} not listed") } else { String::new() };
    let all = format::count(sessions.len(), "session");
    context.console.line(format!("{all}: {complete} complete, {incomplete} incomplete, {open} open{more}"));
    Ok(Status::Success)
}

fn table(console: &Console, sessions: &[Overview]) {
    let header = ["SESSION", "AGENT", "BUILD", "STARTED", "TURNS", "MODEL", "TOOL", "STATE", "SUCCESS"];
    let rows: Vec<[String; 9]> = sessions.iter().map(row).collect();
    let mut widths = header.map(|name| name.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    if !rows.is_empty() {
        console.line(console.paint(&line(&header.map(str::to_owned), &widths), "1"));
    }
    for (row, one) in rows.iter().zip(sessions) {
        let text = line(row, &widths);
        console.line(if one.complete { text } else { console.paint(&text, "33") });
    }
}

fn line(cells: &[String; 9], widths: &[usize; 9]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

fn row(one: &Overview) -> [String; 9] {
    let state = match (one.state(), one.has_transcript, one.unfinished) {
        (State::Incomplete, _, _) => "incomplete".to_owned(),
        (State::Open, _, _) => "open".to_owned(),
        (State::Complete, false, _) => "outcome only".to_owned(),
        (State::Complete, true, 0) => "complete".to_owned(),
        (State::Complete, true, unfinished) => format!("complete, {unfinished} unfinished"),
    };
    let success = match one.success {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    };
    [
        escape_control(one.session.as_str()),
        escape_control(one.agent.as_str()),
        one.build.as_ref().map_or_else(|| "-".to_owned(), |build| escape_control(build.as_str())),
        format::moment(one.started_at),
        one.turns.to_string(),
        one.model_calls.to_string(),
        one.tool_calls.to_string(),
        state,
        success.to_owned(),
    ]
}
