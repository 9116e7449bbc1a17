//! `foreshadow demo`: the whole loop on embedded defaults.

mod agent;
mod builds;
mod dice;
mod mind;
mod model;
mod shop;
mod tools;
mod wire;

use crate::command::Context;
use crate::outcome::{Failure, Outcome};

/// Arguments of `foreshadow demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs `foreshadow demo`.
pub(crate) async fn run(_args: Args, _context: &Context<'_>) -> Result<Outcome, Failure> {
    Err(Failure::work(anyhow::anyhow!("not written yet")))
}
