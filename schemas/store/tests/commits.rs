//! The commit protocol on a real directory: committed batches are read back, others are not visible.

use std::collections::BTreeMap;

use codec::Record;
use schemas::body::Body;
use schemas::exchange::{Edge, Ending, Exchange, Operation, OperationKind, Protocol, Usage};
use schemas::id::{AgentId, ExchangeId, IncarnationId, SessionId, TenantId};
use schemas::keys::{RootKey, TenantKeys};
use schemas::session::{CloseReason, SessionClose};
use store::table::Table;
use store::{Batch, ChunkIndex, Snapshot, Store, StoreError};

const DAY: i64 = 1_700_000_000_000_000;

fn keys() -> TenantKeys {
    RootKey::new([5; 32]).tenant(&TenantId::parse("t").expect("id"))
}

/// The request of the n-th model call: all messages so far.
fn request(n: u32) -> Vec<u8> {
    let messages: Vec<String> =
        (0..=n).map(|i| format!(r#"{{"role":"user","content":"message {i} {}"}}"#, "x".repeat(50))).collect();
    format!(r#"{{"messages":[{}]}}"#, messages.join(",")).into_bytes()
}

/// Records one exchange as the tap would: each chunk once per session.
fn record(session: &str, seq: u32, sent: &mut std::collections::HashSet<(String, [u8; 16])>) -> Vec<Record> {
    let id = SessionId::parse(session).expect("id");
    let mut records = Vec::new();
    let body = Body::split(&request(seq), &keys(), |(digest, bytes)| {
        if sent.insert((session.to_owned(), digest.0)) {
            records.push(Record::Chunk { session: id.clone(), digest, bytes: bytes.to_vec().into() });
        }
    });
    records.push(Record::Exchange(Box::new(Exchange {
        exchange: ExchangeId::parse(&format!("{session}-{seq}")).expect("id"),
        tenant: TenantId::parse("t").expect("id"),
        agent: AgentId::parse("a b/ü").expect("id"),
        build: None,
        session: id,
        incarnation: IncarnationId::parse("i").expect("id"),
        seq,
        incarnation_seq: u64::from(seq),
        edge: Edge::Model,
        protocol: Protocol::OpenaiChat,
        started_at: DAY + i64::from(seq),
        session_started_at: DAY,
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
        request: body,
        response: Body::default(),
        operation: Operation::new(OperationKind::Chat),
        usage: Usage::default(),
        identifiers: vec![],
        links: vec![],
        redactions: vec![],
    })));
    records
}

fn close(session: &str, last_seq: u32) -> Record {
    Record::Close(Box::new(SessionClose {
        tenant: TenantId::parse("t").expect("id"),
        agent: AgentId::parse("a b/ü").expect("id"),
        build: None,
        session: SessionId::parse(session).expect("id"),
        incarnation: IncarnationId::parse("i").expect("id"),
        started_at: DAY,
        closed_at: DAY + 100,
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
    }))
}

fn batch(records: Vec<Record>) -> Batch {
    let mut batch = Batch::default();
    records.into_iter().for_each(|record| batch.push(record));
    batch
}

#[tokio::test]
async fn sessions_span_commits_and_archive_restarts() {
    let folder = tempfile::tempdir().expect("temp");
    let store = Store::open(folder.path().join("store").to_str().expect("utf-8")).expect("opens");
    assert!(store.snapshot().await.expect("an absent store is empty").is_empty());
    let mut sent = std::collections::HashSet::new();
    for seq in 0..6 {
        let mut records = record("s1", seq, &mut sent);
        records.extend(record("s2", seq, &mut sent));
        if seq == 5 {
            records.extend([close("s1", 5), close("s2", 5)]);
        }
        let position = store.resume_position("t-0").await.expect("reads");
        assert_eq!(position, u64::from(seq));
        // A new archive process each time remembers nothing.
        let commit =
            store.commit("t-0", position, position + 1, batch(records), &mut ChunkIndex::default()).await;
        commit.expect("commits");
    }
    let snapshot = store.snapshot().await.expect("reads");
    let sessions = store.load_sessions(&snapshot, None).await.expect("reads");
    assert_eq!(sessions.len(), 2);
    for session in &sessions {
        assert_eq!(session.gaps(), vec![]);
        for (seq, exchange) in (0..).zip(&session.exchanges) {
            assert_eq!(session.body(&exchange.request).expect("all chunks are found"), request(seq));
        }
    }
    // Each chunk of each session is stored in one file.
    let chunks: Vec<store::table::Chunk> =
        store.read_table(&snapshot, Table::Chunks, None).await.expect("reads");
    assert_eq!(chunks.iter().filter(|chunk| chunk.bytes.is_some()).count(), 6);
    let one = [SessionId::parse("s2").expect("id")].into();
    assert_eq!(store.load_sessions(&snapshot, Some(&one)).await.expect("reads").len(), 1);
}

#[tokio::test]
async fn a_session_uses_chunks_of_its_own_files_only() {
    let folder = tempfile::tempdir().expect("temp");
    let store = Store::open(folder.path().to_str().expect("utf-8")).expect("opens");
    let mut sent = std::collections::HashSet::new();
    let mut both = Vec::new();
    let mut commits = Vec::new();
    for (position, session) in (0..).zip(["s1", "s2"]) {
        let records = record(session, 0, &mut sent);
        let chunk_index = &mut ChunkIndex::default();
        let commit = store.commit("t-0", position, position + 1, batch(records), chunk_index).await;
        commits.push(commit.expect("commits"));
        both.extend(record(session, 1, &mut sent));
    }
    let commit = store.commit("t-0", 2, 3, batch(both), &mut ChunkIndex::default()).await;
    commits.push(commit.expect("commits"));
    // Without the first file of one session the other session is complete.
    for (removed, session, other) in [(0, "s2", "s1"), (1, "s1", "s2")] {
        let mut rest = commits.clone();
        rest.remove(removed);
        let rest = Snapshot::new(rest);
        let sessions = store.load_sessions(&rest, None).await.expect("reads");
        for read in sessions {
            let last = &read.exchanges.last().expect("has one").request;
            if read.session.as_str() == session {
                assert_eq!(read.body(last).expect("all chunks are found"), request(1));
            } else {
                assert_eq!(read.session.as_str(), other);
                assert!(read.body(last).is_err(), "its chunk was in the removed file");
            }
        }
    }
    // The chunk that both sessions sent is once in their common file.
    let last = commits[2].files.iter().find(|file| file.table == Table::Chunks).expect("has one");
    let chunks: Vec<store::table::Chunk> = store.read(last, None).await.expect("reads");
    assert_eq!(chunks.iter().filter(|chunk| chunk.bytes.is_some()).count(), 1);
    assert_eq!(chunks.iter().filter(|chunk| chunk.stored_in.is_some()).count(), 2);
}

/// A session that two agents share: each folder stores the chunks that both refer to, because one may expire alone.
#[tokio::test]
async fn a_chunk_is_stored_in_each_folder_that_refers_to_it() {
    let folder = tempfile::tempdir().expect("temp");
    let store = Store::open(folder.path().to_str().expect("utf-8")).expect("opens");
    let mut records = record("s", 0, &mut std::collections::HashSet::new());
    for mut own in record("s", 1, &mut std::collections::HashSet::new()) {
        if let Record::Exchange(exchange) = &mut own {
            exchange.agent = AgentId::parse("other").expect("id");
        }
        records.push(own);
    }
    let made = store.commit("t-0", 0, 1, batch(records), &mut ChunkIndex::default()).await.expect("commits");
    let mut stored = Vec::new();
    for file in made.files.iter().filter(|file| file.table == Table::Chunks) {
        let chunks: Vec<store::table::Chunk> = store.read(file, None).await.expect("reads");
        let is_whole = chunks.iter().all(|chunk| chunk.bytes.is_some() && chunk.stored_in.is_none());
        assert!(is_whole, "{}: {chunks:?}", file.path);
        stored.push(chunks.len());
    }
    assert_eq!(stored, [1, 2], "the message of both, and the second agent's other");
}

#[tokio::test]
async fn the_index_keeps_all_entries_of_a_batch_until_it_is_encoded() {
    let folder = tempfile::tempdir().expect("temp");
    let store = Store::open(folder.path().to_str().expect("utf-8")).expect("opens");
    let sessions = ["s1", "s2", "s3"];
    let mut sent = std::collections::HashSet::new();
    // Smaller than one batch: all sessions are evicted before each.
    let mut chunk_index = ChunkIndex::with_capacity(1);
    for seq in 0..3 {
        let records = sessions.iter().flat_map(|session| record(session, seq, &mut sent));
        let records = records.collect::<Vec<_>>();
        let first = u64::from(seq);
        store.commit("t-0", first, first + 1, batch(records), &mut chunk_index).await.expect("commits");
    }
    let read = store.load_sessions(&store.snapshot().await.expect("reads"), None).await.expect("reads");
    assert_eq!(read.len(), sessions.len());
    for session in read {
        for (seq, exchange) in (0..).zip(&session.exchanges) {
            assert_eq!(session.body(&exchange.request).expect("all chunks are found"), request(seq));
        }
    }
    let snapshot = store.snapshot().await.expect("reads");
    let chunks: Vec<store::table::Chunk> =
        store.read_table(&snapshot, Table::Chunks, None).await.expect("reads");
    assert!(chunks.iter().all(|chunk| chunk.bytes.is_some() || chunk.stored_in.is_some()));
}

#[tokio::test]
async fn a_second_archiver_is_refused_and_leaves_no_files() {
    let folder = tempfile::tempdir().expect("temp");
    let store = Store::open(folder.path().to_str().expect("utf-8")).expect("opens");
    let records = || record("s", 0, &mut std::collections::HashSet::new());
    store.commit("t-0", 0, 2, batch(records()), &mut ChunkIndex::default()).await.expect("the first");
    let refused = store.commit("t-0", 0, 2, batch(records()), &mut ChunkIndex::default()).await;
    assert!(matches!(refused, Err(StoreError::LostPartition { first: 0, .. })));
    assert_eq!(store.delete_orphans("t-0").await.expect("deletes"), 0, "the refused files are gone already");
    let sessions = store.load_sessions(&store.snapshot().await.expect("reads"), None).await.expect("reads");
    assert_eq!(sessions[0].exchanges.len(), 1);
}

#[tokio::test]
async fn files_without_a_commit_are_invisible_and_are_deleted() {
    let folder = tempfile::tempdir().expect("temp");
    let store = Store::open(folder.path().to_str().expect("utf-8")).expect("opens");
    let records = record("s", 0, &mut std::collections::HashSet::new());
    let commit =
        store.commit("t-0", 0, 2, batch(records), &mut ChunkIndex::default()).await.expect("commits");
    std::fs::remove_file(folder.path().join(commit.path())).expect("the crash came before the commit");
    assert!(store.snapshot().await.expect("reads").is_empty());
    assert_eq!(store.delete_orphans("t-0").await.expect("deletes"), 2);
    assert_eq!(store.delete_orphans("t-1").await.expect("deletes"), 0);
}

#[tokio::test]
async fn damage_and_other_versions_are_named() {
    let folder = tempfile::tempdir().expect("temp");
    let store = Store::open(folder.path().to_str().expect("utf-8")).expect("opens");
    let records = record("s", 0, &mut std::collections::HashSet::new());
    let commit =
        store.commit("t-0", 0, 2, batch(records), &mut ChunkIndex::default()).await.expect("commits");
    let file = commit.files.iter().find(|file| file.table == Table::Exchanges).expect("has one");
    let path = folder.path().join(&file.path);
    let bytes = std::fs::read(&path).expect("reads");
    std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("writes");
    let error =
        store.load_sessions(&store.snapshot().await.expect("reads"), None).await.expect_err("truncated");
    assert!(error.to_string().contains("truncated"), "{error}");
    let path = folder.path().join(commit.path());
    let text = std::fs::read_to_string(&path)
        .expect("reads")
        .replace(&format!("\"format\": {}", schemas::FORMAT), "\"format\": 7");
    std::fs::write(&path, text).expect("writes");
    let error = store.snapshot().await.expect_err("another version");
    assert!(matches!(error, StoreError::Version { found: 7, .. }), "{error}");
}

#[tokio::test]
async fn a_claim_fences_the_previous_writer() {
    let folder = tempfile::tempdir().expect("temp");
    let store = Store::open(folder.path().to_str().expect("utf-8")).expect("opens");
    let records = |seq| record("s", seq, &mut std::collections::HashSet::new());
    let chunk_index = &mut ChunkIndex::default();
    let mut paused = store.claim("t-0").await.expect("the first");
    let journals = BTreeMap::from([("j".to_owned(), 2)]);
    store
        .commit_claimed(&mut paused, 2, journals.clone(), batch(records(0)), chunk_index)
        .await
        .expect("commits");
    let mut taker = store.claim("t-0").await.expect("takes over");
    assert_eq!((taker.position(), taker.journals()), (2, &journals));
    let late = store.commit_claimed(&mut paused, 4, journals.clone(), batch(records(1)), chunk_index).await;
    assert!(matches!(late, Err(StoreError::LostPartition { first: 2, .. })));
    let third = store.claim("t-0").await.expect("takes over again");
    assert_eq!(third.position(), 2);
    let late = store.commit_claimed(&mut taker, 4, journals.clone(), batch(records(1)), chunk_index).await;
    assert!(matches!(late, Err(StoreError::LostPartition { .. })));
    let mut third = third;
    for (seq, next) in [(1, 4), (2, 6)] {
        let done =
            store.commit_claimed(&mut third, next, journals.clone(), batch(records(seq)), chunk_index).await;
        assert_eq!(done.expect("commits").next, next);
    }
    assert_eq!(store.resume_position("t-0").await.expect("reads"), 6);
    let sessions = store.load_sessions(&store.snapshot().await.expect("reads"), None).await.expect("reads");
    assert_eq!(sessions[0].exchanges.len(), 3);
}
