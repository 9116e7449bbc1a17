//! `gate`, `calibrate` and the looks of `analyze`.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::binary;
use tests::process::Running;

fn data(path: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(path);
    path.to_string_lossy().into_owned()
}

fn run(folder: &Path, args: &[&str]) -> (i32, Value) {
    let output = binary::run(folder, args);
    let code = output.status.code().expect("was not killed");
    assert!(matches!(code, 0 | 3 | 4), "{args:?}: {}", binary::printed(&output));
    (code, serde_json::from_slice(&output.stdout).expect("prints JSON"))
}

/// Imports a hundred recorded sessions, and writes two candidates that answer every turn with one text.
fn prepare(folder: &Path, answers: [&str; 2]) {
    let (file, tools) = (data("tau-bench/gpt-4o-airline.jsonl.zst"), data("tau-bench/tools.airline.json"));
    let args = ["import", "--format", "tau-bench", &file, "--store", "store", "--tools", &tools];
    let output = binary::run(folder, &args);
    assert!(output.status.success(), "{}", binary::printed(&output));
    for (name, answer) in ["current", "next"].into_iter().zip(answers) {
        let candidate = format!(
            "candidate = 1\nkind = \"command\"\nbuild = \"{name}\"\n[command]\nargv = [\"sh\", \"-c\", \"cat >/dev/null; echo {answer}\"]\n"
        );
        std::fs::write(folder.join(format!("{name}.toml")), candidate).expect("writes");
    }
}

fn write_gate(folder: &Path, policy: &str, more: &str) {
    std::fs::write(folder.join("policy.toml"), policy).expect("writes");
    let text = format!(
        "[gate]\nstore = \"store\"\nbaseline = \"current.toml\"\ncandidate = \"next.toml\"\nruns = \"runs\"\nout = \"verdict\"\n\
         policy = \"policy.toml\"\ntrials = 1\nlooks = 2\nconcurrency = 8\ndelay-scale = 0.0\nallow-open-egress = true\n{more}"
    );
    std::fs::write(folder.join("gate.toml"), text).expect("writes");
}

/// Both builds fail wherever the recording writes: eight of a hundred sessions. A session that only reads has no outcome without
/// embedded answers. So the margin is wide, and the policy accepts a baseline that fails.
const WIDE: &str = "least-baseline-success = 0.0\nmetrics = [\"success\"]\n[metric.success]\nmargin = 0.9\n[fidelity]\nmax-missed = 1.0\n";

#[test]
fn a_gate_stops_early_and_locks_its_plan() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    prepare(folder, ["fine", "well"]);
    write_gate(folder, WIDE, "");
    let (code, verdict) = run(folder, &["--json", "gate", "--config", "gate.toml"]);
    assert_eq!(code, 0, "{}", verdict["reasons"]);
    let history = &verdict["monitoring"]["look_history"];
    assert_eq!((history["kind"].as_str(), history["stopped_early"].as_bool()), (Some("looks"), Some(true)));
    assert_eq!((history["cases"].as_u64(), history["planned_cases"].as_u64()), (Some(50), Some(100)));
    assert_eq!(verdict["pairs"]["trials_candidate"], 50);
    for name in ["verdict.json", "report.html", "summary.md", "junit.xml"] {
        assert!(folder.join("verdict").join(name).exists(), "{name} is missing");
    }
    tests::verdict::read(&folder.join("verdict"));
    let lock: Value = serde_json::from_slice(&std::fs::read(folder.join("runs/gate.json")).expect("reads"))
        .expect("is JSON");
    assert_eq!(lock["policy_digest"], verdict["policy_digest"]);
    // A resume gives the same verdict without a further trial; another policy is refused.
    let again = run(folder, &["--json", "gate", "--config", "gate.toml", "--resume"]).1;
    assert_eq!(again, verdict);
    write_gate(folder, &WIDE.replace("0.9", "0.8"), "");
    let refused = binary::run(folder, &["gate", "--config", "gate.toml", "--resume"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(binary::printed(&refused).contains("policy (digest)"), "{}", binary::printed(&refused));
}

#[test]
fn a_gate_blocks_on_a_violated_invariant_and_refuses_a_corpus_that_is_too_small() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    prepare(folder, ["fine", "rude"]);
    write_gate(folder, "", "sessions = 40\n");
    let refused = binary::run(folder, &["gate", "--config", "gate.toml"]);
    assert_eq!(refused.status.code(), Some(2), "{}", binary::printed(&refused));
    assert!(binary::printed(&refused).contains("success needs at least 59 sessions"));
    assert!(!folder.join("runs").exists(), "no trial ran");
    let strict = format!("{WIDE}[invariant.answer-schema]\nschema = {{ enum = [\"fine\"] }}\n");
    write_gate(folder, &strict, "sessions = 20\n");
    let (code, verdict) = run(folder, &["--json", "gate", "--config", "gate.toml", "--extend"]);
    assert_eq!((code, verdict["reasons"][0]["code"].as_str()), (3, Some("invariant_violated")));
    assert_eq!(verdict["monitoring"]["look_history"]["plan_share"], 0.8);
    assert_eq!(verdict["monitoring"]["look_history"]["cases"], 10);
}

#[test]
fn an_extension_continues_after_an_inconclusive_plan() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    prepare(folder, ["fine", "well"]);
    // Nine sessions are just too few for this margin, with the share of alpha that the plan has.
    let policy = "least-baseline-success = 0.0\nmetrics = [\"latency\"]\n[metric.latency]\nmargin-ratio = 1.5\nrequired = true\n[fidelity]\nmax-missed = 1.0\n";
    write_gate(folder, policy, "sessions = 9\n");
    let (code, verdict) = run(folder, &["--json", "gate", "--config", "gate.toml", "--extend"]);
    assert_eq!((code, verdict["reasons"][0]["code"].as_str()), (0, Some("non_inferior")), "{verdict}");
    let history = &verdict["monitoring"]["look_history"];
    assert_eq!((history["planned_looks"].as_u64(), history["planned_cases"].as_u64()), (Some(2), Some(9)));
    assert_eq!(
        (history["plan_share"].as_f64(), history["stopped_early"].as_bool()),
        (Some(0.8), Some(false))
    );
    let looks = history["looks"].as_array().expect("looks");
    assert_eq!(history["extension_looks"].as_u64(), Some(looks.len() as u64 - 2));
    let answers: Vec<&str> = looks.iter().filter_map(|look| look["decision"].as_str()).collect();
    let (last, before) = answers.split_last().expect("a look");
    assert!(*last == "approve" && before.iter().all(|answer| *answer == "inconclusive"), "{answers:?}");
    for (number, look) in looks.iter().enumerate() {
        assert_eq!(look["boundary"].is_number(), number < 2, "only planned looks have a boundary: {look}");
        assert!(look["cases"].as_u64() > Some(4 * (number as u64)), "{look}");
    }
    // The extension is part of the locked plan.
    let refused = binary::run(folder, &["gate", "--config", "gate.toml", "--resume"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        binary::printed(&refused).contains("the extension was fixed as true"),
        "{}",
        binary::printed(&refused)
    );
}

#[test]
fn a_stopped_replay_keeps_its_trials_and_resumes() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    prepare(folder, ["fine", "fine"]);
    // The twentieth turn hangs until the file `free` exists.
    let script = "cat >/dev/null; echo >>turns; \
                  if [ ! -e free ] && [ $(wc -l <turns) -eq 20 ]; then touch stuck; sleep 600; fi; echo fine";
    let candidate = format!(
        "candidate = 1\nkind = \"command\"\nbuild = \"next\"\n[command]\nargv = [\"sh\", \"-c\", '''{script}''']\n"
    );
    std::fs::write(folder.join("next.toml"), candidate).expect("writes");
    let args = [
        &["replay", "--store", "store", "--candidate", "next.toml", "--run", "run", "--trials", "1"][..],
        &["--sessions", "10", "--concurrency", "1", "--delay-scale", "0", "--allow-open-egress"][..],
    ]
    .concat();
    let running = Running::start(folder, &args);
    let mut polls = 0;
    while !folder.join("stuck").exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
        polls += 1;
        assert!(polls < 6_000, "the twentieth turn does not start:\n{}", running.output());
    }
    running.signal("TERM");
    let (status, said) = running.wait();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains("of 10 trials; finished trials are kept; repeat the command with --resume"),
        "{said}"
    );
    std::fs::write(folder.join("free"), "").expect("writes");
    let rest = run(folder, &[&["--json"], &args[..], &["--resume"]].concat()).1;
    let (already, ran) = (rest["already"].as_u64(), rest["ran"].as_u64());
    assert!(already.is_some_and(|already| (1..10).contains(&already)), "{rest}\n{said}");
    assert_eq!(already.zip(ran).map(|(already, ran)| already + ran), Some(10), "{rest}");
}

#[test]
fn looks_and_calibration_of_finished_runs() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    let file = data("tau-bench/gpt-4o-airline.jsonl.zst");
    for (lane, build) in [("baseline", "a"), ("candidate", "b")] {
        let args =
            ["import", "--format", "tau-bench", &file, "--run", build, "--build", build, "--lane", lane];
        let output = binary::run(folder, &args);
        assert!(output.status.success(), "{}", binary::printed(&output));
    }
    let (_, looked) = run(
        folder,
        &["--json", "analyze", "--baseline", "a", "--candidate", "b", "--looks", "4", "--out", "looks"],
    );
    let looks = looked["monitoring"]["look_history"]["looks"].as_array().expect("looks");
    assert_eq!(looks.len() as u64, looked["looks"].as_u64().expect("a number"));
    assert!(looks.len() <= 4 && looks[0]["boundary"].as_f64().is_some_and(|bound| bound > 3.5), "{looks:?}");
    let (_, anytime) = run(
        folder,
        &["--json", "analyze", "--baseline", "a", "--candidate", "b", "--anytime", "--out", "anytime"],
    );
    assert_eq!(anytime["monitoring"]["look_history"]["kind"], "anytime");
    let (code, calibration) =
        run(folder, &["--json", "calibrate", "--run", "a", "--splits", "20", "--out", "calibration.json"]);
    assert_eq!((code, calibration["splits"].as_u64()), (0, Some(20)));
    assert!(calibration["false_block"].as_f64().is_some_and(|rate| rate <= 0.25), "{calibration}");
    let args =
        ["--json", "analyze", "--baseline", "a", "--candidate", "b", "--calibration", "calibration.json"];
    let (_, verdict) = run(folder, &[&args[..], &["--out", "one"]].concat());
    assert_eq!(verdict["calibration"], calibration);
}
