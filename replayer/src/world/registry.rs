//! Which trial a call belongs to: by the trial's path prefix, by what the candidate propagates, or because there is one.
//!
//! Knows names, not answers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::HeaderMap;
use hyper::header::HeaderName;
use serde_json::Value;

use super::active_trial::TrialWorld;

/// Length of a trial's token, in hexadecimal digits: that of a W3C trace id.
pub(crate) const TOKEN_DIGITS: usize = 32;

/// The trials that are being played, and how calls are told apart.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    trials: Mutex<HashMap<String, Arc<TrialWorld>>>,
    /// Trials of this replay that are over; as many as it plays.
    over: Mutex<HashSet<String>>,
    propagate: Mutex<Option<HeaderName>>,
    listed: Mutex<BTreeMap<String, Value>>,
    alone: AtomicBool,
    uncorrelated: AtomicU64,
}

/// Whose call it is.
#[derive(Debug)]
pub(crate) enum Belongs {
    /// A trial that is being played.
    Trial(Arc<TrialWorld>),
    /// A trial that is over.
    Over,
    /// It cannot be told.
    Unknown,
}

impl Registry {
    /// Sets what holds for the trials to come: the extra header, whether they run one at a time, and the tools that are
    /// listed to whoever asks outside a trial.
    pub(crate) fn prepare(
        &self,
        propagate: Option<HeaderName>,
        alone: bool,
        listed: BTreeMap<String, Value>,
    ) {
        *lock(&self.propagate) = propagate;
        *lock(&self.listed) = listed;
        lock(&self.over).clear();
        self.alone.store(alone, Ordering::Relaxed);
        self.uncorrelated.store(0, Ordering::Relaxed);
    }

    /// Lets a trial's calls in.
    pub(crate) fn enter(&self, trial: Arc<TrialWorld>) {
        lock(&self.trials).insert(trial.place().token.clone(), trial);
    }

    /// Lets no more of its calls in.
    pub(crate) fn leave(&self, token: &str) {
        lock(&self.trials).remove(token);
        lock(&self.over).insert(token.to_owned());
    }

    /// The tools of all cases, for a client that asks outside a trial.
    pub(crate) fn listed(&self) -> Vec<Value> {
        lock(&self.listed).values().cloned().collect()
    }

    pub(crate) fn count_uncorrelated(&self) {
        self.uncorrelated.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls of which it could not be told whose they are.
    pub(crate) fn uncorrelated(&self) -> u64 {
        self.uncorrelated.load(Ordering::Relaxed)
    }

    /// Finds the trial that a call belongs to; `meta` is the `_meta` object of an MCP request.
    pub(crate) fn find(&self, prefix: Option<&str>, headers: &HeaderMap, meta: Option<&Value>) -> Belongs {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let meta = |name: &str| meta.and_then(|meta| meta[name].as_str());
        let extra = lock(&self.propagate).clone();
        let extra = extra.and_then(|name| headers.get(name)).and_then(|value| value.to_str().ok());
        // Strongest first; the MCP session last but one, since some clients share one over many sessions.
        let ours = [
            prefix.map(str::to_owned),
            text("baggage").and_then(from_baggage),
            meta("baggage").and_then(from_baggage),
        ];
        let general = [
            extra.map(str::to_owned),
            text("traceparent").and_then(from_traceparent),
            meta("traceparent").and_then(from_traceparent),
            text("mcp-session-id").map(str::to_owned),
        ];
        let mut late = ours.iter().any(Option::is_some);
        let (trials, over) = (lock(&self.trials), lock(&self.over));
        for token in ours.into_iter().chain(general).flatten() {
            if let Some(trial) = trials.get(&token) {
                return Belongs::Trial(trial.clone());
            }
            late = late || over.contains(&token);
        }
        // A name that we gave, of a trial that is not being played.
        if late {
            return Belongs::Over;
        }
        match trials.values().next() {
            Some(trial) if trials.len() == 1 && self.alone.load(Ordering::Relaxed) => {
                Belongs::Trial(trial.clone())
            }
            Some(_) | None => Belongs::Unknown,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each lock is held over single assignments, so what a panicking thread left is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Splits `/t/<token>/rest` into token and `/rest`.
pub(crate) fn split_prefix(path: &str) -> (Option<&str>, &str) {
    let Some(rest) = path.strip_prefix("/t/") else { return (None, path) };
    match rest.split_at_checked(TOKEN_DIGITS) {
        Some((token, rest)) if rest.starts_with('/') => (Some(token), rest),
        Some(_) | None => (None, path),
    }
}

fn from_baggage(header: &str) -> Option<String> {
    let mut members = header.split(',').map(|member| member.split(';').next().unwrap_or_default());
    let value = members.find_map(|member| member.trim().strip_prefix("foreshadow-trial="))?;
    Some(value.trim().to_owned())
}

fn from_traceparent(header: &str) -> Option<String> {
    let mut parts = header.trim().split('-');
    let trace = parts.nth(1)?;
    (trace.len() == TOKEN_DIGITS).then(|| trace.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_name_of_a_trial() {
        let token = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(split_prefix(&format!("/t/{token}/v1/x")), (Some(token), "/v1/x"));
        assert_eq!(split_prefix("/t/short/v1"), (None, "/t/short/v1"));
        assert_eq!(from_baggage(&format!("a=1, foreshadow-trial={token};p=1,b=2")).as_deref(), Some(token));
        assert_eq!(from_traceparent(&format!("00-{token}-b7ad6b7169203331-01")).as_deref(), Some(token));
        assert_eq!(from_traceparent("garbage"), None);
    }
}
