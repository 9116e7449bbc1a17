//! `foreshadow replay`.

use crate::command::Context;
use crate::outcome::{Failure, Outcome};

/// Arguments of `foreshadow replay`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs `foreshadow replay`.
pub(crate) async fn run(_args: Args, _context: &Context<'_>) -> Result<Outcome, Failure> {
    Err(Failure::work(anyhow::anyhow!("not written yet")))
}
