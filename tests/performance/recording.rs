//! Recorder with generated traffic, in a temporary folder.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use recorder::config::Config;
use schemas::keys::RootKey;
use store::Store;
use store::table::Table;
use tests::gateway::Traffic;
use tests::gateway::play::{RouteUrls, SentTraffic, Upstream, play, routes};

/// The default of `flush-bytes`.
pub(crate) const FLUSH_BYTES: &str = "32MiB";

/// Concurrent sessions.
const CLIENTS: usize = 8;

/// Limits under which no session is shed, however fast they are played: a shed one would make the store look small.
pub(crate) const LIMITS: &str = "[limits]\nqueue = 1000000\nmemory-bytes = \"8GiB\"\n";

/// The traffic to play: the folder in `FORESHADOW_TRAFFIC`, else the files in the project.
pub(crate) fn traffic() -> Arc<Traffic> {
    Arc::new(match std::env::var_os("FORESHADOW_TRAFFIC") {
        Some(folder) => Traffic::read(Path::new(&folder)),
        None => Traffic::bundled(),
    })
}

/// Plays sessions through a recorder with the local archiver into `folder`/store. It flushes by size alone, so that the speed
/// of the machine does not change the files.
pub(crate) async fn record(
    folder: &Path,
    traffic: &Arc<Traffic>,
    sessions: std::ops::Range<usize>,
    flush_bytes: &str,
) -> SentTraffic {
    let upstream = Arc::new(Upstream::start().await);
    let text = format!(
        "agent = \"support\"\nbuild = \"1\"\nstore = \"{0}/store\"\nstate-dir = \"{0}/state\"\n[archive]\nflush-every = \"1h\"\nflush-bytes = \"{2}\"\n{LIMITS}{1}",
        folder.display(),
        routes(&upstream),
        flush_bytes
    );
    let config = Config::parse(&text).expect("the configuration is valid");
    // One millisecond per call: distinct times, equal in every run.
    let now = AtomicI64::new(1_760_000_000_000_000);
    let clock = Arc::new(move || now.fetch_add(1000, Ordering::Relaxed));
    let recorder = recorder::start(config, RootKey::new([7; 32]), clock).await.expect("the recorder starts");
    let url = |place: usize| recorder.routes()[place].url();
    let doors = RouteUrls { turn: url(0), model: url(1), tool: url(2) };
    let played = play(traffic, sessions, 1, CLIENTS, &upstream, &doors).await;
    recorder.shutdown(Duration::from_secs(30)).await.expect("every exchange is archived");
    let store = Store::open(folder.join("store").to_str().expect("utf-8")).expect("opens");
    let snapshot = store.snapshot().await.expect("reads");
    let stored: u64 = snapshot.files(Table::Exchanges).map(|file| file.rows).sum();
    assert_eq!(stored, played.requests, "no exchange is shed");
    played
}
