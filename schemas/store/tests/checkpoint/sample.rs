//! A small session for the tests: exchanges that resend their history, and a close row.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use codec::Record;
use object_store::ObjectStore;
use schemas::body::Body;
use schemas::exchange::{Edge, Ending, Exchange, Operation, OperationKind, Protocol, Usage};
use schemas::id::{AgentId, ExchangeId, IncarnationId, SessionId, TenantId};
use schemas::keys::RootKey;
use schemas::session::{CloseReason, SessionClose};
use store::{Batch, Store};

/// 2023-11-14 22:13:20 UTC.
const START: i64 = 1_700_000_000_000_000;

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

pub(crate) fn open_store(objects: Arc<dyn ObjectStore>) -> Store {
    Store::open("counted").expect("a relative folder opens").with_object_store(objects)
}

pub(crate) fn id(text: &str) -> SessionId {
    SessionId::parse(text).expect("id")
}

/// A session as the recorder sees it.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    day: i64,
    seq: u32,
    sent: HashSet<[u8; 16]>,
}

impl Session {
    /// Starts a session on the n-th day.
    pub(crate) fn new(name: &str, day: i64) -> Self {
        Self { id: id(name), day, seq: 0, sent: HashSet::new() }
    }

    /// The request of the n-th model call: the first messages and the last ones so far, so that it refers to old chunks and
    /// stays small.
    pub(crate) fn request(&self, n: u32) -> Vec<u8> {
        let message =
            |i| format!(r#"{{"role":"user","content":"message {i} of {} {}"}}"#, self.id, "x".repeat(60));
        let messages = (0..=n).filter(|i| *i < 2 || i + 2 >= n);
        format!(r#"{{"messages":[{}]}}"#, messages.map(message).collect::<Vec<_>>().join(",")).into_bytes()
    }

    /// Adds the next model call to a batch; each chunk is sent once per session.
    pub(crate) fn call(&mut self, batch: &mut Batch) {
        let keys = RootKey::new([5; 32]).tenant(&tenant());
        let request = self.request(self.seq);
        let body = Body::split(&request, &keys, |(digest, bytes)| {
            if self.sent.insert(digest.0) {
                batch.push(Record::Chunk { session: self.id.clone(), digest, bytes: bytes.to_vec().into() });
            }
        });
        batch.push(Record::Exchange(Box::new(Exchange {
            exchange: ExchangeId::parse(&format!("{}-{}", self.id, self.seq)).expect("id"),
            tenant: tenant(),
            agent: agent(),
            build: None,
            session: self.id.clone(),
            incarnation: incarnation(),
            seq: self.seq,
            incarnation_seq: u64::from(self.seq),
            edge: Edge::Model,
            protocol: Protocol::OpenaiChat,
            started_at: self.started_at() + i64::from(self.seq),
            session_started_at: self.started_at(),
            first_byte_us: None,
            duration_us: Some(1),
            frame_gaps_us: vec![],
            ending: Ending::Complete,
            ending_detail: None,
            http_method: None,
            path: None,
            status: Some(200),
            request_headers: vec![],
            response_headers: vec![],
            request: body,
            response: Body::default(),
            operation: Operation::new(OperationKind::Chat),
            usage: Usage::default(),
            identifiers: vec![],
            links: vec![],
            redactions: vec![],
        })));
        self.seq += 1;
    }

    /// Adds the close row to a batch.
    pub(crate) fn close(&self, batch: &mut Batch) {
        batch.push(Record::Close(Box::new(SessionClose {
            tenant: tenant(),
            agent: agent(),
            build: None,
            session: self.id.clone(),
            incarnation: incarnation(),
            started_at: self.started_at(),
            closed_at: self.started_at() + 100,
            reason: CloseReason::Idle,
            turns: 0,
            model_calls: self.seq,
            tool_calls: 0,
            last_seq: self.seq.checked_sub(1),
            shed: 0,
            shed_reason: None,
            case: None,
            success: None,
            labels: BTreeMap::new(),
        })));
    }

    fn started_at(&self) -> i64 {
        START + self.day * DAY
    }
}

/// A batch with the next model call of each session.
pub(crate) fn calls(sessions: &mut [Session]) -> Batch {
    let mut batch = Batch::default();
    sessions.iter_mut().for_each(|session| session.call(&mut batch));
    batch
}

fn tenant() -> TenantId {
    TenantId::parse("t").expect("id")
}

fn agent() -> AgentId {
    AgentId::parse("a").expect("id")
}

fn incarnation() -> IncarnationId {
    IncarnationId::parse("i").expect("id")
}
