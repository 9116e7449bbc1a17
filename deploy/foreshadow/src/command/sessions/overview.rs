//! A summary of every session from close rows, trials and a few columns of the exchanges; reads no body.

use std::collections::BTreeMap;

use schemas::exchange::{Edge, Ending, OperationKind};
use schemas::id::{AgentId, BuildId, IncarnationId, SessionId};
use schemas::session::{Gap, SessionClose, gaps, latest_closes};
use schemas::trial::{Lane, Trial};
use serde::{Deserialize, Serialize};
use store::table::Table;
use store::{Snapshot, Store, StoreError};

/// Columns of an exchange that an overview reads.
const COLUMNS: [&str; 10] = [
    "session",
    "incarnation",
    "seq",
    "edge",
    "agent",
    "build",
    "session_started_at",
    "ending",
    "http_method",
    "operation.kind",
];

#[derive(Debug, Deserialize)]
struct ExchangeRow {
    session: SessionId,
    incarnation: IncarnationId,
    seq: u32,
    edge: Edge,
    agent: AgentId,
    build: Option<BuildId>,
    session_started_at: i64,
    ending: Ending,
    http_method: Option<String>,
    operation: OperationRow,
}

#[derive(Debug, Deserialize)]
struct OperationRow {
    kind: OperationKind,
}

impl ExchangeRow {
    /// Whether the exchange ended early. An MCP client cancels its GET stream at the end of a session: that is regular.
    fn is_unfinished(&self) -> bool {
        let listens = self.edge == Edge::Tool && self.http_method.as_deref() == Some("GET");
        match self.ending {
            Ending::Complete => false,
            Ending::Cancelled => !listens,
            Ending::Failed | Ending::Truncated => true,
        }
    }
}

/// Completeness of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// An exchange, a chunk or more than the close row is missing.
    Incomplete,
    /// Only the close row is missing: the session continues, or its recorder was killed.
    Open,
    /// Nothing is missing.
    Complete,
}

impl State {
    pub(super) fn of(gaps: &[Gap]) -> Self {
        match gaps {
            [] => Self::Complete,
            gaps if gaps.iter().all(|tear| matches!(tear, Gap::NotClosed { .. })) => Self::Open,
            _ => Self::Incomplete,
        }
    }
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
    /// Tool calls; `initialize`, lists and notifications do not count.
    pub(super) tool_calls: usize,
    /// Exchanges that ended early.
    pub(super) unfinished: usize,
    pub(super) complete: bool,
    /// Only the close row is missing.
    pub(super) open: bool,
    /// The gaps, except missing chunks of bodies.
    pub(super) gaps: Vec<String>,
    pub(super) case: Option<String>,
    pub(super) success: Option<bool>,
    /// `None` in a store.
    pub(super) lane: Option<Lane>,
    /// `None` in a store.
    pub(super) trial: Option<u32>,
    /// `false` for a trial of an outcome table, which has no exchanges.
    pub(super) has_transcript: bool,
}

impl Overview {
    pub(super) fn state(&self) -> State {
        match (self.complete, self.open) {
            (true, _) => State::Complete,
            (false, true) => State::Open,
            (false, false) => State::Incomplete,
        }
    }
}

/// The counts of one session during the read: four bytes per exchange, and the close rows.
#[derive(Default)]
struct SessionCounts {
    first: Option<(AgentId, Option<BuildId>)>,
    started_at: Option<i64>,
    seqs: BTreeMap<IncarnationId, Vec<u32>>,
    turns: usize,
    model_calls: usize,
    tool_calls: usize,
    unfinished: usize,
    closes: Vec<SessionClose>,
    trial: Option<Trial>,
}

impl SessionCounts {
    fn add(&mut self, row: ExchangeRow) {
        self.turns += usize::from(row.edge == Edge::Turn);
        self.model_calls += usize::from(row.edge == Edge::Model);
        let is_call = row.edge == Edge::Tool && row.operation.kind == OperationKind::CallTool;
        self.tool_calls += usize::from(is_call);
        self.unfinished += usize::from(row.is_unfinished());
        let started_at = row.session_started_at;
        self.started_at = Some(self.started_at.map_or(started_at, |known| known.min(started_at)));
        self.seqs.entry(row.incarnation).or_default().push(row.seq);
        self.first.get_or_insert((row.agent, row.build));
    }
}

/// Reads the overview of every session, ordered by session id. Memory: the overviews and the rows of one file.
///
/// # Errors
/// A file is missing, truncated, not a Parquet file of this store, or of another format version.
pub(super) async fn read(store: &Store, snapshot: &Snapshot) -> Result<Vec<Overview>, StoreError> {
    let mut sessions: BTreeMap<SessionId, SessionCounts> = BTreeMap::new();
    for file in snapshot.files(Table::Exchanges) {
        let add = |rows: Vec<ExchangeRow>| {
            for row in rows {
                sessions.entry(row.session.clone()).or_default().add(row);
            }
        };
        store.read_each(file, Some(&COLUMNS), add).await?;
    }
    for close in store.read_table::<SessionClose>(snapshot, Table::Sessions, None).await? {
        sessions.entry(close.session.clone()).or_default().closes.push(close);
    }
    for trial in store.read_table::<Trial>(snapshot, Table::Trials, None).await? {
        let counts = sessions.entry(trial.session.clone()).or_default();
        counts.trial = Some(trial);
    }
    Ok(sessions.into_iter().filter_map(|(session, counts)| overview(session, &counts)).collect())
}

fn overview(session: SessionId, counts: &SessionCounts) -> Option<Overview> {
    let (first, trial) = (counts.first.as_ref(), counts.trial.as_ref());
    let latest = latest_closes(&counts.closes);
    let close = latest.values().next().copied();
    let agent = first
        .map(|(agent, _)| agent)
        .or(close.map(|close| &close.agent))
        .or(trial.map(|trial| &trial.agent))?;
    let build = first.and_then(|(_, build)| build.as_ref());
    let build = build.or(close.and_then(|c| c.build.as_ref())).or(trial.and_then(|t| t.build.as_ref()));
    let has_transcript = trial.is_none_or(|trial| trial.has_transcript);
    let seqs = counts.seqs.iter().flat_map(|(of, seqs)| seqs.iter().map(move |seq| (of, *seq)));
    let found = gaps(&counts.closes, seqs);
    let state = State::of(&found);
    let marked_incomplete = trial.and_then(|trial| trial.complete) == Some(false);
    Some(Overview {
        agent: agent.clone(),
        build: build.cloned(),
        started_at: counts
            .started_at
            .or(close.map(|close| close.started_at))
            .or(trial.and_then(|trial| trial.started_at))
            .unwrap_or(0),
        turns: counts.turns,
        model_calls: counts.model_calls,
        tool_calls: counts.tool_calls,
        unfinished: counts.unfinished,
        complete: state == State::Complete && !marked_incomplete,
        open: state == State::Open && !marked_incomplete,
        gaps: found.iter().map(ToString::to_string).collect(),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: OperationKind, method: &str, ending: Ending) -> ExchangeRow {
        ExchangeRow {
            session: SessionId::parse("s").expect("id"),
            incarnation: IncarnationId::parse("i").expect("id"),
            seq: 0,
            edge: Edge::Tool,
            agent: AgentId::parse("a").expect("id"),
            build: None,
            session_started_at: 0,
            ending,
            http_method: Some(method.to_owned()),
            operation: OperationRow { kind },
        }
    }

    #[test]
    fn only_call_tool_counts_as_a_tool_call_and_a_cancelled_get_stream_is_finished() {
        let rows = vec![
            row(OperationKind::Other, "POST", Ending::Complete),
            row(OperationKind::ListTools, "POST", Ending::Complete),
            row(OperationKind::CallTool, "POST", Ending::Cancelled),
            row(OperationKind::Other, "GET", Ending::Cancelled),
        ];
        let mut counts = SessionCounts::default();
        rows.into_iter().for_each(|row| counts.add(row));
        let found = overview(SessionId::parse("s").expect("id"), &counts).expect("an overview");
        assert_eq!((found.tool_calls, found.unfinished), (1, 1));
        assert_eq!((found.state(), found.complete, found.open), (State::Open, false, true));
    }

    #[test]
    fn a_session_with_a_gap_besides_its_close_row_is_incomplete() {
        let incarnation = IncarnationId::parse("i").expect("id");
        let open = Gap::NotClosed { incarnation: incarnation.clone() };
        let gap = Gap::MissingExchanges { incarnation, missing: 1, expected: 2, first: 0 };
        assert_eq!(State::of(&[]), State::Complete);
        assert_eq!(State::of(&[open.clone(), open.clone()]), State::Open);
        assert_eq!(State::of(&[open, gap]), State::Incomplete);
    }
}
