//! `foreshadow sessions verify`: reads every session with all its bodies, and says what is missing.

use std::collections::BTreeSet;

use anyhow::anyhow;
use schemas::id::SessionId;
use serde::Serialize;

use super::{VerifyArgs, open, overview, text, work};
use crate::command::Context;
use crate::outcome::{Failure, Outcome};
use crate::screen::plain;

/// Sessions whose bodies are in memory at a time.
const SESSIONS_AT_A_TIME: usize = 1_000;

#[derive(Serialize)]
struct Verification<'a> {
    store: &'a str,
    sessions: usize,
    whole: usize,
    exchanges: usize,
    /// Trials of an outcome table: there is nothing to verify.
    without_transcript: usize,
    torn: Vec<Torn>,
}

#[derive(Serialize)]
struct Torn {
    session: SessionId,
    tears: Vec<String>,
}

/// Runs `foreshadow sessions verify`.
pub(super) async fn run(args: VerifyArgs, context: &Context<'_>) -> Result<Outcome, Failure> {
    let (lake, snapshot) = open(&args.store).await?;
    let overviews = overview::read(&lake, &snapshot).await.map_err(work)?;
    let ids: Vec<SessionId> =
        overviews.iter().filter(|one| one.has_transcript).map(|one| one.session.clone()).collect();
    let bar = context.screen.progress("verifying", ids.len() as u64);
    let without_transcript = overviews.len() - ids.len();
    let mut found = Verification {
        store: &args.store,
        sessions: ids.len(),
        whole: 0,
        exchanges: 0,
        without_transcript,
        torn: Vec::new(),
    };
    for group in ids.chunks(SESSIONS_AT_A_TIME) {
        let wanted: BTreeSet<SessionId> = group.iter().cloned().collect();
        for session in lake.load_sessions(&snapshot, Some(&wanted)).await.map_err(work)? {
            bar.inc(1);
            found.exchanges += session.exchanges.len();
            let tears: Vec<String> = session.tears().iter().map(ToString::to_string).collect();
            if tears.is_empty() {
                found.whole += 1;
            } else {
                found.torn.push(Torn { session: session.session, tears });
            }
        }
    }
    bar.finish_and_clear();
    show(&found, context);
    match found.torn.len() {
        0 => Ok(Outcome::Success),
        torn if args.strict => Err(Failure::work(anyhow!(
            "{} torn in {}; a torn session never votes",
            text::count(torn, "session"),
            args.store
        ))),
        _ => Ok(Outcome::Success),
    }
}

fn show(found: &Verification<'_>, context: &Context<'_>) {
    let screen = context.screen;
    for torn in &found.torn {
        screen.line(screen.paint(&format!("torn {}", plain(torn.session.as_str())), "33"));
        for tear in &torn.tears {
            screen.line(format!("  {}", plain(tear)));
        }
    }
    let outcomes = match found.without_transcript {
        0 => String::new(),
        number => format!("; {} without a transcript, nothing to verify", text::count(number, "trial")),
    };
    screen.line(format!(
        "{} with {}: {} whole, {} torn{outcomes}",
        text::count(found.sessions, "session"),
        text::count(found.exchanges, "exchange"),
        found.whole,
        found.torn.len()
    ));
    screen.result(found);
}
