//! A model call that the trial admitted.

use super::active_trial::{ActiveTrial, CapturedExchange};

/// Numbers of an admitted model call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ModelCall {
    /// Number among the trial's exchanges.
    pub(crate) seq: usize,
    /// Number among the trial's model calls, from 0.
    pub(crate) number: u32,
}

/// Adds a live model call to the trial. Returns `None` once the trial is closed.
pub(crate) fn admit(trial: &ActiveTrial, exchange: CapturedExchange) -> Option<ModelCall> {
    let mut state = trial.state()?;
    let number = state.model_calls;
    state.model_calls += 1;
    state.model_fidelity.live += 1;
    Some(ModelCall { seq: state.open(exchange), number })
}
