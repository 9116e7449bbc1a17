//! Reads the transcripts of the sessions that the report shows, and of no other session.

use std::collections::BTreeSet;

use analyzer::report::{Transcript, TranscriptTurn, Transcripts};
use schemas::exchange::Edge;
use schemas::id::SessionId;
use schemas::trial::Lane;
use serde::Deserialize;
use store::Store;
use store::table::Table;

use crate::error::DecisionError;
use crate::request::DecisionRequest;

/// Columns read of an exchange.
const COLUMNS: [&str; 6] =
    ["session", "seq", "edge", "operation.input", "operation.output", "operation.result"];

#[derive(Debug, Deserialize)]
struct TextRow {
    session: SessionId,
    seq: u32,
    edge: Edge,
    operation: OperationTexts,
}

#[derive(Debug, Deserialize)]
struct OperationTexts {
    input: Option<String>,
    output: Option<String>,
    result: Option<String>,
}

/// Reads the transcripts of these sessions. A run contains the trials of its lane and can contain recordings.
///
/// # Errors
/// A run cannot be opened, or its files cannot be read.
pub(crate) async fn read(
    request: &DecisionRequest,
    sessions_by_lane: &BTreeSet<(Lane, String)>,
) -> Result<Transcripts, DecisionError> {
    let runs = [
        (Some(&request.baseline), Lane::Baseline),
        (Some(&request.candidate), Lane::Candidate),
        (request.recorded.as_ref(), Lane::Recorded),
    ];
    let mut transcripts = Transcripts::new();
    for (location, own) in runs {
        let Some(location) = location else { continue };
        for lane in BTreeSet::from([own, Lane::Recorded]) {
            let missing =
                sessions_by_lane.iter().filter(|name| name.0 == lane && !transcripts.contains_key(*name));
            let sessions: BTreeSet<SessionId> =
                missing.filter_map(|(_, session)| SessionId::parse(session).ok()).collect();
            if !sessions.is_empty() {
                read_lane(request, location, lane, &sessions, &mut transcripts).await?;
            }
        }
    }
    Ok(transcripts)
}

async fn read_lane(
    request: &DecisionRequest,
    location: &str,
    lane: Lane,
    sessions: &BTreeSet<SessionId>,
    transcripts: &mut Transcripts,
) -> Result<(), DecisionError> {
    let store = Store::open(location).map_err(DecisionError::input)?.with_keys(request.keys.clone());
    let snapshot = store.snapshot().await?;
    let rows: Vec<TextRow> =
        store.rows_of_sessions(&snapshot, Table::Exchanges, sessions, Some(&COLUMNS)).await?;
    for row in rows {
        let TextRow { session, seq, edge, operation } = row;
        let transcript: &mut Transcript = transcripts.entry((lane, session.to_string())).or_default();
        match edge {
            Edge::Turn => {
                transcript.turns.push(TranscriptTurn {
                    seq,
                    input: operation.input,
                    output: operation.output,
                });
            }
            Edge::Tool => {
                transcript.results.extend(operation.result.map(|result| (seq, result)));
            }
            Edge::Model => {}
        }
    }
    for transcript in transcripts.values_mut() {
        transcript.turns.sort_by_key(|turn| turn.seq);
    }
    Ok(())
}
