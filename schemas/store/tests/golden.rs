//! A golden journal and golden encrypted tables of the current format version, and the errors for versions this build does not
//! know.
//!
//! [`write_golden_files`] makes the files once for each version, after the maker in `tests/format`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use codec::Record;
use schemas::FORMAT;
use schemas::id::{SessionId, TenantId};
use schemas::keys::Digest;
use store::keyring::{KeyRing, TenantKeyPair, WrappingKey};
use store::log::{LogError, LogOptions, LogReader, LogWriter};
use store::table::{self, Chunk, Level, ReadOptions, Table};
use store::{Store, StoreError};

const SEGMENT: &str = "00000000000000000000.log";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/v2").join(name)
}

fn ring() -> KeyRing {
    let pair =
        TenantKeyPair { metadata: WrappingKey::new([1; 32]), payload: Some(WrappingKey::new([2; 32])) };
    KeyRing::new(BTreeMap::from([(tenant(), pair)]))
}

fn tenant() -> TenantId {
    TenantId::parse("t").expect("id")
}

fn chunks() -> Vec<Chunk> {
    vec![
        Chunk {
            chunk: 0,
            digest: Digest([1; 16]),
            bytes: Some(b"what was said"[..].into()),
            stored_in: None,
        },
        Chunk { chunk: 1, digest: Digest([2; 16]), bytes: None, stored_in: Some("f.parquet".to_owned()) },
    ]
}

fn chunk_records() -> Vec<Record> {
    let chunk = |byte: u8| Record::Chunk {
        session: SessionId::parse("s").expect("id"),
        digest: Digest([byte; 16]),
        bytes: vec![byte; 3].into(),
    };
    vec![chunk(1), chunk(2)]
}

/// The names of the segments in a journal's folder.
fn segments(folder: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder).expect("lists").map(|entry| entry.expect("lists").path());
    all.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect()
}

#[test]
#[ignore = "writes the golden files of a new format version"]
fn write_golden_files() {
    let folder = tempfile::tempdir().expect("temp");
    let mut log = LogWriter::open(folder.path(), LogOptions::default()).expect("opens");
    for record in chunk_records() {
        log.append(&record.encode().expect("encodes")).expect("takes it");
    }
    log.sync().expect("syncs");
    let [segment] = &segments(folder.path())[..] else { panic!("one segment") };
    assert!(!path("journal").exists(), "the journal exists; golden files are never overwritten");
    std::fs::create_dir_all(path("journal")).expect("a folder");
    std::fs::copy(segment, path("journal").join(segment.file_name().expect("has one"))).expect("copies");
    let options = ring().write_options(&tenant(), Level::Archive).expect("keys");
    let file = table::encode(Table::Chunks, &chunks(), &options).expect("fits");
    std::fs::write(path("chunks.encrypted.parquet"), file).expect("writes");
}

#[test]
fn a_golden_journal_is_read() {
    let mut log = LogReader::open(&path("journal"), 0).expect("opens");
    for (position, record) in chunk_records().into_iter().enumerate() {
        let (found, payload) = log.next().expect("reads").expect("has a record");
        assert_eq!(found, position as u64);
        assert_eq!(Record::decode(&payload).expect("decodes"), record);
    }
    assert!(log.next().expect("reads").is_none());
}

#[test]
fn a_golden_encrypted_table_is_read() {
    let file = bytes::Bytes::from(std::fs::read(path("chunks.encrypted.parquet")).expect("is there"));
    let ring = ring();
    let options = ReadOptions { columns: None, keys: Some(ring.retriever()) };
    let mut rows: Vec<Chunk> = Vec::new();
    table::decode(Table::Chunks, file, options, |mut batch| rows.append(&mut batch)).expect("reads");
    assert_eq!(rows, chunks());
}

#[test]
fn a_journal_of_another_version_is_named() {
    let folder = tempfile::tempdir().expect("temp");
    let mut bytes = std::fs::read(path("journal").join(SEGMENT)).expect("is there");
    bytes[7] = 7;
    std::fs::write(folder.path().join(SEGMENT), bytes).expect("writes");
    let read = LogReader::open(folder.path(), 0).and_then(|mut log| log.next()).expect_err("version 7");
    assert!(matches!(read, LogError::Version { found: 7, .. }), "{read}");
    let written = LogWriter::open(folder.path(), LogOptions::default()).expect_err("version 7");
    assert!(matches!(written, LogError::Version { found: 7, .. }), "{written}");
}

#[tokio::test]
async fn commits_and_manifests_of_another_version_are_named() {
    let folder = tempfile::tempdir().expect("temp");
    let store = Store::open(folder.path().to_str().expect("utf-8")).expect("opens");
    let version_7 = |name: &str| {
        let text = std::fs::read_to_string(path(name)).expect("is there");
        text.replace(&format!("\"format\": {FORMAT}"), "\"format\": 7")
    };
    std::fs::write(folder.path().join("run.json"), version_7("run.json")).expect("writes");
    let error = store.manifest().await.expect_err("version 7");
    assert!(matches!(error, StoreError::Version { found: 7, .. }), "{error}");
    std::fs::create_dir_all(folder.path().join("_commits/topic-0")).expect("a folder");
    let commit = folder.path().join("_commits/topic-0/00000000000000000004_0001.json");
    std::fs::write(commit, version_7("commit.json")).expect("writes");
    let error = store.snapshot().await.expect_err("version 7");
    assert!(matches!(error, StoreError::Version { found: 7, .. }), "{error}");
}
