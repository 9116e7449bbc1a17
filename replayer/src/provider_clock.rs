//! Time of a trial that its model provider took: waits that may still turn out as the provider's failure, and time that
//! failed attempts cost.
//!
//! A candidate is not to be charged for a provider that fails. Time between the start of a failed attempt and the start of
//! the next one counts neither as the candidate's duration nor against the time limit of its turn. An attempt that the
//! provider answers in the end counts in full, because both builds wait for the same provider.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Interval of the checks whether a call that waited at the time limit has been answered.
const CHECK_EVERY: Duration = Duration::from_millis(20);

/// The provider's part of the time of a trial.
#[derive(Debug, Default)]
pub(crate) struct ProviderClock {
    state: Mutex<ClockState>,
}

#[derive(Debug, Default)]
struct ClockState {
    /// Calls that wait for the provider, with the start of the wait.
    waiting: BTreeMap<usize, Instant>,
    /// Failed attempts with the pauses after them; intervals of parallel calls overlap.
    failed: Vec<(Instant, Instant)>,
    /// The trial is lost, so that no further failure extends its turns.
    is_frozen: bool,
}

/// Time limit of the turns of a trial.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TurnLimit<'a> {
    pub(crate) timeout: Duration,
    pub(crate) clock: &'a ProviderClock,
}

impl TurnLimit<'_> {
    /// Runs a turn for at most the candidate's own time. Returns `None` when the time is over.
    pub(crate) async fn run<T>(&self, turn: impl Future<Output = T>) -> Option<T> {
        self.clock.limit(self.timeout, turn).await
    }
}

/// Ends the wait of a call when it is dropped.
#[derive(Debug)]
pub(crate) struct WaitGuard {
    clock: Arc<ProviderClock>,
    call: usize,
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        self.clock.lock().waiting.remove(&self.call);
    }
}

impl ProviderClock {
    /// Notes that a call waits for the provider from now on.
    pub(crate) fn wait(self: &Arc<Self>, call: usize) -> WaitGuard {
        self.lock().waiting.insert(call, Instant::now());
        WaitGuard { clock: self.clone(), call }
    }

    /// Excludes the time of a failed attempt and of the pause after it.
    pub(crate) fn exclude(&self, from: Instant, to: Instant) {
        let mut state = self.lock();
        if !state.is_frozen {
            state.failed.push((from, to));
        }
    }

    /// Ends all extensions: the trial is lost to the provider, and nothing that follows can change that.
    pub(crate) fn freeze(&self) {
        self.lock().is_frozen = true;
    }

    /// Excluded time within an interval. Overlapping attempts count once.
    fn excluded(&self, from: Instant, to: Instant) -> Duration {
        let mut failed = self.lock().failed.clone();
        failed.sort_unstable();
        let (mut total, mut counted_to) = (Duration::ZERO, from);
        for (start, end) in failed {
            let (start, end) = (start.max(counted_to), end.min(to));
            total += end.saturating_duration_since(start);
            counted_to = counted_to.max(end);
        }
        total
    }

    /// The part of a time since `started` that is the candidate's own.
    pub(crate) fn own_time(&self, started: Instant, time: Duration) -> Duration {
        time.saturating_sub(self.excluded(started, started + time))
    }

    /// Runs a turn for at most `timeout` of the candidate's own time. Returns `None` when the time is over.
    ///
    /// Calls that wait for the provider at the limit are waited for: only their end shows whose time it was. That is
    /// bounded by the time limit of one attempt.
    async fn limit<T>(&self, timeout: Duration, turn: impl Future<Output = T>) -> Option<T> {
        let started = Instant::now();
        let mut turn = pin!(turn);
        loop {
            let end = self.end_of(started, timeout);
            let now = Instant::now();
            let next = if end > now {
                end
            } else if self.waits_since_before(end) {
                now + CHECK_EVERY
            } else {
                return None;
            };
            // Polling the turn by reference and the timer are cancel-safe.
            tokio::select! {
                biased;
                output = &mut turn => return Some(output),
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
    }

    /// The time at which a turn has used up its limit, the excluded time not counted.
    fn end_of(&self, started: Instant, timeout: Duration) -> Instant {
        // A limit too far away for the clock is no limit within a day.
        let day = Duration::from_secs(86_400);
        let plain = started.checked_add(timeout).unwrap_or_else(|| started + day);
        plain + self.excluded(started, plain + day)
    }

    fn waits_since_before(&self, time: Instant) -> bool {
        self.lock().waiting.values().any(|since| *since <= time)
    }

    fn lock(&self) -> MutexGuard<'_, ClockState> {
        // Each lock is held for single updates, so a panic leaves none half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn overlapping_attempts_count_once_and_only_within_the_interval() {
        let clock = ProviderClock::default();
        let start = Instant::now();
        let at = |seconds: u32| start + seconds * SECOND;
        clock.exclude(at(4), at(6));
        clock.exclude(at(1), at(3));
        clock.exclude(at(2), at(5));
        assert_eq!(clock.excluded(at(0), at(10)), 5 * SECOND);
        assert_eq!(clock.excluded(at(2), at(4)), 2 * SECOND);
        assert_eq!(clock.excluded(at(7), at(9)), Duration::ZERO);
        clock.freeze();
        clock.exclude(at(7), at(9));
        assert_eq!(clock.excluded(at(0), at(10)), 5 * SECOND);
    }

    #[tokio::test]
    async fn a_failed_attempt_extends_the_limit_of_the_turn() {
        let clock = ProviderClock::default();
        let turn = async {
            let started = Instant::now();
            tokio::time::sleep(Duration::from_millis(60)).await;
            clock.exclude(started, Instant::now());
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        // At the limit of 70 ms the turn has used 10 ms of its own.
        assert_eq!(clock.limit(Duration::from_millis(70), turn).await, Some(()));
        let idle = tokio::time::sleep(SECOND);
        assert_eq!(clock.limit(Duration::from_millis(5), idle).await, None);
    }

    #[tokio::test]
    async fn a_call_that_waits_at_the_limit_is_waited_for() {
        let clock = Arc::new(ProviderClock::default());
        let turn = async {
            let waiting = clock.wait(0);
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(waiting);
            std::future::pending::<()>().await;
        };
        let started = Instant::now();
        assert_eq!(clock.limit(Duration::from_millis(10), turn).await, None);
        assert!(started.elapsed() >= Duration::from_millis(50), "{:?}", started.elapsed());
    }
}
