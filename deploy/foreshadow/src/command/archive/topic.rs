//! Runs the archiver until a signal, or until the topic is archived and idle.

use std::time::Duration;

use anyhow::Context as _;
use recorder::archive::kafka_archiver::{self, ArchiverSummary};
use recorder::config::archiver::ArchiverConfig;

use crate::context::{Context, env};
use crate::exit::{Failure, Status};
use crate::signals::Signals;

/// Archives the topic of `--config`.
pub(crate) async fn archive(
    exit_when_idle: Option<Duration>,
    context: &Context<'_>,
) -> Result<Status, Failure> {
    let config = read_config(context)?;
    let store = context.open_store(&config.store)?;
    // The handlers come first, so that a signal during the start is not lost.
    let mut signals = Signals::catch().map_err(Failure::work)?;
    let mut archiver = kafka_archiver::start(&config, store, exit_when_idle).await.map_err(Failure::work)?;
    context.console.note(format!(
        "archiving topic {} as a member of group {} into {}",
        config.kafka.topic, config.kafka.group, config.store
    ));
    if let Some(address) = archiver.metrics_address() {
        context.console.note(format!("serving metrics at http://{address}/metrics"));
    }
    let ended = loop {
        // All branches are cancel-safe.
        tokio::select! {
            ended = archiver.ended() => break ended,
            () = signals.next() => {}
        }
        context.console.note("stopping: committing the buffered messages, then leaving the group");
        archiver.stop();
    };
    archiver.close().await;
    let summary = ended.map_err(Failure::work)?;
    context.console.line(summary_text(&summary));
    context.console.result(&summary);
    Ok(Status::Success)
}

fn read_config(context: &Context<'_>) -> Result<ArchiverConfig, Failure> {
    let path = &context.config;
    let text = context.read_config_text()?;
    ArchiverConfig::parse(&text, &env)
        .with_context(|| format!("configuration {} is refused", path.display()))
        .map_err(Failure::usage)
}

fn summary_text(summary: &ArchiverSummary) -> String {
    let mut text = format!(
        "{} messages read, {} exchanges archived in {} files and {} commits",
        summary.consumed, summary.archived, summary.files, summary.commits
    );
    let details = [
        (summary.redelivered, "duplicate messages dropped"),
        (summary.dead_lettered, "unreadable messages sent to the dead-letter topic"),
        (summary.expired, "messages expired at the broker before the archiver read them"),
        (summary.waiting_parts, "message parts stay in Kafka until the rest of their record arrives"),
        (summary.uncommitted, "messages read and not committed; they stay in Kafka for the next start"),
    ];
    for (count, what) in details {
        if count > 0 {
            text.push_str(&format!("\n  {count} {what}"));
        }
    }
    text
}
