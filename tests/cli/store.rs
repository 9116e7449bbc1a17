//! `foreshadow store` on recorded benchmark sessions: readers see the same rows after a compaction, and no erased session.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::binary::{self, files_below, printed};

/// Imports recorded sessions in two commits, so that a compaction has files to merge.
fn two_imports(folder: &Path) {
    for name in ["baseline-tool-calling", "variant-assertions-v1"] {
        let file = format!("data/tau-bench-retail-variants/{name}.jsonl.zst");
        let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let file = file.to_string_lossy();
        let args = ["import", "--format", "tau-bench", &file, "--store", "store"];
        let output = binary::run(folder, &args);
        assert!(output.status.success(), "{}", printed(&output));
    }
}

fn json(folder: &Path, args: &[&str]) -> Value {
    let output = binary::run(folder, &[&["--json"][..], args].concat());
    assert!(output.status.success(), "{args:?}: {}", printed(&output));
    serde_json::from_slice(&output.stdout).expect("prints JSON")
}

fn verify(folder: &Path) -> Value {
    json(folder, &["sessions", "verify", "--store", "store"])
}

fn show(folder: &Path, id: &str) -> Value {
    let mut shown = json(folder, &["sessions", "show", id, "--store", "store"]);
    // The number of bytes read depends on the layout of the store.
    shown.as_object_mut().expect("an object").remove("read").expect("says how much was read");
    shown
}

fn parquet_files(folder: &Path) -> usize {
    let files = files_below(&folder.join("store"));
    files.iter().filter(|path| path.extension().is_some_and(|found| found == "parquet")).count()
}

#[test]
fn a_store_is_compacted_and_a_session_erased() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    two_imports(folder);
    let listed = json(folder, &["sessions", "list", "--store", "store"]);
    let id = listed["shown"][0]["session"].as_str().expect("has an id").to_owned();
    let other = listed["shown"][1]["session"].as_str().expect("has an id").to_owned();
    let (before, shown, shown_other) = (verify(folder), show(folder, &id), show(folder, &other));
    let files = parquet_files(folder);

    let planned = json(folder, &["store", "compact", "--store", "store", "--dry-run"]);
    assert_eq!((planned["commits"].as_u64(), parquet_files(folder)), (Some(0), files));
    let done = json(folder, &["store", "compact", "--store", "store"]);
    assert_eq!(done["commits"], 1, "{done:#}");
    assert!(parquet_files(folder) < files);
    assert_eq!((verify(folder), show(folder, &id)), (before.clone(), shown));

    let unconfirmed = binary::run(folder, &["store", "erase", "--store", "store", "--session", &id]);
    assert_eq!(unconfirmed.status.code(), Some(2), "{}", printed(&unconfirmed));
    let args = ["store", "erase", "--store", "store", "--session", &id, "--yes"];
    let erased = json(folder, &args);
    assert_eq!(erased["erased"]["sessions"], serde_json::json!([id]), "{erased:#}");
    assert!(erased["erased"]["proof"]["files_read"].as_u64() > Some(0), "{erased:#}");
    let after = verify(folder);
    let number = |of: &Value| of["sessions"].as_u64().expect("counts");
    assert_eq!(number(&after) + 1, number(&before));
    assert_eq!(show(folder, &other), shown_other);
    let again = binary::run(folder, &args);
    assert_eq!(again.status.code(), Some(2), "{}", printed(&again));
    assert!(String::from_utf8_lossy(&again.stderr).contains("has nothing of session"));
}

#[test]
fn sessions_without_times_do_not_expire() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    two_imports(folder);
    let before = verify(folder);
    let done = json(folder, &["store", "expire", "--store", "store", "--older-than", "1day"]);
    assert_eq!(done["sessions"], 0, "{done:#}");
    assert!(done["files_without_time"].as_u64() > Some(0), "{done:#}");
    assert_eq!(verify(folder), before);
    for bad in [&["expire", "--older-than", "old"][..], &["compact", "--target-bytes", "0"], &["erase"]] {
        let output = binary::run(folder, &[&["store"][..], bad, &["--store", "store"]].concat());
        assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    }
    let missing = binary::run(folder, &["store", "compact", "--store", "nowhere"]);
    assert_eq!(missing.status.code(), Some(2), "{}", printed(&missing));
    assert!(!folder.join("nowhere").exists(), "no folder is created");
}
