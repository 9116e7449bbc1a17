//! The live model calls of a trial as the provider treated them.

use std::collections::BTreeMap;

/// A failure of the provider in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailureText {
    /// Status or kind, by which failures are counted: `status 429`, `timeout`.
    pub(crate) cause: String,
    /// The cause with the provider's message.
    pub(crate) detail: String,
}

/// Live model calls of a trial.
#[derive(Debug, Default)]
pub(crate) struct ProviderCalls {
    /// Repeated attempts.
    pub(crate) retries: u32,
    /// Calls that the provider answered.
    pub(crate) answered: u32,
    /// Calls that failed after all attempts, by cause.
    failures: BTreeMap<String, u32>,
    /// The last failure after all attempts.
    last: Option<FailureText>,
    /// Calls whose last attempt failed and whose next one has no result yet.
    unresolved: BTreeMap<usize, FailureText>,
}

impl ProviderCalls {
    /// An attempt failed, and another one follows.
    pub(crate) fn retry(&mut self, call: usize, failure: FailureText) {
        self.retries += 1;
        self.unresolved.insert(call, failure);
    }

    /// The provider answered a call.
    pub(crate) fn answer(&mut self, call: usize) {
        self.answered += 1;
        self.unresolved.remove(&call);
    }

    /// A call failed after all attempts.
    pub(crate) fn fail(&mut self, call: usize, failure: FailureText) {
        self.unresolved.remove(&call);
        *self.failures.entry(failure.cause.clone()).or_insert(0) += 1;
        self.last = Some(failure);
    }

    /// Ends all calls. A candidate that did not wait for a repetition has had no answer either.
    pub(crate) fn close(&mut self) {
        while let Some((call, failure)) = self.unresolved.pop_first() {
            self.fail(call, failure);
        }
    }

    /// Calls that failed after all attempts.
    pub(crate) fn failed(&self) -> u32 {
        self.failures.values().sum()
    }

    /// The failures in words; `None` without a failure.
    pub(crate) fn describe(&self) -> Option<String> {
        let last = self.last.as_ref()?;
        let counts: Vec<String> =
            self.failures.iter().map(|(cause, count)| format!("{cause}: {count}")).collect();
        let (failed, counts) = (self.failed(), counts.join(", "));
        Some(format!("the model provider failed {failed} model call(s) ({counts}); last: {}", last.detail))
    }

    /// The cause of the last failure.
    pub(crate) fn last_cause(&self) -> Option<&str> {
        self.last.as_ref().map(|last| last.cause.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_the_candidate_gave_up_while_it_was_repeated_has_failed() {
        let failure = |cause: &str| FailureText { cause: cause.to_owned(), detail: format!("{cause}: busy") };
        let mut calls = ProviderCalls::default();
        calls.retry(0, failure("status 503"));
        calls.answer(0);
        calls.retry(1, failure("status 429"));
        calls.close();
        assert_eq!((calls.retries, calls.answered, calls.failed()), (2, 1, 1));
        assert_eq!(
            calls.describe().as_deref(),
            Some("the model provider failed 1 model call(s) (status 429: 1); last: status 429: busy")
        );
    }
}
