//! Two independent records: the records that a recorder journaled, and the rows that a store holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use codec::Record;
use schemas::session::SessionClose;
use serde::Deserialize;
use store::Store;
use store::log::LogReader;
use store::table::{Table, decode_all};

use crate::binary::files_below;

/// Time between two looks for new segments. A segment lives much longer: the recorder deletes it after the acknowledgement of
/// its last record.
const LOOK: Duration = Duration::from_millis(2);

/// Number of times that each exchange and each close row occurs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Found {
    /// By exchange id.
    pub exchanges: BTreeMap<String, usize>,
    /// By session, incarnation and time.
    pub closes: BTreeMap<String, usize>,
}

impl Found {
    /// Descriptions of at most 20 rows whose numbers differ from those of `other`.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (what, ours, theirs) in
            [("exchange", &self.exchanges, &other.exchanges), ("close row", &self.closes, &other.closes)]
        {
            let ids = ours.keys().chain(theirs.keys().filter(|id| !ours.contains_key(*id)));
            for id in ids {
                let counts = (ours.get(id).copied().unwrap_or(0), theirs.get(id).copied().unwrap_or(0));
                if counts.0 != counts.1 {
                    found.push(format!("{what} {id}: {} here, {} there", counts.0, counts.1));
                }
            }
        }
        found.truncate(20);
        found
    }

    fn close(&mut self, close: &SessionClose) {
        let id = format!("{} of {} at {}", close.session, close.incarnation, close.closed_at);
        *self.closes.entry(id).or_default() += 1;
    }
}

/// Keeps every segment of a journal through a hard link, so that it survives its deletion by the recorder.
#[derive(Debug)]
pub struct JournalArchive {
    kept: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl JournalArchive {
    /// Watches the journal of this state folder, which may not exist yet. `kept` must be on the same file system.
    ///
    /// # Panics
    /// The folder cannot be created.
    #[must_use]
    pub fn start(state: &Path, kept: &Path) -> Self {
        std::fs::create_dir_all(kept).expect("the folder is made");
        let stop: Arc<AtomicBool> = Arc::default();
        let (journal, folder, stopped) = (state.join("journal"), kept.to_owned(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                link(&journal, &folder);
                std::thread::sleep(LOOK);
            }
        });
        Self { kept: kept.to_owned(), stop, thread: Some(thread) }
    }

    /// Counts all journaled records. The recorder must not run.
    ///
    /// # Panics
    /// A segment is damaged, or a record cannot be decoded.
    #[must_use]
    pub fn journaled(&self) -> Found {
        let mut found = Found::default();
        let mut reader = LogReader::open(&self.kept, 0).expect("opens");
        while let Some((position, bytes)) = reader.next().expect("reads") {
            match Record::decode(&bytes) {
                Ok(Record::Exchange(exchange)) => {
                    *found.exchanges.entry(exchange.exchange.to_string()).or_default() += 1;
                }
                Ok(Record::Close(close)) => found.close(&close),
                Ok(Record::Chunk { .. }) => {}
                Err(error) => panic!("record {position}: {error}"),
            }
        }
        found
    }
}

impl Drop for JournalArchive {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn link(journal: &Path, kept: &Path) {
    // Not made yet, or a segment is gone since: both are looked at again.
    for entry in std::fs::read_dir(journal).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let _ = std::fs::hard_link(&path, kept.join(entry.file_name()));
        }
    }
}

#[derive(Deserialize)]
struct Id {
    exchange: String,
}

/// Counts the rows that a reader of the commits finds.
///
/// # Panics
/// The store cannot be read.
pub async fn committed(store: &Path) -> Found {
    let lake = Store::open(store.to_str().expect("utf-8")).expect("opens");
    let snapshot = lake.snapshot().await.expect("reads");
    let mut found = Found::default();
    let rows: Vec<Id> =
        lake.read_table(&snapshot, Table::Exchanges, Some(&["exchange"])).await.expect("reads");
    rows.into_iter().for_each(|row| *found.exchanges.entry(row.exchange).or_default() += 1);
    let rows: Vec<SessionClose> = lake.read_table(&snapshot, Table::Sessions, None).await.expect("reads");
    rows.iter().for_each(|row| found.close(row));
    found
}

/// Counts the rows of all Parquet files, with or without a commit.
///
/// # Panics
/// A file cannot be read.
#[must_use]
pub fn without_commits(store: &Path) -> Found {
    let mut found = Found::default();
    for (table, path) in [Table::Exchanges, Table::Sessions].into_iter().flat_map(|table| {
        let files = files_below(&store.join(table.as_str()));
        files
            .into_iter()
            .filter(|path| path.extension().is_some_and(|e| e == "parquet"))
            .map(move |path| (table, path))
    }) {
        let bytes = bytes::Bytes::from(std::fs::read(&path).expect("file reads"));
        let wrong = |error| panic!("{}: {error}", path.display());
        if table == Table::Exchanges {
            let rows: Vec<Id> = decode_all(table, bytes).unwrap_or_else(wrong);
            rows.into_iter().for_each(|row| *found.exchanges.entry(row.exchange).or_default() += 1);
        } else {
            let rows: Vec<SessionClose> =
                decode_all(table, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            rows.iter().for_each(|row| found.close(row));
        }
    }
    found
}

/// The bodies of every stored exchange: for each request, its responses.
///
/// # Panics
/// The store cannot be read, or a body lacks a chunk.
pub async fn bodies(store: &Path) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let lake = Store::open(store.to_str().expect("utf-8")).expect("opens");
    let snapshot = lake.snapshot().await.expect("reads");
    let mut found: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for session in lake.load_sessions(&snapshot, None).await.expect("reads") {
        for exchange in &session.exchanges {
            let body =
                |body| session.body(body).unwrap_or_else(|error| panic!("{}: {error}", session.session));
            found.entry(body(&exchange.request)).or_default().push(body(&exchange.response));
        }
    }
    found
}
