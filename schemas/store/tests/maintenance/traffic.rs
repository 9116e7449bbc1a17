//! Seeded traffic of several tenants, agents and days, and the view of a reader.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use codec::Record;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _};
use schemas::body::Body;
use schemas::exchange::{Edge, Ending, Exchange, Operation, OperationKind, Protocol, Usage};
use schemas::id::{AgentId, ExchangeId, IncarnationId, SessionId, TenantId};
use schemas::keys::{Digest, RootKey};
use schemas::session::{CloseReason, SessionClose};
use store::table::Table;
use store::{Batch, ChunkIndex, Store};

use crate::faulty_store::FaultyStore;

/// 2023-11-14 22:13:20 UTC.
pub(crate) const FIRST_DAY: i64 = 1_700_000_000_000_000;

/// Microseconds of a day.
pub(crate) const DAY: i64 = 86_400_000_000;

/// Numbers that look random and are the same for the same seed (xorshift64*).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

/// Opens a store over objects in memory.
pub(crate) fn open_store(faulty: FaultyStore) -> Store {
    Store::open("faulty").expect("a relative folder opens").with_object_store(Arc::new(faulty))
}

pub(crate) fn id(text: &str) -> SessionId {
    SessionId::parse(text).expect("id")
}

/// An open session of the recorder.
#[derive(Clone)]
struct Open {
    session: SessionId,
    tenant: TenantId,
    agent: AgentId,
    started_at: i64,
    seq: u32,
    messages: Vec<String>,
    sent: HashSet<Digest>,
    source: usize,
}

/// Records, batch by batch.
pub(crate) struct Traffic {
    dice: Dice,
    open: Vec<Open>,
    number: usize,
    positions: [u64; 2],
    chunk_index: [ChunkIndex; 2],
}

/// Records of one source.
pub(crate) struct Portion {
    pub(crate) source: usize,
    pub(crate) records: Vec<Record>,
    /// The archiver was restarted with an empty chunk index.
    pub(crate) restarted: bool,
}

impl Traffic {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            dice: Dice::new(seed),
            open: Vec::new(),
            number: 0,
            positions: [0; 2],
            chunk_index: [ChunkIndex::default(), ChunkIndex::default()],
        }
    }

    /// The next records of one of the two sources.
    pub(crate) fn next(&mut self) -> Portion {
        let source = usize::try_from(self.dice.below(2)).expect("0 or 1");
        let mut records = Vec::new();
        for _ in 0..1 + self.dice.below(5) {
            let of = self.open.iter().filter(|open| open.source == source).count();
            if of < 3 {
                let open = self.start(source);
                self.open.push(open);
            }
            let mine: Vec<usize> = (0..self.open.len()).filter(|i| self.open[*i].source == source).collect();
            let pick = mine[usize::try_from(self.dice.below(mine.len() as u64)).expect("small")];
            if self.open[pick].seq > 1 && self.dice.below(5) == 0 {
                let closed = self.open.swap_remove(pick);
                // Some lose an exchange, and some are never closed.
                let lost = u32::from(self.dice.below(6) == 0);
                if self.dice.below(8) > 0 {
                    records.push(closed.close(lost));
                }
            } else {
                let word = self.dice.below(1 << 30);
                records.extend(self.open[pick].exchange(word));
            }
        }
        Portion { source, records, restarted: self.dice.below(3) == 0 }
    }

    fn start(&mut self, source: usize) -> Open {
        self.number += 1;
        let tenant = ["t one", "t/two"][usize::try_from(self.dice.below(2)).expect("small")];
        let agent = ["a", "b ü"][usize::try_from(self.dice.below(2)).expect("small")];
        let day = i64::try_from(self.dice.below(3)).expect("small");
        Open {
            session: id(&format!("session-{}", self.number)),
            tenant: TenantId::parse(tenant).expect("id"),
            agent: AgentId::parse(agent).expect("id"),
            started_at: FIRST_DAY + day * DAY,
            seq: 0,
            messages: vec![format!(r#"{{"role":"system","content":"{}"}}"#, "you are kind ".repeat(20))],
            sent: HashSet::new(),
            source,
        }
    }

    /// Archives a portion in each of the stores, as one archiver each would.
    pub(crate) async fn archive(&mut self, store: &Store, portion: Portion) {
        let Portion { source, records, restarted } = portion;
        let chunk_index = &mut self.chunk_index[source];
        if restarted {
            *chunk_index = ChunkIndex::default();
        }
        let name = ["t-0", "t-1"][source];
        let first = self.positions[source];
        let next = first + records.len() as u64;
        self.positions[source] = next;
        store.commit(name, first, next, batch(&records), chunk_index).await.expect("commits");
    }

    /// The records of one more model call of a session, by a recorder that sends all chunks again.
    pub(crate) fn exchange_of(&mut self, session: &str, started_at: i64) -> Vec<Record> {
        let mut open = Open { session: id(session), started_at, ..self.start(0) };
        open.seq = u32::try_from(self.number).expect("small");
        open.tenant = TenantId::parse("t").expect("id");
        open.exchange(7)
    }

    /// Archives records under a source of their own.
    pub(crate) async fn archive_as(&self, store: &Store, source: &str, records: Vec<Record>) {
        let first = store.resume_position(source).await.expect("reads");
        let next = first + records.len() as u64;
        let chunk_index = &mut ChunkIndex::default();
        store.commit(source, first, next, batch(&records), chunk_index).await.expect("commits");
    }

    /// Archives so many portions.
    pub(crate) async fn fill(&mut self, store: &Store, portions: usize) {
        for _ in 0..portions {
            let portion = self.next();
            self.archive(store, portion).await;
        }
    }
}

fn batch(records: &[Record]) -> Batch {
    let mut batch = Batch::default();
    records.iter().cloned().for_each(|record| batch.push(record));
    batch
}

impl Open {
    /// A model call that resends its history.
    fn exchange(&mut self, word: u64) -> Vec<Record> {
        let text = format!("message {word} of {} ", self.session);
        self.messages.push(format!(r#"{{"role":"user","content":"{}"}}"#, text.repeat(4)));
        let request = format!(r#"{{"messages":[{}]}}"#, self.messages.join(","));
        let response = format!(r#"{{"answer":"{}"}}"#, "as you wish, ".repeat(8));
        let keys = RootKey::new([5; 32]).tenant(&self.tenant);
        let mut records = Vec::new();
        let (session, sent) = (self.session.clone(), &mut self.sent);
        let mut cut = |body: &[u8]| {
            Body::split(body, &keys, |(digest, bytes)| {
                if sent.insert(digest) {
                    records.push(Record::Chunk {
                        session: session.clone(),
                        digest,
                        bytes: bytes.to_vec().into(),
                    });
                }
            })
        };
        let (request, response) = (cut(request.as_bytes()), cut(response.as_bytes()));
        let exchange = self.row(request, response);
        records.push(Record::Exchange(Box::new(exchange)));
        self.seq += 1;
        records
    }

    fn row(&self, request: Body, response: Body) -> Exchange {
        Exchange {
            exchange: ExchangeId::parse(&format!("{}-{}", self.session, self.seq)).expect("id"),
            tenant: self.tenant.clone(),
            agent: self.agent.clone(),
            build: None,
            session: self.session.clone(),
            incarnation: IncarnationId::parse("i").expect("id"),
            seq: self.seq,
            incarnation_seq: u64::from(self.seq),
            edge: Edge::Model,
            protocol: Protocol::OpenaiChat,
            started_at: self.started_at + i64::from(self.seq),
            session_started_at: self.started_at,
            first_byte_us: None,
            duration_us: Some(1),
            frame_gaps_us: vec![1, 2],
            ending: Ending::Complete,
            ending_detail: None,
            http_method: None,
            path: None,
            status: Some(200),
            request_headers: vec![],
            response_headers: vec![],
            request,
            response,
            operation: Operation::new(OperationKind::Chat),
            usage: Usage::default(),
            identifiers: vec![],
            links: vec![],
            redactions: vec![],
        }
    }

    fn close(&self, lost: u32) -> Record {
        Record::Close(Box::new(SessionClose {
            tenant: self.tenant.clone(),
            agent: self.agent.clone(),
            build: None,
            session: self.session.clone(),
            incarnation: IncarnationId::parse("i").expect("id"),
            started_at: self.started_at,
            closed_at: self.started_at + 100,
            reason: CloseReason::Idle,
            turns: 0,
            model_calls: self.seq + lost,
            tool_calls: 0,
            last_seq: Some(self.seq + lost - 1),
            shed: 0,
            shed_reason: None,
            case: None,
            success: None,
            labels: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        }))
    }
}

/// View of one session: close rows, exchanges with their bodies, gaps.
#[derive(Debug, PartialEq)]
pub(crate) struct Seen {
    closes: Vec<SessionClose>,
    exchanges: Vec<Exchange>,
    bodies: Vec<[Result<Vec<u8>, String>; 2]>,
    pub(crate) gaps: Vec<String>,
}

impl Seen {
    pub(crate) fn started_at(&self) -> i64 {
        let closes = self.closes.iter().map(|close| close.started_at);
        let exchanges = self.exchanges.iter().map(|exchange| exchange.session_started_at);
        closes.chain(exchanges).min().expect("something is seen of it")
    }

    pub(crate) fn exchanges(&self) -> usize {
        self.exchanges.len()
    }
}

/// View of all sessions of a store.
pub(crate) async fn view(store: &Store) -> BTreeMap<SessionId, Seen> {
    let snapshot = store.snapshot().await.expect("commits read");
    let mut seen = BTreeMap::new();
    let mut exchanges = 0;
    let mut closes = 0;
    for mut session in store.load_sessions(&snapshot, None).await.expect("sessions read") {
        session.closes.sort_by_key(|close| (close.closed_at, close.last_seq));
        exchanges += session.exchanges.len();
        closes += session.closes.len();
        let assembled = |body: &Body| session.body(body).map_err(|error| error.to_string());
        let bodies =
            session.exchanges.iter().map(|x| [assembled(&x.request), assembled(&x.response)]).collect();
        let gaps = session.gaps().iter().map(ToString::to_string).collect();
        let of = Seen { closes: session.closes, exchanges: session.exchanges, bodies, gaps };
        seen.insert(session.session, of);
    }
    let rows = |table| snapshot.files(table).map(|file| file.rows).sum::<u64>();
    assert_eq!((exchanges as u64, closes as u64), (rows(Table::Exchanges), rows(Table::Sessions)));
    seen
}

/// Paths of all data files on disk, and of those that readers see.
pub(crate) async fn on_disk_and_visible(inner: &Arc<InMemory>) -> (BTreeSet<String>, BTreeSet<String>) {
    use futures::TryStreamExt as _;
    let found: Vec<_> = inner.list(None).try_collect().await.expect("lists");
    let parquet = found.iter().map(|meta| meta.location.as_ref()).filter(|path| path.ends_with(".parquet"));
    let below = |path: &str| {
        let start = Table::ALL.iter().filter_map(|table| path.find(&format!("/{}/tenant=", table.as_str())));
        path[start.min().expect("a table's file") + 1..].to_owned()
    };
    let on_disk = parquet.map(below).collect();
    let snapshot = open_store(FaultyStore::lasting(inner)).snapshot().await.expect("commits read");
    let visible = Table::ALL.into_iter().flat_map(|table| snapshot.files(table));
    (on_disk, visible.map(|file| file.path.clone()).collect())
}

/// A copy of everything in the store.
pub(crate) async fn copy(inner: &Arc<InMemory>) -> Arc<InMemory> {
    use futures::TryStreamExt as _;
    let to = InMemory::new();
    let found: Vec<_> = inner.list(None).try_collect().await.expect("lists");
    for meta in found {
        let bytes = inner.get(&meta.location).await.expect("is there").bytes().await.expect("reads");
        to.put(&meta.location, bytes.into()).await.expect("puts");
    }
    Arc::new(to)
}
