//! The budget of an invocation: limits on requests, tokens and dollars.
//!
//! Each request reserves its estimated cost first and settles its real cost afterwards. Concurrent requests can therefore
//! not exceed a limit together.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::Limits;

/// Tokens and US dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cost {
    /// Tokens read and written.
    pub(crate) tokens: u64,
    /// US dollars.
    pub(crate) usd: f64,
}

#[derive(Debug, Default)]
struct Spent {
    requests: u64,
    cost: Cost,
    /// Estimated cost of the open requests.
    reserved: Cost,
    /// Key of the limit that was reached first.
    reached: Option<&'static str>,
}

/// Counts requests, tokens and dollars against their limits.
#[derive(Debug)]
pub(crate) struct Budget {
    max_requests: Option<u64>,
    max_tokens: Option<u64>,
    max_usd: Option<f64>,
    spent: Mutex<Spent>,
}

impl Budget {
    /// Starts from the cost of earlier invocations.
    pub(crate) fn new(limits: &Limits, earlier: Cost) -> Self {
        Self {
            max_requests: limits.max_requests,
            max_tokens: limits.max_tokens,
            max_usd: limits.max_usd,
            spent: Mutex::new(Spent { cost: earlier, ..Spent::default() }),
        }
    }

    fn spent(&self) -> MutexGuard<'_, Spent> {
        // A panic leaves the counters consistent, so a poisoned lock is usable.
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves the estimated cost of a request; `false` if it would exceed a limit.
    pub(crate) fn reserve(&self, estimate: Cost) -> bool {
        let mut spent = self.spent();
        let tokens = spent.cost.tokens + spent.reserved.tokens + estimate.tokens;
        let usd = spent.cost.usd + spent.reserved.usd + estimate.usd;
        let reached = if self.max_tokens.is_some_and(|most| tokens > most) {
            Some("limits.max-tokens")
        } else if self.max_usd.is_some_and(|most| usd > most) {
            Some("limits.max-usd")
        } else {
            None
        };
        if reached.is_some() {
            spent.reached = spent.reached.or(reached);
            return false;
        }
        spent.reserved.tokens += estimate.tokens;
        spent.reserved.usd += estimate.usd;
        true
    }

    /// Replaces the reservation by the real cost.
    pub(crate) fn settle(&self, estimate: Cost, cost: Cost) {
        let mut spent = self.spent();
        spent.reserved.tokens = spent.reserved.tokens.saturating_sub(estimate.tokens);
        spent.reserved.usd = (spent.reserved.usd - estimate.usd).max(0.0);
        spent.cost.tokens += cost.tokens;
        spent.cost.usd += cost.usd;
    }

    /// Counts a request or a program start; `false` if the limit is reached.
    pub(crate) fn try_request(&self) -> bool {
        let mut spent = self.spent();
        if self.max_requests.is_some_and(|most| spent.requests >= most) {
            spent.reached = spent.reached.or(Some("limits.max-requests"));
            return false;
        }
        spent.requests += 1;
        true
    }

    /// Requests of this invocation and cost of all invocations.
    pub(crate) fn total(&self) -> (u64, Cost) {
        let spent = self.spent();
        (spent.requests, spent.cost)
    }

    /// Key of the limit that was reached.
    pub(crate) fn reached(&self) -> Option<&'static str> {
        self.spent().reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_requests_count_against_the_limits() {
        let limits =
            Limits { max_tokens: Some(100), max_usd: Some(1.0), max_requests: Some(2), ..Limits::default() };
        let budget = Budget::new(&limits, Cost { tokens: 20, usd: 0.0 });
        let (part, small) = (Cost { tokens: 50, usd: 0.5 }, Cost { tokens: 1, usd: 0.1 });
        assert!(budget.reserve(part));
        assert!(!budget.reserve(part), "20 + 50 + 50 is over 100");
        assert_eq!(budget.reached(), Some("limits.max-tokens"));
        budget.settle(part, small);
        assert!(budget.reserve(part) && !budget.reserve(Cost { tokens: 0, usd: 0.5 }));
        assert!(budget.try_request() && budget.try_request() && !budget.try_request());
        assert_eq!(budget.total(), (2, Cost { tokens: 21, usd: 0.1 }));
    }
}
