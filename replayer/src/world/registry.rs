//! Finds the trial of a call: by the path prefix, by a header that the candidate passes on, or because one trial runs alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::header::HeaderName;
use hyper::{HeaderMap, Response, StatusCode};
use serde_json::Value;
use wire::trace_context::{TRACE_ID_DIGITS, baggage, trace_id};

use super::active_trial::ActiveTrial;
use super::responses::{WorldBody, error_response, trial_ended};

/// Distinct paths of calls without an identifier that are counted apart.
const MAX_UNCORRELATED_PATHS: usize = 100;

/// The running trials of a replay.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// By token.
    running: Mutex<HashMap<String, Arc<ActiveTrial>>>,
    /// Tokens of ended trials; bounded by the trials of the replay.
    finished: Mutex<HashSet<String>>,
    propagate: Mutex<Option<HeaderName>>,
    tool_list: Mutex<BTreeMap<String, Value>>,
    is_sequential: AtomicBool,
    /// Calls that carry no identifier of a trial, by path.
    uncorrelated: Mutex<BTreeMap<String, u64>>,
    /// Calls that came after the end of their trial.
    late: AtomicU64,
}

/// Result of looking up the trial of a call.
#[derive(Debug)]
pub(crate) enum TrialLookup {
    Running(Arc<ActiveTrial>),
    /// The trial has ended.
    Finished,
    /// The call carries no identifier of a trial.
    Unknown,
}

impl Registry {
    /// Prepares the registry for a replay.
    ///
    /// `propagate` is an additional header that carries the token. If `is_sequential`, trials run one at a time and a
    /// call without an identifier belongs to the running trial. `tool_list` answers `tools/list` outside of trials.
    pub(crate) fn prepare(
        &self,
        propagate: Option<HeaderName>,
        is_sequential: bool,
        tool_list: BTreeMap<String, Value>,
    ) {
        *lock(&self.propagate) = propagate;
        *lock(&self.tool_list) = tool_list;
        lock(&self.finished).clear();
        self.is_sequential.store(is_sequential, Ordering::Relaxed);
        lock(&self.uncorrelated).clear();
        self.late.store(0, Ordering::Relaxed);
    }

    /// Admits the calls of a trial.
    pub(crate) fn register(&self, trial: Arc<ActiveTrial>) {
        lock(&self.running).insert(trial.endpoint().token.clone(), trial);
    }

    /// Refuses further calls of a trial.
    pub(crate) fn unregister(&self, token: &str) {
        lock(&self.running).remove(token);
        lock(&self.finished).insert(token.to_owned());
    }

    /// The tools of all cases, for a client outside of trials.
    pub(crate) fn tool_list(&self) -> Vec<Value> {
        lock(&self.tool_list).values().cloned().collect()
    }

    /// Calls without an identifier of a trial, by path.
    pub(crate) fn uncorrelated(&self) -> BTreeMap<String, u64> {
        lock(&self.uncorrelated).clone()
    }

    /// Calls that came after the end of their trial.
    pub(crate) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// Counts a call that came after the end of its trial.
    pub(crate) fn count_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a call that carries no identifier of a trial.
    ///
    /// The call belongs to one of the running trials, and none of them is known to have had all its calls answered. So it
    /// is a miss of each. A plain GET without an identifier is counted for the run only: health checks send such.
    pub(crate) fn count_uncorrelated(&self, path: &str, is_model: bool, is_get: bool) {
        let mut counts = lock(&self.uncorrelated);
        let is_known = counts.contains_key(path) || counts.len() < MAX_UNCORRELATED_PATHS;
        *counts.entry(if is_known { path.to_owned() } else { "other paths".to_owned() }).or_insert(0) += 1;
        drop(counts);
        if is_get && !is_model {
            return;
        }
        let running: Vec<Arc<ActiveTrial>> = lock(&self.running).values().cloned().collect();
        for trial in &running {
            trial.miss_uncorrelated(path, is_model, running.len());
        }
    }

    /// Finds the trial of a call; `meta` is the `_meta` object of an MCP request.
    pub(crate) fn find(
        &self,
        prefix: Option<&str>,
        headers: &HeaderMap,
        meta: Option<&Value>,
    ) -> TrialLookup {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let meta = |name: &str| meta.and_then(|meta| meta[name].as_str());
        let extra = lock(&self.propagate).clone();
        let extra = extra.and_then(|name| headers.get(name)).and_then(|value| value.to_str().ok());
        // In order of reliability. Only the replayer issues these three, so an unknown token means an ended trial.
        let own = [
            prefix.map(str::to_owned),
            text("baggage").and_then(token_in_baggage),
            meta("baggage").and_then(token_in_baggage),
        ];
        // The MCP session is last, because some clients share one session between conversations.
        let general = [
            extra.map(str::to_owned),
            text("traceparent").and_then(trace_id),
            meta("traceparent").and_then(trace_id),
            text("mcp-session-id").map(str::to_owned),
        ];
        let mut has_ended = own.iter().any(Option::is_some);
        let (running, finished) = (lock(&self.running), lock(&self.finished));
        for token in own.into_iter().chain(general).flatten() {
            if let Some(trial) = running.get(&token) {
                return TrialLookup::Running(trial.clone());
            }
            has_ended = has_ended || finished.contains(&token);
        }
        if has_ended {
            return TrialLookup::Finished;
        }
        match running.values().next() {
            Some(trial) if running.len() == 1 && self.is_sequential.load(Ordering::Relaxed) => {
                TrialLookup::Running(trial.clone())
            }
            Some(_) | None => TrialLookup::Unknown,
        }
    }

    /// The running trial of a lookup, else the response to the call. Counts calls without an identifier.
    #[expect(clippy::result_large_err, reason = "the error is the response that is sent at once")]
    pub(crate) fn require(
        &self,
        lookup: TrialLookup,
        path: &str,
        is_model: bool,
    ) -> Result<Arc<ActiveTrial>, Response<WorldBody>> {
        match lookup {
            TrialLookup::Running(trial) => Ok(trial),
            TrialLookup::Finished => {
                self.count_late();
                Err(trial_ended())
            }
            TrialLookup::Unknown => {
                self.count_uncorrelated(path, is_model, false);
                let text = "the call carries no trial identifier: pass on the `traceparent` or `baggage` header of the \
                            turn, or your own header that [propagate] header = \"…\" in candidate.toml names; or use \
                            the trial's own URLs, or replay with --concurrency 1";
                Err(error_response(StatusCode::BAD_REQUEST, text))
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each lock is held for single assignments, so a panic leaves no partial update.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Splits `/t/<token>/rest` into token and `/rest`.
pub(crate) fn split_prefix(path: &str) -> (Option<&str>, &str) {
    let Some(rest) = path.strip_prefix("/t/") else { return (None, path) };
    match rest.split_at_checked(TRACE_ID_DIGITS) {
        Some((token, rest)) if rest.starts_with('/') => (Some(token), rest),
        Some(_) | None => (None, path),
    }
}

fn token_in_baggage(header: &str) -> Option<String> {
    baggage(header).find(|(key, _)| *key == "foreshadow-trial").map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_token_from_path_and_baggage() {
        let token = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(split_prefix(&format!("/t/{token}/v1/x")), (Some(token), "/v1/x"));
        assert_eq!(split_prefix("/t/short/v1"), (None, "/t/short/v1"));
        let header = format!("a=1, foreshadow-trial={token};p=1,b=2");
        assert_eq!(token_in_baggage(&header).as_deref(), Some(token));
        assert_eq!(token_in_baggage("a=1"), None);
    }
}
