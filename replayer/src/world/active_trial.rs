//! One running trial: its progress through the recording and every exchange that it made.
//!
//! The lock on the state is held for look-ups and updates only, never across an await.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jsonschema::Validator;
use schemas::exchange::{Edge, Ending, Operation, Protocol};
use schemas::trial::{Divergence, Fidelity, ModelInputs};

use super::provider_calls::{FailureText, ProviderCalls};
use super::provider_health::ProviderHealth;
use crate::candidate::endpoint::TrialEndpoint;
use crate::candidate::settings::Upstream;
use crate::case_recording::CaseRecording;
use crate::clock::Clock;
use crate::faults::FaultRules;
use crate::http_client::HttpClient;
use crate::plan::ModelMode;
use crate::provider_clock::ProviderClock;
use crate::tool_index::{ToolIndex, ToolMatcher};

/// Settings that all trials of a replay share.
#[derive(Debug)]
pub(crate) struct ReplaySettings {
    pub(crate) run_seed: u64,
    pub(crate) faults: FaultRules,
    pub(crate) model: ModelMode,
    pub(crate) upstream: Option<Upstream>,
    pub(crate) provider_health: ProviderHealth,
    /// Additional header that carries the trial token.
    pub(crate) propagate: Option<hyper::header::HeaderName>,
    pub(crate) client: HttpClient,
    pub(crate) clock: Clock,
    /// Factor for recorded tool delays.
    pub(crate) delay_scale: f64,
    /// Upper bound of a replayed tool delay, after scaling.
    pub(crate) delay_cap: Duration,
}

/// A case with its indexed recording; its trials share it.
#[derive(Debug)]
pub(crate) struct ReplayCase {
    pub(crate) recording: CaseRecording,
    pub(crate) tool_index: ToolIndex,
    /// Compiled input schemas by tool.
    pub(crate) validators: HashMap<String, Arc<Validator>>,
}

/// A running trial.
#[derive(Debug)]
pub(crate) struct ActiveTrial {
    endpoint: TrialEndpoint,
    case: Arc<ReplayCase>,
    number: u32,
    /// A probe gets no faults and no delays, and its exchanges are discarded.
    is_probe: bool,
    settings: Arc<ReplaySettings>,
    provider_clock: Arc<ProviderClock>,
    state: Mutex<TrialState>,
}

/// Progress of a trial.
#[derive(Debug, Default)]
pub(crate) struct TrialState {
    exchanges: Vec<CapturedExchange>,
    pub(crate) tool_matcher: ToolMatcher,
    /// Calls so far, by tool.
    pub(crate) tool_calls: HashMap<String, u32>,
    /// Model calls so far.
    pub(crate) model_calls: u32,
    /// Model calls so far, by content hash of their history.
    pub(crate) model_calls_by_content: HashMap<blake3::Hash, usize>,
    /// Answers to tool calls and to requests of no known kind.
    pub(crate) tool_fidelity: Fidelity,
    /// Answers to model calls.
    pub(crate) model_fidelity: Fidelity,
    /// Model requests compared with the recorded ones.
    pub(crate) model_inputs: ModelInputs,
    pub(crate) divergences: Vec<Divergence>,
    /// Repeated writes with the same arguments.
    pub(crate) duplicated_writes: u32,
    /// Live model calls as the provider treated them.
    pub(crate) provider: ProviderCalls,
    is_closed: bool,
}

/// A call to which the recording has no answer: a [`Divergence`] without its number.
#[derive(Debug)]
pub(crate) struct Miss {
    pub(crate) kind: &'static str,
    pub(crate) tool: Option<String>,
    pub(crate) path: Option<String>,
    /// JSON pointer of the first argument that differs from the nearest recorded call.
    pub(crate) argument: Option<String>,
    pub(crate) detail: String,
}

/// An exchange before its bodies are chunked.
#[derive(Debug, Clone)]
pub(crate) struct CapturedExchange {
    pub(crate) edge: Edge,
    pub(crate) protocol: Protocol,
    /// Microseconds since 1970-01-01 UTC.
    pub(crate) started_at: i64,
    pub(crate) started: Instant,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) duration: Option<Duration>,
    /// Microseconds between successive frames of the answer.
    pub(crate) frame_gaps_us: Vec<u32>,
    /// Absent while the exchange is in progress.
    pub(crate) ending: Option<Ending>,
    pub(crate) ending_detail: Option<String>,
    /// HTTP method and path.
    pub(crate) http: Option<(String, String)>,
    pub(crate) status: Option<u16>,
    pub(crate) request: Bytes,
    pub(crate) response: Bytes,
    /// The decoded operation. On the model edge it is decoded from the bodies when the rows are built.
    pub(crate) operation: Operation,
}

/// Everything that a closed trial did.
#[derive(Debug, Default)]
pub(crate) struct TrialOutput {
    pub(crate) exchanges: Vec<CapturedExchange>,
    /// Answers to all calls.
    pub(crate) fidelity: Fidelity,
    /// Answers to model calls.
    pub(crate) model_fidelity: Fidelity,
    /// Absent where no recorded model answered.
    pub(crate) model_inputs: Option<ModelInputs>,
    pub(crate) divergences: Vec<Divergence>,
    pub(crate) duplicated_writes: u32,
    pub(crate) model_calls: u32,
    pub(crate) provider: ProviderCalls,
}

impl ActiveTrial {
    /// A trial without exchanges.
    pub(crate) fn new(
        endpoint: TrialEndpoint,
        case: Arc<ReplayCase>,
        number: u32,
        is_probe: bool,
        settings: Arc<ReplaySettings>,
    ) -> Self {
        let provider_clock = Arc::default();
        Self { endpoint, case, number, is_probe, settings, provider_clock, state: Mutex::default() }
    }

    pub(crate) fn endpoint(&self) -> &TrialEndpoint {
        &self.endpoint
    }

    pub(crate) fn case(&self) -> &ReplayCase {
        &self.case
    }

    /// Number within the case, from 0.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn is_probe(&self) -> bool {
        self.is_probe
    }

    pub(crate) fn settings(&self) -> &Arc<ReplaySettings> {
        &self.settings
    }

    /// Time that the provider took.
    pub(crate) fn provider_clock(&self) -> &Arc<ProviderClock> {
        &self.provider_clock
    }

    /// The provider failed a call after all attempts: the trial is lost.
    pub(crate) fn provider_failed(&self, seq: usize, failure: FailureText) {
        self.provider_clock.freeze();
        if let Some(mut state) = self.state() {
            state.provider.fail(seq, failure);
        }
    }

    /// Locks the state. Returns `None` once the trial is closed.
    pub(crate) fn state(&self) -> Option<MutexGuard<'_, TrialState>> {
        let state = self.lock();
        (!state.is_closed).then_some(state)
    }

    fn lock(&self) -> MutexGuard<'_, TrialState> {
        // A handler that panicked leaves at worst an exchange without an ending, which `close` marks as cancelled.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an exchange that starts now; [`TrialState::open`] adds it to the trial.
    pub(crate) fn begin_exchange(
        &self,
        edge: Edge,
        protocol: Protocol,
        operation: Operation,
        request: Bytes,
    ) -> CapturedExchange {
        CapturedExchange {
            edge,
            protocol,
            started_at: self.settings.clock.now_micros(),
            started: Instant::now(),
            first_byte: None,
            duration: None,
            frame_gaps_us: Vec::new(),
            ending: None,
            ending_detail: None,
            http: None,
            status: None,
            request,
            response: Bytes::new(),
            operation,
        }
    }

    /// Completes an exchange, with changes by `update`. Does nothing once the trial is closed.
    pub(crate) fn finish(&self, seq: usize, update: impl FnOnce(&mut CapturedExchange)) {
        let Some(mut state) = self.state() else { return };
        if let Some(exchange) = state.exchanges.get_mut(seq) {
            let elapsed = exchange.started.elapsed();
            exchange.duration = Some(elapsed);
            exchange.first_byte.get_or_insert(elapsed);
            exchange.ending = Some(Ending::Complete);
            update(exchange);
        }
    }

    /// Counts a call that may be this trial's: it carried no identifier, and `running` trials were running.
    pub(crate) fn miss_uncorrelated(&self, path: &str, is_model: bool, running: usize) {
        let Some(mut state) = self.state() else { return };
        let counts = if is_model { &mut state.model_fidelity } else { &mut state.tool_fidelity };
        counts.missed += 1;
        let detail =
            format!("the call carried no trial identifier; it belongs to one of {running} running trials");
        // The call is no exchange of this trial; it came after the latest one.
        let seq = state.exchanges.len().saturating_sub(1);
        state.add_divergence(seq, Miss { path: Some(path.to_owned()), ..Miss::new(detail) });
    }

    /// Closes the trial: cancels exchanges in progress and refuses new ones.
    pub(crate) fn close(&self) -> TrialOutput {
        let state =
            std::mem::replace(&mut *self.lock(), TrialState { is_closed: true, ..TrialState::default() });
        let mut provider = state.provider;
        provider.close();
        let mut exchanges = state.exchanges;
        for exchange in exchanges.iter_mut().filter(|exchange| exchange.ending.is_none()) {
            exchange.ending = Some(Ending::Cancelled);
            exchange.duration = Some(exchange.started.elapsed());
            exchange.ending_detail = Some("the candidate did not wait for the answer".to_owned());
        }
        let mut fidelity = state.tool_fidelity;
        fidelity.add(&state.model_fidelity);
        TrialOutput {
            exchanges,
            fidelity,
            model_fidelity: state.model_fidelity,
            model_inputs: (self.settings.model == ModelMode::Recorded).then_some(state.model_inputs),
            divergences: state.divergences,
            duplicated_writes: state.duplicated_writes,
            model_calls: state.model_calls,
            provider,
        }
    }
}

impl TrialState {
    /// Adds an exchange and returns its number within the trial.
    pub(crate) fn open(&mut self, exchange: CapturedExchange) -> usize {
        self.exchanges.push(exchange);
        self.exchanges.len() - 1
    }

    /// Records a call to which the recording has no answer.
    pub(crate) fn add_divergence(&mut self, seq: usize, miss: Miss) {
        let Miss { kind, tool, path, argument, detail } = miss;
        let seq = u32::try_from(seq).unwrap_or(u32::MAX);
        self.divergences.push(Divergence { seq, kind: kind.to_owned(), tool, path, argument, detail });
    }
}

impl Miss {
    /// A refused request without path, tool or argument.
    pub(crate) fn new(detail: String) -> Self {
        Self { kind: "request_refused", tool: None, path: None, argument: None, detail }
    }
}
