//! `foreshadow sessions list`.

use schemas::id::AgentId;
use serde::Serialize;

use crate::command::sessions::overview::{self, Overview, State};
use crate::console::Console;
use crate::context::Context;
use crate::exit::{Failure, Status};
use crate::format::{self, COLUMNS, columns, escape_control};

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
    let mut header = ["SESSION", "AGENT", "BUILD", "STARTED", "TURNS", "MODEL", "TOOL", "STATE", "SUCCESS"]
        .map(str::to_owned)
        .to_vec();
    let mut rows: Vec<Vec<String>> = sessions.iter().map(|one| row(one).to_vec()).collect();
    let Some(first) = rows.first().cloned() else { return };
    // What is the same in every row is printed once if the table would be too wide.
    let wide = |header: &[String], rows: &[Vec<String>]| {
        widths(header, rows).iter().map(|width| width + 2).sum::<usize>() > COLUMNS + 2
    };
    for column in [2, 1] {
        if wide(&header, &rows) && rows.iter().all(|row| row[column] == first[column]) {
            console.line(format!("{} {}", header[column].to_lowercase(), first[column]));
            header.remove(column);
            rows.iter_mut().for_each(|row| drop(row.remove(column)));
        }
    }
    // The session then has a line of its own, so that a long name moves nothing.
    let apart = wide(&header, &rows);
    let inner = usize::from(apart);
    let rest: Vec<Vec<String>> = rows.iter().map(|row| row[inner..].to_vec()).collect();
    let widths = widths(&header[inner..], &rest);
    let indent = if apart { "  " } else { "" };
    if apart {
        console.line(console.paint(&header[0], "1"));
    }
    console.line(console.paint(&format!("{indent}{}", line(&header[inner..], &widths)), "1"));
    for ((cells, one), whole) in rest.iter().zip(sessions).zip(&rows) {
        let paint = |text: String| if one.complete { text } else { console.paint(&text, "33") };
        if apart {
            console.line(paint(whole[0].clone()));
        }
        console.line(paint(format!("{indent}{}", line(cells, &widths))));
    }
}

fn widths(header: &[String], rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths: Vec<usize> = header.iter().map(|name| columns(name)).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(columns(cell));
        }
    }
    widths
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let padded =
        cells.iter().zip(widths).map(|(cell, width)| format!("{cell}{}", " ".repeat(width - columns(cell))));
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
