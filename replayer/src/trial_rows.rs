//! Builds the rows of a run from a finished trial and from a recording.
//!
//! Pure: bodies are chunked here; [`crate::trial_log`] writes files.

use std::collections::HashSet;

use schemas::body::Body;
use schemas::canonical::canonical_text;
use schemas::exchange::{
    Confidence, Edge, Ending, Exchange, Identifier, Link, OperationKind, Protocol, Usage,
};
use schemas::id::{BuildId, ExchangeId, IncarnationId};
use schemas::keys::{Digest, TenantKeys};
use schemas::session::{CloseReason, SessionClose, latest_closes};
use schemas::trial::{Lane, Trial, TrialEnding};
use store::{Batch, StoredSession};

use crate::case_recording::CaseRecording;
use crate::openai_chat;
use crate::plan::PlannedTrial;
use crate::trial_log::{TrialChunk, TrialRecord};
use crate::world::active_trial::{CapturedExchange, TrialOutput};

/// Identity, times and ending of a trial.
#[derive(Debug)]
pub(crate) struct TrialMeta {
    pub(crate) planned: PlannedTrial,
    pub(crate) lane: Lane,
    pub(crate) build: BuildId,
    pub(crate) token: String,
    pub(crate) incarnation: IncarnationId,
    /// Number of the first exchange within the incarnation.
    pub(crate) incarnation_seq: u64,
    /// Microseconds since 1970-01-01 UTC.
    pub(crate) started_at: i64,
    /// Microseconds since 1970-01-01 UTC.
    pub(crate) closed_at: i64,
    pub(crate) ending: TrialEnding,
    pub(crate) ending_detail: Option<String>,
    /// Answer to the last turn.
    pub(crate) answer: Option<String>,
    /// JSON; see [`crate::faults::FaultRules::plan`].
    pub(crate) fault_plan: Option<String>,
}

/// Builds the rows of a finished trial.
pub(crate) fn trial_record(
    meta: &TrialMeta,
    recording: &CaseRecording,
    output: TrialOutput,
    keys: &TenantKeys,
) -> TrialRecord {
    let mut chunks = Chunks::default();
    let mut exchanges: Vec<Exchange> = Vec::with_capacity(output.exchanges.len());
    for (seq, captured) in output.exchanges.into_iter().enumerate() {
        exchanges.push(exchange(meta, recording, seq, captured, keys, &mut chunks));
    }
    link_tool_calls(&mut exchanges);
    let sum = |of: &dyn Fn(&Exchange) -> Option<u64>| exchanges.iter().filter_map(of).reduce(|a, b| a + b);
    let trial = Trial {
        model_fidelity: Some(output.model_fidelity),
        model_inputs: output.model_inputs,
        provider_retries: Some(output.provider.retries),
        provider_failures: Some(output.provider.failed()),
        cluster: None,
        weight: None,
        batch: Some(meta.incarnation.to_string()),
        outcome_missing: None,
        tenant: recording.tenant.clone(),
        agent: recording.agent.clone(),
        build: Some(meta.build.clone()),
        lane: meta.lane,
        case: meta.planned.case.clone(),
        trial: meta.planned.trial,
        session: meta.planned.session.clone(),
        seed: Some(meta.planned.seed),
        started_at: Some(meta.started_at),
        duration_us: sum(&|x| if x.edge == Edge::Turn { x.duration_us } else { None }),
        ending: meta.ending,
        ending_detail: meta.ending_detail.clone(),
        success: None,
        success_source: None,
        answer: meta.answer.clone(),
        input_tokens: sum(&|x| x.usage.input_tokens),
        output_tokens: sum(&|x| x.usage.output_tokens),
        cost_usd: exchanges.iter().filter_map(|x| x.usage.cost_usd).reduce(|a, b| a + b),
        exchanges: u32::try_from(exchanges.len()).unwrap_or(u32::MAX),
        has_transcript: true,
        fidelity: Some(output.fidelity),
        divergences: output.divergences,
        fault_plan: meta.fault_plan.clone(),
        complete: Some(true),
        slices: recording.slices.clone(),
    };
    let count =
        |edge: Edge| u32::try_from(exchanges.iter().filter(|x| x.edge == edge).count()).unwrap_or(u32::MAX);
    let close = SessionClose {
        tenant: recording.tenant.clone(),
        agent: recording.agent.clone(),
        build: Some(meta.build.clone()),
        session: meta.planned.session.clone(),
        incarnation: meta.incarnation.clone(),
        started_at: meta.started_at,
        closed_at: meta.closed_at,
        reason: CloseReason::TrialEnded,
        turns: count(Edge::Turn),
        model_calls: count(Edge::Model),
        tool_calls: count(Edge::Tool),
        last_seq: exchanges.last().map(|x| x.seq),
        shed: 0,
        shed_reason: None,
        case: Some(meta.planned.case.to_string()),
        success: None,
        labels: recording.slices.clone(),
    };
    TrialRecord { trial, close, exchanges, chunks: chunks.distinct }
}

/// Distinct chunks of a trial's bodies.
#[derive(Default)]
struct Chunks {
    seen: HashSet<Digest>,
    distinct: Vec<TrialChunk>,
}

impl Chunks {
    fn cut(&mut self, bytes: &[u8], keys: &TenantKeys) -> Body {
        Body::split(bytes, keys, |(digest, piece)| {
            if self.seen.insert(digest) {
                self.distinct.push(TrialChunk { digest, bytes: piece.to_vec() });
            }
        })
    }
}

fn exchange(
    meta: &TrialMeta,
    recording: &CaseRecording,
    seq: usize,
    captured: CapturedExchange,
    keys: &TenantKeys,
    chunks: &mut Chunks,
) -> Exchange {
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    // Decoding a long answer takes milliseconds; here it delays no frame on its way to the candidate.
    let (mut operation, usage) = match captured.edge {
        Edge::Model if captured.protocol == Protocol::OpenaiChat => {
            openai_chat::decode(&captured.request, &captured.response)
        }
        Edge::Turn | Edge::Model | Edge::Tool => (captured.operation, Usage::default()),
    };
    operation.arguments_digest = operation.arguments.as_ref().map(|text| keys.digest(text.as_bytes()));
    let (http_method, path) = captured.http.unzip();
    Exchange {
        exchange: ExchangeId::parse(&format!("{}-{seq}", meta.token)).expect("a token is a valid id"),
        tenant: recording.tenant.clone(),
        agent: recording.agent.clone(),
        build: Some(meta.build.clone()),
        session: meta.planned.session.clone(),
        incarnation: meta.incarnation.clone(),
        seq: u32::try_from(seq).unwrap_or(u32::MAX),
        incarnation_seq: meta.incarnation_seq + seq as u64,
        edge: captured.edge,
        protocol: captured.protocol,
        started_at: captured.started_at,
        session_started_at: meta.started_at,
        first_byte_us: captured.first_byte.map(micros),
        duration_us: captured.duration.map(micros),
        frame_gaps_us: captured.frame_gaps_us,
        ending: captured.ending.unwrap_or(Ending::Cancelled),
        ending_detail: captured.ending_detail,
        http_method: http_method.map(Into::into),
        path: path.map(Into::into),
        status: captured.status,
        request_headers: Vec::new(),
        response_headers: Vec::new(),
        request: chunks.cut(&captured.request, keys),
        response: chunks.cut(&captured.response, keys),
        operation,
        usage,
        identifiers: vec![Identifier {
            name: "foreshadow-trial".into(),
            value: meta.token.as_str().into(),
            source: "replay".into(),
            confidence: Confidence::Certain,
            chosen: true,
        }],
        links: Vec::new(),
        redactions: Vec::new(),
    }
}

/// Links each tool call to the latest earlier model call that requested it and is not linked yet.
fn link_tool_calls(exchanges: &mut [Exchange]) {
    let mut linked: HashSet<(usize, usize)> = HashSet::new();
    for position in 0..exchanges.len() {
        let (before, rest) = exchanges.split_at_mut(position);
        let call = &mut rest[0];
        if call.operation.kind != OperationKind::CallTool {
            continue;
        }
        let requested_by = before.iter().enumerate().rev().find_map(|(number, model)| {
            let is_match = |request_number: usize| {
                let request = &model.operation.requested[request_number];
                Some(request.tool.as_str()) == call.operation.tool.as_deref()
                    && canonical_text(&request.arguments) == call.operation.arguments
                    && !linked.contains(&(number, request_number))
            };
            let mut requests = 0..model.operation.requested.len();
            requests.find(|request| is_match(*request)).map(|request| (number, request))
        });
        if let Some((number, request)) = requested_by {
            linked.insert((number, request));
            call.links.push(Link {
                to: before[number].exchange.clone(),
                kind: "requested_by".into(),
                source: "tool and canonical arguments".into(),
                confidence: Confidence::Likely,
            });
        }
    }
}

/// Adds a recorded session to a batch as the case's trial in lane `recorded`.
pub(crate) fn add_recording(batch: &mut Batch, session: &StoredSession, recording: &CaseRecording) {
    let exchanges = &session.exchanges;
    let Some(first) = exchanges.first() else { return };
    let turns = || exchanges.iter().filter(|x| x.edge == Edge::Turn);
    let failed_turn = turns()
        .find(|turn| turn.ending != Ending::Complete || turn.status.is_some_and(|status| status >= 400));
    let latest = latest_closes(&session.closes);
    let success = latest.values().find_map(|close| close.success);
    let sum = |of: &dyn Fn(&Exchange) -> Option<u64>| exchanges.iter().filter_map(of).reduce(|a, b| a + b);
    batch.trials.push(Trial {
        model_fidelity: None,
        model_inputs: None,
        provider_retries: None,
        provider_failures: None,
        cluster: None,
        weight: None,
        batch: None,
        outcome_missing: None,
        tenant: recording.tenant.clone(),
        agent: recording.agent.clone(),
        build: first.build.clone(),
        lane: Lane::Recorded,
        case: recording.case.clone(),
        trial: 0,
        session: session.session.clone(),
        seed: None,
        started_at: Some(first.started_at),
        duration_us: sum(&|x| if x.edge == Edge::Turn { x.duration_us } else { None }),
        ending: if failed_turn.is_some() { TrialEnding::Failed } else { TrialEnding::Complete },
        ending_detail: failed_turn.and_then(|turn| turn.ending_detail.clone()),
        success,
        success_source: success.map(|_| "label".to_owned()),
        answer: turns().filter_map(|turn| turn.operation.output.clone()).next_back(),
        input_tokens: sum(&|x| x.usage.input_tokens),
        output_tokens: sum(&|x| x.usage.output_tokens),
        cost_usd: exchanges.iter().filter_map(|x| x.usage.cost_usd).reduce(|a, b| a + b),
        exchanges: u32::try_from(exchanges.len()).unwrap_or(u32::MAX),
        has_transcript: true,
        fidelity: None,
        divergences: Vec::new(),
        fault_plan: None,
        complete: Some(true),
        slices: recording.slices.clone(),
    });
    let id = &session.session;
    batch.chunks.extend(session.chunks.iter().map(|(digest, bytes)| (id.clone(), *digest, bytes.clone())));
    batch.closes.extend(session.closes.iter().cloned());
    let rows = exchanges.iter().map(|exchange| Box::new(with_declared_effects(exchange, recording)));
    batch.exchanges.extend(rows);
}

/// Applies the declared effects to a recorded tool call, so that all lanes are judged by the same effects.
fn with_declared_effects(exchange: &Exchange, recording: &CaseRecording) -> Exchange {
    let mut exchange = exchange.clone();
    let operation = &mut exchange.operation;
    if let Some(effects) = operation.tool.as_ref().and_then(|tool| recording.effects.get(tool)) {
        operation.effect = effects.effect;
        operation.reversible = effects.reversible;
        operation.idempotent = effects.idempotent;
    }
    exchange
}
