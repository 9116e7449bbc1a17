//! Encryption at rest on a real directory: bytes on disk, access by key, and errors without a key.

use std::collections::BTreeMap;
use std::path::Path;

use codec::Record;
use schemas::body::Body;
use schemas::exchange::{Edge, Ending, Exchange, Operation, OperationKind, Protocol, Usage};
use schemas::id::{AgentId, ExchangeId, IncarnationId, SessionId, TenantId};
use schemas::keys::RootKey;
use schemas::session::{CloseReason, SessionClose};
use serde::Deserialize;
use store::Store;
use store::keyring::{KeyRing, TenantKeyPair, WrappingKey};
use store::table::{self, ReadOptions, Table};
use store::{Batch, ChunkIndex};

const DAY: i64 = 1_700_000_000_000_000;
const PAYLOAD: &str = "the patient's own words";
const METADATA: &str = "model-that-nobody-may-know";
const LOOKED_UP: &str = "session-to-look-up";

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).expect("id")
}

fn ring(name: &str, metadata: u8, payload: Option<u8>) -> KeyRing {
    let pair = TenantKeyPair {
        metadata: WrappingKey::new([metadata; 32]),
        payload: payload.map(|byte| WrappingKey::new([byte; 32])),
    };
    KeyRing::new(BTreeMap::from([(tenant(name), pair)]))
}

/// A session whose every text is a marker that can be searched for.
fn batch(of: &str) -> Batch {
    let keys = RootKey::new([5; 32]).tenant(&tenant(of));
    let session = SessionId::parse(LOOKED_UP).expect("id");
    let mut batch = Batch::default();
    let long = format!(r#"{{"messages":[{{"content":"{PAYLOAD} {PAYLOAD} {PAYLOAD}"}}]}}"#);
    let mut cut = |text: &str| {
        Body::split(text.as_bytes(), &keys, |(digest, bytes)| {
            let session = session.clone();
            batch.push(Record::Chunk { session, digest, bytes: bytes.to_vec().into() });
        })
    };
    let (request, response) = (cut(&long), cut(&format!(r#"{{"a":"{PAYLOAD}"}}"#)));
    let operation = Operation {
        model: Some(METADATA.to_owned()),
        output: Some(PAYLOAD.to_owned()),
        ..Operation::new(OperationKind::Chat)
    };
    batch.push(Record::Exchange(Box::new(Exchange {
        exchange: ExchangeId::parse("e").expect("id"),
        tenant: tenant(of),
        agent: AgentId::parse("a").expect("id"),
        build: None,
        session: session.clone(),
        incarnation: IncarnationId::parse("i").expect("id"),
        seq: 0,
        incarnation_seq: 0,
        edge: Edge::Model,
        protocol: Protocol::OpenaiChat,
        started_at: DAY,
        session_started_at: DAY,
        first_byte_us: None,
        duration_us: Some(1),
        frame_gaps_us: vec![],
        ending: Ending::Complete,
        ending_detail: Some(PAYLOAD.to_owned()),
        http_method: None,
        path: Some(format!("/{PAYLOAD}").into()),
        status: Some(200),
        request_headers: vec![],
        response_headers: vec![],
        request,
        response,
        operation,
        usage: Usage::default(),
        identifiers: vec![],
        links: vec![],
        redactions: vec![],
    })));
    batch.push(Record::Close(Box::new(SessionClose {
        tenant: tenant(of),
        agent: AgentId::parse("a").expect("id"),
        build: None,
        session,
        incarnation: IncarnationId::parse("i").expect("id"),
        started_at: DAY,
        closed_at: DAY + 100,
        reason: CloseReason::Idle,
        turns: 0,
        model_calls: 1,
        tool_calls: 0,
        last_seq: Some(0),
        shed: 0,
        shed_reason: None,
        case: Some(METADATA.to_owned()),
        success: None,
        labels: BTreeMap::from([("note".to_owned(), PAYLOAD.to_owned())]),
    })));
    batch
}

async fn write_store(folder: &Path, keys: KeyRing, of: &str) -> Store {
    let store = open(folder, keys);
    store.commit("t-0", 0, 3, batch(of), &mut ChunkIndex::default()).await.expect("commits");
    store
}

fn open(folder: &Path, keys: KeyRing) -> Store {
    Store::open(folder.to_str().expect("utf-8")).expect("opens").with_keys(keys)
}

/// Every Parquet file below the folder, with its name.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("lists") {
        let path = entry.expect("lists").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            found.push((path.display().to_string(), std::fs::read(&path).expect("reads")));
        }
    }
    found
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn secrets_are_not_in_the_files_and_are_read_with_the_keys() {
    let folder = tempfile::tempdir().expect("temp");
    let store = write_store(folder.path(), ring("t", 1, Some(2)), "t").await;
    let files = files(folder.path());
    assert_eq!(files.len(), 3, "exchanges, chunks, sessions");
    for (path, bytes) in &files {
        // Whole files: pages, statistics, page indexes, bloom filters and footer.
        for secret in [PAYLOAD, METADATA] {
            assert!(!contains(bytes, secret), "{path} shows {secret:?}");
        }
    }
    let with_session = files.iter().filter(|(_, bytes)| contains(bytes, LOOKED_UP)).count();
    assert_eq!(with_session, 2, "exchanges and sessions can be looked up without keys");
    let sessions = store.load_sessions(&store.snapshot().await.expect("reads"), None).await.expect("reads");
    assert_eq!(sessions[0].gaps(), []);
    assert_eq!(sessions[0].exchanges[0].operation.output.as_deref(), Some(PAYLOAD));
    assert!(
        sessions[0].body(&sessions[0].exchanges[0].request).expect("all chunks are found").len()
            > PAYLOAD.len() * 3
    );
}

#[tokio::test]
async fn without_keys_the_same_data_are_plain() {
    // The search of the test above can find a secret: in plain files it is in uncompressed statistics.
    let folder = tempfile::tempdir().expect("temp");
    write_store(folder.path(), ring("another", 1, Some(2)), "t").await;
    let all: Vec<u8> = files(folder.path()).into_iter().flat_map(|(_, bytes)| bytes).collect();
    assert!(contains(&all, METADATA) && contains(&all, LOOKED_UP));
}

#[tokio::test]
async fn every_file_has_data_keys_of_its_own() {
    let folder = tempfile::tempdir().expect("temp");
    write_store(folder.path(), ring("t", 1, Some(2)), "t").await;
    let mut wrapped: Vec<Vec<u8>> = Vec::new();
    for (path, bytes) in files(folder.path()) {
        let mark = br#""wrappedDEK":""#;
        let starts = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(mark)).map(|at| at + mark.len());
        let mut own: Vec<Vec<u8>> = starts.map(|at| bytes[at..at + 80].to_vec()).collect();
        own.sort();
        own.dedup();
        assert!(own.len() >= 2, "{path} has only {} data keys", own.len());
        assert!(own.iter().all(|key| !wrapped.contains(key)), "{path} shares a data key");
        wrapped.append(&mut own);
    }
}

#[derive(Deserialize)]
struct Known {
    operation: KnownOperation,
}

#[derive(Deserialize)]
struct KnownOperation {
    model: Option<String>,
}

#[derive(Deserialize)]
struct LookUp {
    session: SessionId,
}

#[tokio::test]
async fn the_metadata_key_alone_opens_metadata() {
    let folder = tempfile::tempdir().expect("temp");
    write_store(folder.path(), ring("t", 1, Some(2)), "t").await;
    let reader = open(folder.path(), ring("t", 1, None));
    let snapshot = reader.snapshot().await.expect("commits are plain");
    let known: Vec<Known> = reader
        .read_table(&snapshot, Table::Exchanges, Some(&["operation.model"]))
        .await
        .expect("metadata opens");
    assert_eq!(known[0].operation.model.as_deref(), Some(METADATA));
    let error = reader.load_sessions(&snapshot, None).await.expect_err("payload stays encrypted").to_string();
    assert!(error.contains("\"t/payload\"") && error.contains("not configured"), "{error}");
}

#[tokio::test]
async fn an_error_names_the_missing_key() {
    let folder = tempfile::tempdir().expect("temp");
    write_store(folder.path(), ring("t", 1, Some(2)), "t").await;
    for (keys, wanted) in [
        (KeyRing::default(), ["\"t/metadata\"", "[[encryption.key]]", "tenant = \"t\""]),
        (ring("u", 1, Some(2)), ["\"t/metadata\"", "[[encryption.key]]", "tenant = \"t\""]),
        (ring("t", 9, Some(2)), ["\"t/metadata\"", "does not open it", "key file"]),
        (ring("t", 1, Some(9)), ["\"t/payload\"", "does not open it", "key file"]),
    ] {
        let reader = open(folder.path(), keys);
        let snapshot = reader.snapshot().await.expect("commits are plain");
        let error = reader.load_sessions(&snapshot, None).await.expect_err("a key is missing").to_string();
        assert!(wanted.iter().all(|part| error.contains(part)), "{error}");
        assert!(error.contains("tenant=t"), "the file is named: {error}");
        let open: Vec<LookUp> = reader
            .read_table(&snapshot, Table::Exchanges, Some(&["session"]))
            .await
            .expect("look-up columns are open");
        assert_eq!(open[0].session.as_str(), LOOKED_UP);
    }
}

#[tokio::test]
async fn files_of_a_tenant_without_keys_are_plain_and_writing_needs_the_payload_key() {
    let folder = tempfile::tempdir().expect("temp");
    let store = write_store(folder.path(), ring("other", 1, Some(2)), "t").await;
    for (path, bytes) in files(folder.path()) {
        let table = Table::ALL.into_iter().find(|table| path.contains(&format!("/{}/", table.as_str())));
        let options = ReadOptions::default();
        let table = table.expect("a table's folder");
        table::open(table, bytes::Bytes::from(bytes), options).expect("plain");
    }
    drop(store);
    let store = open(folder.path(), ring("t", 1, None));
    let error = store.commit("t-1", 0, 3, batch("t"), &mut ChunkIndex::default()).await.expect_err("refused");
    assert!(error.to_string().contains("\"t/payload\""), "{error}");
}

#[tokio::test]
async fn a_changed_byte_is_an_error() {
    let folder = tempfile::tempdir().expect("temp");
    let keys = ring("t", 1, Some(2));
    write_store(folder.path(), keys.clone(), "t").await;
    let (path, bytes) =
        files(folder.path()).into_iter().find(|(path, _)| path.contains("chunks")).expect("is there");
    let mut changed = bytes.clone();
    // In the pages: after the magic number.
    changed[40] ^= 1;
    std::fs::write(&path, &changed).expect("writes");
    let store = open(folder.path(), keys);
    let snapshot = store.snapshot().await.expect("reads");
    assert!(store.load_sessions(&snapshot, None).await.is_err(), "a changed page must not be read");
    // In the footer, which is signed: the version of the program that wrote the file.
    let at = bytes.windows(10).rposition(|window| window == b"foreshadow").expect("created by");
    let mut changed = bytes;
    changed[at] = b'F';
    std::fs::write(&path, &changed).expect("writes");
    assert!(store.load_sessions(&snapshot, None).await.is_err(), "a changed footer must not be read");
}
