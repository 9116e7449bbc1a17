//! How much the store keeps of the traffic, beside general-purpose compression of the same bytes.

use std::io::Write as _;
use std::path::Path;

use serde_json::json;
use store::Store;
use store::maintenance::CompactOptions;
use store::table::{self, ReadOptions, Table};
use tests::binary::files_below;
use tests::gateway::Traffic;

use crate::report::{bytes, ratio, row};
use crate::stage;

/// Bytes of a store.
#[derive(Debug, Default)]
struct Stored {
    /// Of all Parquet files.
    all: u64,
    /// Of the column that holds the pieces of bodies.
    bodies: u64,
    files: u64,
}

fn stored(store: &Path) -> Stored {
    let mut found = Stored::default();
    for path in files_below(store) {
        if path.extension().is_none_or(|extension| extension != "parquet") {
            continue;
        }
        let file = bytes::Bytes::from(std::fs::read(&path).expect("file reads"));
        found.all += file.len() as u64;
        found.files += 1;
        let table = path.strip_prefix(store).expect("lies in the store").iter().next().expect("has a table");
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

/// What the same traffic takes elsewhere.
#[derive(Debug, Default)]
struct Elsewhere {
    /// Bodies, not compressed.
    plain: u64,
    /// One zstd stream of all bodies, level 19, window of 2^27 bytes.
    zstd: u64,
    /// A gzip file of JSON for each exchange.
    gzip: u64,
}

fn elsewhere(traffic: &Traffic, places: std::ops::Range<usize>) -> Elsewhere {
    let mut found = Elsewhere::default();
    let mut zstd = zstd::Encoder::new(Vec::new(), 19).expect("an encoder");
    zstd.long_distance_matching(true).expect("an option");
    zstd.window_log(27).expect("an option");
    for place in places {
        let session = traffic.session(place, 1);
        for (seq, call) in session.calls.iter().enumerate() {
            for body in [&call.request, &call.response] {
                zstd.write_all(body).expect("memory takes it");
                found.plain += body.len() as u64;
            }
            let row = json!({"exchange": format!("{}-{seq}", session.id), "session": session.id, "seq": seq, "edge": call.edge,
                "tenant": "default", "agent": "support", "build": "1", "method": "POST", "path": call.path, "status": 200,
                "started_at": 1_760_000_000_000_000_u64 + seq as u64 * 1000, "duration_us": 1000,
                "request": String::from_utf8_lossy(&call.request), "response": String::from_utf8_lossy(&call.response)});
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
            gzip.write_all(row.to_string().as_bytes()).expect("memory takes it");
            found.gzip += gzip.finish().expect("memory takes it").len() as u64;
        }
    }
    found.zstd = zstd.finish().expect("memory takes it").len() as u64;
    found
}

/// Rolls often enough that small files are to be merged, as on a quiet day.
const SMALL_ROLL: &str = "1MiB";

async fn measure(places: std::ops::Range<usize>) {
    let traffic = stage::traffic();
    let compared = elsewhere(&traffic, places.clone());
    for (roll, state) in [(stage::ROLL_BYTES, "archived"), (SMALL_ROLL, "archived in small files")] {
        let folder = tempfile::tempdir().expect("a folder");
        let played = stage::record(folder.path(), &traffic, places.clone(), roll).await;
        assert_eq!(played.failed, 0, "every answer comes through the tap unchanged");
        assert_eq!(compared.plain, played.body_bytes, "what was compressed is what was played");
        let store = folder.path().join("store");
        let lake = Store::open(store.to_str().expect("utf-8")).expect("opens");
        let snapshot = lake.snapshot().await.expect("reads");
        assert!(snapshot.files(Table::Chunks).next().is_some(), "pieces are stored");
        show(state, &stored(&store), &compared);
        if roll == SMALL_ROLL {
            lake.compact(CompactOptions::default()).await.expect("compacts");
            show("these after `store compact`", &stored(&store), &compared);
        }
    }
}

fn show(state: &str, stored: &Stored, compared: &Elsewhere) {
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
async fn sizes_of_a_little_traffic_are_measured() {
    measure(0..2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: tests/performance/run"]
async fn sizes() {
    measure(0..stage::traffic().sessions()).await;
}
