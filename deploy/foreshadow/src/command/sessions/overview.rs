//! What is known of every session without reading a body: from close rows, trials and a few columns of the exchanges.

use std::collections::BTreeMap;

use schemas::exchange::{Edge, Ending, OperationKind};
use schemas::id::{AgentId, BuildId, IncarnationId, SessionId};
use schemas::session::{SessionClose, Tear, latest_closes, tears};
use schemas::trial::{Lane, Trial};
use serde::{Deserialize, Serialize};
use store::table::Table;
use store::{Snapshot, Store, StoreError};

/// The columns of an exchange that an overview needs.
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
struct Row {
    session: SessionId,
    incarnation: IncarnationId,
    seq: u32,
    edge: Edge,
    agent: AgentId,
    build: Option<BuildId>,
    session_started_at: i64,
    ending: Ending,
    http_method: Option<String>,
    operation: Kind,
}

/// What an overview needs of an operation.
#[derive(Debug, Deserialize)]
struct Kind {
    kind: OperationKind,
}

impl Row {
    /// Whether it ended before its end; a client ends the stream that it listens to its tool server on by leaving it.
    fn is_unfinished(&self) -> bool {
        let listens = self.edge == Edge::Tool && self.http_method.as_deref() == Some("GET");
        match self.ending {
            Ending::Complete => false,
            Ending::Cancelled => !listens,
            Ending::Failed | Ending::Truncated => true,
        }
    }
}

/// Whether all of a session is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// Something is missing.
    Torn,
    /// It was not closed: it goes on, or its recorder was killed. Nothing else is known to be missing.
    Open,
    /// All is there.
    Whole,
}

impl State {
    pub(super) fn of(tears: &[Tear]) -> Self {
        match tears {
            [] => Self::Whole,
            tears if tears.iter().all(|tear| matches!(tear, Tear::NotClosed { .. })) => Self::Open,
            _ => Self::Torn,
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
    /// Calls of tools; what else goes over the tool edge (`initialize`, lists, notifications) is none.
    pub(super) tool_calls: usize,
    /// Exchanges that ended before their end.
    pub(super) unfinished: usize,
    pub(super) whole: bool,
    /// Not closed, and nothing else is known to be missing.
    pub(super) open: bool,
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

impl Overview {
    /// Whether all of it is there.
    pub(super) fn state(&self) -> State {
        match (self.whole, self.open) {
            (true, _) => State::Whole,
            (false, true) => State::Open,
            (false, false) => State::Torn,
        }
    }
}

/// What is kept of a session while its rows pass by: four bytes an exchange, and its close rows.
#[derive(Default)]
struct Parts {
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

impl Parts {
    fn add(&mut self, row: Row) {
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

/// Reads the overview of every session, by session id. In memory are the overviews, and the rows of a file while it is
/// read.
///
/// # Errors
/// A file is missing, truncated, foreign or of another version.
pub(super) async fn read(store: &Store, snapshot: &Snapshot) -> Result<Vec<Overview>, StoreError> {
    let mut sessions: BTreeMap<SessionId, Parts> = BTreeMap::new();
    for file in snapshot.files(Table::Exchanges) {
        let add = |rows: Vec<Row>| {
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
        let parts = sessions.entry(trial.session.clone()).or_default();
        parts.trial = Some(trial);
    }
    Ok(sessions.into_iter().filter_map(|(session, parts)| overview(session, &parts)).collect())
}

fn overview(session: SessionId, parts: &Parts) -> Option<Overview> {
    let (first, trial) = (parts.first.as_ref(), parts.trial.as_ref());
    let latest = latest_closes(&parts.closes);
    let close = latest.values().next().copied();
    let agent = first
        .map(|(agent, _)| agent)
        .or(close.map(|close| &close.agent))
        .or(trial.map(|trial| &trial.agent))?;
    let build = first.and_then(|(_, build)| build.as_ref());
    let build = build.or(close.and_then(|c| c.build.as_ref())).or(trial.and_then(|t| t.build.as_ref()));
    let has_transcript = trial.is_none_or(|trial| trial.has_transcript);
    let seqs = parts.seqs.iter().flat_map(|(of, seqs)| seqs.iter().map(move |seq| (of, *seq)));
    let found = tears(&parts.closes, seqs);
    let state = State::of(&found);
    let said_torn = trial.and_then(|trial| trial.whole) == Some(false);
    Some(Overview {
        agent: agent.clone(),
        build: build.cloned(),
        started_at: parts
            .started_at
            .or(close.map(|close| close.started_at))
            .or(trial.and_then(|trial| trial.started_at))
            .unwrap_or(0),
        turns: parts.turns,
        model_calls: parts.model_calls,
        tool_calls: parts.tool_calls,
        unfinished: parts.unfinished,
        whole: state == State::Whole && !said_torn,
        open: state == State::Open && !said_torn,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: OperationKind, method: &str, ending: Ending) -> Row {
        Row {
            session: SessionId::parse("s").expect("id"),
            incarnation: IncarnationId::parse("i").expect("id"),
            seq: 0,
            edge: Edge::Tool,
            agent: AgentId::parse("a").expect("id"),
            build: None,
            session_started_at: 0,
            ending,
            http_method: Some(method.to_owned()),
            operation: Kind { kind },
        }
    }

    #[test]
    fn only_calls_of_tools_are_tool_calls_and_a_left_stream_is_finished() {
        let rows = vec![
            row(OperationKind::Other, "POST", Ending::Complete),
            row(OperationKind::ListTools, "POST", Ending::Complete),
            row(OperationKind::CallTool, "POST", Ending::Cancelled),
            row(OperationKind::Other, "GET", Ending::Cancelled),
        ];
        let mut parts = Parts::default();
        rows.into_iter().for_each(|row| parts.add(row));
        let found = overview(SessionId::parse("s").expect("id"), &parts).expect("an overview");
        assert_eq!((found.tool_calls, found.unfinished), (1, 1));
        assert_eq!((found.state(), found.whole, found.open), (State::Open, false, true));
    }

    #[test]
    fn a_session_that_lacks_more_than_its_close_row_is_torn() {
        let incarnation = IncarnationId::parse("i").expect("id");
        let open = Tear::NotClosed { incarnation: incarnation.clone() };
        let gap = Tear::Gap { incarnation, missing: 1, expected: 2, first: 0 };
        assert_eq!(State::of(&[]), State::Whole);
        assert_eq!(State::of(&[open.clone(), open.clone()]), State::Open);
        assert_eq!(State::of(&[open, gap]), State::Torn);
    }
}
