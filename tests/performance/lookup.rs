//! Share of a large store that a lookup of one session reads.
//!
//! Two hundred sessions are active at a time, so that most of them have rows in several files and refer to chunks of earlier
//! files.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use codec::Record;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use schemas::body::{Body, MIN_CHUNK_BYTES};
use schemas::exchange::{Edge, Ending, Exchange, Operation, OperationKind, Protocol, Usage};
use schemas::id::{AgentId, BuildId, ExchangeId, IncarnationId, SessionId, TenantId};
use schemas::keys::{Digest, RootKey, TenantKeys};
use schemas::session::{CloseReason, SessionClose};
use serde_json::json;
use store::table::Table;
use store::{Batch, ChunkIndex, Store};
use tests::binary::files_below;

use crate::report::{bytes, ratio, row};

/// The default of `flush-bytes`.
const FLUSH_BYTES: usize = 32 << 20;

/// Active sessions.
const ACTIVE: usize = 200;

/// Sessions of one day.
const SESSIONS_A_DAY: u64 = 20_000;

/// Lookups.
const LOOKUPS: u64 = 20;

/// Distinct words of the texts.
const WORDS: usize = 3000;

/// Microseconds since 1970, UTC: the first of the days.
const START: i64 = 1_760_000_000_000_000;

const DAY: i64 = 86_400_000_000;

/// Generates sessions; session n is always the same.
struct SessionGenerator {
    keys: TenantKeys,
    words: Vec<String>,
    shared: Vec<String>,
}

/// An exchange and its new chunks.
type Step = (Exchange, Vec<(Digest, Vec<u8>)>);

/// A generated session.
struct GeneratedSession {
    id: SessionId,
    steps: Vec<Step>,
    close: SessionClose,
}

fn below(random: &mut ChaCha8Rng, bound: usize) -> usize {
    usize::try_from(random.next_u32()).expect("fits") % bound
}

fn id_of(n: u64) -> SessionId {
    let mut random = ChaCha8Rng::seed_from_u64(n ^ 0x5e55_1014);
    SessionId::parse(&format!("{:016x}{:016x}", random.next_u64(), random.next_u64())).expect("an id")
}

impl SessionGenerator {
    fn new() -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut letter = |_| char::from(b'a' + u8::try_from(below(&mut random, 26)).expect("a letter"));
        let words = (0..WORDS).map(|n| (0..3 + n % 7).map(&mut letter).collect()).collect();
        let keys = RootKey::new([7; 32]).tenant(&TenantId::parse("default").expect("an id"));
        let mut generator = Self { keys, words, shared: Vec::new() };
        generator
            .shared
            .push(json!({"role": "system", "content": generator.text(&mut random, 800)}).to_string());
        generator
    }

    /// Words of which a few are frequent, as in any language.
    fn text(&self, random: &mut ChaCha8Rng, words: usize) -> String {
        let mut text = String::new();
        for _ in 0..words {
            let spread = below(random, WORDS) * below(random, WORDS) / WORDS;
            text.push_str(&self.words[spread]);
            text.push(' ');
        }
        text
    }

    /// Twelve model calls, each with the whole history, and six tool calls between them.
    fn session(&self, n: u64) -> GeneratedSession {
        let mut random = ChaCha8Rng::seed_from_u64(n);
        let id = id_of(n);
        let day = i64::try_from(n / SESSIONS_A_DAY).expect("fits");
        let started_at = START + day * DAY + i64::try_from(n % SESSIONS_A_DAY).expect("fits") * 1_000_000;
        let mut sent = HashSet::new();
        let mut history: Vec<String> = self.shared.clone();
        let mut steps = Vec::new();
        for turn in 0..6 {
            let words = 10 + below(&mut random, 60);
            history.push(json!({"role": "user", "content": self.text(&mut random, words)}).to_string());
            let order = format!("#W{}", random.next_u32());
            let call = json!({"role": "assistant", "tool_calls": [{"id": format!("call_{:016x}", random.next_u64()),
                "function": {"name": "get_order", "arguments": json!({"order": order}).to_string()}}]});
            for (edge, answer) in [
                (Edge::Model, call.to_string()),
                (
                    Edge::Tool,
                    json!({"order": order, "note": self.text(&mut random, 120), "total": random.next_u32()})
                        .to_string(),
                ),
                (
                    Edge::Model,
                    json!({"role": "assistant", "content": self.text(&mut random, 40 + turn)}).to_string(),
                ),
            ] {
                let request = match edge {
                    Edge::Model | Edge::Turn => self.split(&history, &mut sent),
                    Edge::Tool => {
                        self.split(&[json!({"method": "tools/call", "order": order}).to_string()], &mut sent)
                    }
                };
                let response = self.split(std::slice::from_ref(&answer), &mut sent);
                let seq = u32::try_from(steps.len()).expect("fits");
                let exchange = exchange(&id, seq, edge, started_at, request.0, response.0, &mut random);
                steps.push((exchange, [request.1, response.1].concat()));
                history.push(answer);
            }
        }
        let close = close(&id, started_at, &steps);
        GeneratedSession { id, steps, close }
    }

    /// A body of these messages, split as `Body::split` does, and the chunks that the session has not sent yet.
    fn split(&self, messages: &[String], sent: &mut HashSet<Digest>) -> (Body, Vec<(Digest, Vec<u8>)>) {
        let mut body = Body { template: br#"{"model":"m","messages":["#.to_vec(), ..Body::default() };
        let mut chunks = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            if index > 0 {
                body.template.push(b',');
            }
            if message.len() < MIN_CHUNK_BYTES {
                body.template.extend_from_slice(message.as_bytes());
                continue;
            }
            let digest = self.keys.digest(message.as_bytes());
            body.chunk_offsets.push(u32::try_from(body.template.len()).expect("short"));
            body.chunks.push(digest);
            body.bytes += message.len() as u64;
            if sent.insert(digest) {
                chunks.push((digest, message.clone().into_bytes()));
            }
        }
        body.template.extend_from_slice(b"]}");
        body.bytes += body.template.len() as u64;
        (body, chunks)
    }
}

fn tenant() -> TenantId {
    TenantId::parse("default").expect("an id")
}

fn agent() -> AgentId {
    AgentId::parse("support").expect("an id")
}

fn incarnation() -> IncarnationId {
    IncarnationId::parse("recorder-1").expect("an id")
}

fn exchange(
    id: &SessionId,
    seq: u32,
    edge: Edge,
    session_started_at: i64,
    request: Body,
    response: Body,
    random: &mut ChaCha8Rng,
) -> Exchange {
    let kind = if edge == Edge::Tool { OperationKind::CallTool } else { OperationKind::Chat };
    let latency = 100_000 + u64::from(random.next_u32() % 1_000_000);
    Exchange {
        exchange: ExchangeId::parse(&format!("{:032x}", random.next_u64())).expect("an id"),
        tenant: tenant(),
        agent: agent(),
        build: BuildId::parse("1").ok(),
        session: id.clone(),
        incarnation: incarnation(),
        seq,
        incarnation_seq: random.next_u64() >> 24,
        edge,
        protocol: if edge == Edge::Tool { Protocol::Mcp } else { Protocol::OpenaiChat },
        started_at: session_started_at + i64::from(seq) * 2_000_000,
        session_started_at,
        first_byte_us: Some(latency / 2),
        duration_us: Some(latency),
        frame_gaps_us: Vec::new(),
        ending: Ending::Complete,
        ending_detail: None,
        http_method: Some("POST".into()),
        path: Some("/v1/chat/completions".into()),
        status: Some(200),
        request_headers: Vec::new(),
        response_headers: Vec::new(),
        request,
        response,
        operation: Operation::new(kind),
        usage: Usage { input_tokens: Some(latency / 100), ..Usage::default() },
        identifiers: Vec::new(),
        links: Vec::new(),
        redactions: Vec::new(),
    }
}

fn close(id: &SessionId, started_at: i64, steps: &[Step]) -> SessionClose {
    let count =
        |edge: Edge| u32::try_from(steps.iter().filter(|(one, _)| one.edge == edge).count()).expect("fits");
    SessionClose {
        tenant: tenant(),
        agent: agent(),
        build: BuildId::parse("1").ok(),
        session: id.clone(),
        incarnation: incarnation(),
        started_at,
        closed_at: started_at + 60_000_000,
        reason: CloseReason::Idle,
        turns: 0,
        model_calls: count(Edge::Model),
        tool_calls: count(Edge::Tool),
        last_seq: u32::try_from(steps.len() - 1).ok(),
        shed: 0,
        shed_reason: None,
        case: None,
        success: None,
        labels: BTreeMap::new(),
    }
}

/// Writes interleaved sessions in batches like the archiver's.
async fn write(store: &Store, generator: &SessionGenerator, sessions: u64, flush_bytes: usize) {
    let mut generated = (0..sessions).map(|n| generator.session(n));
    let mut open: Vec<(GeneratedSession, usize)> = Vec::new();
    let (mut batch, mut buffered, mut position, mut chunk_index) =
        (Batch::default(), 0, 0, ChunkIndex::default());
    loop {
        while open.len() < ACTIVE {
            let Some(made) = generated.next() else { break };
            open.push((made, 0));
        }
        if open.is_empty() {
            break;
        }
        for (made, step) in &mut open {
            let (exchange, chunks) = &made.steps[*step];
            buffered += 512 + exchange.request.template.len();
            for (digest, bytes) in chunks {
                buffered += bytes.len();
                batch.push(Record::Chunk {
                    session: made.id.clone(),
                    digest: *digest,
                    bytes: bytes.clone().into(),
                });
            }
            batch.push(Record::Exchange(Box::new(exchange.clone())));
            *step += 1;
            if *step == made.steps.len() {
                batch.push(Record::Close(Box::new(made.close.clone())));
            }
        }
        open.retain(|(made, step)| *step < made.steps.len());
        if buffered >= flush_bytes {
            let done = std::mem::take(&mut batch);
            store.commit("traffic-0", position, position + 1, done, &mut chunk_index).await.expect("commits");
            (buffered, position) = (0, position + 1);
        }
    }
    store.commit("traffic-0", position, position + 1, batch, &mut chunk_index).await.expect("commits");
}

/// Writes a store and looks sessions up; returns the largest share of its bytes that a lookup read.
async fn measure(folder: &Path, sessions: u64, flush_bytes: usize) -> f64 {
    let location = folder.to_str().expect("utf-8");
    let generator = SessionGenerator::new();
    write(&Store::open(location).expect("opens"), &generator, sessions, flush_bytes).await;
    let stored: u64 =
        files_below(folder).iter().map(|path| std::fs::metadata(path).expect("metadata").len()).sum();
    let (mut most, mut all, mut requests) = (0, 0, 0);
    let (mut slowest, mut files) = (Duration::ZERO, 0);
    for lookup in 0..LOOKUPS {
        let n = lookup * (sessions - 1) / (LOOKUPS - 1);
        let store = Store::open(location).expect("opens");
        let began = Instant::now();
        let snapshot = store.snapshot().await.expect("reads");
        let wanted = BTreeSet::from([id_of(n)]);
        let found = store.load_sessions(&snapshot, Some(&wanted)).await.expect("reads");
        slowest = slowest.max(began.elapsed());
        files = Table::ALL.into_iter().map(|table| snapshot.files(table).count()).sum();
        check(&found, generator.session(n));
        let reads = store.read_stats();
        most = most.max(reads.bytes);
        all += reads.bytes;
        requests += reads.requests;
    }
    let share = ratio(most, stored);
    let found =
        format!("{:.2} % at most, {:.2} % on average", share * 100.0, ratio(all / LOOKUPS, stored) * 100.0);
    let how = format!(
        "{sessions} sessions, {} in {files} files; {} read at most, {} requests on average, {} ms at most",
        bytes(stored),
        bytes(most),
        requests / LOOKUPS,
        slowest.as_millis()
    );
    row("share of the store's bytes that a session lookup reads", "< 1 %", &found, &how);
    share
}

fn check(found: &[store::StoredSession], made: GeneratedSession) {
    let [session] = found else { panic!("one session is found, not {}", found.len()) };
    assert_eq!(session.session, made.id);
    assert_eq!(session.gaps(), Vec::new());
    assert_eq!(session.closes, [made.close]);
    let exchanges: Vec<Exchange> = made.steps.into_iter().map(|(exchange, _)| exchange).collect();
    assert_eq!(session.exchanges, exchanges);
}

/// Checks the results of lookups, not their cost.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_found_in_a_small_store() {
    let folder = tempfile::tempdir().expect("a folder");
    measure(folder.path(), 400, 1 << 20).await;
}

/// The published figure. `FORESHADOW_LOOKUP_SESSIONS` sets the number of sessions in the store.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes a store of about a gigabyte; tests/performance/run starts it"]
async fn a_lookup_reads_less_than_a_hundredth_of_a_large_store() {
    let sessions = std::env::var("FORESHADOW_LOOKUP_SESSIONS").ok();
    let sessions = sessions.map_or(100_000, |text| text.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder");
    let share = measure(folder.path(), sessions, FLUSH_BYTES).await;
    assert!(share < 0.01, "read {:.2} % of the store", share * 100.0);
}
