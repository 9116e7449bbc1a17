//! Stores that the real binary wrote, plain and encrypted, read by DuckDB, Polars and pyarrow.
//!
//! Needs a Python with the packages of `requirements.txt` in `FORESHADOW_TEST_PYTHON`; without it the test says so and passes,
//! and the test command of the README sets it up.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use schemas::embedding::Embedding;
use schemas::trial::Trial;
use serde_json::{Value, json};
use store::table::{DataType, Table};
use store::{Store, StoredSession};
use tests::binary;

const TENANT: &str = "acme eu";
const AGENT: &str = "support/ü";

const KEYS: [(&str, &str); 2] = [("metadata", "1a"), ("payload", "2b")];

fn python() -> Option<String> {
    let python = std::env::var("FORESHADOW_TEST_PYTHON").ok();
    if python.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI must set FORESHADOW_TEST_PYTHON (tests/run does)");
    }
    python
}

fn import(folder: &Path, store: &str, config: &str) {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tau2-bench/airline__gpt-4.1.jsonl.zst");
    let data = data.to_str().expect("utf-8");
    let owner = ["--tenant", TENANT, "--agent", AGENT];
    let args = ["--config", config, "import", "--format", "tau2", "--limit", "20", "--store", store, data];
    let done = binary::run(folder, &[&args[..], &owner].concat());
    assert!(done.status.success(), "{}", binary::printed(&done));
}

fn kind(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Utf8 => "text",
        DataType::Binary => "bytes",
        DataType::Boolean => "bool",
        DataType::UInt16 => "u16",
        DataType::UInt32 => "u32",
        DataType::UInt64 => "u64",
        DataType::Float64 => "f64",
        DataType::Timestamp(..) => "time",
        DataType::FixedSizeBinary(_) => "digest",
        // Lists, structs and maps: their names and what is in them are compared by the rest of the test.
        _ => "nested",
    }
}

/// The request that is cut into the most pieces.
fn body(sessions: &[StoredSession]) -> Value {
    let all =
        sessions.iter().flat_map(|session| session.exchanges.iter().map(move |exchange| (session, exchange)));
    let (session, exchange) = all.max_by_key(|(_, x)| x.request.chunks.len()).expect("has exchanges");
    let bytes = session.body(&exchange.request).expect("whole");
    assert!(exchange.request.chunks.len() > 1 && bytes.len() > 1000, "a body worth putting together");
    let bytes = base64::engine::general_purpose::STANDARD.encode(bytes);
    json!({"exchange": exchange.exchange, "session": session.session, "bytes": bytes, "exchanges": session.exchanges.len()})
}

/// What the Python side is told to find.
async fn expected(folder: &Path) -> Value {
    let plain = folder.join("plain");
    let lake = Store::open(plain.to_str().expect("utf-8")).expect("opens");
    let snapshot = lake.snapshot().await.expect("reads");
    let sessions = lake.load_sessions(&snapshot, None).await.expect("reads");
    let starts =
        || sessions.iter().flat_map(|session| &session.exchanges).map(|exchange| exchange.started_at);
    let table = |table: Table| {
        let rows: u64 = snapshot.files(table).map(|file| file.rows).sum();
        assert!(rows > 0, "{table:?} is empty");
        let columns: serde_json::Map<String, Value> = table
            .fields()
            .iter()
            .map(|field| (field.name().clone(), kind(field.data_type()).into()))
            .collect();
        (table.as_str().to_owned(), json!({"rows": rows, "columns": columns}))
    };
    let tables: serde_json::Map<String, Value> =
        [Table::Exchanges, Table::Chunks, Table::Sessions].into_iter().map(table).collect();
    let keys: serde_json::Map<String, Value> =
        KEYS.iter().map(|(name, byte)| (format!("{TENANT}/{name}"), byte.repeat(32).into())).collect();
    json!({
        "plain": plain, "encrypted": folder.join("encrypted"), "owner": [TENANT, AGENT], "tables": tables,
        "times": [starts().min(), starts().max()], "body": body(&sessions), "keys": keys,
    })
}

#[tokio::test]
async fn duckdb_polars_and_pyarrow_read_what_is_stored() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().expect("temp");
    for (name, byte) in KEYS {
        std::fs::write(folder.path().join(name), byte.repeat(32)).expect("writes");
    }
    let config = format!(
        "[[encryption.key]]\ntenant = \"{TENANT}\"\nmetadata-key-file = \"metadata\"\npayload-key-file = \"payload\"\n"
    );
    std::fs::write(folder.path().join("keys.toml"), config).expect("writes");
    std::fs::write(folder.path().join("plain.toml"), "").expect("writes");
    import(folder.path(), "plain", "plain.toml");
    import(folder.path(), "encrypted", "keys.toml");
    let told = expected(folder.path()).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("readers/read.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    child.stdin.take().expect("piped").write_all(told.to_string().as_bytes()).expect("takes it");
    let done = child.wait_with_output().expect("ends");
    assert!(done.status.success(), "{}", binary::printed(&done));
    let checks = String::from_utf8_lossy(&done.stdout).lines().count();
    assert!(checks > 40, "only {checks} checks were made");
}

#[tokio::test]
async fn outcomes_are_read_as_pyarrow_polars_and_duckdb_write_them() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().expect("temp");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("readers/write.py");
    let done = Command::new(python).arg(script).arg(folder.path()).output().expect("starts");
    assert!(done.status.success(), "{}", binary::printed(&done));
    let names = String::from_utf8(done.stdout).expect("utf-8");
    let mut first = None;
    for name in names.lines() {
        let run = format!("run of {name}");
        let args =
            ["import", "--format", "outcomes", name, "--run", &run, "--build", "a", "--lane", "baseline"];
        let done = binary::run(folder.path(), &args);
        assert!(done.status.success(), "{name}: {}", binary::printed(&done));
        let lake = Store::open(folder.path().join(&run).to_str().expect("utf-8")).expect("opens");
        let snapshot = lake.snapshot().await.expect("reads");
        let trials = lake.read_table::<Trial>(&snapshot, Table::Trials, None).await.expect("reads");
        let of = |trial: Trial| (trial.case, trial.trial, trial.success, trial.answer, trial.duration_us);
        let trials: Vec<_> = trials.into_iter().map(of).collect();
        let embeddings =
            lake.read_table::<Embedding>(&snapshot, Table::Embeddings, None).await.expect("reads");
        assert_eq!((trials.len(), embeddings.len()), (40, 40), "{name}");
        assert_eq!(&trials, first.get_or_insert_with(|| trials.clone()), "{name}");
    }
    assert_eq!(names.lines().count(), 12);
}

#[tokio::test]
async fn an_encrypted_store_needs_its_configuration() {
    let folder = tempfile::tempdir().expect("temp");
    for (name, byte) in KEYS {
        std::fs::write(folder.path().join(name), byte.repeat(32)).expect("writes");
    }
    let config = format!(
        "agent = \"of a recorder\"\n[[encryption.key]]\ntenant = \"{TENANT}\"\nmetadata-key-file = \"metadata\"\npayload-key-file = \"payload\"\n"
    );
    std::fs::write(folder.path().join("keys.toml"), config).expect("writes");
    import(folder.path(), "encrypted", "keys.toml");
    let verify = ["sessions", "verify", "--strict", "--store", "encrypted"];
    let with = binary::run(folder.path(), &[&["--config", "keys.toml"], &verify[..]].concat());
    assert!(with.status.success(), "{}", binary::printed(&with));
    let without = binary::run(folder.path(), &verify);
    let said = String::from_utf8_lossy(&without.stderr).into_owned();
    assert_eq!(without.status.code(), Some(1), "{said}");
    assert!(said.contains("[[encryption.key]]") && said.contains("acme eu/metadata"), "{said}");
    let typo = binary::run(folder.path(), &[&["--config", "key.toml"], &verify[..]].concat());
    assert_eq!(typo.status.code(), Some(2), "{}", binary::printed(&typo));
}
