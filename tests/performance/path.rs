//! Measurements over a real broker: `record` publishes, `archive` writes. Bytes in the topic, rate, CPU and memory.
//!
//! The rate of `archive` is measured as production runs it: the topic flows through under constant flush settings, and the
//! time runs from the first claim to the last commit. `--exit-when-idle` only ends the process afterwards.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use codec::{MessageValue, Record, message_key, write_framed};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use schemas::id::{ExchangeId, SessionId};
use schemas::keys::Digest;
use tests::binary::files_below;
use tests::gateway::play::{RouteUrls, SentTraffic, Upstream, play, routes};
use tests::kafka::Cluster;
use tests::process::Running;

use crate::recording;
use crate::report::{bytes, ratio, row};
use crate::watch::{Used, Watch, sample};

/// Partitions of the topic.
const PARTITIONS: i32 = 4;

/// Concurrent sessions.
const CLIENTS: usize = 8;

/// Runs of the bare consumer and of `archive`, alternating.
const ROUNDS: usize = 3;

/// Copies of the played sessions in the measured topic: enough that the start and the last flush interval of `archive` are a
/// small part of the time.
const COPIES: u32 = 16;

/// `[archive]` of the measured runs: the default size, and an interval that is short beside the run, because the last batches
/// wait for it.
const FLUSH: &str = "[archive]\nflush-bytes = \"32MiB\"\nflush-every = \"1s\"\n";

/// The longest wait for an answer of a broker.
const BROKER_TIMEOUT: Duration = Duration::from_secs(60);

/// Writes the configuration that `record` and `archive` share.
fn configure(folder: &Path, cluster: &Cluster, topic: &str, store: &str, routes: &str) {
    let text = format!(
        "agent = \"support\"\nbuild = \"1\"\nstore = \"{store}\"\nstate-dir = \"state\"\n\
         [kafka]\nbrokers = \"{}\"\ntopic = \"{topic}\"\ngroup = \"{store}\"\n{}{FLUSH}{routes}",
        cluster.servers(),
        recording::LIMITS
    );
    std::fs::write(folder.join("foreshadow.toml"), text).expect("is written");
}

/// Plays sessions through `foreshadow record` into a new topic, and stops it in order.
async fn publish(
    folder: &Path,
    cluster: &Cluster,
    topic: &str,
    sessions: std::ops::Range<usize>,
) -> SentTraffic {
    cluster.create_topic(topic, PARTITIONS).await;
    let upstream = Arc::new(Upstream::start().await);
    configure(folder, cluster, topic, "store", &routes(&upstream));
    let mut record = Running::start(folder, &["record"]);
    let doors = record.wait_for("the addresses of all routes", route_urls);
    let played = play(&recording::traffic(), sessions, 1, CLIENTS, &upstream, &doors).await;
    let log = record.terminate();
    assert_eq!(played.failed, 0, "every request is answered\n{log}");
    let messages = cluster.messages(topic);
    let sent: usize = messages.iter().map(|message| exchanges(message.payload().expect("a value"))).sum();
    assert_eq!(sent as u64, played.requests, "no exchange is shed\n{log}");
    played
}

/// Number of exchanges in a message.
fn exchanges(value: &[u8]) -> usize {
    let records = MessageValue::decode(value).expect("a message value").records().expect("records");
    records.iter().filter(|record| matches!(record, Record::Exchange(_))).count()
}

/// The URLs of the three routes, once the recorder's log has all of them.
fn route_urls(log: &str) -> Option<RouteUrls> {
    let urls: BTreeMap<&str, &str> = log
        .lines()
        .filter_map(|line| {
            let (before, url) = line.split_once(" listens on ")?;
            let name = before.rsplit_once(" (")?.0.split_whitespace().last()?;
            Some((name, url.trim()))
        })
        .collect();
    let url = |name: &str| urls.get(name).map(|url| (*url).to_owned());
    Some(RouteUrls { turn: url("turn")?, model: url("model")?, tool: url("tool")? })
}

/// Fills a topic with copies of another one. Each copy has its own sessions, exchanges and chunks, so that no copy saves work
/// for another. Returns the number of messages.
async fn multiply(cluster: &Cluster, from: &str, to: &str, copies: u32) -> usize {
    cluster.create_topic(to, PARTITIONS).await;
    let messages = cluster.messages(from);
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", cluster.servers())
        .set("compression.type", "zstd")
        .set("linger.ms", "20")
        .set("queue.buffering.max.kbytes", "262144")
        .set("message.max.bytes", "10000000");
    let producer: BaseProducer = config.create().expect("a client");
    for copy in 0..copies {
        for message in &messages {
            let (key, value) = renamed(message.payload().expect("a value"), copy);
            let mut record = BaseRecord::to(to).partition(message.partition()).key(&key).payload(&value);
            while let Err((error, same)) = producer.send(record) {
                assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
                producer.poll(Duration::from_millis(20));
                record = same;
            }
        }
        producer.flush(BROKER_TIMEOUT).expect("is sent");
    }
    messages.len() * copies as usize
}

/// Key and value of a message with other names of journal, session, exchange and chunks.
fn renamed(value: &[u8], copy: u32) -> (Vec<u8>, Vec<u8>) {
    let value = MessageValue::decode(value).expect("a message value");
    assert_eq!(value.parts, 1, "no body of the traffic exceeds one message");
    let session = |id: &SessionId| SessionId::parse(&format!("{id}-{copy}")).expect("an id");
    let exchange = |id: &ExchangeId| ExchangeId::parse(&format!("{id}-{copy}")).expect("an id");
    let digest = |Digest(mut bytes): Digest| {
        for (byte, changed) in bytes.iter_mut().zip(copy.to_le_bytes()) {
            *byte ^= changed;
        }
        Digest(bytes)
    };
    let mut key = Vec::new();
    let mut content = Vec::new();
    for record in value.records().expect("records") {
        let record = match record {
            Record::Chunk { session: of, digest: name, bytes } => {
                Record::Chunk { session: session(&of), digest: digest(name), bytes }
            }
            Record::Exchange(of) => {
                let mut of = of.try_map(|name| Ok::<_, Infallible>(digest(name))).expect("cannot fail");
                of.session = session(&of.session);
                of.exchange = exchange(&of.exchange);
                of.links.iter_mut().for_each(|link| link.to = exchange(&link.to));
                key = message_key(&of.tenant, &of.session);
                Record::Exchange(Box::new(of))
            }
            Record::Close(mut of) => {
                of.session = session(&of.session);
                key = message_key(&of.tenant, &of.session);
                Record::Close(of)
            }
        };
        write_framed(&mut content, &record.encode().expect("encodes")).expect("is short");
    }
    let journal = format!("{}-{copy}", value.journal);
    let value = MessageValue { journal, content, ..value };
    (key, value.encode().expect("encodes"))
}

/// A run of a consumer that drops every message.
struct BareRun {
    messages: u64,
    bytes: u64,
    took: Duration,
}

fn consume(cluster: &Cluster, topic: &str) -> BareRun {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", cluster.servers())
        .set("group.id", "bare")
        .set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().expect("a client");
    let mut wanted = TopicPartitionList::new();
    let mut ends = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let (begin, end) =
            consumer.fetch_watermarks(topic, partition, BROKER_TIMEOUT).expect("the broker answers");
        wanted.add_partition_offset(topic, partition, Offset::Offset(begin)).expect("an offset");
        if begin < end {
            ends.insert(partition, end);
        }
    }
    let start = Instant::now();
    consumer.assign(&wanted).expect("the partitions are assigned");
    let mut run = BareRun { messages: 0, bytes: 0, took: Duration::ZERO };
    while !ends.is_empty() {
        assert!(start.elapsed() < BROKER_TIMEOUT * 10, "the topic cannot be read to its end");
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        run.messages += 1;
        run.bytes += message.payload_len() as u64;
        if ends.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
            ends.remove(&message.partition());
        }
    }
    run.took = start.elapsed();
    run
}

/// A run of `archive`.
struct ArchiveRun {
    /// From the first claim to the last commit.
    took: Duration,
    used: Used,
}

fn archive(folder: &Path, cluster: &Cluster, topic: &str, store: &str) -> ArchiveRun {
    configure(folder, cluster, topic, store, "");
    let archive = Running::start(folder, &["archive", "--exit-when-idle", "3s"]);
    let watch = Watch::start(archive.pid());
    let (status, log) = archive.wait();
    let used = watch.finish();
    assert!(status.success(), "{log}");
    let written = files_below(&folder.join(store)).into_iter();
    let times: Vec<SystemTime> = written
        .map(|path| path.metadata().expect("metadata").modified().expect("a modification time"))
        .collect();
    let (first, last) = (times.iter().min().expect("a claim"), times.iter().max().expect("a commit"));
    ArchiveRun { took: last.duration_since(*first).expect("a later time"), used }
}

fn seconds(of: &[Duration]) -> (f64, f64, f64) {
    let mut sorted: Vec<f64> = of.iter().map(Duration::as_secs_f64).collect();
    sorted.sort_by(f64::total_cmp);
    (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1])
}

async fn measure(times: usize, copies: u32, rounds: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(1);
    let sessions = recording::traffic().sessions() * times;
    let played = publish(folder.path(), &cluster, "recorded", 0..sessions).await;
    if let Some(log) = cluster.log_bytes("recorded") {
        let share = ratio(played.body_bytes, log);
        let found = format!("1/{share:.1} ({} to {})", bytes(log), bytes(played.body_bytes));
        row("bytes in the topic to bytes of bodies on the wire", "≤ 1/5", &found, "size of the broker's log");
    }
    let messages = multiply(&cluster, "recorded", "measured", copies).await;
    let sessions = sessions * copies as usize;
    let (mut bare, mut archived) = (Vec::new(), Vec::new());
    let mut last = None;
    for round in 0..rounds {
        let bare_run = consume(&cluster, "measured");
        assert_eq!(bare_run.messages, messages as u64, "the whole topic is read");
        bare.push(bare_run.took);
        let broker_before = cluster.pid(1).and_then(sample).map_or(0.0, |used| used.seconds());
        let run = archive(folder.path(), &cluster, "measured", &format!("store-{round}"));
        let broker_after = cluster.pid(1).and_then(sample).map_or(0.0, |used| used.seconds());
        archived.push(run.took);
        last = Some((run.used, broker_after - broker_before, bare_run.bytes));
    }
    let (bare, archived) = (seconds(&bare), seconds(&archived));
    let found = format!(
        "{:.2} (from {:.2} to {:.2}; {messages} messages in {:.2} s and {:.2} s)",
        bare.1 / archived.1,
        bare.0 / archived.2,
        bare.2 / archived.0,
        archived.1,
        bare.1
    );
    row(
        "rate of `archive` to a bare rdkafka consumer",
        "≥ 0.2",
        &found,
        &format!("{rounds} rounds, alternating; first claim to last commit, flushes of 32 MiB or 1 s"),
    );
    let (used, broker, payload) = last.expect("at least one round");
    let threads: Vec<String> = used
        .cpu
        .iter()
        .filter(|(_, spent)| **spent >= 0.05)
        .map(|(name, spent)| format!("{name} {spent:.1}"))
        .collect();
    row(
        "CPU seconds of one `archive`",
        "—",
        &format!("{} of {:.1}; broker {broker:.1}", threads.join(", "), used.seconds()),
        "/proc, by thread",
    );
    row(
        "peak memory of `archive`",
        "bounded",
        &bytes(used.peak),
        &format!("{sessions} sessions, {} of messages", bytes(payload)),
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, needs a broker: tests/performance/run"]
async fn kafka_once() {
    measure(1, 1, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, needs a broker: tests/performance/run"]
async fn kafka_ten_times() {
    measure(10, COPIES, ROUNDS).await;
}

/// Plays the same sessions directly and through the tap.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: tests/performance/run"]
async fn tap() {
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = Arc::new(Upstream::start().await);
    let text =
        format!("agent = \"support\"\nstore = \"store\"\nstate-dir = \"state\"\n{}", routes(&upstream));
    std::fs::write(folder.path().join("foreshadow.toml"), text).expect("is written");
    let mut record = Running::start(folder.path(), &["record"]);
    let tap_urls = record.wait_for("the addresses of all routes", route_urls);
    let direct = RouteUrls::direct(&upstream);
    let traffic = recording::traffic();
    for clients in [1, CLIENTS] {
        let sessions = 0..traffic.sessions().min(if clients == 1 { 20 } else { usize::MAX });
        let past = play(&traffic, sessions.clone(), clients as u64, clients, &upstream, &direct).await;
        let tapped = play(&traffic, sessions, clients as u64, clients, &upstream, &tap_urls).await;
        assert_eq!((past.failed, tapped.failed), (0, 0), "every request is answered");
        let middle = |played: &SentTraffic| played.latencies[played.latencies.len() / 2].as_secs_f64() * 1e3;
        #[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
        let rate = |played: &SentTraffic| played.requests as f64 / played.took.as_secs_f64();
        let found = format!(
            "{:.0} and {:.0} requests/s; median {:.2} and {:.2} ms",
            rate(&tapped),
            rate(&past),
            middle(&tapped),
            middle(&past)
        );
        row(
            "through the tap and directly",
            "—",
            &found,
            &format!("{clients} clients, {} requests", tapped.requests),
        );
    }
    record.terminate();
}
