//! Registry of the open sessions of this process: assigns sequence numbers, counts, and finds the sessions to close.
//!
//! One lock guards it, for a few instructions and never across an await; the tap takes it for every exchange. The
//! registry writes nothing: the journal thread asks for due close rows and reports when they are durable.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemas::exchange::Edge;
use schemas::id::{AgentId, BuildId, IncarnationId, SessionId, TenantId};
use schemas::session::{CloseReason, SessionClose};

use crate::metrics::counts::ExchangeCounts;

/// Sessions in memory, including closed ones that may resume.
const MAX_SESSIONS: usize = 65_536;

/// Idle time after which a standalone session closes, in microseconds.
const STANDALONE_IDLE_US: i64 = 3_000_000;

/// Tenant, agent and build of every session of this process.
#[derive(Debug, Clone)]
pub(crate) struct SessionScope {
    pub(crate) tenant: TenantId,
    pub(crate) agent: AgentId,
    pub(crate) build: Option<BuildId>,
}

/// Session and sequence numbers of one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeqAssignment {
    pub(crate) session: SessionId,
    pub(crate) incarnation: IncarnationId,
    /// Within the session and incarnation, from 0.
    pub(crate) seq: u32,
    /// Within the process, from 0.
    pub(crate) incarnation_seq: u64,
    /// Start of the session, microseconds since 1970.
    pub(crate) session_started_at: i64,
}

/// State of one session. Times are in microseconds since 1970.
#[derive(Debug)]
struct SessionState {
    incarnation: IncarnationId,
    started_at: i64,
    last_at: i64,
    closed_at: i64,
    next_seq: u32,
    in_flight: u32,
    turns: u32,
    model_calls: u32,
    tool_calls: u32,
    shed: u32,
    shed_reason: Option<&'static str>,
    /// No later exchange can join it.
    standalone: bool,
    /// Changed since the last close row.
    dirty: bool,
    /// Counts changes: a close row of an older version does not clear `dirty`.
    version: u64,
    /// Time of its entry in `deadlines`. The session cannot be due earlier.
    deadline: Option<i64>,
}

#[derive(Debug)]
struct State {
    sessions: HashMap<SessionId, SessionState>,
    /// Sessions by the earliest time at which they can be due, so that a sweep looks at few of them. An entry is not moved
    /// when an exchange prolongs its session: the sweep that finds it too early moves it on.
    deadlines: BTreeSet<(i64, SessionId)>,
    incarnation: String,
    /// Grows when closed sessions are evicted: one that resumes gets another incarnation, because its sequence numbers
    /// are forgotten.
    epoch: u32,
    next_incarnation_seq: u64,
    shed_rate: u8,
    counts: ExchangeCounts,
    /// The last eviction found no closed session, and none has closed since.
    evicted_in_vain: bool,
}

/// All sessions of this process.
#[derive(Debug)]
pub(crate) struct SessionRegistry {
    scope: SessionScope,
    idle_us: i64,
    max_age_us: i64,
    state: Mutex<State>,
}

/// A close row to write, and the version of the session that it describes.
#[derive(Debug)]
pub(crate) struct PendingClose {
    pub(crate) row: SessionClose,
    version: u64,
}

impl SessionRegistry {
    /// `incarnation` names this run of the process.
    pub(crate) fn new(scope: SessionScope, incarnation: String, idle: Duration, max_age: Duration) -> Self {
        let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        let state = State {
            sessions: HashMap::new(),
            deadlines: BTreeSet::new(),
            incarnation,
            epoch: 0,
            next_incarnation_seq: 0,
            shed_rate: 0,
            counts: ExchangeCounts::default(),
            evicted_in_vain: false,
        };
        Self { scope, idle_us: micros(idle), max_age_us: micros(max_age), state: Mutex::new(state) }
    }

    pub(crate) fn scope(&self) -> &SessionScope {
        &self.scope
    }

    /// Counts an exchange whose request head arrived.
    pub(crate) fn count_started(&self) {
        self.lock().counts.started += 1;
    }

    /// Counts a connection that left HTTP.
    pub(crate) fn count_upgraded(&self) {
        self.lock().counts.upgraded += 1;
    }

    /// Counts exchanges in committed files.
    pub(crate) fn count_archived(&self, exchanges: u64) {
        self.lock().counts.archived += exchanges;
    }

    /// Counts exchanges that Kafka acknowledged.
    #[cfg(feature = "kafka")]
    pub(crate) fn count_published(&self, exchanges: u64) {
        self.lock().counts.published += exchanges;
    }

    /// Counts an exchange that is shed before its session is known.
    pub(crate) fn shed_anonymous(&self, reason: &'static str) {
        count_shed(&mut self.lock().counts, reason);
    }

    pub(crate) fn counts(&self) -> ExchangeCounts {
        self.lock().counts.clone()
    }

    /// Exchanges that are started and neither journaled nor shed.
    pub(crate) fn in_flight(&self) -> u64 {
        let state = self.lock();
        let counts = &state.counts;
        counts.started.saturating_sub(counts.journaled).saturating_sub(counts.shed_total())
    }

    /// Sets the share of new sessions to shed, from 0 (none) to 255 (all).
    pub(crate) fn set_shed_rate(&self, rate: u8) {
        self.lock().shed_rate = rate;
    }

    /// Assigns the next sequence number of the session. Returns `None` where the session is shed; the exchange is then
    /// counted as shed.
    pub(crate) fn assign_seq(&self, session: &SessionId, now: i64) -> Option<SeqAssignment> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if !state.sessions.contains_key(session) && !open(state, session, now) {
            count_shed(&mut state.counts, "too many sessions");
            return None;
        }
        let open = state.sessions.get_mut(session)?;
        self.touch(&mut state.deadlines, session, open, now);
        if let Some(reason) = open.shed_reason {
            open.shed = open.shed.saturating_add(1);
            count_shed(&mut state.counts, reason);
            return None;
        }
        let seq = open.next_seq;
        open.next_seq += 1;
        open.in_flight += 1;
        let incarnation_seq = state.next_incarnation_seq;
        state.next_incarnation_seq += 1;
        Some(SeqAssignment {
            session: session.clone(),
            incarnation: open.incarnation.clone(),
            seq,
            incarnation_seq,
            session_started_at: open.started_at,
        })
    }

    /// Marks a session of one exchange that no later exchange can join: it closes soon, and the registry forgets it.
    pub(crate) fn mark_standalone(&self, session: &SessionId) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(open) = state.sessions.get_mut(session) else { return };
        open.standalone = true;
        let earlier = self.deadline(open);
        schedule(&mut state.deadlines, session, open, earlier);
    }

    /// Counts an exchange that is durable in the journal.
    pub(crate) fn journaled(&self, session: &SessionId, edge: Edge, now: i64) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.counts.journaled += 1;
        let Some(open) = state.sessions.get_mut(session) else { return };
        self.touch(&mut state.deadlines, session, open, now);
        open.in_flight = open.in_flight.saturating_sub(1);
        match edge {
            Edge::Turn => open.turns += 1,
            Edge::Model => open.model_calls += 1,
            Edge::Tool => open.tool_calls += 1,
        }
    }

    /// Counts a lost exchange. The rest of its session is shed too.
    pub(crate) fn shed(&self, session: &SessionId, reason: &'static str, now: i64) {
        let mut guard = self.lock();
        let state = &mut *guard;
        count_shed(&mut state.counts, reason);
        let Some(open) = state.sessions.get_mut(session) else { return };
        self.touch(&mut state.deadlines, session, open, now);
        open.in_flight = open.in_flight.saturating_sub(1);
        open.shed = open.shed.saturating_add(1);
        open.shed_reason.get_or_insert(reason);
    }

    /// Close rows of the sessions that are idle or too old, by session id. A session stays due until
    /// [`Self::closed`] reports its row.
    pub(crate) fn due_closes(&self, now: i64) -> Vec<PendingClose> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let (mut due, mut moved) = (Vec::new(), Vec::new());
        while let Some((deadline, session)) = state.deadlines.pop_first() {
            if deadline > now {
                state.deadlines.insert((deadline, session));
                break;
            }
            let Some(open) = state.sessions.get_mut(&session) else { continue };
            open.deadline = None;
            if !open.dirty {
                continue;
            }
            let deadline = self.deadline(open);
            match self.close_reason(open, now) {
                // Until its row is durable, each sweep finds it again.
                Some(reason) => due.push(self.pending_close(&session, open, reason, now)),
                // The exchange in flight schedules the session again when it ends.
                None if open.in_flight > 0 => continue,
                None => {}
            }
            moved.push((deadline, session));
        }
        for (deadline, session) in moved {
            if let Some(open) = state.sessions.get_mut(&session) {
                schedule(&mut state.deadlines, &session, open, deadline);
            }
        }
        due.sort_by(|a, b| a.row.session.cmp(&b.row.session));
        due
    }

    /// Close rows of all sessions that changed since their last row, by session id.
    pub(crate) fn all_closes(&self, now: i64, reason: CloseReason) -> Vec<PendingClose> {
        let state = self.lock();
        let dirty = state.sessions.iter().filter(|(_, open)| open.dirty);
        let mut closes: Vec<PendingClose> =
            dirty.map(|(session, open)| self.pending_close(session, open, reason, now)).collect();
        closes.sort_by(|a, b| a.row.session.cmp(&b.row.session));
        closes
    }

    /// Records that a close row is durable.
    pub(crate) fn closed(&self, close: &PendingClose) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let session = &close.row.session;
        let Some(open) = state.sessions.get_mut(session) else { return };
        open.closed_at = close.row.closed_at;
        if open.version == close.version {
            open.dirty = false;
            state.evicted_in_vain = false;
            unschedule(&mut state.deadlines, session, open);
            if open.standalone && open.in_flight == 0 {
                // Its id never comes again, so nothing needs its sequence numbers.
                state.sessions.remove(session);
            }
        }
    }

    /// Notes a change of a session at `now`.
    fn touch(
        &self,
        deadlines: &mut BTreeSet<(i64, SessionId)>,
        session: &SessionId,
        open: &mut SessionState,
        now: i64,
    ) {
        open.last_at = open.last_at.max(now);
        open.dirty = true;
        open.version += 1;
        if open.deadline.is_none() {
            let deadline = self.deadline(open);
            schedule(deadlines, session, open, deadline);
        }
    }

    fn idle_us(&self, open: &SessionState) -> i64 {
        if open.standalone { self.idle_us.min(STANDALONE_IDLE_US) } else { self.idle_us }
    }

    /// Time at which the session becomes due, unless an exchange prolongs it.
    fn deadline(&self, open: &SessionState) -> i64 {
        let idle_at = open.last_at.saturating_add(self.idle_us(open));
        idle_at.min(open.started_at.max(open.closed_at).saturating_add(self.max_age_us))
    }

    /// Reason to close the session at `now`; `None` if it is not due.
    fn close_reason(&self, open: &SessionState, now: i64) -> Option<CloseReason> {
        if open.in_flight > 0 {
            None
        } else if now - open.last_at >= self.idle_us(open) {
            Some(CloseReason::Idle)
        } else if now - open.started_at.max(open.closed_at) >= self.max_age_us {
            Some(CloseReason::MaxAge)
        } else {
            None
        }
    }

    fn pending_close(
        &self,
        session: &SessionId,
        open: &SessionState,
        reason: CloseReason,
        now: i64,
    ) -> PendingClose {
        let row = SessionClose {
            tenant: self.scope.tenant.clone(),
            agent: self.scope.agent.clone(),
            build: self.scope.build.clone(),
            session: session.clone(),
            incarnation: open.incarnation.clone(),
            started_at: open.started_at,
            // Readers take the later of two rows of one incarnation, so the times must differ.
            closed_at: now.max(open.closed_at + 1),
            reason,
            turns: open.turns,
            model_calls: open.model_calls,
            tool_calls: open.tool_calls,
            last_seq: open.next_seq.checked_sub(1),
            shed: open.shed,
            shed_reason: open.shed_reason.map(str::to_owned),
            case: None,
            success: None,
            labels: BTreeMap::new(),
        };
        PendingClose { row, version: open.version }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves plain counters behind; using them is better than losing them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets the deadline entry of a session.
fn schedule(
    deadlines: &mut BTreeSet<(i64, SessionId)>,
    session: &SessionId,
    open: &mut SessionState,
    deadline: i64,
) {
    unschedule(deadlines, session, open);
    open.deadline = Some(deadline);
    deadlines.insert((deadline, session.clone()));
}

/// Removes the deadline entry of a session.
fn unschedule(deadlines: &mut BTreeSet<(i64, SessionId)>, session: &SessionId, open: &mut SessionState) {
    if let Some(deadline) = open.deadline.take() {
        deadlines.remove(&(deadline, session.clone()));
    }
}

fn count_shed(counts: &mut ExchangeCounts, reason: &'static str) {
    *counts.shed.entry(reason.to_owned()).or_default() += 1;
}

/// Opens a new session; `false` where the registry is full of sessions that are not closed.
fn open(state: &mut State, session: &SessionId, now: i64) -> bool {
    if state.sessions.len() >= MAX_SESSIONS && !state.evicted_in_vain {
        // Looks at every session under the lock, so it runs again only after a close.
        state.evicted_in_vain = true;
        state.sessions.retain(|_, open| open.dirty || open.in_flight > 0);
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
    let sampled_out = is_sampled_out(session, state.shed_rate);
    let opened = SessionState {
        incarnation,
        started_at: now,
        last_at: now,
        closed_at: 0,
        next_seq: 0,
        in_flight: 0,
        turns: 0,
        model_calls: 0,
        tool_calls: 0,
        shed: 0,
        shed_reason: sampled_out.then_some("session sampled out"),
        standalone: false,
        dirty: true,
        version: 0,
        deadline: None,
    };
    state.sessions.insert(session.clone(), opened);
    true
}

/// Whether this shed rate includes the session. The hash of its id decides, so every tap decides alike.
fn is_sampled_out(session: &SessionId, rate: u8) -> bool {
    blake3::hash(session.as_str().as_bytes()).as_bytes()[0] < rate
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sessions() -> SessionRegistry {
        let scope = SessionScope {
            tenant: TenantId::parse("t").expect("id"),
            agent: AgentId::parse("a").expect("id"),
            build: None,
        };
        SessionRegistry::new(scope, "i".to_owned(), Duration::from_micros(10), Duration::from_micros(100))
    }

    fn id(text: &str) -> SessionId {
        SessionId::parse(text).expect("id")
    }

    #[test]
    fn sequence_numbers_ascend_and_an_idle_session_closes() {
        let sessions = sessions();
        sessions.count_started();
        sessions.count_started();
        let first = sessions.assign_seq(&id("s"), 5).expect("a sequence number");
        let second = sessions.assign_seq(&id("s"), 6).expect("a sequence number");
        assert_eq!((first.seq, second.seq, second.session_started_at), (0, 1, 5));
        sessions.journaled(&id("s"), Edge::Model, 7);
        assert!(sessions.due_closes(50).is_empty(), "one is in flight");
        sessions.journaled(&id("s"), Edge::Tool, 8);
        let due = sessions.due_closes(18);
        assert_eq!((due[0].row.last_seq, due[0].row.model_calls, due[0].row.tool_calls), (Some(1), 1, 1));
        sessions.closed(&due[0]);
        assert!(sessions.due_closes(60).is_empty());
        assert_eq!(sessions.in_flight(), 0);
    }

    #[test]
    fn a_late_exchange_causes_a_superseding_close_row() {
        let sessions = sessions();
        assert!(sessions.assign_seq(&id("s"), 0).is_some());
        sessions.journaled(&id("s"), Edge::Turn, 0);
        let first = sessions.due_closes(10);
        assert_eq!(sessions.assign_seq(&id("s"), 10).map(|assigned| assigned.seq), Some(1));
        sessions.closed(&first[0]);
        sessions.journaled(&id("s"), Edge::Turn, 10);
        let second = sessions.due_closes(20);
        assert_eq!(second[0].row.last_seq, Some(1));
        assert!(second[0].row.closed_at > first[0].row.closed_at);
    }

    #[test]
    fn a_lost_exchange_sheds_the_rest_of_its_session() {
        let sessions = sessions();
        for _ in 0..3 {
            sessions.count_started();
        }
        assert!(sessions.assign_seq(&id("s"), 0).is_some());
        sessions.shed(&id("s"), "queue full", 1);
        assert!(sessions.assign_seq(&id("s"), 2).is_none());
        assert!(sessions.assign_seq(&id("other"), 2).is_some());
        let due = sessions.all_closes(3, CloseReason::Shutdown);
        let row =
            due.iter().find(|close| close.row.session == id("s")).map(|close| &close.row).expect("a row");
        assert_eq!((row.shed, row.shed_reason.as_deref(), row.last_seq), (2, Some("queue full"), Some(0)));
        assert_eq!((sessions.counts().shed_total(), sessions.in_flight()), (2, 1));
    }

    #[test]
    fn a_standalone_session_closes_soon_and_is_forgotten() {
        let scope = sessions().scope().clone();
        let hour = Duration::from_secs(3600);
        let sessions = SessionRegistry::new(scope, "i".to_owned(), hour, hour);
        for name in ["standalone", "named"] {
            assert!(sessions.assign_seq(&id(name), 0).is_some());
            sessions.journaled(&id(name), Edge::Tool, 0);
        }
        sessions.mark_standalone(&id("standalone"));
        assert!(sessions.due_closes(STANDALONE_IDLE_US - 1).is_empty());
        let due = sessions.due_closes(STANDALONE_IDLE_US);
        assert_eq!(due.iter().map(|close| close.row.session.as_str()).collect::<Vec<_>>(), ["standalone"]);
        sessions.closed(&due[0]);
        assert_eq!(sessions.lock().sessions.len(), 1);
    }

    #[test]
    fn the_shed_rate_selects_complete_sessions_by_id() {
        let sessions = sessions();
        sessions.set_shed_rate(128);
        let names: Vec<SessionId> = (0..200).map(|n| id(&format!("s{n}"))).collect();
        let accepted = names.iter().filter(|name| sessions.assign_seq(name, 0).is_some()).count();
        assert!((60..140).contains(&accepted), "{accepted}");
        let again = names.iter().filter(|name| sessions.assign_seq(name, 1).is_some()).count();
        assert_eq!(accepted, again);
    }

    #[test]
    fn a_close_row_that_was_not_written_stays_due() {
        let sessions = sessions();
        assert!(sessions.assign_seq(&id("s"), 0).is_some());
        sessions.journaled(&id("s"), Edge::Model, 0);
        assert_eq!(sessions.due_closes(10).len(), 1);
        let again = sessions.due_closes(11);
        assert_eq!(again.len(), 1);
        sessions.closed(&again[0]);
        assert!(sessions.due_closes(12).is_empty() && sessions.lock().deadlines.is_empty());
    }

    #[test]
    fn a_sweep_without_a_due_session_looks_at_none() {
        let scope = sessions().scope().clone();
        let hour = Duration::from_secs(3600);
        let sessions = SessionRegistry::new(scope, "i".to_owned(), hour, hour);
        for number in 0..20_000 {
            let session = id(&format!("s{number}"));
            sessions.assign_seq(&session, number);
            sessions.journaled(&session, Edge::Tool, number);
        }
        let before = sessions.lock().deadlines.clone();
        assert!(sessions.due_closes(1_000_000).is_empty());
        assert_eq!(sessions.lock().deadlines, before, "no entry was due, so none moved");
        let hour_us = i64::try_from(hour.as_micros()).expect("fits");
        let due = sessions.due_closes(hour_us + 2);
        assert_eq!(due.len(), 3, "sessions 0, 1 and 2");
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Assign,
        Journal,
        Shed,
        Standalone,
        Sweep { written: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Assign),
            3 => Just(Step::Journal),
            1 => Just(Step::Shed),
            1 => Just(Step::Standalone),
            3 => any::<bool>().prop_map(|written| Step::Sweep { written }),
        ]
    }

    proptest! {
        /// The deadline index finds exactly the sessions that a look at every session finds.
        #[test]
        fn the_deadline_index_finds_every_due_session(
            steps in proptest::collection::vec((step(), 0..4_usize, 0..40_i64), 1..120),
        ) {
            let sessions = sessions();
            let names = ["a", "b", "c", "d"].map(id);
            let mut in_flight = [0; 4];
            let mut now = 0;
            for (step, which, elapsed) in steps {
                now += elapsed;
                let session = &names[which];
                match step {
                    Step::Assign => in_flight[which] += u32::from(sessions.assign_seq(session, now).is_some()),
                    Step::Journal if in_flight[which] > 0 => {
                        in_flight[which] -= 1;
                        sessions.journaled(session, Edge::Model, now);
                    }
                    Step::Shed if in_flight[which] > 0 => {
                        in_flight[which] -= 1;
                        sessions.shed(session, "queue full", now);
                    }
                    Step::Journal | Step::Shed => {}
                    Step::Standalone => sessions.mark_standalone(session),
                    Step::Sweep { written } => {
                        let expected: BTreeSet<String> = {
                            let state = sessions.lock();
                            let is_due = |open: &SessionState| open.dirty && sessions.close_reason(open, now).is_some();
                            let due = state.sessions.iter().filter(|(_, open)| is_due(open));
                            due.map(|(session, _)| session.as_str().to_owned()).collect()
                        };
                        let due = sessions.due_closes(now);
                        let found: BTreeSet<String> =
                            due.iter().map(|close| close.row.session.as_str().to_owned()).collect();
                        prop_assert_eq!(found, expected);
                        if written {
                            for close in &due {
                                sessions.closed(close);
                            }
                        }
                    }
                }
                prop_assert!(sessions.lock().deadlines.len() <= names.len());
            }
        }
    }
}
