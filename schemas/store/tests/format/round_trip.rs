//! Every table and record comes back as it was written.

use codec::Record;
use schemas::embedding::Embedding;
use schemas::exchange::{Confidence, Edge, Effect, Ending, Exchange, OperationKind, Protocol};
use schemas::id::SessionId;
use schemas::keys::Digest;
use schemas::score::Score;
use schemas::session::SessionClose;
use schemas::trial::Trial;
use store::table::{self, Chunk, ReadOptions, Table, TableError, WriteOptions};

use super::sample::{close, embedding, exchange, score, trial};

#[test]
fn exchanges_come_back_as_they_were() {
    let rows = vec![exchange(u32::from, true), exchange(u32::from, false)];
    let file = table::encode(Table::Exchanges, &rows, &WriteOptions::default()).expect("rows fit");
    let back: Vec<Exchange<u32>> = table::decode_all(Table::Exchanges, file.into()).expect("file reads");
    assert_eq!(back, rows);
}

#[test]
fn every_name_comes_back() {
    let mut rows: Vec<Exchange<u32>> = (0..6).map(|_| exchange(u32::from, true)).collect();
    let edges = [Edge::Turn, Edge::Model, Edge::Tool].into_iter().cycle();
    let protocols =
        [Protocol::OpenaiChat, Protocol::Mcp, Protocol::GenericJson, Protocol::Opaque, Protocol::Imported];
    let endings = [Ending::Complete, Ending::Failed, Ending::Truncated, Ending::Cancelled];
    let kinds = [
        OperationKind::Turn,
        OperationKind::Chat,
        OperationKind::CallTool,
        OperationKind::ListTools,
        OperationKind::Other,
        OperationKind::Opaque,
    ];
    let effects = [Effect::Read, Effect::Write, Effect::Unknown].into_iter().cycle();
    let confidences = [Confidence::Weak, Confidence::Likely, Confidence::Certain].into_iter().cycle();
    let names = edges
        .zip(protocols.into_iter().cycle())
        .zip(endings.into_iter().cycle())
        .zip(kinds)
        .zip(effects.zip(confidences));
    for (row, ((((edge, protocol), ending), kind), (effect, confidence))) in rows.iter_mut().zip(names) {
        (row.edge, row.protocol, row.ending) = (edge, protocol, ending);
        (row.operation.kind, row.operation.effect) = (kind, effect);
        row.links[0].confidence = confidence;
        row.identifiers[0].confidence = confidence;
    }
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
        Chunk { chunk: 0, digest: Digest([1; 16]), bytes: Some(vec![0, 255].into()), stored_in: None },
        Chunk { chunk: 1, digest: Digest([2; 16]), bytes: None, stored_in: Some("f.parquet".to_owned()) },
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
fn scores_and_embeddings_come_back() {
    let scores = vec![score(true), score(false)];
    let file = table::encode(Table::Scores, &scores, &WriteOptions::default()).expect("rows fit");
    assert_eq!(table::decode_all::<Score>(Table::Scores, file.into()).expect("reads"), scores);

    let embeddings = vec![embedding(true), embedding(false)];
    let file = table::encode(Table::Embeddings, &embeddings, &WriteOptions::default()).expect("rows fit");
    assert_eq!(table::decode_all::<Embedding>(Table::Embeddings, file.into()).expect("reads"), embeddings);
}

#[test]
fn records_come_back_as_they_were() {
    let records = [
        Record::Chunk {
            session: SessionId::parse("s").expect("id"),
            digest: Digest([1; 16]),
            bytes: vec![1, 2].into(),
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
