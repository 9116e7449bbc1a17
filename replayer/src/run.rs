//! A replay from store to run: selects the sessions, probes the candidate, runs the trials and stores them.

use tokio_util::sync::CancellationToken;

use crate::plan::Plan;
use crate::summary::Summary;
use crate::world::World;

mod cases;
mod dispatcher;
mod error;
mod interleaving;
mod preflight;
mod progress;
mod recordings;
mod waves;

pub use error::ReplayError;
pub use progress::{Progress, ProgressFn};
pub use waves::{Prepared, Waves, run_both};

/// Replays all selected sessions. On cancellation, finished trials are kept and the rest can be resumed.
///
/// # Errors
/// See [`ReplayError`]; finished trials are kept.
pub async fn replay(
    plan: Plan,
    world: &World,
    on_progress: &mut ProgressFn<'_>,
    cancel: CancellationToken,
) -> Result<Summary, ReplayError> {
    let prepared = Prepared::read(plan, on_progress).await?;
    let mut waves = prepared.start(world, on_progress).await?;
    waves.run(|_| true, on_progress, &cancel).await?;
    Ok(waves.close(world))
}
