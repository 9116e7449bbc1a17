//! `foreshadow demo`: the complete loop on made-up traffic, without any connection beyond loopback.

use std::path::PathBuf;

use crate::context::Context;
use crate::exit::{Failure, Status};

#[cfg(feature = "demo")]
mod pass;

const AFTER_HELP: &str = "\
Example:
  foreshadow demo --out foreshadow-demo";

/// Arguments of `foreshadow demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Output folder; the output of an earlier demo is replaced.
    #[arg(long, default_value = "foreshadow-demo", value_name = "DIR")]
    out: PathBuf,
    /// Seed of customers, model, faults and decision.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Run the loop with N seeds, one after the other, and count the correct verdicts.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
}

/// Runs `foreshadow demo`.
#[cfg(feature = "demo")]
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    pass::run(&args.out, args.seed, args.seeds, context).await
}

/// Refuses `foreshadow demo`: the build has no demo.
#[cfg(not(feature = "demo"))]
#[expect(clippy::unused_async, reason = "the signature is that of every command")]
pub(crate) async fn run(_args: Args, _context: &Context<'_>) -> Result<Status, Failure> {
    Err(Failure::usage(anyhow::anyhow!("this build has no demo: rebuild with --features demo")))
}
