//! `foreshadow record`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use recorder::config::Config;
use recorder::{ExchangeCounts, Recorder};
use serde::Serialize;

use crate::clock::now_micros;
use crate::console::Console;
use crate::context::Context;
use crate::exit::{Failure, Status};
use crate::format::parse_duration;
use crate::signals::Signals;

/// Arguments of `foreshadow record`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long open exchanges may take to end after a stop was asked for.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = parse_duration)]
    drain: Duration,
}

/// One route, as `--json` prints it when the tap is open.
#[derive(Debug, Serialize)]
struct OpenRoute<'a> {
    name: &'a str,
    edge: &'a str,
    url: String,
}

/// Runs `foreshadow record` until it is interrupted.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    let config = read_config(context)?;
    let root = context.root_key()?;
    // Before anything is opened, so that no signal falls between.
    let mut signals = Signals::catch().map_err(Failure::work)?;
    let recorder = recorder::start(config, root, Arc::new(now_micros)).await.map_err(Failure::work)?;
    announce(&recorder, context.console);
    signals.next().await;
    let handed_on = if recorder.publishes() { "published" } else { "archived" };
    context
        .console
        .note(format!("stopping: open exchanges may end, sessions are closed, the journal is {handed_on}"));
    let publishes = recorder.publishes();
    let counts = recorder.shutdown(args.drain).await.map_err(Failure::work)?;
    context.console.line(summary(&counts, publishes));
    context.console.result(&counts);
    Ok(Status::Success)
}

fn read_config(context: &Context<'_>) -> Result<Config, Failure> {
    let path = &context.config;
    let read = std::fs::read_to_string(path).with_context(|| {
        format!("configuration {} cannot be read; name one with --config FILE", path.display())
    });
    let text = read.map_err(Failure::usage)?;
    let env = |name: &str| std::env::var(name).ok();
    let mut config = Config::parse_in(&text, &env)
        .with_context(|| format!("configuration {}", path.display()))
        .map_err(Failure::usage)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    config.encryption = config.encryption.map(|encryption| encryption.below(folder));
    Ok(config)
}

/// Says where each route can be reached, one line each on stderr; under `--json` as one JSON object a line.
fn announce(recorder: &Recorder, console: &Console) {
    for route in recorder.routes() {
        let open = OpenRoute { name: &route.name, edge: route.edge_name(), url: route.url() };
        if console.json() {
            console.note(serde_json::to_string(&open).unwrap_or_default());
        } else {
            console.note(format!("{} ({}) listens on {}", open.name, open.edge, open.url));
        }
    }
    if let Some(address) = recorder.metrics_address()
        && !console.json()
    {
        console.note(format!("metrics are at http://{address}/metrics"));
    }
}

fn summary(counts: &ExchangeCounts, publishes: bool) -> String {
    let (handed_on, place) =
        if publishes { (counts.published, "acknowledged by Kafka") } else { (counts.archived, "in Parquet") };
    let mut text = format!(
        "{} exchanges started, {} journaled, {} shed, {handed_on} {place}",
        counts.started,
        counts.journaled,
        counts.shed_total(),
    );
    if publishes && counts.waiting > 0 {
        text.push_str(&format!(
            "\n  {} journal records are not acknowledged yet; they are kept and published at the next start",
            counts.waiting
        ));
    }
    for (reason, count) in &counts.shed {
        text.push_str(&format!("\n  shed {count}: {reason}"));
    }
    if counts.upgraded > 0 {
        text.push_str(&format!("\n  {} upgraded connections passed through unrecorded", counts.upgraded));
    }
    text
}
