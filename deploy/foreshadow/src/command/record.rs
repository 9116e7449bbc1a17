//! `foreshadow record`.

use crate::command::Context;
use crate::outcome::{Failure, Outcome};

/// Arguments of `foreshadow record`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs `foreshadow record`.
pub(crate) async fn run(_args: Args, _context: &Context<'_>) -> Result<Outcome, Failure> {
    Err(Failure::work(anyhow::anyhow!("not written yet")))
}
