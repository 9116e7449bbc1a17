//! Every body is read back byte for byte, and every distinct chunk is stored once.
//!
//! Bodies pass through the journal, through Kafka messages, and through Parquet. Bodies from the tap are compared with the
//! bytes that client and upstream sent.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use codec::{MessageValue, Record, write_framed};
use schemas::body::Body;
use schemas::exchange::{Edge, Ending, Exchange, Operation, OperationKind, Protocol, Usage};
use schemas::id::{AgentId, ExchangeId, IncarnationId, SessionId, TenantId};
use schemas::keys::{Digest, RootKey, TenantKeys};
use store::log::{LogOptions, LogReader, LogWriter};
use store::table::{Chunk, Table};
use store::{Batch, ChunkIndex, Store};
use tests::binary::files_below;
use tests::gateway::Traffic;
use tests::upstream::{TEXT, TOOL_CALL, frames};

use crate::recording;

/// The request and the answer of one exchange.
type Pair = (Vec<u8>, Vec<u8>);

/// Bodies by session.
type Sessions = Vec<(String, Vec<Pair>)>;

fn tenant() -> TenantId {
    TenantId::parse("t").expect("id")
}

fn keys() -> TenantKeys {
    RootKey::new([5; 32]).tenant(&tenant())
}

/// Splits a body as the recorder does: a session sends a chunk once.
fn split(session: &SessionId, body: &[u8], sent: &mut HashSet<Digest>, records: &mut Vec<Record>) -> Body {
    Body::split(body, &keys(), |(digest, chunk)| {
        if sent.insert(digest) {
            records.push(Record::Chunk { session: session.clone(), digest, bytes: chunk.to_vec().into() });
        }
    })
}

/// The records of an exchange: its new chunks, then the exchange.
fn records(name: &str, seq: u32, (request, response): &Pair, sent: &mut HashSet<Digest>) -> Vec<Record> {
    let session = SessionId::parse(name).expect("id");
    let mut records = Vec::new();
    let request = split(&session, request, sent, &mut records);
    let response = split(&session, response, sent, &mut records);
    records.push(Record::Exchange(Box::new(Exchange {
        exchange: ExchangeId::parse(&format!("{name}-{seq}")).expect("id"),
        tenant: tenant(),
        agent: AgentId::parse("a").expect("id"),
        build: None,
        session,
        incarnation: IncarnationId::parse("i").expect("id"),
        seq,
        incarnation_seq: u64::from(seq),
        edge: Edge::Model,
        protocol: Protocol::Opaque,
        started_at: i64::from(seq),
        session_started_at: 0,
        first_byte_us: None,
        duration_us: None,
        frame_gaps_us: vec![],
        ending: Ending::Complete,
        ending_detail: None,
        http_method: None,
        path: None,
        status: None,
        request_headers: vec![],
        response_headers: vec![],
        request,
        response,
        operation: Operation::new(OperationKind::Opaque),
        usage: Usage::default(),
        identifiers: vec![],
        links: vec![],
        redactions: vec![],
    })));
    records
}

/// The records of all sessions, by exchange.
fn all_records(sessions: &Sessions) -> Vec<Vec<Record>> {
    let mut all = Vec::new();
    for (name, pairs) in sessions {
        let mut sent = HashSet::new();
        all.extend((0..).zip(pairs).map(|(seq, pair)| records(name, seq, pair, &mut sent)));
    }
    all
}

/// Writes the records to a journal and reads them back.
fn through_journal(records: &[Vec<Record>]) -> Vec<Record> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut log = LogWriter::open(folder.path(), LogOptions::default()).expect("opens");
    for record in records.iter().flatten() {
        log.append(&record.encode().expect("encodes")).expect("has room");
    }
    log.sync().expect("syncs");
    let mut reader = LogReader::open(folder.path(), 0).expect("opens");
    let mut found = Vec::new();
    while let Some((_, payload)) = reader.next().expect("reads") {
        found.push(Record::decode(&payload).expect("decodes"));
    }
    found
}

/// Encodes the records as Kafka messages and decodes them.
fn through_messages(records: &[Vec<Record>]) -> Vec<Record> {
    let message = |(position, records): (u64, &Vec<Record>)| {
        let mut content = Vec::new();
        for record in records {
            write_framed(&mut content, &record.encode().expect("encodes")).expect("is short");
        }
        MessageValue { journal: "j".to_owned(), position, part: 0, parts: 1, content }
            .encode()
            .expect("encodes")
    };
    let messages: Vec<_> = (0..).zip(records).map(message).collect();
    let values = messages.iter().map(|message| MessageValue::decode(message).expect("decodes"));
    values.flat_map(|value| value.records().expect("decodes")).collect()
}

/// Checks that a session sends no chunk twice, and sends every chunk before an exchange refers to it.
fn check_chunks_sent_once(records: &[Record]) -> usize {
    let mut sent: HashSet<(&SessionId, &Digest)> = HashSet::new();
    for record in records {
        match record {
            Record::Chunk { session, digest, .. } => {
                assert!(sent.insert((session, digest)), "a chunk is sent twice in session {session}");
            }
            Record::Exchange(exchange) => {
                for digest in exchange.request.chunks.iter().chain(&exchange.response.chunks) {
                    assert!(
                        sent.contains(&(&exchange.session, digest)),
                        "an exchange refers to a chunk that was not sent"
                    );
                }
            }
            Record::Close(_) => {}
        }
    }
    sent.len()
}

/// Archives the records in batches of `batch_size` exchanges, reads them back, and compares every body.
async fn check_archived(records: Vec<Record>, sessions: &Sessions, batch_size: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path().to_str().expect("utf-8")).expect("opens");
    let mut chunk_index = ChunkIndex::default();
    let (mut position, mut batch) = (0, Batch::default());
    let last = records.len() - 1;
    for (index, record) in records.into_iter().enumerate() {
        let is_exchange = matches!(record, Record::Exchange(_));
        batch.push(record);
        if is_exchange && (batch.exchanges.len() == batch_size || index == last) {
            let next = position + 1;
            store
                .commit("j", position, next, std::mem::take(&mut batch), &mut chunk_index)
                .await
                .expect("commits");
            position = next;
        }
    }
    let snapshot = store.snapshot().await.expect("reads");
    let found = store.load_sessions(&snapshot, None).await.expect("loads");
    let found: HashMap<_, _> = found.iter().map(|session| (session.session.as_str(), session)).collect();
    assert_eq!(found.len(), sessions.len());
    for (name, pairs) in sessions {
        let session = found[name.as_str()];
        assert_eq!(session.exchanges.len(), pairs.len());
        for (exchange, (request, response)) in session.exchanges.iter().zip(pairs) {
            assert_eq!(
                session.body(&exchange.request).expect("complete"),
                *request,
                "{name} {}",
                exchange.seq
            );
            assert_eq!(
                session.body(&exchange.response).expect("complete"),
                *response,
                "{name} {}",
                exchange.seq
            );
        }
    }
    check_stored_once(folder.path());
}

/// Checks that no file contains the bytes of a chunk twice.
fn check_stored_once(folder: &Path) {
    let mut files = 0;
    for path in files_below(&folder.join(Table::Chunks.as_str())) {
        let bytes = bytes::Bytes::from(std::fs::read(&path).expect("file reads"));
        let rows: Vec<Chunk> = store::table::decode_all(Table::Chunks, bytes).expect("decodes");
        let kept = rows.iter().filter(|row| row.bytes.is_some());
        let mut seen = HashSet::new();
        assert!(kept.clone().all(|row| seen.insert(row.digest)), "{} contains a chunk twice", path.display());
        assert!(!seen.is_empty() || rows.iter().all(|row| row.stored_in.is_some()));
        files += 1;
    }
    assert!(files > 0, "no file of chunks was checked");
}

async fn check(sessions: Sessions) {
    let records = all_records(&sessions);
    let decoded = through_journal(&records);
    assert_eq!(through_messages(&records), decoded, "journal and messages carry the same records");
    assert!(check_chunks_sent_once(&decoded) > 0, "there are chunks");
    check_archived(decoded.clone(), &sessions, usize::MAX).await;
    check_archived(decoded, &sessions, 7).await;
}

fn generated(traffic: &Traffic, sessions_range: std::ops::Range<usize>) -> Sessions {
    let session = |index| {
        let session = traffic.session(index, 3);
        (
            session.id,
            session.calls.iter().map(|call| (call.request.to_vec(), call.response.to_vec())).collect(),
        )
    };
    sessions_range.map(session).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_bodies_are_read_back_unchanged() {
    let traffic = Traffic::bundled();
    let last = traffic.sessions();
    let mut sessions = generated(&traffic, 0..3);
    // A repeated session has another id and other bytes.
    sessions.extend(generated(&traffic, last..last + 2));
    assert_ne!(sessions[0].1, sessions[3].1);
    check(sessions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_wire_bodies_are_read_back_unchanged() {
    let stream = |recorded| frames(recorded).flat_map(|frame| frame.to_vec()).collect::<Vec<u8>>();
    check(vec![("wire".to_owned(), vec![(stream(TEXT), stream(TOOL_CALL)), (Vec::new(), stream(TEXT))])])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs FORESHADOW_BODIES, a folder of bodies: tests/performance/bodies"]
async fn bodies_of_a_folder_are_read_back_unchanged() {
    let folder = std::env::var_os("FORESHADOW_BODIES").expect("FORESHADOW_BODIES names a folder of bodies");
    let bodies: Vec<Vec<u8>> =
        files_below(Path::new(&folder)).iter().map(|path| std::fs::read(path).expect("file reads")).collect();
    assert!(!bodies.is_empty(), "the folder is empty");
    let session = |(index, bodies): (usize, &[Vec<u8>])| {
        let pairs = bodies.chunks(2).map(|pair| (pair[0].clone(), pair.get(1).cloned().unwrap_or_default()));
        (format!("bodies-{index}"), pairs.collect())
    };
    let sessions: Sessions = bodies.chunks(64).enumerate().map(session).collect();
    check(sessions).await;
    crate::report::row(
        "bodies of recorded wire traffic that are read back byte for byte",
        "all",
        &format!("{0} of {0}", bodies.len()),
        "journal, Parquet, Kafka messages",
    );
}

/// Plays sessions through a recorder and compares the stored bodies with the sent ones; returns their number.
async fn check_through_the_tap(sessions_range: std::ops::Range<usize>) -> usize {
    let folder = tempfile::tempdir().expect("a folder");
    let traffic = recording::traffic();
    let played =
        recording::record(folder.path(), &traffic, sessions_range.clone(), recording::FLUSH_BYTES).await;
    assert_eq!(played.failed, 0, "the tap passes every response on unchanged");
    let store = Store::open(folder.path().join("store").to_str().expect("utf-8")).expect("opens");
    let snapshot = store.snapshot().await.expect("reads");
    let found = store.load_sessions(&snapshot, None).await.expect("loads");
    let found: HashMap<_, _> = found.iter().map(|session| (session.session.as_str(), session)).collect();
    let mut compared = 0;
    for index in sessions_range {
        let session = traffic.session(index, 1);
        let stored = found[session.id.as_str()];
        assert_eq!((stored.gaps(), stored.exchanges.len()), (vec![], session.calls.len()), "{}", session.id);
        for (exchange, call) in stored.exchanges.iter().zip(&session.calls) {
            assert_eq!(exchange.redactions, [], "the generated traffic has no secrets");
            assert_eq!(stored.body(&exchange.request).expect("complete"), call.request);
            assert_eq!(stored.body(&exchange.response).expect("complete"), call.response);
            compared += 2;
        }
    }
    check_stored_once(&folder.path().join("store"));
    compared
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_has_the_bodies_that_passed_the_tap() {
    assert!(check_through_the_tap(0..4).await > 100, "there are bodies");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: tests/performance/run"]
async fn every_generated_body() {
    let compared = check_through_the_tap(0..recording::traffic().sessions()).await;
    crate::report::row(
        "generated bodies that are read back byte for byte",
        "all",
        &format!("{compared} of {compared}"),
        "through the tap",
    );
}
