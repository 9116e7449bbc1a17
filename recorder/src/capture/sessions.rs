//! The open sessions of this process: who gets which number, what was shed, when a session is closed.
//!
//! Behind one lock that is held for a few instructions and never across an await. It writes nothing: the journal
//! asks for close rows and reports when they are durable.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemas::exchange::Edge;
use schemas::id::{AgentId, BuildId, IncarnationId, SessionId, TenantId};
use schemas::session::{CloseReason, SessionClose};

use crate::metrics::counts::ExchangeCounts;

/// Sessions held in memory, closed ones that may come back included.
const MAX_SESSIONS: usize = 65_536;

/// How long a session stays open that no later exchange can join, in microseconds.
const ALONE_IDLE_US: i64 = 3_000_000;

/// Whose sessions they are; the same for all of one process.
#[derive(Debug, Clone)]
pub(crate) struct SessionScope {
    pub(crate) tenant: TenantId,
    pub(crate) agent: AgentId,
    pub(crate) build: Option<BuildId>,
}

/// The place of one exchange in its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeqAssignment {
    pub(crate) session: SessionId,
    pub(crate) incarnation: IncarnationId,
    pub(crate) seq: u32,
    pub(crate) incarnation_seq: u64,
    pub(crate) session_started_at: i64,
}

#[derive(Debug)]
struct SessionState {
    incarnation: IncarnationId,
    started_at: i64,
    last_at: i64,
    closed_at: i64,
    numbers_given: u32,
    in_flight: u32,
    turns: u32,
    model_calls: u32,
    tool_calls: u32,
    shed: u32,
    shed_reason: Option<&'static str>,
    /// No later exchange can join it.
    alone: bool,
    /// Changed since the last close row.
    dirty: bool,
    /// Counts changes, so that a row that was overtaken does not clear `dirty`.
    version: u64,
}

#[derive(Debug)]
struct State {
    sessions: HashMap<SessionId, SessionState>,
    incarnation: String,
    /// Grows when closed sessions are forgotten: one that comes back then gets another incarnation, not old numbers.
    epoch: u32,
    next_incarnation_seq: u64,
    pressure: u8,
    counts: ExchangeCounts,
    /// Room was looked for and nothing has been closed since.
    searched: bool,
}

/// All sessions of this process.
#[derive(Debug)]
pub(crate) struct SessionRegistry {
    owner: SessionScope,
    idle_us: i64,
    max_age_us: i64,
    state: Mutex<State>,
}

/// A close row and the state it describes.
#[derive(Debug)]
pub(crate) struct PendingClose {
    pub(crate) row: SessionClose,
    version: u64,
}

impl SessionRegistry {
    pub(crate) fn new(owner: SessionScope, incarnation: String, idle: Duration, max_age: Duration) -> Self {
        let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        let state = State {
            sessions: HashMap::new(),
            incarnation,
            epoch: 0,
            next_incarnation_seq: 0,
            pressure: 0,
            counts: ExchangeCounts::default(),
            searched: false,
        };
        Self { owner, idle_us: micros(idle), max_age_us: micros(max_age), state: Mutex::new(state) }
    }

    pub(crate) fn owner(&self) -> &SessionScope {
        &self.owner
    }

    /// Counts an exchange whose request's head arrived.
    pub(crate) fn count_started(&self) {
        self.lock().counts.started += 1;
    }

    /// Counts a connection that left HTTP.
    pub(crate) fn count_upgraded(&self) {
        self.lock().counts.upgraded += 1;
    }

    /// Adds to what is in committed files.
    pub(crate) fn count_archived(&self, exchanges: u64) {
        self.lock().counts.archived += exchanges;
    }

    /// Adds to what Kafka has acknowledged.
    #[cfg(feature = "kafka")]
    pub(crate) fn count_published(&self, exchanges: u64) {
        self.lock().counts.published += exchanges;
    }

    /// Counts an exchange that is shed before its session is known.
    pub(crate) fn shed_nameless(&self, reason: &'static str) {
        count_shed(&mut self.lock().counts, reason);
    }

    pub(crate) fn counts(&self) -> ExchangeCounts {
        self.lock().counts.clone()
    }

    /// How many exchanges hold a number and are not settled.
    pub(crate) fn in_flight(&self) -> u64 {
        let state = self.lock();
        let counts = &state.counts;
        counts.started.saturating_sub(counts.journaled).saturating_sub(counts.shed_total())
    }

    /// Sets what share of new sessions is shed, from 0 (none) to 255 (all).
    pub(crate) fn set_pressure(&self, pressure: u8) {
        self.lock().pressure = pressure;
    }

    /// Gives an exchange its number; the exchange is shed and counted where there is none.
    pub(crate) fn begin(&self, session: &SessionId, now: i64) -> Option<SeqAssignment> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if !state.sessions.contains_key(session) && !open(state, session, now) {
            count_shed(&mut state.counts, "too many sessions");
            return None;
        }
        let entry = state.sessions.get_mut(session)?;
        entry.touch(now);
        if let Some(reason) = entry.shed_reason {
            entry.shed = entry.shed.saturating_add(1);
            count_shed(&mut state.counts, reason);
            return None;
        }
        let seq = entry.numbers_given;
        entry.numbers_given += 1;
        entry.in_flight += 1;
        let incarnation_seq = state.next_incarnation_seq;
        state.next_incarnation_seq += 1;
        Some(SeqAssignment {
            session: session.clone(),
            incarnation: entry.incarnation.clone(),
            seq,
            incarnation_seq,
            session_started_at: entry.started_at,
        })
    }

    /// Nothing can join this session's one exchange: it is closed soon, and then forgotten.
    pub(crate) fn leave_alone(&self, session: &SessionId) {
        if let Some(entry) = self.lock().sessions.get_mut(session) {
            entry.alone = true;
        }
    }

    /// The exchange is durable in the journal.
    pub(crate) fn journaled(&self, session: &SessionId, edge: Edge, now: i64) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.counts.journaled += 1;
        let Some(entry) = state.sessions.get_mut(session) else { return };
        entry.touch(now);
        entry.in_flight = entry.in_flight.saturating_sub(1);
        match edge {
            Edge::Turn => entry.turns += 1,
            Edge::Model => entry.model_calls += 1,
            Edge::Tool => entry.tool_calls += 1,
        }
    }

    /// The exchange is lost, and with it the rest of its session.
    pub(crate) fn shed(&self, session: &SessionId, reason: &'static str, now: i64) {
        let mut guard = self.lock();
        let state = &mut *guard;
        count_shed(&mut state.counts, reason);
        let Some(entry) = state.sessions.get_mut(session) else { return };
        entry.touch(now);
        entry.in_flight = entry.in_flight.saturating_sub(1);
        entry.shed = entry.shed.saturating_add(1);
        entry.shed_reason.get_or_insert(reason);
    }

    /// The close rows that are due; with `all`, those of every session with nothing under way.
    pub(crate) fn due(&self, now: i64, all: Option<CloseReason>) -> Vec<PendingClose> {
        let state = self.lock();
        let mut due: Vec<PendingClose> = state
            .sessions
            .iter()
            .filter_map(|(session, entry)| {
                let reason = match all {
                    Some(reason) => Some(reason),
                    None if entry.in_flight > 0 => None,
                    None if now - entry.last_at >= entry.idle_us(self.idle_us) => Some(CloseReason::Idle),
                    None if now - entry.started_at.max(entry.closed_at) >= self.max_age_us => {
                        Some(CloseReason::MaxAge)
                    }
                    None => None,
                };
                let reason = reason.filter(|_| entry.dirty)?;
                Some(PendingClose { row: self.row(session, entry, reason, now), version: entry.version })
            })
            .collect();
        due.sort_by(|a, b| a.row.session.cmp(&b.row.session));
        due
    }

    /// The close row is durable.
    pub(crate) fn closed(&self, close: &PendingClose) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(entry) = state.sessions.get_mut(&close.row.session) else { return };
        entry.closed_at = close.row.closed_at;
        if entry.version == close.version {
            entry.dirty = false;
            state.searched = false;
            if entry.alone && entry.in_flight == 0 {
                // Its name is never given again, so nobody asks for its numbers.
                state.sessions.remove(&close.row.session);
            }
        }
    }

    fn row(&self, session: &SessionId, entry: &SessionState, reason: CloseReason, now: i64) -> SessionClose {
        SessionClose {
            tenant: self.owner.tenant.clone(),
            agent: self.owner.agent.clone(),
            build: self.owner.build.clone(),
            session: session.clone(),
            incarnation: entry.incarnation.clone(),
            started_at: entry.started_at,
            // Of two rows of one incarnation the later one holds, so the clock must not stand still between them.
            closed_at: now.max(entry.closed_at + 1),
            reason,
            turns: entry.turns,
            model_calls: entry.model_calls,
            tool_calls: entry.tool_calls,
            last_seq: entry.numbers_given.checked_sub(1),
            shed: entry.shed,
            shed_reason: entry.shed_reason.map(str::to_owned),
            case: None,
            success: None,
            labels: BTreeMap::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves plain counters behind, which are better used than lost.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionState {
    fn idle_us(&self, configured: i64) -> i64 {
        if self.alone { configured.min(ALONE_IDLE_US) } else { configured }
    }

    fn touch(&mut self, now: i64) {
        self.last_at = self.last_at.max(now);
        self.dirty = true;
        self.version += 1;
    }
}

fn count_shed(counts: &mut ExchangeCounts, reason: &'static str) {
    *counts.shed.entry(reason.to_owned()).or_default() += 1;
}

/// Makes the entry of a new session; `false` where no room can be made.
fn open(state: &mut State, session: &SessionId, now: i64) -> bool {
    if state.sessions.len() >= MAX_SESSIONS && !state.searched {
        // All are looked through, under the lock: only where a close can have made room since the last time.
        state.searched = true;
        state.sessions.retain(|_, entry| entry.dirty || entry.in_flight > 0);
        state.epoch += 1;
    }
    if state.sessions.len() >= MAX_SESSIONS {
        return false;
    }
    let incarnation = match state.epoch {
        0 => state.incarnation.clone(),
        epoch => format!("{}.{epoch}", state.incarnation),
    };
    let Ok(incarnation) = IncarnationId::parse(&incarnation) else { return false };
    let sampled_out = sampled_out(session, state.pressure);
    let entry = SessionState {
        incarnation,
        started_at: now,
        last_at: now,
        closed_at: 0,
        numbers_given: 0,
        in_flight: 0,
        turns: 0,
        model_calls: 0,
        tool_calls: 0,
        shed: 0,
        shed_reason: sampled_out.then_some("session sampled out"),
        alone: false,
        dirty: true,
        version: 0,
    };
    state.sessions.insert(session.clone(), entry);
    true
}

/// Whether a session is among those that are shed at this pressure: by its name, so that every tap decides alike.
fn sampled_out(session: &SessionId, pressure: u8) -> bool {
    blake3::hash(session.as_str().as_bytes()).as_bytes()[0] < pressure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions() -> SessionRegistry {
        let owner = SessionScope {
            tenant: TenantId::parse("t").expect("id"),
            agent: AgentId::parse("a").expect("id"),
            build: None,
        };
        SessionRegistry::new(owner, "i".to_owned(), Duration::from_micros(10), Duration::from_micros(100))
    }

    fn id(text: &str) -> SessionId {
        SessionId::parse(text).expect("id")
    }

    #[test]
    fn numbers_are_given_in_order_and_closed_when_idle() {
        let sessions = sessions();
        sessions.count_started();
        sessions.count_started();
        let first = sessions.begin(&id("s"), 5).expect("a number");
        let second = sessions.begin(&id("s"), 6).expect("a number");
        assert_eq!((first.seq, second.seq, second.session_started_at), (0, 1, 5));
        sessions.journaled(&id("s"), Edge::Model, 7);
        assert!(sessions.due(50, None).is_empty(), "one is under way");
        sessions.journaled(&id("s"), Edge::Tool, 8);
        let due = sessions.due(18, None);
        assert_eq!((due[0].row.last_seq, due[0].row.model_calls, due[0].row.tool_calls), (Some(1), 1, 1));
        sessions.closed(&due[0]);
        assert!(sessions.due(60, None).is_empty());
        assert_eq!(sessions.in_flight(), 0);
    }

    #[test]
    fn a_late_exchange_makes_a_superseding_row() {
        let sessions = sessions();
        assert!(sessions.begin(&id("s"), 0).is_some());
        sessions.journaled(&id("s"), Edge::Turn, 0);
        let first = sessions.due(10, None);
        assert_eq!(sessions.begin(&id("s"), 10).map(|ticket| ticket.seq), Some(1));
        sessions.closed(&first[0]);
        sessions.journaled(&id("s"), Edge::Turn, 10);
        let second = sessions.due(20, None);
        assert_eq!(second[0].row.last_seq, Some(1));
        assert!(second[0].row.closed_at > first[0].row.closed_at);
    }

    #[test]
    fn a_lost_exchange_sheds_the_rest_of_its_session() {
        let sessions = sessions();
        for _ in 0..3 {
            sessions.count_started();
        }
        assert!(sessions.begin(&id("s"), 0).is_some());
        sessions.shed(&id("s"), "queue full", 1);
        assert!(sessions.begin(&id("s"), 2).is_none());
        assert!(sessions.begin(&id("other"), 2).is_some());
        let due = sessions.due(3, Some(CloseReason::Shutdown));
        let row =
            due.iter().find(|close| close.row.session == id("s")).map(|close| &close.row).expect("a row");
        assert_eq!((row.shed, row.shed_reason.as_deref(), row.last_seq), (2, Some("queue full"), Some(0)));
        assert_eq!((sessions.counts().shed_total(), sessions.in_flight()), (2, 1));
    }

    #[test]
    fn a_session_that_nothing_can_join_is_closed_soon_and_forgotten() {
        let owner = sessions().owner().clone();
        let hour = Duration::from_secs(3600);
        let sessions = SessionRegistry::new(owner, "i".to_owned(), hour, hour);
        for name in ["alone", "named"] {
            assert!(sessions.begin(&id(name), 0).is_some());
            sessions.journaled(&id(name), Edge::Tool, 0);
        }
        sessions.leave_alone(&id("alone"));
        assert!(sessions.due(ALONE_IDLE_US - 1, None).is_empty());
        let due = sessions.due(ALONE_IDLE_US, None);
        assert_eq!(due.iter().map(|close| close.row.session.as_str()).collect::<Vec<_>>(), ["alone"]);
        sessions.closed(&due[0]);
        assert_eq!(sessions.lock().sessions.len(), 1);
    }

    #[test]
    fn pressure_sheds_whole_sessions_by_name() {
        let sessions = sessions();
        sessions.set_pressure(128);
        let names: Vec<SessionId> = (0..200).map(|n| id(&format!("s{n}"))).collect();
        let taken = names.iter().filter(|name| sessions.begin(name, 0).is_some()).count();
        assert!((60..140).contains(&taken), "{taken}");
        let again = names.iter().filter(|name| sessions.begin(name, 1).is_some()).count();
        assert_eq!(taken, again);
    }
}
