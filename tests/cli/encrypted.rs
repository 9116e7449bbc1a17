//! With keys for a tenant, every file from import to verdict is encrypted, and no command reads it without the keys.

use std::path::{Path, PathBuf};

use tests::binary::{self, printed};

fn run(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let finished = binary::run(folder, args);
    (finished.status.code(), printed(&finished))
}

/// Runs a command that must succeed.
fn succeed(folder: &Path, args: &[&str]) {
    let (code, output) = run(folder, args);
    assert_eq!(code, Some(0), "{args:?}: {output}");
}

#[test]
fn every_file_from_import_to_verdict_is_encrypted() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    for (name, byte) in [("metadata.key", "1a"), ("payload.key", "2b")] {
        std::fs::write(folder.join(name), byte.repeat(32)).expect("writes");
    }
    let config = "[[encryption.key]]\ntenant = \"default\"\nmetadata-key-file = \"metadata.key\"\npayload-key-file = \"payload.key\"\n";
    std::fs::write(folder.join("foreshadow.toml"), config).expect("writes");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tau-bench/gpt-4o-airline.jsonl.zst");
    let data = data.to_str().expect("utf-8");
    succeed(folder, &["import", "--format", "tau-bench", data, "--store", "store", "--limit", "10"]);
    for (build, lane) in [("current", "baseline"), ("next", "candidate")] {
        let candidate = format!(
            "candidate = 1\nkind = \"command\"\nbuild = \"{build}\"\n[command]\nargv = [\"sh\", \"-c\", \"cat >/dev/null; echo fine\"]\n"
        );
        std::fs::write(folder.join("candidate.toml"), candidate).expect("writes");
        let replay =
            ["replay", "--store", "store", "--candidate", "candidate.toml", "--run", build, "--lane", lane];
        succeed(
            folder,
            &[&replay[..], &["--trials", "1", "--delay-scale", "0", "--allow-open-egress"]].concat(),
        );
        succeed(folder, &["score", build]);
    }
    let analyze = ["analyze", "--baseline", "current", "--candidate", "next", "--out", "verdict"];
    let (code, output) = run(folder, &analyze);
    assert_eq!(code, Some(4), "ten sessions are too few to decide: {output}");

    // Without the keys, the error names the missing key.
    std::fs::rename(folder.join("foreshadow.toml"), folder.join("keys.toml")).expect("moves");
    for args in [
        &analyze[..],
        &["sessions", "verify", "--store", "store"],
        &["sessions", "list", "--store", "current"],
    ] {
        let (code, output) = run(folder, args);
        assert_eq!(code, Some(1), "{args:?}: {output}");
        assert!(output.contains("[[encryption.key]]") && output.contains("default/"), "{args:?}: {output}");
    }
    succeed(folder, &["--config", "keys.toml", "sessions", "verify", "--store", "store"]);
    let files: Vec<PathBuf> = ["store", "current", "next"]
        .iter()
        .flat_map(|place| binary::files_below(&folder.join(place)))
        .filter(|path| path.extension().is_some_and(|extension| extension == "parquet"))
        .collect();
    assert!(files.len() > 12, "{files:?}");
    for file in files {
        let bytes = std::fs::read(&file).expect("reads");
        assert!(bytes.windows(12).any(|part| part == b"masterKeyID\""), "{} names no key", file.display());
    }
}
