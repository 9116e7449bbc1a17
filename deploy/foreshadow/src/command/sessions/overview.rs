//! What is known of every session without reading a body: from close rows, trials and a few columns of the exchanges.

use std::collections::BTreeMap;

use schemas::exchange::{Edge, Ending};
use schemas::id::{AgentId, BuildId, IncarnationId, SessionId};
use schemas::session::{SessionClose, latest_closes, tears};
use schemas::table::Table;
use schemas::trial::{Lane, Trial};
use serde::{Deserialize, Serialize};
use store::lake::{Lake, LakeError, Snapshot};

/// The columns of an exchange that an overview needs.
const COLUMNS: [&str; 8] =
    ["session", "incarnation", "seq", "edge", "agent", "build", "session_started_at", "ending"];

#[derive(Debug, Deserialize)]
struct Row {
    session: SessionId,
    incarnation: IncarnationId,
    seq: u32,
    edge: Edge,
    agent: AgentId,
    build: Option<BuildId>,
    session_started_at: i64,
    ending: Ending,
}

/// One session in a list.
#[derive(Debug, Serialize)]
pub(super) struct Overview {
    pub(super) session: SessionId,
    pub(super) agent: AgentId,
    pub(super) build: Option<BuildId>,
    /// UTC, microseconds since 1970.
    pub(super) started_at: i64,
    pub(super) turns: usize,
    pub(super) model_calls: usize,
    pub(super) tool_calls: usize,
    /// Exchanges that did not end complete.
    pub(super) unfinished: usize,
    pub(super) whole: bool,
    /// What is missing, in words; bodies are not looked at.
    pub(super) tears: Vec<String>,
    pub(super) case: Option<String>,
    pub(super) success: Option<bool>,
    /// In a run.
    pub(super) lane: Option<Lane>,
    /// In a run.
    pub(super) trial: Option<u32>,
    /// `false` for a trial of an outcome table, which has no exchanges to be missing.
    pub(super) has_transcript: bool,
}

#[derive(Default)]
struct Parts {
    rows: Vec<Row>,
    closes: Vec<SessionClose>,
    trial: Option<Trial>,
}

/// Reads the overview of every session, by session id.
///
/// # Errors
/// A file is missing, truncated, foreign or of another version.
pub(super) async fn read(lake: &Lake, snapshot: &Snapshot) -> Result<Vec<Overview>, LakeError> {
    let mut sessions: BTreeMap<SessionId, Parts> = BTreeMap::new();
    for row in lake.read_table::<Row>(snapshot, Table::Exchanges, Some(&COLUMNS)).await? {
        sessions.entry(row.session.clone()).or_default().rows.push(row);
    }
    for close in lake.read_table::<SessionClose>(snapshot, Table::Sessions, None).await? {
        sessions.entry(close.session.clone()).or_default().closes.push(close);
    }
    for trial in lake.read_table::<Trial>(snapshot, Table::Trials, None).await? {
        let parts = sessions.entry(trial.session.clone()).or_default();
        parts.trial = Some(trial);
    }
    Ok(sessions.into_iter().filter_map(|(session, parts)| overview(session, &parts)).collect())
}

fn overview(session: SessionId, parts: &Parts) -> Option<Overview> {
    let (row, trial) = (parts.rows.first(), parts.trial.as_ref());
    let latest = latest_closes(&parts.closes);
    let close = latest.values().next().copied();
    let agent =
        row.map(|row| &row.agent).or(close.map(|close| &close.agent)).or(trial.map(|trial| &trial.agent))?;
    let build = row.and_then(|row| row.build.as_ref());
    let build = build.or(close.and_then(|c| c.build.as_ref())).or(trial.and_then(|t| t.build.as_ref()));
    let started_at = parts.rows.iter().map(|row| row.session_started_at).min();
    let count = |edge: Edge| parts.rows.iter().filter(|row| row.edge == edge).count();
    let has_transcript = trial.is_none_or(|trial| trial.has_transcript);
    let found = tears(&parts.closes, parts.rows.iter().map(|row| (&row.incarnation, row.seq)));
    Some(Overview {
        agent: agent.clone(),
        build: build.cloned(),
        started_at: started_at
            .or(close.map(|close| close.started_at))
            .or(trial.and_then(|trial| trial.started_at))
            .unwrap_or(0),
        turns: count(Edge::Turn),
        model_calls: count(Edge::Model),
        tool_calls: count(Edge::Tool),
        unfinished: parts.rows.iter().filter(|row| row.ending != Ending::Complete).count(),
        whole: found.is_empty() && trial.and_then(|trial| trial.whole) != Some(false),
        tears: found.iter().map(ToString::to_string).collect(),
        case: trial
            .map(|trial| trial.case.to_string())
            .or_else(|| latest.values().find_map(|close| close.case.clone())),
        success: trial
            .and_then(|trial| trial.success)
            .or_else(|| latest.values().find_map(|close| close.success)),
        lane: trial.map(|trial| trial.lane),
        trial: trial.map(|trial| trial.trial),
        has_transcript,
        session,
    })
}
