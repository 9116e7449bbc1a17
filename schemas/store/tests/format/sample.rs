//! Sample values of every stored type: with every field present, and with every optional field absent.

use std::collections::BTreeMap;

use schemas::body::Body;
use schemas::embedding::Embedding;
use schemas::exchange::{
    Confidence, Edge, Effect, Ending, Exchange, Header, Identifier, Link, Operation, OperationKind, Protocol,
    Redaction, RequestedCall, Usage,
};
use schemas::id::{AgentId, BuildId, CaseId, ExchangeId, IncarnationId, SessionId, TenantId};
use schemas::keys::Digest;
use schemas::score::{Score, ScoreKind};
use schemas::session::{CloseReason, SessionClose};
use schemas::trial::{Divergence, Fidelity, Lane, Trial, TrialEnding};

fn full_operation() -> Operation {
    Operation {
        method: Some("tools/call".to_owned()),
        model: Some("m".to_owned()),
        input: Some("in".to_owned()),
        output: Some("out".to_owned()),
        finish_reason: Some("stop".to_owned()),
        requested: vec![RequestedCall { id: None, tool: "t".to_owned(), arguments: "{}".to_owned() }],
        tool: Some("t".to_owned()),
        arguments: Some("{}".to_owned()),
        arguments_verbatim: Some("{'".to_owned()),
        arguments_digest: Some(Digest([3; 16])),
        result: Some("r".to_owned()),
        is_error: Some(true),
        effect: Effect::Write,
        reversible: Some(false),
        idempotent: Some(true),
        ..Operation::new(OperationKind::CallTool)
    }
}

pub(super) fn exchange<R>(reference: impl Fn(u8) -> R, full: bool) -> Exchange<R> {
    let body =
        Body { template: b"ab".to_vec(), chunk_offsets: vec![1], chunks: vec![reference(7)], bytes: 5 };
    Exchange {
        exchange: ExchangeId::parse("e").expect("id"),
        tenant: TenantId::parse("t").expect("id"),
        agent: AgentId::parse("a").expect("id"),
        build: full.then(|| BuildId::parse("b").expect("id")),
        session: SessionId::parse("s").expect("id"),
        incarnation: IncarnationId::parse("i").expect("id"),
        seq: 4,
        incarnation_seq: 9,
        edge: Edge::Tool,
        protocol: Protocol::Mcp,
        started_at: 1_700_000_000_000_001,
        session_started_at: 1_700_000_000_000_000,
        first_byte_us: full.then_some(5),
        duration_us: full.then_some(6),
        frame_gaps_us: if full { vec![1, 2] } else { vec![] },
        ending: Ending::Complete,
        ending_detail: full.then(|| "odd".to_owned()),
        http_method: full.then(|| "POST".into()),
        path: full.then(|| "/mcp".into()),
        status: full.then_some(200),
        request_headers: vec![Header { name: "accept".into(), value: "x".into() }],
        response_headers: vec![],
        request: body,
        response: Body { template: vec![], chunk_offsets: vec![], chunks: vec![], bytes: 0 },
        operation: if full { full_operation() } else { Operation::new(OperationKind::Opaque) },
        usage: if full {
            Usage { input_tokens: Some(1), cost_usd: Some(0.5), ..Usage::default() }
        } else {
            Usage::default()
        },
        identifiers: vec![Identifier {
            name: "traceparent".into(),
            value: "00-".into(),
            source: "request header".into(),
            confidence: Confidence::Likely,
            chosen: true,
        }],
        links: vec![Link {
            to: ExchangeId::parse("e0").expect("id"),
            kind: "requested_by".into(),
            source: "arguments".into(),
            confidence: Confidence::Weak,
        }],
        redactions: vec![Redaction { kind: "bearer".into(), location: "request body".into(), count: 2 }],
    }
}

pub(super) fn close(full: bool) -> SessionClose {
    SessionClose {
        tenant: TenantId::parse("t").expect("id"),
        agent: AgentId::parse("a").expect("id"),
        build: None,
        session: SessionId::parse("s").expect("id"),
        incarnation: IncarnationId::parse("i").expect("id"),
        started_at: 1,
        closed_at: 2,
        reason: CloseReason::MaxAge,
        turns: 1,
        model_calls: 2,
        tool_calls: 3,
        last_seq: full.then_some(5),
        shed: 0,
        shed_reason: None,
        case: full.then(|| "c".to_owned()),
        success: full.then_some(true),
        labels: if full { BTreeMap::from([("k".to_owned(), "v".to_owned())]) } else { BTreeMap::new() },
    }
}

pub(super) fn trial(full: bool) -> Trial {
    Trial {
        model_fidelity: None,
        model_inputs: None,
        provider_retries: None,
        provider_failures: None,
        cluster: None,
        weight: None,
        batch: None,
        outcome_missing: None,
        tenant: TenantId::parse("t").expect("id"),
        agent: AgentId::parse("a").expect("id"),
        build: full.then(|| BuildId::parse("b").expect("id")),
        lane: Lane::Candidate,
        case: CaseId::parse("c").expect("id"),
        trial: 2,
        session: SessionId::parse("s").expect("id"),
        seed: full.then_some(u64::MAX),
        started_at: full.then_some(1),
        duration_us: full.then_some(7),
        ending: TrialEnding::TimedOut,
        ending_detail: full.then(|| "why".to_owned()),
        success: full.then_some(false),
        success_source: full.then(|| "label".to_owned()),
        answer: full.then(|| "é".to_owned()),
        input_tokens: full.then_some(1),
        output_tokens: full.then_some(2),
        cost_usd: full.then_some(0.25),
        exchanges: 3,
        has_transcript: full,
        fidelity: full.then(|| Fidelity { exact: 1, missed: 2, ..Fidelity::default() }),
        divergences: vec![Divergence {
            path: None,
            argument: None,
            seq: 1,
            kind: "tool_missed".to_owned(),
            tool: None,
            detail: "d".to_owned(),
        }],
        fault_plan: full.then(|| "{}".to_owned()),
        complete: full.then_some(true),
        slices: if full { BTreeMap::from([("k".to_owned(), "v".to_owned())]) } else { BTreeMap::new() },
    }
}

pub(super) fn score(full: bool) -> Score {
    Score {
        tenant: TenantId::parse("t").expect("id"),
        agent: AgentId::parse("a").expect("id"),
        lane: Lane::Candidate,
        case: CaseId::parse("c").expect("id"),
        trial: 2,
        session: SessionId::parse("s").expect("id"),
        trial_started_at: full.then_some(1),
        evaluator: "strict".to_owned(),
        kind: if full { ScoreKind::Judge } else { ScoreKind::Command },
        priority: 3,
        evaluator_digest: "d".to_owned(),
        scored_at: 1_700_000_000_000_000,
        success: full.then_some(false),
        value: full.then_some(0.25),
        reason: full.then(|| "é".to_owned()),
        slice: full.then(|| "domain=airline".to_owned()),
        model: full.then(|| "m".to_owned()),
        input_tokens: full.then_some(1),
        output_tokens: full.then_some(2),
        cost_usd: full.then_some(0.5),
        error: (!full).then(|| "timed out".to_owned()),
    }
}

pub(super) fn embedding(full: bool) -> Embedding {
    Embedding {
        tenant: TenantId::parse("t").expect("id"),
        agent: AgentId::parse("a").expect("id"),
        lane: Lane::Baseline,
        case: CaseId::parse("c").expect("id"),
        trial: 2,
        session: SessionId::parse("s").expect("id"),
        trial_started_at: full.then_some(1),
        turn: full.then_some(4),
        model: "m".to_owned(),
        model_digest: "d".to_owned(),
        embedded_at: full.then_some(5),
        windows: full.then_some(2),
        vector: if full { vec![0.25, -1.5, f32::MIN_POSITIVE] } else { vec![] },
    }
}
