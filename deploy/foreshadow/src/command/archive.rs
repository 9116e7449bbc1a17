//! `foreshadow archive`.

use std::time::Duration;

use anyhow::Context as _;
use recorder::archive::kafka_archiver::{self, Summary};
use recorder::config::archiver::ArchiverConfig;

use crate::context::Context;
use crate::exit::{Failure, Status};
use crate::format::parse_duration;
use crate::signals::Signals;

/// Arguments of `foreshadow archive`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Exit once the whole topic is read and committed and no message has arrived for this long (such as `10s`).
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    exit_when_idle: Option<Duration>,
}

/// Runs `foreshadow archive` until a signal, or with `--exit-when-idle` until the topic is archived and idle.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    let config = read_config(context)?;
    let store = context.open_store(&config.store)?;
    // Before anything is opened, so that no signal falls between.
    let mut signals = Signals::catch().map_err(Failure::work)?;
    let mut archiver =
        kafka_archiver::start(&config, store, args.exit_when_idle).await.map_err(Failure::work)?;
    context.console.note(format!(
        "archiving topic {} as a member of group {} into {}",
        config.kafka.topic, config.kafka.group, config.store
    ));
    if let Some(address) = archiver.metrics_address() {
        context.console.note(format!("metrics are served at http://{address}/metrics"));
    }
    let ended = loop {
        // All branches are cancel-safe.
        tokio::select! {
            ended = archiver.ended() => break ended,
            () = signals.next() => {}
        }
        context.console.note("stopping: what is gathered is committed, and the group is left");
        archiver.stop();
    };
    archiver.close().await;
    let summary = ended.map_err(Failure::work)?;
    context.console.line(described(&summary));
    context.console.result(&summary);
    Ok(Status::Success)
}

fn read_config(context: &Context<'_>) -> Result<ArchiverConfig, Failure> {
    let path = &context.config;
    let read = std::fs::read_to_string(path).with_context(|| {
        format!("configuration {} cannot be read; name one with --config FILE", path.display())
    });
    let text = read.map_err(Failure::usage)?;
    ArchiverConfig::parse(&text, &|name| std::env::var(name).ok())
        .with_context(|| format!("configuration {}", path.display()))
        .map_err(Failure::usage)
}

fn described(summary: &Summary) -> String {
    let mut text = format!(
        "{} messages read, {} exchanges archived in {} files and {} commits",
        summary.consumed, summary.archived, summary.files, summary.commits
    );
    let rest = [
        (summary.redelivered, "messages were sent again and dropped"),
        (summary.dead_lettered, "messages could not be read and lie in the dead-letter topic"),
        (summary.expired, "messages were deleted by the broker before they were read"),
        (summary.waiting_parts, "messages stay in Kafka until the rest of their records comes"),
        (summary.uncommitted, "messages were read and not committed; they stay in Kafka for the next start"),
    ];
    for (count, what) in rest {
        if count > 0 {
            text.push_str(&format!("\n  {count} {what}"));
        }
    }
    text
}
