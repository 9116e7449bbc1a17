//! Reading a run for the analyzer: trials and the columns of their exchanges that the decision needs, no bodies.

use std::collections::HashMap;

use analyzer::{Run, ToolCall, TrialRecord};
use anyhow::anyhow;
use schemas::exchange::{Edge, Effect, Ending};
use schemas::id::SessionId;
use schemas::table::Table;
use schemas::trial::Trial;
use serde::Deserialize;
use store::keyring::KeyRing;
use store::lake::Lake;

use crate::outcome::Failure;

/// What is read of an exchange.
const COLUMNS: [&str; 15] = [
    "session",
    "seq",
    "edge",
    "started_at",
    "ending",
    "status",
    "duration_us",
    "envelope",
    "operation.tool",
    "operation.arguments",
    "operation.arguments_verbatim",
    "operation.effect",
    "operation.is_error",
    "operation.reversible",
    "operation.idempotent",
];

#[derive(Debug, Deserialize)]
struct ExchangeRow {
    session: SessionId,
    seq: u32,
    edge: Edge,
    started_at: i64,
    ending: Ending,
    status: Option<u16>,
    duration_us: Option<u64>,
    envelope: Option<String>,
    operation: OperationRow,
}

#[derive(Debug, Deserialize)]
struct OperationRow {
    tool: Option<String>,
    arguments: Option<String>,
    arguments_verbatim: Option<String>,
    effect: Effect,
    is_error: Option<bool>,
    reversible: Option<bool>,
    idempotent: Option<bool>,
}

/// Reads a run.
///
/// # Errors
/// Wrong usage where there is no run at this place or it is empty; failed work where its files cannot be read.
pub(crate) async fn run(location: &str, keys: &KeyRing) -> Result<Run, Failure> {
    let lake = Lake::open(location).map_err(Failure::usage)?.with_keys(keys.clone());
    let manifest = lake.manifest().await.map_err(Failure::work)?;
    let snapshot = lake.snapshot().await.map_err(Failure::work)?;
    let Some(manifest) = manifest else {
        let why = if !snapshot.is_empty() {
            "holds a store of sessions, not a run; make a run of it with `foreshadow replay`"
        } else if std::path::Path::new(location).exists() {
            "holds no run: there is no run.json; make one with `foreshadow replay` or `foreshadow import --run`"
        } else {
            "does not exist; check the path, or make the run with `foreshadow replay` or `foreshadow import --run`"
        };
        return Err(Failure::usage(anyhow!("{location} {why}")));
    };
    let trials: Vec<Trial> = lake.read_table(&snapshot, Table::Trials, None).await.map_err(Failure::work)?;
    let mut exchanges: Vec<ExchangeRow> = if trials.iter().any(|trial| trial.has_transcript) {
        lake.read_table(&snapshot, Table::Exchanges, Some(&COLUMNS)).await.map_err(Failure::work)?
    } else {
        Vec::new()
    };
    exchanges.sort_by_key(|row| (row.started_at, row.seq));
    let mut by_session: HashMap<SessionId, Vec<ExchangeRow>> = HashMap::new();
    for row in exchanges {
        by_session.entry(row.session.clone()).or_default().push(row);
    }
    let record = |trial: Trial| {
        let rows = by_session.remove(&trial.session).unwrap_or_default();
        assemble(trial, rows)
    };
    let trials = trials.into_iter().map(record).collect();
    Ok(Run { name: location.to_owned(), manifest, trials, notes: Vec::new() })
}

fn assemble(mut trial: Trial, rows: Vec<ExchangeRow>) -> TrialRecord {
    // Fewer exchanges than the trial says it has: some were lost, and what they did is not known.
    if trial.has_transcript && rows.len() < trial.exchanges as usize {
        trial.whole = Some(false);
    }
    let turns = rows.iter().filter(|row| row.edge == Edge::Turn);
    let turns_us = turns.filter_map(|row| row.duration_us).collect();
    let has_envelope = rows.iter().any(|row| row.envelope.is_some());
    let calls = rows.into_iter().filter(|row| row.edge == Edge::Tool).filter_map(call).collect();
    TrialRecord { trial, calls, turns_us, has_envelope, embedding: None }
}

/// A tool exchange that called no tool (an MCP `initialize`, a list) is none.
fn call(row: ExchangeRow) -> Option<ToolCall> {
    Some(ToolCall {
        seq: row.seq,
        tool: row.operation.tool?,
        arguments: row.operation.arguments,
        arguments_verbatim: row.operation.arguments_verbatim,
        effect: row.operation.effect,
        ending: row.ending,
        status: row.status,
        is_error: row.operation.is_error,
        reversible: row.operation.reversible,
        idempotent: row.operation.idempotent,
        duration_us: row.duration_us,
    })
}
