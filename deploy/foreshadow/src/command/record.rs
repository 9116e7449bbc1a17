//! `foreshadow record`: runs the tap at a gateway.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use recorder::config::Config;
use recorder::{ExchangeCounts, Recorder};
use serde::Serialize;

use crate::clock::now_micros;
use crate::console::Console;
use crate::context::{Context, env};
use crate::exit::{Failure, Status};
use crate::format::parse_duration;
use crate::signals::Signals;

const AFTER_HELP: &str = "\
Example:
  foreshadow record --config foreshadow-demo/foreshadow.toml";

/// Arguments of `foreshadow record`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// On a signal, wait this long for open exchanges to end.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = parse_duration)]
    drain: Duration,
}

/// One route, as `--json` prints it once the tap listens.
#[derive(Debug, Serialize)]
struct OpenRoute<'a> {
    name: &'a str,
    edge: &'a str,
    url: String,
}

/// Runs `foreshadow record` until a signal.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    let config = read_config(context)?;
    let root_key = context.root_key()?;
    // The handlers come first, so that a signal during the start is not lost.
    let mut signals = Signals::catch().map_err(Failure::work)?;
    let recorder = recorder::start(config, root_key, Arc::new(now_micros)).await.map_err(Failure::work)?;
    announce(&recorder, context.console);
    signals.next().await;
    let publishes = recorder.publishes();
    let last_step = if publishes { "publishing" } else { "archiving" };
    context.console.note(format!(
        "stopping: waiting up to {:?} for open exchanges, closing the sessions, {last_step} the journal",
        args.drain
    ));
    let counts = recorder.shutdown(args.drain).await.map_err(Failure::work)?;
    context.console.line(summary_text(&counts, publishes));
    context.console.result(&counts);
    Ok(Status::Success)
}

fn read_config(context: &Context<'_>) -> Result<Config, Failure> {
    let path = &context.config;
    let text = context.read_config_text()?;
    let mut config = Config::parse_in(&text, &env)
        .with_context(|| format!("configuration {} is refused", path.display()))
        .map_err(Failure::usage)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    config.encryption = config.encryption.map(|encryption| encryption.below(folder));
    Ok(config)
}

/// Prints the address of each route to stderr: one line each, with `--json` one JSON object per line.
fn announce(recorder: &Recorder, console: &Console) {
    for route in recorder.routes() {
        let open = OpenRoute { name: &route.name, edge: route.edge_name(), url: route.url() };
        if console.json() {
            console.verbatim_note(serde_json::to_string(&open).unwrap_or_default());
        } else {
            console.verbatim_note(format!("{} ({}) listens on {}", open.name, open.edge, open.url));
        }
    }
    if let Some(address) = recorder.metrics_address()
        && !console.json()
    {
        console.note(format!("serving metrics at http://{address}/metrics"));
    }
}

fn summary_text(counts: &ExchangeCounts, publishes: bool) -> String {
    let (delivered, sink) =
        if publishes { (counts.published, "acknowledged by Kafka") } else { (counts.archived, "archived") };
    let mut text = format!(
        "{} exchanges started, {} journaled, {} shed, {delivered} {sink}",
        counts.started,
        counts.journaled,
        counts.shed_total(),
    );
    if publishes && counts.waiting > 0 {
        text.push_str(&format!(
            "\n  {} journal records are not acknowledged yet; the next start publishes them",
            counts.waiting
        ));
    }
    for (reason, count) in &counts.shed {
        text.push_str(&format!("\n  shed {count}: {reason}"));
    }
    if counts.upgraded > 0 {
        text.push_str(&format!("\n  {} upgraded connections (WebSocket) are not recorded", counts.upgraded));
    }
    text
}
