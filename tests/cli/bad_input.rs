//! Bad input: the error names the cause, the exit code is right, and no output file is left.

use std::path::Path;
use std::process::Output;

use tests::binary::{self, files_below, printed};

/// Imports a run of an outcome table with ten cases.
fn make_run(folder: &Path, run: &str, lane: &str) {
    let rows: String = (0..10).map(|case| format!("c{case},0,{}\n", case % 2)).collect();
    std::fs::write(folder.join(format!("{run}.csv")), format!("case,trial,success\n{rows}")).expect("writes");
    let file = format!("{run}.csv");
    let args = ["import", "--format", "outcomes", &file, "--run", run, "--build", run, "--lane", lane];
    let output = binary::run(folder, &args);
    assert!(output.status.success(), "{}", printed(&output));
}

fn analyze(folder: &Path, more: &[&str]) -> Output {
    let mut args = vec!["analyze", "--baseline", "base", "--candidate", "cand", "--out", "out"];
    args.extend(more);
    binary::run(folder, &args)
}

/// The command failed with this code, its error contains all of these words, and it wrote no output.
fn assert_refused(folder: &Path, output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.status.code(), Some(code), "{}", printed(output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in:\n{stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
    let out = folder.join("out");
    assert!(!out.exists() || files_below(&out).is_empty(), "output files: {:?}", files_below(&out));
}

fn two_runs() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("temp");
    make_run(folder.path(), "base", "baseline");
    make_run(folder.path(), "cand", "candidate");
    folder
}

fn file_with_extension(folder: &Path, extension: &str) -> std::path::PathBuf {
    let mut files = files_below(folder);
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.pop().expect("a file")
}

#[test]
fn a_truncated_parquet_file_is_an_error() {
    let folder = two_runs();
    let path = file_with_extension(&folder.path().join("cand"), "parquet");
    let bytes = std::fs::read(&path).expect("reads");
    std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("writes");
    assert_refused(folder.path(), &analyze(folder.path(), &[]), 1, &["truncated", "cand", ".parquet"]);
}

#[test]
fn a_file_of_another_version() {
    let folder = two_runs();
    let path = folder.path().join("cand/run.json");
    let text = std::fs::read_to_string(&path)
        .expect("reads")
        .replace(&format!("\"format\": {}", schemas::FORMAT), "\"format\": 7");
    std::fs::write(&path, text).expect("writes");
    assert_refused(folder.path(), &analyze(folder.path(), &[]), 1, &["version 7", "version 2"]);
}

#[test]
fn an_empty_and_a_missing_folder_are_usage_errors() {
    let folder = two_runs();
    std::fs::remove_dir_all(folder.path().join("cand")).expect("removes");
    assert_refused(folder.path(), &analyze(folder.path(), &[]), 2, &["cand"]);
    std::fs::create_dir(folder.path().join("cand")).expect("makes");
    assert_refused(folder.path(), &analyze(folder.path(), &[]), 2, &["cand"]);
}

#[test]
fn a_typo_in_a_policy_is_named_with_the_known_keys() {
    let folder = two_runs();
    std::fs::write(folder.path().join("p.toml"), "policy = 1\n[metric.sucess]\nmargin = 0.1\n")
        .expect("writes");
    let output = analyze(folder.path(), &["--policy", "p.toml"]);
    assert_refused(folder.path(), &output, 2, &["p.toml", "sucess", "success"]);
    std::fs::write(folder.path().join("p.toml"), "policy = 1\nalhpa = 0.1\n").expect("writes");
    assert_refused(
        folder.path(),
        &analyze(folder.path(), &["--policy", "p.toml"]),
        2,
        &["p.toml", "alhpa", "alpha"],
    );
}

#[test]
fn swapped_and_equal_runs_are_refused() {
    let folder = two_runs();
    let swapped = ["analyze", "--baseline", "cand", "--candidate", "base", "--out", "out"];
    assert_refused(folder.path(), &binary::run(folder.path(), &swapped), 2, &["swap", "cand", "base"]);
    let same = ["analyze", "--baseline", "base", "--candidate", "./base", "--out", "out"];
    assert_refused(folder.path(), &binary::run(folder.path(), &same), 2, &["same run"]);
}

#[test]
fn unreadable_rows_are_skipped_and_named() {
    let folder = tempfile::tempdir().expect("temp");
    std::fs::write(folder.path().join("t.csv"), "case,trial,success\na,0,1\nb,zero,1\nc,0,maybe\n")
        .expect("writes");
    let args = [
        "import",
        "--format",
        "outcomes",
        "t.csv",
        "--run",
        "r",
        "--build",
        "b",
        "--lane",
        "baseline",
        "--max-skipped",
        "2",
    ];
    let output = binary::run(folder.path(), &args);
    assert!(output.status.success(), "{}", printed(&output));
    let stderr = printed(&output);
    for words in ["t.csv", "zero", "trial", "maybe", "success"] {
        assert!(stderr.contains(words), "{words:?} is not in:\n{stderr}");
    }
}

#[test]
fn wrong_usage_of_every_command_exits_with_2() {
    let folder = tempfile::tempdir().expect("temp");
    for args in [
        &["nonsense"][..],
        &["record", "--config", "absent.toml"],
        &["import", "--format", "tau-bench", "absent.jsonl", "--run", "r", "--build", "b"],
        &["import", "--format", "tau-bench", "x"],
        &["sessions", "list", "--store", "absent"],
        &["replay", "--store", "absent", "--candidate", "absent.toml", "--run", "r"],
        &["analyze", "--baseline", "absent"],
    ] {
        let output = binary::run(folder.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", printed(&output));
        assert!(!output.stderr.is_empty(), "{args:?} prints no error");
    }
}
