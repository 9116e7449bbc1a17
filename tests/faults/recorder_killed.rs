//! `kill -9` of the recorder in the middle of traffic.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use codec::Record;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use store::Store;
use store::log::LogReader;
use store::table::Table;
use tests::binary;
use tests::upstream::Provider;

/// Conversations under way at a time.
const CLIENTS: u64 = 8;

fn start(folder: &Path) -> (Child, String) {
    let mut child = binary::command(folder).arg("record").stderr(Stdio::piped()).spawn().expect("starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let url = lines.find_map(|line| {
        let line = line.expect("utf-8");
        let at = line.find("http://127.0.0.1")?;
        Some(line[at..].chars().take_while(|letter| !letter.is_whitespace()).collect::<String>())
    });
    // Goes on reading, so that the recorder never writes into a closed pipe.
    std::thread::spawn(move || lines.for_each(drop));
    (child, url.expect("prints its address"))
}

/// Talks until the recorder is gone; counts the answers that came back whole.
async fn talk(url: String, client_number: u64, answered: Arc<AtomicU64>) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
    for turn in 0_u64.. {
        let body = format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"turn {turn} of {client_number}"}}]}}"#
        );
        let request = Request::post(format!("{url}/v1/chat/completions"))
            .header("content-type", "application/json")
            .header("x-session-id", format!("client-{client_number}-{}", turn / 5))
            .body(Full::from(body))
            .expect("a request");
        let Ok(response) = client.request(request).await else { return };
        if response.into_body().collect().await.is_err() {
            return;
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Deserialize)]
struct Id {
    exchange: String,
}

/// How often each exchange is in Parquet.
async fn stored(folder: &Path) -> BTreeMap<String, usize> {
    let lake = Store::open(folder.join("store").to_str().expect("utf-8")).expect("opens");
    let snapshot = lake.snapshot().await.expect("reads");
    let rows: Vec<Id> =
        lake.read_table(&snapshot, Table::Exchanges, Some(&["exchange"])).await.expect("reads");
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(row.exchange).or_default() += 1;
    }
    counts
}

/// The exchanges in every journal below the state directory.
fn journaled(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let segments = binary::files_below(&folder.join("state"));
    let mut folders: Vec<_> =
        segments.iter().filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    folders.dedup_by_key(|path| path.parent().map(Path::to_owned));
    for segment in folders {
        let mut reader = LogReader::open(segment.parent().expect("has a folder"), 0).expect("opens");
        // A torn tail ends the journal, like for the recorder itself.
        while let Ok(Some((_, bytes))) = reader.next() {
            if let Ok(Record::Exchange(exchange)) = Record::decode(&bytes) {
                found.push(exchange.exchange.to_string());
            }
        }
    }
    found
}

/// One kill after about `answers` answers; returns how many exchanges were compared.
async fn kill_after(answers: u64) -> usize {
    let folder = tempfile::tempdir().expect("temp");
    let provider = Provider::start().await;
    let config = format!(
        "agent = \"a\"\nstore = \"store\"\nstate-dir = \"state\"\n[archive]\nflush-every = \"100ms\"\n\
         [[route]]\nedge = \"model\"\nlisten = \"127.0.0.1:0\"\nupstream = \"http://{}\"\nprotocol = \"openai-chat\"\n",
        provider.address
    );
    std::fs::write(folder.path().join("foreshadow.toml"), config).expect("writes");
    let (mut child, url) = start(folder.path());
    let answered = Arc::new(AtomicU64::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(talk(url.clone(), number, answered.clone()));
    }
    while answered.load(Ordering::Relaxed) < answers && !clients.is_empty() {
        tokio::task::yield_now().await;
    }
    child.kill().expect("kills");
    child.wait().expect("ends");
    while clients.join_next().await.is_some() {}

    let mut expected = stored(folder.path()).await;
    for id in journaled(folder.path()) {
        expected.entry(id).or_insert(1);
    }
    let (mut child, _) = start(folder.path());
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(killed.success() && child.wait().expect("ends").success(), "the recorder must end in order");
    let found = stored(folder.path()).await;
    assert!(found.values().all(|count| *count == 1), "after {answers} answers: stored more than once");
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>(),
        "after {answers} answers"
    );
    found.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_journaled_is_stored_once() {
    let mut compared = 0;
    for answers in [1, 17, 60, 140, 300] {
        compared += kill_after(answers).await;
    }
    assert!(compared > 100, "only {compared} exchanges were compared");
}
