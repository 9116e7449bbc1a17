//! Reads a run for the analyzer: trials and the columns of their exchanges that the decision needs, without bodies.

use std::collections::HashMap;

use analyzer::policy::InvariantPolicy;
use analyzer::{Run, ToolCall, TrialRecord, UserTurn};
use anyhow::anyhow;
use schemas::exchange::{Edge, Effect, Ending};
use schemas::id::SessionId;
use schemas::trial::Trial;
use serde::Deserialize;
use store::Store;
use store::keyring::KeyRing;
use store::table::Table;

use crate::error::DecisionError;

mod embeddings;

/// Columns read of every exchange.
const COLUMNS: [&str; 15] = [
    "session",
    "seq",
    "edge",
    "started_at",
    "ending",
    "status",
    "duration_us",
    "operation.tool",
    "operation.arguments",
    "operation.arguments_verbatim",
    "operation.effect",
    "operation.is_error",
    "operation.reversible",
    "operation.idempotent",
    "operation.input",
];

/// Result of a tool; read only if an invariant uses it.
const RESULT: &str = "operation.result";

#[derive(Debug, Deserialize)]
struct ExchangeRow {
    session: SessionId,
    seq: u32,
    edge: Edge,
    started_at: i64,
    ending: Ending,
    status: Option<u16>,
    duration_us: Option<u64>,
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
    input: Option<String>,
    result: Option<String>,
}

/// Reads a run with the texts that the invariants use.
///
/// # Errors
/// The location has no run (an error of usage), or its files cannot be read.
pub async fn read_run(
    location: &str,
    keys: &KeyRing,
    invariants: &InvariantPolicy,
) -> Result<Run, DecisionError> {
    let store = Store::open(location).map_err(DecisionError::input)?.with_keys(keys.clone());
    let manifest = store.manifest().await?;
    let snapshot = store.snapshot().await?;
    let Some(manifest) = manifest else {
        let why = if !snapshot.is_empty() {
            "is a store of sessions, not a run; create a run with `foreshadow replay`"
        } else if std::path::Path::new(location).exists() {
            "contains no run: run.json is missing; create a run with `foreshadow replay` or `foreshadow import --run`"
        } else {
            "does not exist; check the path, or create the run with `foreshadow replay` or `foreshadow import --run`"
        };
        return Err(DecisionError::input(anyhow!("{location} {why}")));
    };
    let mut trials: Vec<Trial> = store.read_table(&snapshot, Table::Trials, None).await?;
    let repeated = if manifest.source == "replay" { schemas::trial::supersede(&mut trials) } else { 0 };
    let mut columns = COLUMNS.to_vec();
    columns.extend(invariants.needs_results().then_some(RESULT));
    let mut exchanges: Vec<ExchangeRow> = if trials.iter().any(|trial| trial.has_transcript) {
        store.read_table(&snapshot, Table::Exchanges, Some(&columns)).await?
    } else {
        Vec::new()
    };
    exchanges.sort_by_key(|row| (row.started_at, row.seq));
    let mut by_session: HashMap<SessionId, Vec<ExchangeRow>> = HashMap::new();
    for row in exchanges {
        by_session.entry(row.session.clone()).or_default().push(row);
    }
    let imports = store.import_records().await?;
    let record = |trial: Trial| {
        let rows = by_session.remove(&trial.session).unwrap_or_default();
        assemble(trial, rows, invariants)
    };
    let trials = trials.into_iter().map(record).collect();
    let mut run = Run { name: location.to_owned(), manifest, trials, notes: Vec::new(), imports };
    if repeated > 0 {
        run.notes.push(format!(
            "{repeated} trials of run {location} were failed by the infrastructure and run again by --resume; only the last attempt counts"
        ));
    }
    let scores = store.read_table(&snapshot, Table::Scores, None).await?;
    analyzer::outcome::attach_scores(&mut run, scores);
    embeddings::attach(&mut run, &store, &snapshot).await?;
    Ok(run)
}

fn assemble(mut trial: Trial, rows: Vec<ExchangeRow>, invariants: &InvariantPolicy) -> TrialRecord {
    // Fewer exchanges than the trial row counts: some are lost, and their effects are unknown.
    if trial.has_transcript && rows.len() < trial.exchanges as usize {
        trial.complete = Some(false);
    }
    let turns = rows.iter().filter(|row| row.edge == Edge::Turn);
    let turns_us = turns.filter_map(|row| row.duration_us).collect();
    let (mut calls, mut user_turns) = (Vec::new(), Vec::new());
    for row in rows {
        match row.edge {
            Edge::Turn => user_turns
                .extend(row.operation.input.map(|text| UserTurn { calls_before: calls.len(), text })),
            Edge::Model => {}
            Edge::Tool => calls.extend(call(row, invariants)),
        }
    }
    TrialRecord { trial, calls, turns_us, embedding: None, user_turns, scores: Vec::new() }
}

/// The tool call of an exchange; `None` for an MCP `initialize` or a list.
fn call(row: ExchangeRow, invariants: &InvariantPolicy) -> Option<ToolCall> {
    let tool = row.operation.tool?;
    Some(ToolCall {
        seq: row.seq,
        result: row.operation.result.filter(|_| invariants.needs_result_of(&tool)),
        tool,
        at: row.started_at,
        arguments: row.operation.arguments,
        arguments_verbatim: row.operation.arguments_verbatim,
        compared: None,
        effect: row.operation.effect,
        ending: row.ending,
        status: row.status,
        is_error: row.operation.is_error,
        reversible: row.operation.reversible,
        idempotent: row.operation.idempotent,
        duration_us: row.duration_us,
    })
}
