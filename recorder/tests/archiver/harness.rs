//! A mock cluster with a topic and a store; journals that publish like recorders; readers of the stored rows.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use codec::{MessageValue, Record, message_key, write_framed};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use recorder::archive::kafka_archiver::{self, Archiver, ArchiverError, ArchiverSummary};
use recorder::config::archiver::ArchiverConfig;
use schemas::body::Body;
use schemas::exchange::{Edge, Ending, Exchange, Operation, OperationKind, Protocol, Usage};
use schemas::id::{AgentId, ExchangeId, IncarnationId, SessionId, TenantId};
use schemas::keys::{Digest, RootKey, TenantKeys};
use schemas::session::{CloseReason, SessionClose};
use store::Store;
use store::table::{self, Table};

pub(crate) const TOPIC: &str = "sessions";

pub(crate) const NO_ERROR: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
pub(crate) const REFUSED: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
pub(crate) const UNKNOWN: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;

/// Idle time after which an archiver of a test exits.
pub(crate) const IDLE: Duration = Duration::from_millis(700);

/// The mock cluster waits for nearly a session timeout before its first assignment.
const SHORT_SESSIONS: &str = "\"session.timeout.ms\" = \"3000\"\n\"heartbeat.interval.ms\" = \"300\"\n";

const DAY: i64 = 1_700_000_000_000_000;

fn tenant() -> TenantId {
    TenantId::parse("t").expect("id")
}

fn keys() -> TenantKeys {
    RootKey::new([5; 32]).tenant(&tenant())
}

/// The request of the n-th call of a session: the whole history.
pub(crate) fn request(session: &str, n: u32, filler: usize) -> Vec<u8> {
    let message =
        |i: u32| format!(r#"{{"role":"user","content":"{session} message {i} {}"}}"#, "x".repeat(filler));
    let messages: Vec<String> = (0..=n).map(message).collect();
    format!(r#"{{"messages":[{}]}}"#, messages.join(",")).into_bytes()
}

/// A cluster with one topic, and a store.
pub(crate) struct Fixture {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
    folder: tempfile::TempDir,
    archive: String,
}

impl Fixture {
    pub(crate) fn new(partitions: i32) -> Self {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic(TOPIC, partitions, 1).expect("a topic");
        cluster.create_topic("sessions.dead", 1, 1).expect("a topic");
        let producer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("enable.idempotence", "true")
            .set("linger.ms", "1")
            .create()
            .expect("a producer");
        let folder = tempfile::tempdir().expect("a folder");
        Self { cluster, producer, folder, archive: "flush-every = \"200ms\"".to_owned() }
    }

    /// Replaces `[archive]` of the configuration file.
    pub(crate) fn with_archive(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.archive);
        self
    }

    pub(crate) fn servers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    pub(crate) fn cluster(&self) -> &MockCluster<'static, DefaultProducerContext> {
        &self.cluster
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(self.folder.path().join("store").to_str().expect("utf-8")).expect("opens")
    }

    /// Publishes messages (key, value) and waits for their acknowledgements.
    pub(crate) fn publish(&self, partition: i32, messages: &[(Vec<u8>, Vec<u8>)]) {
        for (key, payload) in messages {
            let record = BaseRecord::to(TOPIC).partition(partition).key(key).payload(payload);
            self.producer.send(record).map_err(|(error, _)| error).expect("is queued");
        }
        self.producer.flush(Duration::from_secs(20)).expect("is delivered");
    }

    pub(crate) fn config(&self) -> ArchiverConfig {
        let text = format!(
            "store = {:?}\n[kafka]\nbrokers = {:?}\ntopic = {TOPIC:?}\n[kafka.properties]\n{SHORT_SESSIONS}[archive]\n{}\n",
            self.store().location(),
            self.servers(),
            self.archive
        );
        ArchiverConfig::parse(&text, &|_| None).expect("a good file")
    }

    pub(crate) async fn start(&self, exit_when_idle: Option<Duration>) -> Archiver {
        kafka_archiver::start(&self.config(), self.store(), exit_when_idle).await.expect("starts")
    }

    /// Runs an archiver until the topic is archived.
    pub(crate) async fn archive(&self) -> ArchiverSummary {
        end(self.start(Some(IDLE)).await).await.expect("archives")
    }

    /// How often committed files contain each exchange (session, seq).
    pub(crate) async fn stored(&self) -> BTreeMap<(String, u32), usize> {
        let store = self.store();
        let snapshot = store.snapshot().await.expect("reads");
        let mut found = BTreeMap::new();
        for session in store.load_sessions(&snapshot, None).await.expect("loads") {
            for exchange in &session.exchanges {
                *found.entry((exchange.session.to_string(), exchange.seq)).or_default() += 1;
            }
        }
        found
    }

    /// How often files contain each exchange, whether committed or not.
    pub(crate) fn in_files(&self) -> BTreeMap<(String, u32), usize> {
        #[derive(serde::Deserialize)]
        struct Row {
            session: SessionId,
            seq: u32,
        }
        let mut found = BTreeMap::new();
        let mut folders = vec![self.folder.path().join("store/exchanges")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                    continue;
                }
                let bytes = bytes::Bytes::from(std::fs::read(entry.path()).expect("a file"));
                for row in table::decode_all::<Row>(Table::Exchanges, bytes).expect("a table") {
                    *found.entry((row.session.to_string(), row.seq)).or_default() += 1;
                }
            }
        }
        found
    }
}

/// A message of the dead-letter topic.
pub(crate) struct Letter {
    pub(crate) key: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Fixture {
    /// Reads `count` dead letters.
    pub(crate) fn dead_letters(&self, count: usize) -> Vec<Letter> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.servers())
            .set("group.id", "reader")
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("sessions.dead", 0, Offset::Beginning).expect("an offset");
        consumer.assign(&list).expect("assigns");
        let mut letters = Vec::new();
        while letters.len() < count {
            let message = consumer.poll(Duration::from_secs(20)).expect("comes").expect("is read");
            let headers = message.headers().expect("headers").iter().map(|header| {
                let value = String::from_utf8(header.value.unwrap_or_default().to_vec()).expect("text");
                (header.key.to_owned(), value)
            });
            letters.push(Letter {
                key: message.key().unwrap_or_default().to_vec(),
                payload: message.payload().unwrap_or_default().to_vec(),
                headers: headers.collect(),
            });
        }
        letters
    }

    /// Waits until committed files contain `count` exchanges.
    pub(crate) async fn until_stored(&self, count: usize) {
        let waited = async {
            while self.stored().await.values().sum::<usize>() < count {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), waited)
            .await
            .expect("the archiver stores them within two minutes");
    }
}

/// Waits for the end of an archiver.
pub(crate) async fn end(mut archiver: Archiver) -> Result<ArchiverSummary, ArchiverError> {
    let ended = archiver.ended().await;
    archiver.close().await;
    ended
}

/// The journal of a recorder, as its messages show it.
pub(crate) struct Journal {
    name: String,
    position: u64,
    sent: HashSet<(String, Digest)>,
}

impl Journal {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), position: 0, sent: HashSet::new() }
    }

    /// The messages (key, value) of one exchange, in `parts` parts.
    pub(crate) fn exchange(&mut self, session: &str, seq: u32, parts: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.exchange_with(session, seq, parts, 60)
    }

    pub(crate) fn exchange_with(
        &mut self,
        session: &str,
        seq: u32,
        parts: usize,
        filler: usize,
    ) -> Vec<(Vec<u8>, Vec<u8>)> {
        let id = SessionId::parse(session).expect("id");
        let mut records = Vec::new();
        let body = Body::split(&request(session, seq, filler), &keys(), |(digest, chunk)| {
            if self.sent.insert((session.to_owned(), digest)) {
                records.push(Record::Chunk { session: id.clone(), digest, bytes: chunk.to_vec().into() });
            }
        });
        records.push(Record::Exchange(Box::new(exchange(session, seq, body))));
        self.messages(session, &records, parts)
    }

    pub(crate) fn close(&mut self, session: &str, last_seq: u32) -> Vec<(Vec<u8>, Vec<u8>)> {
        let row = SessionClose {
            tenant: tenant(),
            agent: AgentId::parse("a").expect("id"),
            build: None,
            session: SessionId::parse(session).expect("id"),
            incarnation: IncarnationId::parse("i").expect("id"),
            started_at: DAY,
            closed_at: DAY + 100,
            reason: CloseReason::Idle,
            turns: 0,
            model_calls: last_seq + 1,
            tool_calls: 0,
            last_seq: Some(last_seq),
            shed: 0,
            shed_reason: None,
            case: None,
            success: None,
            labels: BTreeMap::new(),
        };
        self.messages(session, &[Record::Close(Box::new(row))], 1)
    }

    fn messages(&mut self, session: &str, records: &[Record], parts: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut content = Vec::new();
        for record in records {
            write_framed(&mut content, &record.encode().expect("encodes")).expect("is short");
        }
        self.position += records.len() as u64;
        let key = message_key(&tenant(), &SessionId::parse(session).expect("id"));
        let span = content.len().div_ceil(parts);
        let spans: Vec<&[u8]> = content.chunks(span).collect();
        let count = u32::try_from(spans.len()).expect("few");
        let message = |(part, span): (u32, &&[u8])| MessageValue {
            journal: self.name.clone(),
            position: self.position,
            part,
            parts: count,
            content: span.to_vec(),
        };
        let encoded = (0..count).zip(&spans).map(message).map(|message| message.encode().expect("encodes"));
        encoded.map(|value| (key.clone(), value)).collect()
    }
}

fn exchange(session: &str, seq: u32, request: Body) -> Exchange {
    Exchange {
        exchange: ExchangeId::parse(&format!("{session}-{seq}")).expect("id"),
        tenant: tenant(),
        agent: AgentId::parse("a").expect("id"),
        build: None,
        session: SessionId::parse(session).expect("id"),
        incarnation: IncarnationId::parse("i").expect("id"),
        seq,
        incarnation_seq: u64::from(seq),
        edge: Edge::Model,
        protocol: Protocol::OpenaiChat,
        started_at: DAY + i64::from(seq),
        session_started_at: DAY,
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
        request,
        response: Body::default(),
        operation: Operation::new(OperationKind::Chat),
        usage: Usage::default(),
        identifiers: vec![],
        links: vec![],
        redactions: vec![],
    }
}
