//! The store on S3: moto's server answers as S3 does, conditional puts and ranges included.
//!
//! Needs a Python with the packages of `requirements.txt` in `FORESHADOW_TEST_PYTHON`; without it the tests say so and
//! pass, and the test command of the README sets it up.

mod server;

use std::collections::{BTreeMap, BTreeSet};

use codec::Record;
use schemas::body::Body;
use schemas::exchange::{Edge, Ending, Exchange, Operation, OperationKind, Protocol, Usage};
use schemas::id::{AgentId, ExchangeId, IncarnationId, SessionId, TenantId};
use schemas::keys::RootKey;
use schemas::session::{CloseReason, SessionClose};
use store::table::Table;
use store::{Batch, ChunkIndex, Store, StoreError};

use server::Server;

fn exchange(session: &str, seq: u32, batch: &mut Batch) {
    let tenant = TenantId::parse("t").expect("an id");
    let session = SessionId::parse(session).expect("an id");
    let keys = RootKey::new([5; 32]).tenant(&tenant);
    let text = format!(r#"{{"messages":[{{"role":"user","content":"{session} {}"}}]}}"#, "x".repeat(900));
    let request = Body::split(text.as_bytes(), &keys, |(digest, bytes)| {
        batch.push(Record::Chunk { session: session.clone(), digest, bytes: bytes.to_vec().into() });
    });
    batch.push(Record::Exchange(Box::new(Exchange {
        exchange: ExchangeId::parse(&format!("{session}-{seq}")).expect("an id"),
        tenant,
        agent: AgentId::parse("a b/ü").expect("an id"),
        build: None,
        session,
        incarnation: IncarnationId::parse("i").expect("an id"),
        seq,
        incarnation_seq: u64::from(seq),
        edge: Edge::Model,
        protocol: Protocol::OpenaiChat,
        started_at: i64::from(seq),
        session_started_at: 0,
        first_byte_us: None,
        duration_us: Some(1),
        frame_gaps_us: vec![],
        ending: Ending::Complete,
        ending_detail: None,
        http_method: None,
        path: None,
        status: Some(200),
        request_headers: vec![],
        response_headers: vec![],
        request,
        response: Body::default(),
        operation: Operation::new(OperationKind::Chat),
        usage: Usage::default(),
        identifiers: vec![],
        links: vec![],
        redactions: vec![],
    })));
}

fn close(session: &str, last_seq: u32, batch: &mut Batch) {
    batch.push(Record::Close(Box::new(SessionClose {
        tenant: TenantId::parse("t").expect("an id"),
        agent: AgentId::parse("a b/ü").expect("an id"),
        build: None,
        session: SessionId::parse(session).expect("an id"),
        incarnation: IncarnationId::parse("i").expect("an id"),
        started_at: 0,
        closed_at: 9,
        reason: CloseReason::Idle,
        turns: 0,
        model_calls: last_seq + 1,
        tool_calls: 0,
        last_seq: Some(last_seq),
        shed: 0,
        shed_reason: None,
        case: None,
        success: None,
        labels: BTreeMap::new(),
    })));
}

/// Sessions of one exchange each.
fn batch(sessions: std::ops::Range<u32>) -> Batch {
    let mut batch = Batch::default();
    for n in sessions {
        exchange(&format!("s{n}"), 0, &mut batch);
        close(&format!("s{n}"), 0, &mut batch);
    }
    batch
}

/// What the tests of this process read from the environment is set by the process that starts them: this one runs the
/// named test again in a process whose environment names the server.
fn again(server: &Server, test: &str) {
    let program = std::env::current_exe().expect("the test knows its own path");
    let mut command = std::process::Command::new(program);
    server.name_in(&mut command);
    let output = command.args(["--exact", test, "--ignored"]).output().expect("starts");
    let text = tests::binary::printed(&output);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn with_server(test: &str) {
    let Some(server) = Server::start() else { return };
    server.make_bucket("lake");
    again(&server, test);
}

fn open(location: &str) -> Store {
    // Another test of this process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Store::open(location).expect("opens")
}

#[test]
fn a_store_in_a_bucket_is_committed_claimed_swept_and_read() {
    with_server("commits");
}

#[tokio::test]
#[ignore = "needs the server that the test beside it starts"]
async fn commits() {
    let lake = open("s3://lake/a/prefix");
    assert!(lake.snapshot().await.expect("an absent store is empty").is_empty());
    let leaning = &mut ChunkIndex::default();
    let mut first = lake.claim("t-0").await.expect("claims");
    lake.commit_claimed(&mut first, 9, BTreeMap::new(), batch(0..40), leaning).await.expect("commits");
    let mut second = lake.claim("t-0").await.expect("takes over");
    let late = lake.commit_claimed(&mut first, 12, BTreeMap::new(), batch(40..41), leaning).await;
    assert!(matches!(late, Err(StoreError::LostPartition { first: 9, .. })), "{late:?}");
    lake.commit_claimed(&mut second, 12, BTreeMap::new(), batch(40..42), leaning).await.expect("commits");
    let refused = lake.commit("t-0", 9, 12, batch(50..51), &mut ChunkIndex::default()).await;
    assert!(refused.is_err(), "its place is the claim's");
    assert_eq!(lake.delete_orphans("t-0").await.expect("sweeps"), 0, "what was refused is gone");

    let snapshot = lake.snapshot().await.expect("reads");
    let sessions = lake.load_sessions(&snapshot, None).await.expect("reads");
    assert_eq!(sessions.len(), 42);
    assert!(sessions.iter().all(|session| session.gaps().is_empty()));
    let before = lake.read_stats();
    let wanted = BTreeSet::from([SessionId::parse("s17").expect("an id")]);
    let found = lake.load_sessions(&snapshot, Some(&wanted)).await.expect("reads");
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].exchanges,
        sessions.iter().find(|one| one.session == found[0].session).expect("is there").exchanges
    );
    let stored: u64 =
        Table::ALL.into_iter().flat_map(|table| snapshot.files(table)).map(|file| file.bytes).sum();
    assert!(lake.read_stats().bytes - before.bytes < stored, "only parts were read");
    // Another prefix of the bucket is another store.
    assert!(open("s3://lake/a").snapshot().await.expect("reads").is_empty());
    let missing = open("s3://no-such-bucket/x").snapshot().await.expect_err("no bucket");
    assert!(missing.to_string().contains("no bucket no-such-bucket"), "{missing}");
}

#[test]
fn the_binary_imports_into_a_bucket_and_looks_into_it() {
    let Some(server) = Server::start() else { return };
    server.make_bucket("lake");
    let folder = tempfile::tempdir().expect("a folder");
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tau-bench");
    let run = |args: &[&str]| {
        let mut command = tests::binary::command(folder.path());
        server.name_in(&mut command);
        let output = command.args(args).output().expect("the binary starts");
        (output.status.code(), tests::binary::printed(&output))
    };
    let file = data.join("gpt-4o-airline.jsonl.zst");
    let file = file.to_str().expect("utf-8");
    let (code, text) = run(&["import", "--format", "tau-bench", file, "--store", "s3://lake/prod"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = run(&["--json", "sessions", "list", "--store", "s3://lake/prod"]);
    assert_eq!(code, Some(0), "{text}");
    let json =
        text.split("--- stdout\n").nth(1).and_then(|text| text.split("\n--- stderr").next()).expect("output");
    let list: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let id = list["shown"][0]["session"].as_str().expect("a session").to_owned();
    assert_eq!(list["complete"], list["sessions"], "{text}");
    let (code, text) = run(&["sessions", "show", &id, "--store", "s3://lake/prod", "-v"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = run(&["sessions", "verify", "--strict", "--store", "s3://lake/prod"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = run(&["sessions", "list", "--store", "s3://no-such-bucket/prod"]);
    assert!(code != Some(0) && text.contains("create it, or correct the location"), "{text}");
}
