//! Tests of `report.html` in a real browser, and of `junit.xml` and `otlp.json` with independent parsers.
//!
//! They need a Python with the packages of `requirements.txt` in `FORESHADOW_TEST_PYTHON`, and Chromium in
//! `FORESHADOW_TEST_CHROMIUM`. `tests/run` sets both. Without them a test prints that it was skipped, unless `CI` is set.

mod runs;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;

use analyzer::Policy;
use analyzer::report::{ReportInput, ReportMeta, Transcripts, report_html, transcript_sessions};
use runs::Shape;
use schemas::trial::Lane;
use tests::{binary, verdict};

/// The value of an environment variable; prints and returns `None` without it.
#[expect(clippy::print_stdout, reason = "the developer sees which tests were skipped")]
fn required_path(variable: &str) -> Option<String> {
    let path = std::env::var(variable).ok();
    if path.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI must set {variable} (tests/run does)");
        println!("skipped: {variable} is not set");
    }
    path
}

#[expect(clippy::print_stdout, reason = "the developer sees the measurements")]
fn python(python: &str, script: &str, args: &[&Path]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("report").join(script);
    let output = Command::new(python).arg(script).args(args).output().expect("Python starts");
    assert!(output.status.success(), "{}", binary::printed(&output));
    println!("{}", String::from_utf8_lossy(&output.stdout));
}

/// The page of two made-up runs.
fn page(shape: Shape, policy: &Policy) -> String {
    let (baseline, candidate) = (runs::run(shape, Lane::Baseline), runs::run(shape, Lane::Candidate));
    let analysis = analyzer::analyze_once(policy, &baseline, &candidate, None, 7).expect("two runs");
    verdict::assert_conforms(&serde_json::to_value(&analysis.verdict).expect("JSON"));
    let none = Transcripts::new();
    let input = ReportInput {
        baseline: &baseline,
        candidate: &candidate,
        recorded: None,
        policy,
        transcripts: &none,
    };
    let transcripts = runs::transcripts(shape, transcript_sessions(&analysis, &input).expect("two runs"));
    let hostile = if shape.hostile { runs::HOSTILE } else { "" };
    let meta =
        ReportMeta { title: hostile.to_owned(), commands: vec![format!("foreshadow analyze {hostile}")] };
    report_html(&analysis, &ReportInput { transcripts: &transcripts, ..input }, &meta).expect("renders")
}

fn policy(text: &str) -> Policy {
    Policy::parse(text).expect("a policy")
}

/// Imports two real runs with the binary and analyzes them; returns the output folder.
fn analyze_real_runs(folder: &Path) -> PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tau-bench-retail-variants");
    let tools = data.join("tools.retail.json");
    for (file, run, lane) in
        [("baseline-tool-calling", "base", "baseline"), ("variant-assertions-v1", "v1", "candidate")]
    {
        let file = data.join(format!("{file}.jsonl.zst"));
        let (file, tools) = (file.to_string_lossy(), tools.to_string_lossy());
        let args = ["import", "--format", "tau-bench", &file, "--run", run, "--build", run];
        let done = binary::run(folder, &[&args[..], &["--lane", lane, "--tools", &tools]].concat());
        assert!(done.status.success(), "{}", binary::printed(&done));
    }
    let done = binary::run(folder, &["analyze", "--baseline", "base", "--candidate", "v1", "--out", "real"]);
    assert_eq!(done.status.code(), Some(3), "{}", binary::printed(&done));
    verdict::read(&folder.join("real"));
    folder.join("real")
}

#[test]
fn pages_work_in_a_browser_and_run_no_text_of_a_session() {
    let (Some(interpreter), Some(chromium)) =
        (required_path("FORESHADOW_TEST_PYTHON"), required_path("FORESHADOW_TEST_CHROMIUM"))
    else {
        return;
    };
    let folder = tempfile::tempdir().expect("temp");
    let hostile = Shape { cases: 30, trials: 3, calls: 4, hostile: true };
    let declared = policy("policy = 1\n[invariant.idempotency]\non = true\n");
    std::fs::write(folder.path().join("hostile.html"), page(hostile, &declared)).expect("writes");
    let plain = Shape { cases: 200, trials: 5, calls: 8, hostile: false };
    std::fs::write(folder.path().join("plain.html"), page(plain, &Policy::default())).expect("writes");
    let report = std::fs::read(analyze_real_runs(folder.path()).join("report.html")).expect("is written");
    std::fs::write(folder.path().join("real.html"), report).expect("writes");
    python(&interpreter, "browse.py", &[Path::new(&chromium), folder.path()]);
}

#[test]
#[ignore = "measures a page of 2,000 cases with 5 trials per lane"]
fn a_page_of_two_thousand_cases_opens() {
    let (Some(interpreter), Some(chromium)) =
        (required_path("FORESHADOW_TEST_PYTHON"), required_path("FORESHADOW_TEST_CHROMIUM"))
    else {
        return;
    };
    let folder = tempfile::tempdir().expect("temp");
    let shape = Shape { cases: 2000, trials: 5, calls: 15, hostile: false };
    std::fs::write(folder.path().join("large.html"), page(shape, &Policy::default())).expect("writes");
    python(&interpreter, "browse.py", &[Path::new(&chromium), folder.path()]);
}

/// Serves one request on loopback; the thread returns its head and body.
fn collector() -> (SocketAddr, JoinHandle<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("has one");
    let request = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client connects");
        let mut reader = BufReader::new(&stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).expect("reads") > 0, "the request ends early: {head}");
        }
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.expect("the request has a content-length")];
        reader.read_exact(&mut body).expect("reads");
        (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").expect("writes");
        (head, body)
    });
    (address, request)
}

#[test]
fn a_collector_receives_the_events_and_its_absence_changes_no_exit_code() {
    let folder = tempfile::tempdir().expect("temp");
    let out = analyze_real_runs(folder.path());
    let analyze = |url: &str| {
        let args = ["analyze", "--baseline", "base", "--candidate", "v1", "--out", "real", "--otlp", url];
        binary::command(folder.path())
            .args(args)
            .env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=s3cret")
            .output()
            .expect("the binary starts")
    };
    let (address, request) = collector();
    let done = analyze(&format!("http://{address}"));
    assert_eq!(done.status.code(), Some(3), "{}", binary::printed(&done));
    let (head, body) = request.join().expect("the collector received a request");
    assert!(head.starts_with("POST /v1/logs HTTP/1.1\r\n") && head.contains("x-key: s3cret"), "{head}");
    assert_eq!(body, std::fs::read(out.join("otlp.json")).expect("is written"));

    let unused = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let done = analyze(&format!("http://{unused}"));
    assert_eq!(done.status.code(), Some(3), "{}", binary::printed(&done));
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(stderr.contains("sending its events to --otlp failed") && !stderr.contains("s3cret"), "{stderr}");
    let done = analyze("nowhere");
    assert_eq!(done.status.code(), Some(2), "{}", binary::printed(&done));
}

#[test]
fn junit_xml_and_otlp_json_parse_with_independent_parsers() {
    let Some(interpreter) = required_path("FORESHADOW_TEST_PYTHON") else { return };
    let folder = tempfile::tempdir().expect("temp");
    let out = analyze_real_runs(folder.path());
    python(&interpreter, "files.py", &[&out]);
}
