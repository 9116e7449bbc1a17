//! `foreshadow archive`: archives the recorders' Kafka topic into a store.

use std::time::Duration;

use crate::context::Context;
use crate::exit::{Failure, Status};
use crate::format::parse_duration;

#[cfg(feature = "kafka")]
mod topic;

const AFTER_HELP: &str = "\
Example:
  foreshadow archive --config archive.toml --exit-when-idle 10s";

/// Arguments of `foreshadow archive`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Exit once the topic is archived to its end and no message has arrived for this long, such as 10s.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    exit_when_idle: Option<Duration>,
}

/// Runs `foreshadow archive`.
#[cfg(feature = "kafka")]
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    topic::archive(args.exit_when_idle, context).await
}

/// Refuses `foreshadow archive`: the build has no Kafka client.
#[cfg(not(feature = "kafka"))]
#[expect(clippy::unused_async, reason = "the signature is that of every command")]
pub(crate) async fn run(_args: Args, _context: &Context<'_>) -> Result<Status, Failure> {
    Err(Failure::usage(anyhow::anyhow!("this build has no Kafka support: rebuild with --features kafka")))
}
