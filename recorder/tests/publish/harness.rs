//! Mock cluster, upstream, recorder and consumer, all on loopback with ports that the system chooses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use codec::{MessageValue, Record};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{ClientConfig, Message as _};
use recorder::config::Config;
use recorder::{Clock, ExchangeCounts, Recorder};
use schemas::exchange::Exchange;
use schemas::keys::RootKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The longest wait of a test.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) const TOPIC: &str = "exchanges";

pub(crate) type Cluster = MockCluster<'static, DefaultProducerContext>;

/// Fails after [`TIMEOUT`] instead of hanging.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, future).await.expect("it ends within the timeout")
}

pub(crate) fn cluster(partitions: i32) -> Cluster {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic(TOPIC, partitions, 1).expect("a topic");
    cluster
}

fn clock() -> Clock {
    let now = AtomicI64::new(1_700_000_000_000_000);
    Arc::new(move || now.fetch_add(1000, Ordering::Relaxed))
}

/// Upstream with one fixed answer.
pub(crate) struct Upstream {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream));
            }
        });
        Self { address, task }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    let length = loop {
        let mut part = [0; 16384];
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return,
            Ok(count) => bytes.extend_from_slice(&part[..count]),
        }
        let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        break head + 4 + length.and_then(|length| length.trim().parse::<usize>().ok()).unwrap_or(0);
    };
    let mut rest = vec![0; length.saturating_sub(bytes.len())];
    if stream.read_exact(&mut rest).await.is_ok() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nConnection: close\r\n\r\nthe answer ok";
        // The client may have closed the connection.
        let _ = stream.write_all(answer).await;
    }
}

pub(crate) async fn start(folder: &Path, brokers: &str, upstream: &Upstream, lines: &str) -> Recorder {
    let (shown, upstream) = (folder.display(), upstream.address);
    let text = format!(
        "agent = \"shop\"\nstate-dir = \"{shown}/state\"\n[kafka]\nbrokers = \"{brokers}\"\ntopic = \"{TOPIC}\"\n[kafka.properties]\n\"linger.ms\" = \"5\"\n{lines}\n[[route]]\nedge = \"model\"\nlisten = \"127.0.0.1:0\"\nupstream = \"http://{upstream}\"\n"
    );
    let config = Config::parse(&text).expect("a good configuration");
    soon(recorder::start(config, RootKey::new([9; 32]), clock())).await.expect("the recorder starts")
}

/// Sends a request of a session and reads the whole answer.
pub(crate) async fn ask(recorder: &Recorder, session: &str, body: &str) {
    let mut stream = TcpStream::connect(recorder.routes()[0].address).await.expect("the tap listens");
    let length = body.len();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: tap\r\nX-Session-Id: {session}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("the tap reads");
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.expect("the tap answers");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("the answer ok"), "{answer}");
}

/// Waits until the counts satisfy `condition`.
pub(crate) async fn until(
    recorder: &Recorder,
    condition: impl Fn(&ExchangeCounts) -> bool,
) -> ExchangeCounts {
    let reached = async {
        loop {
            let counts = recorder.counts();
            if condition(&counts) {
                return counts;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(reached).await
}

/// One exchange or close row from the topic.
pub(crate) struct Arrived {
    pub(crate) partition: i32,
    pub(crate) key: Vec<u8>,
    pub(crate) position: u64,
    pub(crate) parts: u32,
    pub(crate) records: Vec<Record>,
}

impl Arrived {
    pub(crate) fn exchange(&self) -> Option<&Exchange> {
        match self.records.last() {
            Some(Record::Exchange(row)) => Some(row),
            _ => None,
        }
    }

    /// The request body; absent if it refers to chunks of an earlier message.
    pub(crate) fn request(&self) -> Option<Vec<u8>> {
        let piece = |wanted: &schemas::keys::Digest| {
            self.records.iter().find_map(|record| match record {
                Record::Chunk { digest, bytes, .. } if digest == wanted => Some(&bytes[..]),
                _ => None,
            })
        };
        self.exchange()?.request.reassemble(|digest| piece(digest)).ok()
    }
}

/// Reads the topic from its beginning until `wanted` distinct exchanges have arrived, then to its end.
pub(crate) fn read(cluster: &Cluster, wanted: u64) -> Vec<Arrived> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", format!("test-{wanted}"))
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "false")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[TOPIC]).expect("subscribes");
    let began = Instant::now();
    let mut arrived: Vec<Arrived> = Vec::new();
    let mut next: BTreeMap<i32, u64> = BTreeMap::new();
    let mut parts: BTreeMap<(i32, u64), Vec<MessageValue>> = BTreeMap::new();
    loop {
        let exchanges = arrived.iter().filter(|arrived| arrived.exchange().is_some()).count() as u64;
        let enough = exchanges >= wanted;
        assert!(began.elapsed() < TIMEOUT, "{exchanges} of {wanted} exchanges arrived");
        let message = match consumer.poll(Duration::from_millis(if enough { 500 } else { 100 })) {
            Some(Ok(message)) => message.detach(),
            Some(Err(_)) => continue,
            None if enough => return arrived,
            None => continue,
        };
        let parcel = MessageValue::decode(message.payload().expect("a value")).expect("a parcel");
        let partition = message.partition();
        let (position, count) = (parcel.position, parcel.parts);
        if position < next.get(&partition).copied().unwrap_or(0) {
            continue;
        }
        let received = parts.entry((partition, position)).or_default();
        if parcel.part == 0 {
            received.clear();
        }
        assert_eq!(parcel.part as usize, received.len(), "parts arrive in order");
        received.push(parcel);
        if received.len() < count as usize {
            continue;
        }
        let mut complete = received[0].clone();
        complete.content = received.iter().flat_map(|part| part.content.clone()).collect();
        next.insert(partition, position + 1);
        let key = message.key().expect("a key").to_vec();
        let records = complete.records().expect("records");
        arrived.push(Arrived { partition, key, position, parts: count, records });
    }
}

/// Checks that no exchange is missing, duplicated or out of order within its session; returns their number.
pub(crate) fn check(arrived: &[Arrived]) -> u64 {
    let mut last: BTreeMap<&[u8], (i32, u64, Option<u32>)> = BTreeMap::new();
    let mut exchanges = 0;
    for one in arrived {
        let seen = last.entry(&one.key).or_insert((one.partition, 0, None));
        assert_eq!(seen.0, one.partition, "a session stays in its partition");
        assert!(one.position >= seen.1, "positions grow within a session");
        seen.1 = one.position + 1;
        if let Some(exchange) = one.exchange() {
            exchanges += 1;
            assert!(one.key.ends_with(exchange.session.as_str().as_bytes()));
            let follows = seen.2.is_none_or(|seq| exchange.seq > seq);
            assert!(follows, "{} has seq {} after {:?}", exchange.session, exchange.seq, seen.2);
            seen.2 = Some(exchange.seq);
        }
    }
    exchanges
}
