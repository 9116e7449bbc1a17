//! Whether the model provider is down for good, over all trials of a replay.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// State of the provider.
#[derive(Debug)]
pub(crate) struct ProviderHealth {
    /// Trials in a row, each lost to the provider, after which it counts as down.
    max_lost_in_a_row: u32,
    state: Mutex<HealthState>,
    /// Cancelled once the provider is down.
    down: CancellationToken,
}

#[derive(Debug, Default)]
struct HealthState {
    lost_in_a_row: u32,
    reason: Option<String>,
}

impl ProviderHealth {
    pub(crate) fn new(max_lost_in_a_row: u32) -> Self {
        Self { max_lost_in_a_row, state: Mutex::default(), down: CancellationToken::new() }
    }

    /// Cancelled once the provider is down.
    pub(crate) fn down(&self) -> &CancellationToken {
        &self.down
    }

    /// The reason why the provider is down.
    pub(crate) fn reason(&self) -> Option<String> {
        self.lock().reason.clone()
    }

    /// The provider refuses every call.
    pub(crate) fn refused(&self, cause: &str) {
        self.lock().reason.get_or_insert_with(|| cause.to_owned());
        self.down.cancel();
    }

    /// The provider answered every call of a trial.
    pub(crate) fn trial_answered(&self) {
        self.lock().lost_in_a_row = 0;
    }

    /// A trial was lost to the provider.
    pub(crate) fn trial_lost(&self, cause: &str) {
        let mut state = self.lock();
        state.lost_in_a_row += 1;
        if state.lost_in_a_row >= self.max_lost_in_a_row {
            let reason =
                format!("{} trials in a row were lost to it, the last by {cause}", state.lost_in_a_row);
            state.reason.get_or_insert(reason);
            drop(state);
            self.down.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HealthState> {
        // Each lock is held for single updates, so a panic leaves none half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_between_two_losses_starts_the_count_again() {
        let health = ProviderHealth::new(2);
        health.trial_lost("status 503");
        health.trial_answered();
        health.trial_lost("status 503");
        assert!(!health.down().is_cancelled());
        health.trial_lost("status 429");
        assert!(health.down().is_cancelled());
        assert_eq!(
            health.reason().as_deref(),
            Some("2 trials in a row were lost to it, the last by status 429")
        );
    }
}
