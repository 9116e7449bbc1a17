//! A recorder in a folder of its own, with generated traffic through it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use recorder::config::Config;
use schemas::keys::RootKey;
use store::Store;
use store::table::Table;
use tests::gateway::Traffic;
use tests::gateway::play::{Played, RouteUrls, Upstream, play, routes};

/// What the archive rolls at by default.
pub(crate) const ROLL_BYTES: &str = "32MiB";

/// Sessions under way at a time.
const CLIENTS: usize = 8;

/// The sessions are played as fast as they can be, and none may be shed: what is not stored would make the rest look small.
pub(crate) const ROOM: &str = "[limits]\nqueue = 1000000\nmemory-bytes = \"8GiB\"\n";

/// The traffic to play: the folder that `FORESHADOW_TRAFFIC` names, else the files in the project.
pub(crate) fn traffic() -> Arc<Traffic> {
    Arc::new(match std::env::var_os("FORESHADOW_TRAFFIC") {
        Some(folder) => Traffic::read(Path::new(&folder)),
        None => Traffic::bundled(),
    })
}

/// Plays sessions through a recorder with the embedded archive, whose files are rolled by size alone, so that the pace of the
/// machine does not show in them; what it wrote lies in `folder`/store.
pub(crate) async fn record(
    folder: &Path,
    traffic: &Arc<Traffic>,
    places: std::ops::Range<usize>,
    flush_bytes: &str,
) -> Played {
    let upstream = Arc::new(Upstream::start().await);
    let text = format!(
        "agent = \"support\"\nbuild = \"1\"\nstore = \"{0}/store\"\nstate-dir = \"{0}/state\"\n[archive]\nflush-every = \"1h\"\nflush-bytes = \"{2}\"\n{ROOM}{1}",
        folder.display(),
        routes(&upstream),
        flush_bytes
    );
    let config = Config::parse(&text).expect("the configuration is good");
    // A millisecond a reading: times that differ, and the same ones in every run.
    let now = AtomicI64::new(1_760_000_000_000_000);
    let clock = Arc::new(move || now.fetch_add(1000, Ordering::Relaxed));
    let recorder = recorder::start(config, RootKey::new([7; 32]), clock).await.expect("the recorder starts");
    let url = |place: usize| recorder.routes()[place].url();
    let doors = RouteUrls { turn: url(0), model: url(1), tool: url(2) };
    let played = play(traffic, places, 1, CLIENTS, &upstream, &doors).await;
    recorder.shutdown(Duration::from_secs(30)).await.expect("everything is archived");
    let lake = Store::open(folder.join("store").to_str().expect("utf-8")).expect("opens");
    let snapshot = lake.snapshot().await.expect("reads");
    let stored: u64 = snapshot.files(Table::Exchanges).map(|file| file.rows).sum();
    assert_eq!(stored, played.requests, "nothing is shed");
    played
}
