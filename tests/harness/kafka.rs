//! A Kafka cluster for tests: real brokers, or librdkafka's mock when no broker is installed.
//!
//! `tests/kafka/broker` runs the real brokers from the jars in `FORESHADOW_TEST_KAFKA`, which the test command sets. Tests kill,
//! pause and restart them. The mock answers inside the process of the test. Its brokers go down and up, and it keeps a few
//! megabytes of messages.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::OwnedMessage;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};

/// Time limit for each operation of a broker.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Commands that wait for the thread of the mock at most.
const MAX_COMMANDS: usize = 16;

/// A running cluster. Dropping it, or the end of the test's process, stops it.
#[derive(Debug)]
pub struct Cluster {
    kind: Kind,
    servers: String,
}

#[derive(Debug)]
enum Kind {
    Real { folder: tempfile::TempDir },
    Mock { commands: SyncSender<MockCommand>, thread: Option<JoinHandle<()>> },
}

/// Listener for clients with a password.
#[derive(Debug, Clone)]
pub struct Secured {
    /// Bootstrap servers that speak TLS.
    pub servers: String,
    /// The certificate to trust, PEM.
    pub certificate: PathBuf,
    /// User name for SCRAM-SHA-512.
    pub name: &'static str,
    /// Password of the user.
    pub password: &'static str,
}

/// Reader of a topic's end offsets.
pub struct TopicEnd {
    consumer: BaseConsumer,
    topic: String,
    partitions: Vec<i32>,
}

impl TopicEnd {
    /// Messages that the topic ever held: the sum of the end offsets of its partitions.
    ///
    /// # Panics
    /// The cluster does not answer.
    #[must_use]
    pub fn messages(&self) -> i64 {
        let end = |partition: &i32| {
            self.consumer
                .fetch_watermarks(&self.topic, *partition, TIME_LIMIT)
                .expect("the cluster answers")
                .1
        };
        self.partitions.iter().map(end).sum()
    }
}

/// A command for the thread that owns the mock.
#[derive(Debug)]
enum MockCommand {
    CreateTopic(String, i32),
    Down(i32),
    Up(i32),
    Stop,
}

impl Cluster {
    /// Starts a cluster with this number of brokers and waits until it answers.
    ///
    /// # Panics
    /// The cluster does not become ready, or CI has no real broker.
    #[must_use]
    pub fn start(brokers: usize) -> Self {
        if std::env::var_os("FORESHADOW_TEST_KAFKA").is_some() {
            return Self::real(&["--nodes", &brokers.to_string()]);
        }
        assert!(std::env::var_os("CI").is_none(), "CI must set FORESHADOW_TEST_KAFKA (tests/run does)");
        // Past the capture of test output, so that it is seen.
        let _ = writeln!(
            std::io::stderr(),
            "not exercised: a real Kafka, its recovery after kill -9, and its group coordination; librdkafka's mock stands in"
        );
        let (commands, taken) = sync_channel(MAX_COMMANDS);
        let (ready, started) = sync_channel(1);
        let thread = std::thread::spawn(move || mock(brokers, &ready, &taken));
        let servers = started.recv().expect("the mock starts");
        Self { servers, kind: Kind::Mock { commands, thread: Some(thread) } }
    }

    fn real(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let owner = std::process::id().to_string();
        let servers = script(&[&["start", "FOLDER", "--owner", &owner], options].concat(), folder.path());
        Self { servers, kind: Kind::Real { folder } }
    }

    /// Starts a broker with a second listener for TLS and SCRAM. The mock has none.
    ///
    /// # Panics
    /// The cluster does not become ready, or CI has no real broker.
    #[must_use]
    pub fn start_secured() -> Option<(Self, Secured)> {
        if std::env::var_os("FORESHADOW_TEST_KAFKA").is_none() {
            assert!(std::env::var_os("CI").is_none(), "CI must set FORESHADOW_TEST_KAFKA (tests/run does)");
            let _ = writeln!(std::io::stderr(), "not exercised: TLS and passwords of a real Kafka");
            return None;
        }
        let cluster = Self::real(&["--secured"]);
        let Kind::Real { folder } = &cluster.kind else { return None };
        let servers = std::fs::read_to_string(folder.path().join("secured")).expect("says where");
        let secured = Secured {
            servers: servers.trim().to_owned(),
            certificate: folder.path().join("certificate.pem"),
            name: "foreshadow",
            password: "open sesame",
        };
        Some((cluster, secured))
    }

    /// One broker for all tests of this process that do not disturb it. Each test uses its own topics.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(1))
    }

    /// Whether the brokers are real.
    #[must_use]
    pub fn is_real(&self) -> bool {
        matches!(self.kind, Kind::Real { .. })
    }

    /// Bootstrap servers of the cluster.
    #[must_use]
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// Process id of a broker. The mock has none.
    ///
    /// # Panics
    /// The broker does not run.
    #[must_use]
    pub fn pid(&self, broker: i32) -> Option<u32> {
        let Kind::Real { folder } = &self.kind else { return None };
        script(&["pid", "FOLDER", &broker.to_string()], folder.path()).parse().ok()
    }

    /// Bytes of a topic's log files on all brokers, replicas included. The mock keeps no files.
    #[must_use]
    pub fn log_bytes(&self, topic: &str) -> Option<u64> {
        let Kind::Real { folder } = &self.kind else { return None };
        let is_log = |path: &PathBuf| {
            let partition = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
            let number = partition.and_then(|name| name.strip_prefix(topic)?.strip_prefix('-'));
            number.is_some_and(|number| number.parse::<u32>().is_ok())
                && path.extension().is_some_and(|extension| extension == "log")
        };
        let logs = crate::binary::files_below(folder.path()).into_iter().filter(is_log);
        Some(logs.filter_map(|path| path.metadata().ok()).map(|metadata| metadata.len()).sum())
    }

    /// Creates a topic with a replica on every broker.
    ///
    /// # Panics
    /// The cluster rejects the request.
    pub async fn create_topic(&self, name: &str, partitions: i32) {
        if let Kind::Mock { .. } = self.kind {
            self.send_command(MockCommand::CreateTopic(name.to_owned(), partitions));
            return;
        }
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("a client");
        let copies = i32::try_from(self.servers.split(',').count()).expect("a few brokers");
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(copies));
        let options =
            AdminOptions::new().operation_timeout(Some(TIME_LIMIT)).request_timeout(Some(TIME_LIMIT));
        let made = admin.create_topics([&topic], &options).await.expect("the cluster answers");
        assert!(made.iter().all(Result::is_ok), "topic {name}: {made:?}");
    }

    /// Sends SIGKILL to a broker, numbered from 1.
    ///
    /// # Panics
    /// The broker does not run.
    pub fn kill(&self, broker: i32) {
        match &self.kind {
            Kind::Real { .. } => self.signal(broker, "-KILL"),
            Kind::Mock { .. } => self.send_command(MockCommand::Down(broker)),
        }
    }

    /// Sends SIGSTOP to a broker: its connections stay open, and it answers nothing.
    ///
    /// # Panics
    /// The broker does not run.
    pub fn pause(&self, broker: i32) {
        match &self.kind {
            Kind::Real { .. } => self.signal(broker, "-STOP"),
            Kind::Mock { .. } => self.send_command(MockCommand::Down(broker)),
        }
    }

    /// Sends SIGCONT to a paused broker.
    ///
    /// # Panics
    /// The broker does not run.
    pub fn resume(&self, broker: i32) {
        match &self.kind {
            Kind::Real { .. } => self.signal(broker, "-CONT"),
            Kind::Mock { .. } => self.send_command(MockCommand::Up(broker)),
        }
    }

    /// Restarts a killed broker with its old port and data and waits until it answers.
    ///
    /// # Panics
    /// The broker does not become ready.
    pub fn start_again(&self, broker: i32) {
        match &self.kind {
            Kind::Real { folder } => {
                script(&["start", "FOLDER"], folder.path());
            }
            Kind::Mock { .. } => self.send_command(MockCommand::Up(broker)),
        }
    }

    /// Sends a message and waits for its acknowledgement. Returns partition and offset.
    ///
    /// # Panics
    /// The cluster rejects the request.
    #[must_use]
    pub fn send(&self, topic: &str, partition: i32, key: &[u8], value: &[u8]) -> (i32, i64) {
        let producer: BaseProducer = self.client().set("acks", "all").create().expect("a client");
        let before = self.end_of(topic, partition);
        producer.send(BaseRecord::to(topic).partition(partition).key(key).payload(value)).expect("is queued");
        producer.flush(TIME_LIMIT).expect("is sent");
        (partition, before)
    }

    /// End offset of a partition.
    ///
    /// # Panics
    /// The cluster does not answer.
    #[must_use]
    pub fn end_of(&self, topic: &str, partition: i32) -> i64 {
        let consumer: BaseConsumer = self.client().create().expect("a client");
        consumer.fetch_watermarks(topic, partition, TIME_LIMIT).expect("the cluster answers").1
    }

    /// Opens a connection that reads the end offsets of a topic again and again.
    ///
    /// # Panics
    /// The cluster does not answer.
    #[must_use]
    pub fn topic_end(&self, topic: &str) -> TopicEnd {
        let consumer: BaseConsumer = self.client().create().expect("a client");
        let metadata = consumer.fetch_metadata(Some(topic), TIME_LIMIT).expect("the cluster answers");
        let partitions =
            metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|found| found.id()).collect();
        TopicEnd { consumer, topic: topic.to_owned(), partitions }
    }

    /// All messages of a topic, by partition and offset.
    ///
    /// # Panics
    /// The cluster does not answer.
    #[must_use]
    pub fn messages(&self, topic: &str) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer = self.client().set("group.id", "harness").create().expect("a client");
        let metadata = consumer.fetch_metadata(Some(topic), TIME_LIMIT).expect("the cluster answers");
        let partitions: Vec<i32> =
            metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|found| found.id()).collect();
        let mut found = Vec::new();
        for partition in partitions {
            let (begin, end) = consumer.fetch_watermarks(topic, partition, TIME_LIMIT).expect("answers");
            if begin == end {
                continue;
            }
            let mut wanted = TopicPartitionList::new();
            wanted.add_partition_offset(topic, partition, Offset::Offset(begin)).expect("an offset");
            consumer.assign(&wanted).expect("is assigned");
            let deadline = Instant::now() + TIME_LIMIT;
            let mut at = begin;
            while at < end {
                assert!(Instant::now() < deadline, "{topic}-{partition} cannot be read from {at} to {end}");
                // A broker that is just coming back breaks a connection or two.
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
                let message = message.detach();
                at = message.offset() + 1;
                found.push(message);
            }
        }
        found
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers);
        config
    }

    fn signal(&self, broker: i32, signal: &str) {
        let Kind::Real { folder } = &self.kind else { return };
        let pid = script(&["pid", "FOLDER", &broker.to_string()], folder.path());
        let sent = Command::new("kill").args([signal, &pid]).status().expect("kill runs");
        assert!(sent.success(), "kill {signal} {pid}");
    }

    fn send_command(&self, command: MockCommand) {
        if let Kind::Mock { commands, .. } = &self.kind {
            commands.send(command).expect("the mock lives as long as the cluster");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        match &mut self.kind {
            Kind::Real { folder } => {
                // No test reads its data any more, so SIGKILL is enough.
                for broker in 1..=self.servers.split(',').count() {
                    let pid = run(&["pid", "FOLDER", &broker.to_string()], folder.path());
                    if let Ok(pid) = pid {
                        let _ = Command::new("kill").args(["-KILL", &pid]).status();
                    }
                }
            }
            Kind::Mock { commands, thread } => {
                let _ = commands.send(MockCommand::Stop);
                if let Some(thread) = thread.take() {
                    let _ = thread.join();
                }
            }
        }
    }
}

/// Runs `tests/kafka/broker` with `folder` in place of the argument `FOLDER`, and returns its output.
fn script(args: &[&str], folder: &Path) -> String {
    match run(args, folder) {
        Ok(printed) => printed,
        Err(output) => panic!("tests/kafka/broker {args:?}: {output}"),
    }
}

fn run(args: &[&str], folder: &Path) -> Result<String, String> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/broker");
    let mut command = Command::new(path);
    for arg in args {
        if *arg == "FOLDER" {
            command.arg(folder)
        } else {
            command.arg(arg)
        };
    }
    // What it starts outlives it, and would keep a pipe open: it takes none of these with it.
    let output = command.stdin(Stdio::null()).output().expect("the script runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn mock(brokers: usize, ready: &SyncSender<String>, commands: &Receiver<MockCommand>) {
    let cluster = MockCluster::new(i32::try_from(brokers).expect("a few brokers")).expect("the mock starts");
    ready.send(cluster.bootstrap_servers()).expect("somebody waits");
    for command in commands {
        let done = match command {
            MockCommand::CreateTopic(name, partitions) => cluster.create_topic(&name, partitions, 1),
            MockCommand::Down(broker) => cluster.broker_down(broker),
            MockCommand::Up(broker) => cluster.broker_up(broker),
            MockCommand::Stop => return,
        };
        done.expect("the mock obeys");
    }
}
