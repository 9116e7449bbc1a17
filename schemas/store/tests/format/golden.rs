//! Files of the current format version as they were first written. Every later build of this version must read them as
//! these values.
//!
//! [`write_golden_files`] makes them once for each version. A failure here means that the reader is wrong, or that the
//! format needs a new version ([`schemas::FORMAT`]).

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use codec::{MessageValue, Record, RecordError, write_framed};
use schemas::FORMAT;
use schemas::embedding::Embedding;
use schemas::exchange::Exchange;
use schemas::id::{BuildId, SessionId};
use schemas::keys::Digest;
use schemas::score::Score;
use schemas::session::SessionClose;
use schemas::trial::{Lane, RunManifest, Trial};
use store::commit::{Commit, CommittedFile};
use store::table::{self, Chunk, Table, TableError, WriteOptions};

use super::sample::{close, embedding, exchange, score, trial};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/v2").join(name)
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).expect("the fixture is there")
}

fn digest(byte: u8) -> Digest {
    Digest([byte; 16])
}

fn chunks() -> Vec<Chunk> {
    vec![
        Chunk { chunk: 0, digest: digest(1), bytes: Some(vec![0, 255].into()), stored_in: None },
        Chunk { chunk: 1, digest: digest(2), bytes: None, stored_in: Some("f.parquet".to_owned()) },
    ]
}

fn commit() -> Commit {
    let file = CommittedFile { table: Table::Chunks, path: "chunks/f.parquet".to_owned(), rows: 2, bytes: 3 };
    Commit {
        format: FORMAT,
        source: "topic-0".to_owned(),
        first: 4,
        epoch: 1,
        next: 9,
        files: vec![file],
        replaces: BTreeMap::from([("chunks/a.parquet".to_owned(), None)]),
        journals: BTreeMap::from([("j".to_owned(), 7)]),
    }
}

fn manifest() -> RunManifest {
    RunManifest {
        format: FORMAT,
        tool_version: "0.1.0".to_owned(),
        lane: Lane::Candidate,
        build: BuildId::parse("b").expect("id"),
        source: "replay".to_owned(),
        model: Some("recorded".to_owned()),
        selected: false,
        planned_trials: Some(3),
        planned_cases: None,
        seed: Some(u64::MAX),
        corpus_digest: Some("c".to_owned()),
        plan_digest: None,
        infrastructure: Vec::new(),
        model_retry: None,
    }
}

fn records() -> [(&'static str, Record); 3] {
    let session = SessionId::parse("s").expect("id");
    [
        ("chunk.record", Record::Chunk { session, digest: digest(1), bytes: vec![0, 255].into() }),
        ("exchange.record", Record::Exchange(Box::new(exchange(digest, true)))),
        ("close.record", Record::Close(Box::new(close(true)))),
    ]
}

fn message() -> MessageValue {
    let mut content = Vec::new();
    for (_, record) in records() {
        write_framed(&mut content, &record.encode().expect("encodes")).expect("is short");
    }
    MessageValue { journal: "j".to_owned(), position: 6, part: 0, parts: 1, content }
}

fn write(name: &str, bytes: Vec<u8>) {
    assert!(!path(name).exists(), "{name} exists; golden files are never overwritten");
    std::fs::write(path(name), bytes).expect("writes");
}

#[test]
#[ignore = "writes the golden files of a new format version"]
fn write_golden_files() {
    std::fs::create_dir_all(path("")).expect("a folder");
    let options = WriteOptions::default();
    let exchanges = [exchange(u32::from, true), exchange(u32::from, false)];
    write("exchanges.parquet", table::encode(Table::Exchanges, &exchanges, &options).expect("fits"));
    write("chunks.parquet", table::encode(Table::Chunks, &chunks(), &options).expect("fits"));
    let closes = [close(true), close(false)];
    write("sessions.parquet", table::encode(Table::Sessions, &closes, &options).expect("fits"));
    write(
        "trials.parquet",
        table::encode(Table::Trials, &[trial(true), trial(false)], &options).expect("fits"),
    );
    write("commit.json", serde_json::to_vec_pretty(&commit()).expect("is JSON"));
    write("run.json", serde_json::to_vec_pretty(&manifest()).expect("is JSON"));
    for (name, record) in records() {
        write(name, record.encode().expect("encodes"));
    }
    write("message", message().encode().expect("encodes"));
    let scores = [score(true), score(false)];
    write("scores.parquet", table::encode(Table::Scores, &scores, &options).expect("fits"));
    let embeddings = [embedding(true), embedding(false)];
    write("embeddings.parquet", table::encode(Table::Embeddings, &embeddings, &options).expect("fits"));
}

#[test]
fn golden_tables_are_read() {
    let rows: Vec<Exchange<u32>> =
        table::decode_all(Table::Exchanges, golden("exchanges.parquet").into()).expect("reads");
    assert_eq!(rows, [exchange(u32::from, true), exchange(u32::from, false)]);
    let rows: Vec<Chunk> = table::decode_all(Table::Chunks, golden("chunks.parquet").into()).expect("reads");
    assert_eq!(rows, chunks());
    let rows: Vec<SessionClose> =
        table::decode_all(Table::Sessions, golden("sessions.parquet").into()).expect("reads");
    assert_eq!(rows, [close(true), close(false)]);
    let rows: Vec<Trial> = table::decode_all(Table::Trials, golden("trials.parquet").into()).expect("reads");
    assert_eq!(rows, [trial(true), trial(false)]);
    let rows: Vec<Score> = table::decode_all(Table::Scores, golden("scores.parquet").into()).expect("reads");
    assert_eq!(rows, [score(true), score(false)]);
    let rows: Vec<Embedding> =
        table::decode_all(Table::Embeddings, golden("embeddings.parquet").into()).expect("reads");
    assert_eq!(rows, [embedding(true), embedding(false)]);
}

#[test]
fn golden_commits_manifests_records_and_messages_are_read() {
    assert_eq!(serde_json::from_slice::<Commit>(&golden("commit.json")).expect("reads"), commit());
    assert_eq!(serde_json::from_slice::<RunManifest>(&golden("run.json")).expect("reads"), manifest());
    for (name, record) in records() {
        assert_eq!(Record::decode(&golden(name)).expect("reads"), record, "{name}");
    }
    let read = MessageValue::decode(&golden("message")).expect("reads");
    assert_eq!(read, message());
    assert_eq!(read.records().expect("reads"), records().map(|(_, record)| record));
}

#[test]
fn a_field_of_a_later_build_is_ignored_where_the_version_stays() {
    let later = |name: &str| {
        let text = String::from_utf8(golden(name)).expect("UTF-8");
        text.replacen('{', "{\"of_a_later_build\": [1],", 1)
    };
    assert_eq!(serde_json::from_str::<Commit>(&later("commit.json")).expect("reads"), commit());
}

#[test]
fn every_reader_names_an_unknown_version() {
    // The version stands in the footer as text; a version of the same length leaves everything else in place.
    for table in Table::ALL {
        let mut file = golden(&format!("{}.parquet", table.as_str()));
        let key = b"foreshadow.format";
        let at = file.windows(key.len()).rposition(|window| window == key).expect("has a version");
        let value = at + key.len() + 2;
        assert_eq!(file[value..=value], *FORMAT.to_string().as_bytes());
        file[value] = b'7';
        let error =
            table::decode_all::<serde::de::IgnoredAny>(table, Bytes::from(file)).expect_err("version 7");
        assert!(matches!(&error, TableError::Version { found, .. } if found == "7"), "{error}");
        assert!(error.to_string().contains("version 7"), "{error}");
    }
    for name in ["chunk.record", "exchange.record", "close.record"] {
        let mut record = golden(name);
        record[0] = 7;
        assert!(matches!(Record::decode(&record), Err(RecordError::Version { found: 7, .. })), "{name}");
    }
    let mut message = golden("message");
    message[0] = 7;
    assert!(matches!(MessageValue::decode(&message), Err(RecordError::Version { found: 7, .. })));
}
