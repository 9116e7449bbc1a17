//! Every body comes back byte for byte, and every distinct piece is kept once.
//!
//! The bodies go the ways that the records of a session go: journal, archive and Parquet, or the messages of a Kafka topic.
//! Those that the tap sees are compared with what client and upstream sent.

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

use crate::stage;

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

/// Cuts a body like the tap does: a piece is sent once a session.
fn cut(session: &SessionId, body: &[u8], sent: &mut HashSet<Digest>, records: &mut Vec<Record>) -> Body {
    Body::split(body, &keys(), |(digest, piece)| {
        if sent.insert(digest) {
            records.push(Record::Chunk { session: session.clone(), digest, bytes: piece.to_vec().into() });
        }
    })
}

/// The records of an exchange: its new pieces, then itself.
fn records(name: &str, seq: u32, (request, response): &Pair, sent: &mut HashSet<Digest>) -> Vec<Record> {
    let session = SessionId::parse(name).expect("id");
    let mut records = Vec::new();
    let request = cut(&session, request, sent, &mut records);
    let response = cut(&session, response, sent, &mut records);
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

/// The records of all sessions, exchange by exchange.
fn written(sessions: &Sessions) -> Vec<Vec<Record>> {
    let mut all = Vec::new();
    for (name, pairs) in sessions {
        let mut sent = HashSet::new();
        all.extend((0..).zip(pairs).map(|(seq, pair)| records(name, seq, pair, &mut sent)));
    }
    all
}

/// Through the journal and out again.
fn journaled(records: &[Vec<Record>]) -> Vec<Record> {
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

/// Through the messages of a topic and out again.
fn parcelled(records: &[Vec<Record>]) -> Vec<Record> {
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
    let opened = messages.iter().map(|message| MessageValue::decode(message).expect("decodes"));
    opened.flat_map(|parcel| parcel.records().expect("decodes")).collect()
}

/// No piece is sent twice in a session, and no exchange refers to one that its session was not sent.
fn check_pieces_sent_once(records: &[Record]) -> usize {
    let mut sent: HashSet<(&SessionId, &Digest)> = HashSet::new();
    for record in records {
        match record {
            Record::Chunk { session, digest, .. } => {
                assert!(sent.insert((session, digest)), "a piece is sent twice in session {session}");
            }
            Record::Exchange(exchange) => {
                for digest in exchange.request.chunks.iter().chain(&exchange.response.chunks) {
                    assert!(
                        sent.contains(&(&exchange.session, digest)),
                        "a piece was not sent before it is named"
                    );
                }
            }
            Record::Close(_) => {}
        }
    }
    sent.len()
}

/// Archives the records in batches of this many, reads them back, and compares every body.
async fn check_archived(records: Vec<Record>, sessions: &Sessions, in_a_batch: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let lake = Store::open(folder.path().to_str().expect("utf-8")).expect("opens");
    let mut leaning = ChunkIndex::default();
    let (mut position, mut batch) = (0, Batch::default());
    let last = records.len() - 1;
    for (place, record) in records.into_iter().enumerate() {
        let is_exchange = matches!(record, Record::Exchange(_));
        batch.push(record);
        if is_exchange && (batch.exchanges.len() == in_a_batch || place == last) {
            let next = position + 1;
            lake.commit("j", position, next, std::mem::take(&mut batch), &mut leaning)
                .await
                .expect("commits");
            position = next;
        }
    }
    let snapshot = lake.snapshot().await.expect("reads");
    let found = lake.load_sessions(&snapshot, None).await.expect("loads");
    let found: HashMap<_, _> = found.iter().map(|session| (session.session.as_str(), session)).collect();
    assert_eq!(found.len(), sessions.len());
    for (name, pairs) in sessions {
        let session = found[name.as_str()];
        assert_eq!(session.exchanges.len(), pairs.len());
        for (exchange, (request, response)) in session.exchanges.iter().zip(pairs) {
            assert_eq!(session.body(&exchange.request).expect("whole"), *request, "{name} {}", exchange.seq);
            assert_eq!(
                session.body(&exchange.response).expect("whole"),
                *response,
                "{name} {}",
                exchange.seq
            );
        }
    }
    check_stored_once(folder.path());
}

/// No file holds the bytes of a piece twice.
fn check_stored_once(store: &Path) {
    let mut files = 0;
    for path in files_below(&store.join(Table::Chunks.as_str())) {
        let bytes = bytes::Bytes::from(std::fs::read(&path).expect("file reads"));
        let rows: Vec<Chunk> = store::table::decode_all(Table::Chunks, bytes).expect("decodes");
        let kept = rows.iter().filter(|row| row.bytes.is_some());
        let mut seen = HashSet::new();
        assert!(kept.clone().all(|row| seen.insert(row.digest)), "{} holds a piece twice", path.display());
        assert!(!seen.is_empty() || rows.iter().all(|row| row.stored_in.is_some()));
        files += 1;
    }
    assert!(files > 0, "no file of pieces was looked at");
}

async fn check(sessions: Sessions) {
    let records = written(&sessions);
    let whole = journaled(&records);
    assert_eq!(parcelled(&records), whole, "journal and messages carry the same records");
    assert!(check_pieces_sent_once(&whole) > 0, "there are pieces");
    check_archived(whole.clone(), &sessions, usize::MAX).await;
    check_archived(whole, &sessions, 7).await;
}

fn generated(traffic: &Traffic, places: std::ops::Range<usize>) -> Sessions {
    let session = |place| {
        let session = traffic.session(place, 3);
        (
            session.id,
            session.calls.iter().map(|call| (call.request.to_vec(), call.response.to_vec())).collect(),
        )
    };
    places.map(session).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_bodies_come_back() {
    let traffic = Traffic::bundled();
    let last = traffic.sessions();
    let mut sessions = generated(&traffic, 0..3);
    // A repetition is another session, of other bytes.
    sessions.extend(generated(&traffic, last..last + 2));
    assert_ne!(sessions[0].1, sessions[3].1);
    check(sessions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_wire_bodies_come_back() {
    let stream = |recorded| frames(recorded).flat_map(|frame| frame.to_vec()).collect::<Vec<u8>>();
    check(vec![("wire".to_owned(), vec![(stream(TEXT), stream(TOOL_CALL)), (Vec::new(), stream(TEXT))])])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs FORESHADOW_BODIES, a folder of bodies: tests/performance/bodies"]
async fn bodies_of_a_folder_come_back() {
    let folder = std::env::var_os("FORESHADOW_BODIES").expect("FORESHADOW_BODIES names a folder of bodies");
    let bodies: Vec<Vec<u8>> =
        files_below(Path::new(&folder)).iter().map(|path| std::fs::read(path).expect("file reads")).collect();
    assert!(!bodies.is_empty(), "the folder is empty");
    let session = |(place, bodies): (usize, &[Vec<u8>])| {
        let pairs = bodies.chunks(2).map(|pair| (pair[0].clone(), pair.get(1).cloned().unwrap_or_default()));
        (format!("bodies-{place}"), pairs.collect())
    };
    let sessions: Sessions = bodies.chunks(64).enumerate().map(session).collect();
    check(sessions).await;
    crate::report::row(
        "bodies of recorded wire traffic that come back byte for byte",
        "all",
        &format!("{0} of {0}", bodies.len()),
        "journal, Parquet, Kafka messages",
    );
}

/// Plays sessions through a recorder and compares what the store has with what was sent; counts the bodies.
async fn check_through_the_tap(places: std::ops::Range<usize>) -> usize {
    let folder = tempfile::tempdir().expect("a folder");
    let traffic = stage::traffic();
    let played = stage::record(folder.path(), &traffic, places.clone(), stage::ROLL_BYTES).await;
    assert_eq!(played.failed, 0, "every answer comes through the tap unchanged");
    let lake = Store::open(folder.path().join("store").to_str().expect("utf-8")).expect("opens");
    let snapshot = lake.snapshot().await.expect("reads");
    let found = lake.load_sessions(&snapshot, None).await.expect("loads");
    let found: HashMap<_, _> = found.iter().map(|session| (session.session.as_str(), session)).collect();
    let mut compared = 0;
    for place in places {
        let session = traffic.session(place, 1);
        let stored = found[session.id.as_str()];
        assert_eq!((stored.gaps(), stored.exchanges.len()), (vec![], session.calls.len()), "{}", session.id);
        for (exchange, call) in stored.exchanges.iter().zip(&session.calls) {
            assert_eq!(exchange.redactions, [], "the generated traffic has no secrets");
            assert_eq!(stored.body(&exchange.request).expect("whole"), call.request);
            assert_eq!(stored.body(&exchange.response).expect("whole"), call.response);
            compared += 2;
        }
    }
    check_stored_once(&folder.path().join("store"));
    compared
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_tap_saw_is_what_is_stored() {
    assert!(check_through_the_tap(0..4).await > 100, "there are bodies");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: tests/performance/run"]
async fn every_generated_body() {
    let compared = check_through_the_tap(0..stage::traffic().sessions()).await;
    crate::report::row(
        "generated bodies that come back byte for byte",
        "all",
        &format!("{compared} of {compared}"),
        "through the tap",
    );
}
