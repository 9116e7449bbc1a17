//! Every table written and read back, with every field filled and with every optional field absent.

use std::collections::BTreeMap;

use schemas::body::Body;
use schemas::exchange::{
    Confidence, Edge, Effect, Ending, Exchange, Header, Identifier, Link, Operation, OperationKind, Protocol,
    Redaction, RequestedCall, Usage,
};
use schemas::id::{AgentId, BuildId, CaseId, ExchangeId, IncarnationId, SessionId, TenantId};
use schemas::keys::Digest;
use schemas::record::Record;
use schemas::session::{CloseReason, SessionClose};
use schemas::table::{self, Chunk, ReadOptions, Table, TableError, WriteOptions};
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

fn exchange<R>(reference: impl Fn(u8) -> R, full: bool) -> Exchange<R> {
    let body = Body { skeleton: b"ab".to_vec(), cuts: vec![1], chunks: vec![reference(7)], bytes: 5 };
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
        http_method: full.then(|| "POST".to_owned()),
        path: full.then(|| "/mcp".to_owned()),
        status: full.then_some(200),
        request_headers: vec![Header { name: "accept".to_owned(), value: "x".to_owned() }],
        response_headers: vec![],
        request: body,
        response: Body { skeleton: vec![], cuts: vec![], chunks: vec![], bytes: 0 },
        operation: if full { full_operation() } else { Operation::new(OperationKind::Opaque) },
        usage: if full {
            Usage { input_tokens: Some(1), cost_usd: Some(0.5), ..Usage::default() }
        } else {
            Usage::default()
        },
        identifiers: vec![Identifier {
            name: "traceparent".to_owned(),
            value: "00-".to_owned(),
            source: "request header".to_owned(),
            confidence: Confidence::Likely,
            chosen: true,
        }],
        links: vec![Link {
            to: ExchangeId::parse("e0").expect("id"),
            kind: "requested_by".to_owned(),
            source: "arguments".to_owned(),
            confidence: Confidence::Weak,
        }],
        redactions: vec![Redaction { kind: "bearer".to_owned(), place: "request body".to_owned(), count: 2 }],
        envelope: None,
    }
}

#[test]
fn exchanges_come_back_as_they_were() {
    let rows = vec![exchange(u32::from, true), exchange(u32::from, false)];
    let file = table::encode(Table::Exchanges, &rows, &WriteOptions::default()).expect("rows fit");
    let back: Vec<Exchange<u32>> = table::decode_all(Table::Exchanges, file.into()).expect("file reads");
    assert_eq!(back, rows);
}

#[test]
fn some_columns_can_be_read_alone() {
    #[derive(serde::Deserialize)]
    struct Call {
        seq: u32,
        operation: CallOperation,
    }
    #[derive(serde::Deserialize)]
    struct CallOperation {
        tool: Option<String>,
        effect: Effect,
    }
    let file = table::encode(Table::Exchanges, &[exchange(u32::from, true)], &WriteOptions::default())
        .expect("rows fit");
    let mut calls: Vec<Call> = Vec::new();
    let columns = ["seq", "operation.tool", "operation.effect"];
    table::decode(
        Table::Exchanges,
        bytes::Bytes::from(file),
        ReadOptions { columns: Some(&columns), keys: None },
        |mut rows| calls.append(&mut rows),
    )
    .expect("reads");
    let call = calls.pop().expect("one row");
    assert_eq!(
        (call.seq, call.operation.tool.as_deref(), call.operation.effect),
        (4, Some("t"), Effect::Write)
    );
}

#[test]
fn chunks_sessions_and_trials_come_back() {
    let chunks = vec![
        Chunk { chunk: 0, digest: Digest([1; 16]), bytes: Some(vec![0, 255]), leans_on: None },
        Chunk { chunk: 1, digest: Digest([2; 16]), bytes: None, leans_on: Some("f.parquet".to_owned()) },
    ];
    let file = table::encode(Table::Chunks, &chunks, &WriteOptions::default()).expect("rows fit");
    assert_eq!(table::decode_all::<Chunk>(Table::Chunks, file.into()).expect("reads"), chunks);

    let sessions = vec![close(true), close(false)];
    let file = table::encode(Table::Sessions, &sessions, &WriteOptions::default()).expect("rows fit");
    assert_eq!(table::decode_all::<SessionClose>(Table::Sessions, file.into()).expect("reads"), sessions);

    let trials = vec![trial(true), trial(false)];
    let file = table::encode(Table::Trials, &trials, &WriteOptions::default()).expect("rows fit");
    assert_eq!(table::decode_all::<Trial>(Table::Trials, file.into()).expect("reads"), trials);
}

#[test]
fn records_come_back_as_they_were() {
    let records = [
        Record::Piece {
            session: SessionId::parse("s").expect("id"),
            digest: Digest([1; 16]),
            bytes: vec![1, 2],
        },
        Record::Exchange(Box::new(exchange(|byte| Digest([byte; 16]), true))),
        Record::Exchange(Box::new(exchange(|byte| Digest([byte; 16]), false))),
        Record::Close(Box::new(close(true))),
    ];
    for record in records {
        let bytes = record.encode().expect("encodes");
        assert_eq!(Record::decode(&bytes).expect("decodes"), record);
    }
    assert!(Record::decode(&[9, 1]).expect_err("version 9").to_string().contains("version 9"));
}

#[test]
fn a_damaged_or_foreign_file_is_refused() {
    let file = table::encode(Table::Exchanges, &[exchange(u32::from, true)], &WriteOptions::default())
        .expect("rows fit");
    let short = file[..file.len() / 2].to_vec();
    assert!(matches!(
        table::decode_all::<Exchange<u32>>(Table::Exchanges, short.into()),
        Err(TableError::Parquet(_))
    ));
    let error = table::decode_all::<Trial>(Table::Trials, file.into()).expect_err("another table");
    assert!(error.to_string().contains("holds table exchanges"));
}

fn close(full: bool) -> SessionClose {
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

fn trial(full: bool) -> Trial {
    Trial {
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
            seq: 1,
            kind: "tool_missed".to_owned(),
            tool: None,
            detail: "d".to_owned(),
        }],
        fault_plan: full.then(|| "{}".to_owned()),
        whole: full.then_some(true),
        slices: if full { BTreeMap::from([("k".to_owned(), "v".to_owned())]) } else { BTreeMap::new() },
    }
}
