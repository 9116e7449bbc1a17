//! What a trial did, and what the recording was, as rows of the run.
//!
//! Pure: bodies are cut here, files are written by the ledger.

use std::collections::HashSet;

use schemas::body::Body;
use schemas::canonical::canonical_text;
use schemas::exchange::{Confidence, Edge, Ending, Exchange, Identifier, Link, OperationKind};
use schemas::id::{BuildId, ExchangeId, IncarnationId};
use schemas::keys::{Digest, TenantKeys};
use schemas::session::{CloseReason, SessionClose, latest_closes};
use schemas::trial::{Lane, Trial, TrialEnding};
use store::{Batch, StoredSession};

use crate::case_recording::Script;
use crate::plan::PlannedTrial;
use crate::trial_log::{Entry, EntryPiece};
use crate::world::active_trial::{Played, Raw};

/// Who played a trial, and how it ended.
#[derive(Debug)]
pub(crate) struct Ended<'a> {
    pub(crate) planned: &'a PlannedTrial,
    pub(crate) lane: Lane,
    pub(crate) build: &'a BuildId,
    pub(crate) token: &'a str,
    pub(crate) incarnation: &'a IncarnationId,
    pub(crate) incarnation_seq: u64,
    pub(crate) started_at: i64,
    pub(crate) closed_at: i64,
    pub(crate) ending: TrialEnding,
    pub(crate) ending_detail: Option<String>,
    pub(crate) answer: Option<String>,
    pub(crate) fault_plan: Option<String>,
}

/// Makes the rows of a finished trial.
pub(crate) fn entry(ended: &Ended<'_>, script: &Script, played: Played, keys: &TenantKeys) -> Entry {
    let mut pieces = Pieces::default();
    let mut exchanges: Vec<Exchange> = Vec::with_capacity(played.exchanges.len());
    for (seq, raw) in played.exchanges.into_iter().enumerate() {
        exchanges.push(exchange(ended, script, seq, raw, keys, &mut pieces));
    }
    link(&mut exchanges);
    let sum = |of: &dyn Fn(&Exchange) -> Option<u64>| exchanges.iter().filter_map(of).reduce(|a, b| a + b);
    let trial = Trial {
        tenant: script.tenant.clone(),
        agent: script.agent.clone(),
        build: Some(ended.build.clone()),
        lane: ended.lane,
        case: ended.planned.case.clone(),
        trial: ended.planned.trial,
        session: ended.planned.session.clone(),
        seed: Some(ended.planned.seed),
        started_at: Some(ended.started_at),
        duration_us: sum(&|x| if x.edge == Edge::Turn { x.duration_us } else { None }),
        ending: ended.ending,
        ending_detail: ended.ending_detail.clone(),
        success: None,
        success_source: None,
        answer: ended.answer.clone(),
        input_tokens: sum(&|x| x.usage.input_tokens),
        output_tokens: sum(&|x| x.usage.output_tokens),
        cost_usd: exchanges.iter().filter_map(|x| x.usage.cost_usd).reduce(|a, b| a + b),
        exchanges: u32::try_from(exchanges.len()).unwrap_or(u32::MAX),
        has_transcript: true,
        fidelity: Some(played.fidelity),
        divergences: played.divergences,
        fault_plan: ended.fault_plan.clone(),
        complete: Some(true),
        slices: script.slices.clone(),
    };
    let count =
        |edge: Edge| u32::try_from(exchanges.iter().filter(|x| x.edge == edge).count()).unwrap_or(u32::MAX);
    let close = SessionClose {
        tenant: script.tenant.clone(),
        agent: script.agent.clone(),
        build: Some(ended.build.clone()),
        session: ended.planned.session.clone(),
        incarnation: ended.incarnation.clone(),
        started_at: ended.started_at,
        closed_at: ended.closed_at,
        reason: CloseReason::TrialEnded,
        turns: count(Edge::Turn),
        model_calls: count(Edge::Model),
        tool_calls: count(Edge::Tool),
        last_seq: exchanges.last().map(|x| x.seq),
        shed: 0,
        shed_reason: None,
        case: Some(ended.planned.case.to_string()),
        success: None,
        labels: script.slices.clone(),
    };
    Entry { trial, close, exchanges, pieces: pieces.kept }
}

/// Pieces of a trial's bodies, each once.
#[derive(Default)]
struct Pieces {
    seen: HashSet<Digest>,
    kept: Vec<EntryPiece>,
}

impl Pieces {
    fn cut(&mut self, bytes: &[u8], keys: &TenantKeys) -> Body {
        Body::split(bytes, keys, |(digest, piece)| {
            if self.seen.insert(digest) {
                self.kept.push(EntryPiece { digest, bytes: piece.to_vec() });
            }
        })
    }
}

fn exchange(
    ended: &Ended<'_>,
    script: &Script,
    seq: usize,
    raw: Raw,
    keys: &TenantKeys,
    pieces: &mut Pieces,
) -> Exchange {
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let mut operation = raw.operation;
    operation.arguments_digest = operation.arguments.as_ref().map(|text| keys.digest(text.as_bytes()));
    let (http_method, path) = raw.http.unzip();
    Exchange {
        exchange: ExchangeId::parse(&format!("{}-{seq}", ended.token)).expect("a token is short and plain"),
        tenant: script.tenant.clone(),
        agent: script.agent.clone(),
        build: Some(ended.build.clone()),
        session: ended.planned.session.clone(),
        incarnation: ended.incarnation.clone(),
        seq: u32::try_from(seq).unwrap_or(u32::MAX),
        incarnation_seq: ended.incarnation_seq + seq as u64,
        edge: raw.edge,
        protocol: raw.protocol,
        started_at: raw.started_at,
        session_started_at: ended.started_at,
        first_byte_us: raw.first_byte.map(micros),
        duration_us: raw.duration.map(micros),
        frame_gaps_us: raw.frame_gaps_us,
        ending: raw.ending.unwrap_or(Ending::Cancelled),
        ending_detail: raw.ending_detail,
        http_method: http_method.map(Into::into),
        path: path.map(Into::into),
        status: raw.status,
        request_headers: Vec::new(),
        response_headers: Vec::new(),
        request: pieces.cut(&raw.request, keys),
        response: pieces.cut(&raw.response, keys),
        operation,
        usage: raw.usage,
        identifiers: vec![Identifier {
            name: "foreshadow-trial".into(),
            value: ended.token.into(),
            source: "replay".into(),
            confidence: Confidence::Certain,
            chosen: true,
        }],
        links: Vec::new(),
        redactions: Vec::new(),
    }
}

/// Joins each tool call to the latest model call before it that asked for it and is not joined yet.
fn link(exchanges: &mut [Exchange]) {
    let mut taken: HashSet<(usize, usize)> = HashSet::new();
    for place in 0..exchanges.len() {
        let (before, rest) = exchanges.split_at_mut(place);
        let call = &mut rest[0];
        if call.operation.kind != OperationKind::CallTool {
            continue;
        }
        let asked = before.iter().enumerate().rev().find_map(|(number, model)| {
            let wanted = |place: usize| {
                let request = &model.operation.requested[place];
                Some(request.tool.as_str()) == call.operation.tool.as_deref()
                    && canonical_text(&request.arguments) == call.operation.arguments
                    && !taken.contains(&(number, place))
            };
            (0..model.operation.requested.len()).find(|place| wanted(*place)).map(|place| (number, place))
        });
        if let Some((number, request)) = asked {
            taken.insert((number, request));
            call.links.push(Link {
                to: before[number].exchange.clone(),
                kind: "requested_by".into(),
                source: "tool and canonical arguments".into(),
                confidence: Confidence::Likely,
            });
        }
    }
}

/// Adds a recording to a batch as the case's trial of lane `recorded`.
pub(crate) fn add_recording(batch: &mut Batch, session: &StoredSession, script: &Script) {
    let exchanges = &session.exchanges;
    let Some(first) = exchanges.first() else { return };
    let turns = || exchanges.iter().filter(|x| x.edge == Edge::Turn);
    let broken = turns()
        .find(|turn| turn.ending != Ending::Complete || turn.status.is_some_and(|status| status >= 400));
    let latest = latest_closes(&session.closes);
    let success = latest.values().find_map(|close| close.success);
    let sum = |of: &dyn Fn(&Exchange) -> Option<u64>| exchanges.iter().filter_map(of).reduce(|a, b| a + b);
    batch.trials.push(Trial {
        tenant: script.tenant.clone(),
        agent: script.agent.clone(),
        build: first.build.clone(),
        lane: Lane::Recorded,
        case: script.case.clone(),
        trial: 0,
        session: session.session.clone(),
        seed: None,
        started_at: Some(first.started_at),
        duration_us: sum(&|x| if x.edge == Edge::Turn { x.duration_us } else { None }),
        ending: if broken.is_some() { TrialEnding::Failed } else { TrialEnding::Complete },
        ending_detail: broken.and_then(|turn| turn.ending_detail.clone()),
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
        slices: script.slices.clone(),
    });
    let id = &session.session;
    batch.pieces.extend(session.pieces.iter().map(|(digest, bytes)| (id.clone(), *digest, bytes.clone())));
    batch.closes.extend(session.closes.iter().cloned());
    let rows = exchanges.iter().map(|exchange| Box::new(with_effects(exchange, script)));
    batch.exchanges.extend(rows);
}

/// A recorded tool call, with the effect that the catalogue declares: both lanes and the recording are judged by one.
fn with_effects(exchange: &Exchange, script: &Script) -> Exchange {
    let mut exchange = exchange.clone();
    let operation = &mut exchange.operation;
    if let Some(observed) = operation.tool.as_ref().and_then(|tool| script.observed.get(tool)) {
        operation.effect = observed.effect;
        operation.reversible = observed.reversible;
        operation.idempotent = observed.idempotent;
    }
    exchange
}
