//! `foreshadow sessions list`.

use serde::Serialize;

use super::overview::{self, Overview, State};
use super::{ListArgs, open, text, work};
use crate::command::Context;
use crate::outcome::{Failure, Outcome};
use crate::screen::{Screen, plain};

#[derive(Serialize)]
struct Listing<'a> {
    store: &'a str,
    /// All that match, shown or not.
    sessions: usize,
    whole: usize,
    torn: usize,
    /// Not closed, and nothing else is known to be missing.
    open: usize,
    shown: &'a [Overview],
}

/// Runs `foreshadow sessions list`.
pub(super) async fn run(args: ListArgs, context: &Context<'_>) -> Result<Outcome, Failure> {
    let (store, snapshot) = open(&args.store, context).await?;
    let read = store.with_snapshot(snapshot, async |snapshot| overview::read(&store, snapshot).await);
    let mut sessions = read.await.map_err(work)?;
    sessions.retain(|one| args.agent.as_ref().is_none_or(|agent| one.agent == *agent));
    // Newest last, as in a log; sessions without times are in file order.
    sessions.sort_by(|a, b| (a.started_at, &a.session).cmp(&(b.started_at, &b.session)));
    if args.torn_first {
        sessions.sort_by_key(Overview::state);
    }
    let number = |state: State| sessions.iter().filter(|one| one.state() == state).count();
    let (whole, torn, open) = (number(State::Whole), number(State::Torn), number(State::Open));
    let shown = &sessions[..sessions.len().min(args.limit.unwrap_or(usize::MAX))];
    context.screen.result(&Listing {
        store: &args.store,
        sessions: sessions.len(),
        whole,
        torn,
        open,
        shown,
    });
    table(context.screen, shown);
    let more = sessions.len() - shown.len();
    let more = if more > 0 { format!(", {more} not shown") } else { String::new() };
    let all = text::count(sessions.len(), "session");
    context.screen.line(format!("{all}, {whole} whole, {torn} torn, {open} open{more}"));
    Ok(Outcome::Success)
}

fn table(screen: &Screen, sessions: &[Overview]) {
    let header = ["SESSION", "AGENT", "BUILD", "STARTED", "TURNS", "MODEL", "TOOL", "STATE", "SUCCESS"];
    let rows: Vec<[String; 9]> = sessions.iter().map(row).collect();
    let mut widths = header.map(|name| name.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    if !rows.is_empty() {
        screen.line(screen.paint(&line(&header.map(str::to_owned), &widths), "1"));
    }
    for (row, one) in rows.iter().zip(sessions) {
        let text = line(row, &widths);
        screen.line(if one.whole { text } else { screen.paint(&text, "33") });
    }
}

fn line(cells: &[String; 9], widths: &[usize; 9]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

fn row(one: &Overview) -> [String; 9] {
    let state = match (one.state(), one.has_transcript, one.unfinished) {
        (State::Torn, _, _) => "torn".to_owned(),
        (State::Open, _, _) => "open".to_owned(),
        (State::Whole, false, _) => "outcome only".to_owned(),
        (State::Whole, true, 0) => "whole".to_owned(),
        (State::Whole, true, unfinished) => format!("whole, {unfinished} unfinished"),
    };
    let success = match one.success {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    };
    [
        plain(one.session.as_str()),
        plain(one.agent.as_str()),
        one.build.as_ref().map_or_else(|| "-".to_owned(), |build| plain(build.as_str())),
        text::moment(one.started_at),
        one.turns.to_string(),
        one.model_calls.to_string(),
        one.tool_calls.to_string(),
        state,
        success.to_owned(),
    ]
}
