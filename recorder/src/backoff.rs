//! Delays between attempts at what has failed: doubling from a first to a longest one, over the crate `backon`.
//!
//! It neither sleeps nor counts attempts: the callers wait in threads, in tasks and between two polls of a consumer.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// Doubling delays, without an end.
#[derive(Debug)]
pub(crate) struct Backoff {
    builder: ExponentialBuilder,
    max_delay: Duration,
    delays: ExponentialBackoff,
}

impl Backoff {
    /// Starts at `min_delay` and never exceeds `max_delay`.
    pub(crate) fn new(min_delay: Duration, max_delay: Duration) -> Self {
        let builder = ExponentialBuilder::new()
            .with_min_delay(min_delay)
            .with_max_delay(max_delay)
            .with_factor(2.0)
            .without_max_times();
        Self { builder, max_delay, delays: builder.build() }
    }

    /// The delay before the next attempt.
    pub(crate) fn next_delay(&mut self) -> Duration {
        self.delays.next().unwrap_or(self.max_delay)
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.delays = self.builder.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(3));
        let delays: Vec<u128> = (0..5).map(|_| backoff.next_delay().as_millis()).collect();
        assert_eq!(delays, [500, 1000, 2000, 3000, 3000]);
        backoff.reset();
        assert_eq!(backoff.next_delay(), Duration::from_millis(500));
    }
}
