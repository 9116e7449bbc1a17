//! A recorder that publishes and archivers that store, configured in one folder, with a comparison of journal, store and clients.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use codec::{MessageValue, Record};
use rdkafka::Message as _;

use crate::journal_archive::{self, JournalArchive};
use crate::kafka::Cluster;
use crate::process::Running;
use crate::traffic::{Call, EchoServer};

/// Restarts of the recorder at most, to publish a journal that it could not publish before it stopped.
const MAX_SETTLES: usize = 5;

/// Recorder, topic and store of one test.
#[derive(Debug)]
pub struct Pipeline {
    folder: PathBuf,
    topic: String,
    journal_archive: JournalArchive,
    _upstream: EchoServer,
}

/// Numbers of compared rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compared {
    /// Exchanges that were journaled and are stored once.
    pub exchanges: usize,
    /// Close rows that were journaled and are stored once.
    pub closes: usize,
    /// Exchanges whose request and response have the bytes that their client sent and received.
    pub bodies: usize,
    /// Calls with a complete response that are not stored: shed, or not journaled when their recorder was killed.
    pub absent: usize,
}

impl Pipeline {
    /// Writes the configuration into this folder and creates the topics. `limits` are lines of `[limits]`.
    ///
    /// # Panics
    /// Disk or cluster fail.
    pub async fn new(cluster: &Cluster, folder: &Path, topic: &str, partitions: i32, limits: &str) -> Self {
        let upstream = EchoServer::start().await;
        let config = format!(
            r#"agent = "a"
store = "store"
state-dir = "state"
[session]
idle-timeout = "2s"
[limits]
{limits}
[archive]
flush-every = "200ms"
[kafka]
brokers = "{}"
topic = "{topic}"
group = "{topic}"
[kafka.properties]
"session.timeout.ms" = "3000"
"heartbeat.interval.ms" = "500"
"reconnect.backoff.max.ms" = "500"
[[route]]
edge = "model"
listen = "127.0.0.1:0"
upstream = "http://{}"
protocol = "openai-chat"
"#,
            cluster.servers(),
            upstream.address
        );
        std::fs::write(folder.join("foreshadow.toml"), config).expect("the configuration is written");
        cluster.create_topic(topic, partitions).await;
        cluster.create_topic(&format!("{topic}.dead"), 1).await;
        let journal_archive = JournalArchive::start(&folder.join("state"), &folder.join("journal-archive"));
        Self { folder: folder.to_owned(), topic: topic.to_owned(), journal_archive, _upstream: upstream }
    }

    /// Folder of configuration, state and store.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Folder of the store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// File with the position up to which the journal is published.
    #[must_use]
    pub fn checkpoint(&self) -> PathBuf {
        self.folder.join("state").join("checkpoint")
    }

    /// Name of the topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Starts a recorder. Returns it with the URL of its route.
    #[must_use]
    pub fn record(&self) -> (Running, String) {
        let mut recorder = Running::start(&self.folder, &["--json", "record"]);
        let url = recorder.url();
        (recorder, url)
    }

    /// Starts an archiver that runs until it is stopped.
    #[must_use]
    pub fn archive(&self) -> Running {
        Running::start(&self.folder, &["-v", "archive"])
    }

    /// Runs an archiver until the topic is idle. Returns its output.
    ///
    /// # Panics
    /// The archiver fails.
    #[must_use]
    pub fn archive_rest(&self) -> String {
        let (status, output) = Running::start(&self.folder, &["archive", "--exit-when-idle", "1s"]).wait();
        assert!(status.success(), "archive: {status}:\n{output}");
        output
    }

    /// Moves every journaled record into the store. No recorder may run; archivers may.
    ///
    /// A restarted recorder publishes the records that it could not publish before. Returns the number of restarts. A record
    /// that was deleted from the journal too early does not come back.
    ///
    /// # Panics
    /// A command fails.
    pub async fn settle(&self) -> usize {
        for settled in 0..MAX_SETTLES {
            let _ = self.archive_rest();
            let (journaled, stored) =
                (self.journal_archive.journaled(), journal_archive::committed(&self.store()).await);
            if journaled.exchanges.keys().all(|id| stored.exchanges.contains_key(id))
                && journaled.closes.keys().all(|id| stored.closes.contains_key(id))
            {
                return settled;
            }
            let (recorder, _) = self.record();
            let _ = recorder.terminate();
        }
        MAX_SETTLES
    }

    /// Compares journal, store and clients. [`Self::settle`] must have run.
    ///
    /// # Errors
    /// A record is stored twice, not at all, or with other bytes.
    pub async fn compare(&self, calls: &[Call]) -> Result<Compared, String> {
        let journaled = self.journal_archive.journaled();
        if journaled.exchanges.is_empty() {
            return Err("nothing was journaled, so there is nothing to compare".to_owned());
        }
        let store = self.store();
        for (reader, stored) in [
            ("a reader that goes through the commits", journal_archive::committed(&store).await),
            ("a reader that takes the files without commits", journal_archive::without_commits(&store)),
        ] {
            let differences = journaled.differences(&stored);
            if !differences.is_empty() {
                let list = differences.join("\n  ");
                return Err(format!("journal (here) and {reader} (there) differ:\n  {list}"));
            }
        }
        if let Some((id, count)) = journaled.exchanges.iter().find(|(_, count)| **count != 1) {
            return Err(format!("exchange {id} was journaled {count} times"));
        }
        let (exchanges, closes) = (journaled.exchanges.len(), journaled.closes.len());
        let (bodies, absent) = self.compare_bodies(calls).await?;
        Ok(Compared { exchanges, closes, bodies, absent })
    }

    async fn compare_bodies(&self, calls: &[Call]) -> Result<(usize, usize), String> {
        let mut stored = journal_archive::bodies(&self.store()).await;
        let (mut same, mut absent) = (0, 0);
        for call in calls {
            let found = stored.remove(call.request.as_ref());
            match (&call.response, found.as_deref()) {
                (Some(sent), Some([kept])) if sent == kept => same += 1,
                // The client saw no end of it, so what the tap saw cannot be compared.
                (None, Some([_]) | None) => {}
                (Some(_), None) => absent += 1,
                (_, Some(kept)) => {
                    let (lengths, session) = (kept.iter().map(Vec::len).collect::<Vec<_>>(), &call.session);
                    return Err(format!(
                        "session {session}: stored answers of {lengths:?} bytes are not the one sent"
                    ));
                }
            }
        }
        if let Some(request) = stored.keys().next() {
            let text = String::from_utf8_lossy(request);
            return Err(format!("{} stored requests were never sent, such as {text}", stored.len()));
        }
        Ok((same, absent))
    }

    /// Number of journaled exchanges that the topic lacks.
    ///
    /// # Panics
    /// The cluster does not answer.
    #[must_use]
    pub fn unsent(&self, cluster: &Cluster) -> usize {
        let mut wanted = self.journal_archive.journaled().exchanges;
        for message in cluster.messages(&self.topic) {
            let parcel = message.payload().and_then(|value| MessageValue::decode(value).ok());
            for record in parcel.and_then(|parcel| parcel.records().ok()).into_iter().flatten() {
                if let Record::Exchange(exchange) = record {
                    wanted.remove(exchange.exchange.as_str());
                }
            }
        }
        wanted.len()
    }

    /// Number of messages that repeat an earlier message: the recorder published them twice.
    ///
    /// # Panics
    /// The cluster does not answer.
    #[must_use]
    pub fn published_twice(&self, cluster: &Cluster) -> usize {
        let mut seen = BTreeSet::new();
        let messages = cluster.messages(&self.topic);
        let positions = messages.iter().filter_map(|message| {
            let parcel = MessageValue::decode(message.payload()?).ok()?;
            Some((parcel.journal, parcel.position, parcel.part))
        });
        positions.filter(|position| !seen.insert(position.clone())).count()
    }

    /// Checks that each partition has the records of a journal in journal order, repeated messages apart. Returns the number of
    /// messages.
    ///
    /// # Panics
    /// The cluster does not answer.
    ///
    /// # Errors
    /// A message comes too late; the error names it.
    pub fn check_order(&self, cluster: &Cluster) -> Result<usize, String> {
        let mut last: BTreeMap<(i32, String), BTreeSet<u64>> = BTreeMap::new();
        let messages = cluster.messages(&self.topic);
        for message in &messages {
            let Some(Ok(parcel)) = message.payload().map(MessageValue::decode) else { continue };
            let seen = last.entry((message.partition(), parcel.journal)).or_default();
            let latest = seen.last().copied();
            if seen.insert(parcel.position) && latest.is_some_and(|latest| latest > parcel.position) {
                return Err(format!(
                    "position {} comes after {latest:?} in partition {} at {}",
                    parcel.position,
                    message.partition(),
                    message.offset()
                ));
            }
        }
        Ok(messages.len())
    }
}
