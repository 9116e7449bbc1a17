//! One trial in the world: how far it has got in the recording, and every exchange it made.
//!
//! Its lock is held for look-ups and notes only, never across an await.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jsonschema::Validator;
use schemas::exchange::{Edge, Ending, Operation, Protocol, Usage};
use schemas::trial::{Divergence, Fidelity};

use crate::candidate::Upstream;
use crate::candidate::turn::Place;
use crate::case_recording::Script;
use crate::clock::Clock;
use crate::faults::FaultRules;
use crate::http_client::HttpClient;
use crate::plan::ModelMode;
use crate::tool_index::{Cursor, Tape};

/// What holds for every trial of a replay.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) run_seed: u64,
    pub(crate) faults: FaultRules,
    pub(crate) model: ModelMode,
    pub(crate) upstream: Option<Upstream>,
    pub(crate) propagate: Option<hyper::header::HeaderName>,
    pub(crate) client: HttpClient,
    pub(crate) clock: Clock,
    /// Recorded tool delays are multiplied by this.
    pub(crate) delay_scale: f64,
    /// No recorded tool delay is replayed longer than this.
    pub(crate) delay_cap: Duration,
}

/// A case made ready to be played; shared by its trials.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) script: Script,
    pub(crate) tape: Tape,
    pub(crate) validators: HashMap<String, Arc<Validator>>,
}

/// A trial that is being played.
#[derive(Debug)]
pub(crate) struct TrialWorld {
    place: Place,
    case: Arc<Case>,
    number: u32,
    /// A probe gets no faults and no delays, and is thrown away.
    probe: bool,
    settings: Arc<Settings>,
    state: Mutex<State>,
}

/// How far a trial has got.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) exchanges: Vec<Raw>,
    pub(crate) cursor: Cursor,
    /// Calls of each tool so far.
    pub(crate) tool_calls: HashMap<String, u32>,
    /// Model calls so far.
    pub(crate) model_calls: u32,
    /// Model calls with the same history so far.
    pub(crate) chains: HashMap<String, usize>,
    pub(crate) fidelity: Fidelity,
    pub(crate) divergences: Vec<Divergence>,
    /// Writes made again with the same arguments.
    pub(crate) duplicated_writes: u32,
    /// Why the model provider could not be reached, where it could not.
    pub(crate) provider_lost: Option<String>,
    closed: bool,
}

/// An exchange as it was seen, its bodies not yet cut.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) edge: Edge,
    pub(crate) protocol: Protocol,
    pub(crate) started_at: i64,
    pub(crate) started: Instant,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) duration: Option<Duration>,
    pub(crate) frame_gaps_us: Vec<u32>,
    /// Absent while it is under way.
    pub(crate) ending: Option<Ending>,
    pub(crate) ending_detail: Option<String>,
    pub(crate) http: Option<(String, String)>,
    pub(crate) status: Option<u16>,
    pub(crate) request: Bytes,
    pub(crate) response: Bytes,
    pub(crate) operation: Operation,
    pub(crate) usage: Usage,
}

/// Everything that a trial did.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) exchanges: Vec<Raw>,
    pub(crate) fidelity: Fidelity,
    pub(crate) divergences: Vec<Divergence>,
    pub(crate) duplicated_writes: u32,
    pub(crate) model_calls: u32,
    pub(crate) provider_lost: Option<String>,
}

impl TrialWorld {
    /// A trial that has done nothing yet.
    pub(crate) fn new(
        place: Place,
        case: Arc<Case>,
        number: u32,
        probe: bool,
        settings: Arc<Settings>,
    ) -> Self {
        Self { place, case, number, probe, settings, state: Mutex::default() }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn case(&self) -> &Case {
        &self.case
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn is_probe(&self) -> bool {
        self.probe
    }

    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The trial's state; `None` once it is over.
    pub(crate) fn state(&self) -> Option<MutexGuard<'_, State>> {
        let state = self.lock();
        (!state.closed).then_some(state)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A handler that panicked leaves at worst an exchange without an end, which `close` says of it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An exchange that starts now.
    pub(crate) fn raw(&self, edge: Edge, protocol: Protocol, operation: Operation, request: Bytes) -> Raw {
        Raw {
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
            usage: Usage::default(),
        }
    }

    /// Notes how an exchange ended; nothing once the trial is over.
    pub(crate) fn finish(&self, seq: usize, note: impl FnOnce(&mut Raw)) {
        let Some(mut state) = self.state() else { return };
        if let Some(raw) = state.exchanges.get_mut(seq) {
            let elapsed = raw.started.elapsed();
            raw.duration = Some(elapsed);
            raw.first_byte.get_or_insert(elapsed);
            raw.ending = Some(Ending::Complete);
            note(raw);
        }
    }

    /// Ends the trial: what is still under way is cancelled, and nothing more is let in.
    pub(crate) fn close(&self) -> Played {
        let state = std::mem::replace(&mut *self.lock(), State { closed: true, ..State::default() });
        let mut exchanges = state.exchanges;
        for raw in exchanges.iter_mut().filter(|raw| raw.ending.is_none()) {
            raw.ending = Some(Ending::Cancelled);
            raw.duration = Some(raw.started.elapsed());
            raw.ending_detail = Some("the candidate did not wait for the answer".to_owned());
        }
        Played {
            exchanges,
            fidelity: state.fidelity,
            divergences: state.divergences,
            duplicated_writes: state.duplicated_writes,
            model_calls: state.model_calls,
            provider_lost: state.provider_lost,
        }
    }
}

impl State {
    /// Adds an exchange and gives its number within the trial.
    pub(crate) fn open(&mut self, raw: Raw) -> usize {
        self.exchanges.push(raw);
        self.exchanges.len() - 1
    }

    /// Notes that the trial left the recording.
    pub(crate) fn diverge(&mut self, seq: usize, kind: &str, tool: Option<&str>, detail: String) {
        let seq = u32::try_from(seq).unwrap_or(u32::MAX);
        self.divergences.push(Divergence {
            seq,
            kind: kind.to_owned(),
            tool: tool.map(str::to_owned),
            detail,
        });
    }
}
