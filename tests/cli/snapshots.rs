//! Snapshots of everything that a person reads: help of each command, tables, main errors. `UPDATE_EXPECT=1` rewrites
//! them.

use std::path::{Path, PathBuf};

use expect_test::{ExpectFile, expect_file};
use tests::binary;

/// Runs the binary at a terminal width of 100 columns; returns stdout and stderr without the path of the folder.
fn text(folder: &Path, args: &[&str]) -> String {
    let output =
        binary::command(folder).env("COLUMNS", "100").args(args).output().expect("the binary starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let code = output.status.code().expect("an exit code");
    let text = format!("$ foreshadow {}\n{stdout}{stderr}exit code {code}\n", args.join(" "));
    text.replace(&format!("{}/", folder.display()), "")
}

fn check(expected: &ExpectFile, texts: &[String]) {
    expected.assert_eq(&texts.join("\n"));
}

/// The global options are the same in the help of every command.
fn without_global_options(help: &str) -> String {
    let (before, rest) = help.split_once("Global options:\n").expect("global options");
    let (_, after) = rest.split_once("[default: auto]\n\n").expect("--color is the last option");
    format!("{before}{after}")
}

#[test]
fn help_of_each_command() {
    let folder = tempfile::tempdir().expect("temp");
    let help = |words: &[&str]| {
        let text = text(folder.path(), &[words, &["--help"]].concat());
        if words.is_empty() { text } else { without_global_options(&text) }
    };
    let commands: [&[&str]; 18] = [
        &[],
        &["demo"],
        &["record"],
        &["archive"],
        &["import"],
        &["sessions"],
        &["sessions", "list"],
        &["sessions", "show"],
        &["sessions", "verify"],
        &["store"],
        &["store", "compact"],
        &["store", "expire"],
        &["store", "erase"],
        &["replay"],
        &["score"],
        &["analyze"],
        &["gate"],
        &["calibrate"],
    ];
    let texts: Vec<String> = commands.iter().map(|words| help(words)).collect();
    for text in &texts {
        assert!(text.contains("Example:\n  foreshadow "), "no example in:\n{text}");
        let long = text.lines().find(|line| line.chars().count() > 100);
        assert_eq!(long, None, "a line is longer than 100 columns");
    }
    check(&expect_file!["snapshots/help.txt"], &texts);
}

/// Two sessions, one with a tool call.
const SESSIONS: &str = r#"{"task_id":"refund","trial":0,"reward":1.0,"traj":[{"role":"user","content":"my kettle is broken"},{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"find_order","arguments":"{\"id\": 7}"}}]},{"role":"tool","tool_call_id":"c","content":"kettle, 39.95"},{"role":"assistant","content":"your refund is booked"},{"role":"user","content":"thanks"}]}
{"task_id":"question","trial":0,"reward":0.0,"traj":[{"role":"user","content":"where is my order?"},{"role":"assistant","content":"on its way"}]}
"#;

fn import_sessions(folder: &Path) -> String {
    std::fs::write(folder.join("shop.jsonl"), SESSIONS).expect("writes");
    text(folder, &["import", "--format", "tau-bench", "shop.jsonl", "--store", "store"])
}

#[test]
fn sessions_as_text() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    let texts = [
        import_sessions(folder),
        text(folder, &["sessions", "list", "--store", "store"]),
        text(folder, &["sessions", "show", "refund", "--store", "store"]),
        text(folder, &["sessions", "verify", "--store", "store"]),
    ];
    check(&expect_file!["snapshots/sessions.txt"], &texts);
}

/// Imports a run of an outcome table; every `failing`-th case fails.
fn import_run(folder: &Path, run: &str, lane: &str, failing: usize) {
    let rows: String =
        (0..120).map(|case| format!("c{case:03},0,{}\n", u8::from(case % failing != 0))).collect();
    std::fs::write(folder.join(format!("{run}.csv")), format!("case,trial,success\n{rows}")).expect("writes");
    let file = format!("{run}.csv");
    let args = ["import", "--format", "outcomes", &file, "--run", run, "--build", run, "--lane", lane];
    let output = binary::run(folder, &args);
    assert!(output.status.success(), "{}", binary::printed(&output));
}

#[test]
fn verdicts_as_text() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    import_run(folder, "base", "baseline", 40);
    import_run(folder, "same", "candidate", 40);
    import_run(folder, "worse", "candidate", 3);
    let analyze = |candidate| {
        text(folder, &["analyze", "--baseline", "base", "--candidate", candidate, "--out", "out"])
    };
    check(&expect_file!["snapshots/verdicts.txt"], &[analyze("same"), analyze("worse")]);
}

#[test]
fn main_errors() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    import_sessions(folder);
    import_run(folder, "base", "baseline", 40);
    std::fs::write(folder.join("bad.toml"), "[score.limits]\nmax-uds = 5\n").expect("writes");
    std::fs::write(folder.join("gate.toml"), "[gate]\nstore = \"store\"\nlokks = 3\n").expect("writes");
    std::fs::write(folder.join("policy.toml"), "policy = 1\n[metric.sucess]\nmargin = 0.1\n")
        .expect("writes");
    let lines = [
        "analyze --baseline base --candidate absent --out out",
        "analyze --baseline base --candidate store --out out",
        "analyze --baseline base --candidate ./base --out out",
        "analyze --baseline base --candidate base --policy policy.toml --out out",
        "calibrate --run base --splits 3",
        "sessions list --store absent",
        "sessions show no-such-session --store store",
        "sessions show shop --store store",
        "store erase --store store --session s",
        "score base --config bad.toml",
        "score store",
        "gate --config absent.toml",
        "gate --config gate.toml",
        "replay --store store --candidate absent.toml --run run",
        "import --format tau-bench absent.jsonl --store store",
        "import --format tau-bench shop.jsonl --store base",
        "import --format outcomes base.csv --store store",
        "record --config absent.toml",
        "archive --config absent.toml",
    ];
    let texts: Vec<String> =
        lines.iter().map(|line| text(folder, &line.split(' ').collect::<Vec<_>>())).collect();
    for text in &texts {
        assert!(text.contains("error: "), "no error in:\n{text}");
    }
    check(&expect_file!["snapshots/errors.txt"], &texts);
}

#[test]
fn every_snapshot_has_a_test() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("cli/snapshots");
    let mut found: Vec<String> = binary::files_below(&folder)
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    found.sort();
    assert_eq!(found, ["errors.txt", "help.txt", "sessions.txt", "verdicts.txt"]);
}
