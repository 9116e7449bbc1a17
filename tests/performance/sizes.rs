//! Size of the store, compared with general-purpose compression of the same bodies.

use std::io::Write as _;
use std::path::Path;

use serde_json::json;
use store::Store;
use store::maintenance::CompactOptions;
use store::table::{self, ReadOptions, Table};
use tests::binary::files_below;
use tests::gateway::Traffic;

use crate::recording;
use crate::report::{bytes, ratio, row};

/// Size of a store, in bytes.
#[derive(Debug, Default)]
struct StoreSize {
    /// All Parquet files.
    all: u64,
    /// The column of chunk bytes.
    bodies: u64,
    files: u64,
}

fn stored(store: &Path) -> StoreSize {
    let mut found = StoreSize::default();
    for path in files_below(store) {
        if path.extension().is_none_or(|extension| extension != "parquet") {
            continue;
        }
        let file = bytes::Bytes::from(std::fs::read(&path).expect("file reads"));
        found.all += file.len() as u64;
        found.files += 1;
        let table = path.strip_prefix(store).expect("below the store").iter().next().expect("has a table");
        let table = Table::ALL.into_iter().find(|known| table == known.as_str()).expect("a known table");
        let opened = table::open(table, file, ReadOptions::default()).expect("opens");
        for group in opened.metadata().row_groups() {
            for column in group.columns() {
                let size = u64::try_from(column.compressed_size()).expect("is not negative");
                if std::env::var_os("FORESHADOW_COLUMNS").is_some() {
                    let plain = column.uncompressed_size();
                    let name = format!("{}.{}", table.as_str(), column.column_path().string());
                    let _ = writeln!(std::io::stderr(), "{size:>10} {plain:>10} {name}");
                }
                if table == Table::Chunks && column.column_path().string() == "bytes" {
                    found.bodies += size;
                }
            }
        }
    }
    found
}

/// Size of the same traffic in other forms, in bytes.
#[derive(Debug, Default)]
struct OtherSizes {
    /// Uncompressed bodies.
    plain: u64,
    /// One zstd stream of all bodies, level 19, window of 2^27 bytes.
    zstd: u64,
    /// A gzip file of JSON for each exchange.
    gzip: u64,
}

fn other_sizes(traffic: &Traffic, sessions: std::ops::Range<usize>) -> OtherSizes {
    let mut found = OtherSizes::default();
    let mut zstd = zstd::Encoder::new(Vec::new(), 19).expect("an encoder");
    zstd.long_distance_matching(true).expect("an option");
    zstd.window_log(27).expect("an option");
    for index in sessions {
        let session = traffic.session(index, 1);
        for (seq, call) in session.calls.iter().enumerate() {
            for body in [&call.request, &call.response] {
                zstd.write_all(body).expect("writes to memory");
                found.plain += body.len() as u64;
            }
            let row = json!({"exchange": format!("{}-{seq}", session.id), "session": session.id, "seq": seq, "edge": call.edge,
                "tenant": "default", "agent": "support", "build": "1", "method": "POST", "path": call.path, "status": 200,
                "started_at": 1_760_000_000_000_000_u64 + seq as u64 * 1000, "duration_us": 1000,
                "request": String::from_utf8_lossy(&call.request), "response": String::from_utf8_lossy(&call.response)});
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
            gzip.write_all(row.to_string().as_bytes()).expect("writes to memory");
            found.gzip += gzip.finish().expect("writes to memory").len() as u64;
        }
    }
    found.zstd = zstd.finish().expect("writes to memory").len() as u64;
    found
}

/// A flush size that leaves small files to compact, as little traffic does.
const SMALL_FLUSH: &str = "1MiB";

async fn measure(sessions: std::ops::Range<usize>) {
    let traffic = recording::traffic();
    let compared = other_sizes(&traffic, sessions.clone());
    for (flush_bytes, state) in
        [(recording::FLUSH_BYTES, "archived"), (SMALL_FLUSH, "archived in small files")]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let played = recording::record(folder.path(), &traffic, sessions.clone(), flush_bytes).await;
        assert_eq!(played.failed, 0, "the tap passes every response on unchanged");
        assert_eq!(compared.plain, played.body_bytes, "both have the same bodies");
        let store = folder.path().join("store");
        let opened = Store::open(store.to_str().expect("utf-8")).expect("opens");
        let snapshot = opened.snapshot().await.expect("reads");
        assert!(snapshot.files(Table::Chunks).next().is_some(), "chunks are stored");
        show(state, &stored(&store), &compared);
        if flush_bytes == SMALL_FLUSH {
            opened.compact(CompactOptions::default()).await.expect("compacts");
            show("the same after `store compact`", &stored(&store), &compared);
        }
    }
}

fn show(state: &str, stored: &StoreSize, compared: &OtherSizes) {
    let how = format!("{state}, {} files", stored.files);
    let of =
        |found: u64, other: u64| format!("{:.2} ({} to {})", ratio(found, other), bytes(found), bytes(other));
    row(
        "body column to one `zstd -19 --long=27` stream of all bodies",
        "≤ 1.3",
        &of(stored.bodies, compared.zstd),
        &how,
    );
    row("all Parquet to the same stream", "≤ 2.5", &of(stored.all, compared.zstd), &how);
    let share = format!(
        "1/{:.0} ({} to {})",
        ratio(compared.gzip, stored.all),
        bytes(stored.all),
        bytes(compared.gzip)
    );
    row("all Parquet to gzip JSON of each exchange", "≤ 1/20", &share, &how);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_measurement_of_sizes_works() {
    measure(0..2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: tests/performance/run"]
async fn sizes() {
    measure(0..recording::traffic().sessions()).await;
}
