//! Verdicts on recorded benchmark sessions with a known difference.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::{binary, verdict};

fn data(path: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(path);
    assert!(path.exists(), "{} is missing", path.display());
    path.to_string_lossy().into_owned()
}

fn import(folder: &Path, format: &str, file: &str, run: &str, lane: &str, more: &[&str]) {
    let file = data(file);
    let mut args = vec!["import", "--format", format, &file, "--run", run, "--build", run, "--lane", lane];
    args.extend(more);
    let output = binary::run(folder, &args);
    assert!(output.status.success(), "{args:?}: {}", binary::printed(&output));
}

/// Analyzes two runs; returns the exit code and the verdict, which must equal verdict.json.
fn analyze(folder: &Path, baseline: &str, candidate: &str, policy: Option<&str>) -> (i32, Value) {
    let out = format!("out-{baseline}-{candidate}");
    let mut args = vec!["--json", "analyze", "--baseline", baseline, "--candidate", candidate, "--out", &out];
    if let Some(policy) = policy {
        std::fs::write(folder.join("policy.toml"), policy).expect("writes");
        args.extend(["--policy", "policy.toml"]);
    }
    let output = binary::run(folder, &args);
    let code = output.status.code().expect("was not killed");
    assert!(matches!(code, 0 | 3 | 4), "{args:?}: {}", binary::printed(&output));
    let printed: Value = serde_json::from_slice(&output.stdout).expect("prints JSON");
    let out = folder.join(out);
    let written = verdict::read(&out);
    assert_eq!(printed, written);
    for name in ["report.html", "summary.md", "junit.xml", "otlp.json"] {
        assert!(out.join(name).metadata().expect("is written").len() > 200, "{name} is nearly empty");
    }
    let word = match code {
        0 => "approve",
        3 => "block",
        _ => "inconclusive",
    };
    assert_eq!(written["verdict"], word);
    (code, written)
}

fn reasons(verdict: &Value) -> Vec<(&str, &str)> {
    let reasons = verdict["reasons"].as_array().expect("has reasons").iter();
    reasons.map(|r| (r["code"].as_str().unwrap_or(""), r["metric"].as_str().unwrap_or(""))).collect()
}

#[test]
fn a_known_regression_is_blocked_and_a_small_sample_is_inconclusive() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    let file = |name: &str| format!("tau-bench-retail-variants/{name}.jsonl.zst");
    import(folder, "tau-bench", &file("baseline-tool-calling"), "base", "baseline", &[]);
    import(folder, "tau-bench", &file("variant-assertions-v1"), "v1", "candidate", &[]);
    import(folder, "tau-bench", &file("variant-preconditions"), "pre", "candidate", &[]);

    let (code, verdict) = analyze(folder, "base", "v1", None);
    assert_eq!(code, 3, "{verdict:#}");
    assert!(reasons(&verdict).contains(&("deteriorated", "success")), "{verdict:#}");
    assert_eq!(verdict["pairs"]["paired"], 50);

    let (code, verdict) = analyze(folder, "base", "pre", None);
    assert_eq!(code, 4, "{verdict:#}");
    let need = verdict["need"]["cases"].as_u64().expect("says how many");
    assert!((100..5000).contains(&need) && need != 59, "need.cases = {need}: some hundreds, not the floor");
}

#[test]
fn trials_of_one_model_are_never_blocked_on_success() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    for trial in ["0", "1", "2", "3"] {
        for lane in ["baseline", "candidate"] {
            let run = format!("{lane}{trial}");
            import(
                folder,
                "tau-bench",
                "tau-bench/gpt-4o-airline.jsonl.zst",
                &run,
                lane,
                &["--trial", trial],
            );
        }
    }
    for baseline in 0..4 {
        for candidate in (0..4).filter(|candidate| *candidate != baseline) {
            let (baseline, candidate) = (format!("baseline{baseline}"), format!("candidate{candidate}"));
            let (code, verdict) =
                analyze(folder, &baseline, &candidate, Some("policy = 1\nmetrics = [\"success\"]\n"));
            assert_ne!(code, 3, "{baseline} against {candidate}: {verdict:#}");
            assert_eq!(verdict["pairs"]["paired"], 25);
        }
    }
}

#[test]
fn a_clear_improvement_is_approved() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    import(folder, "tau2", "tau2-bench/telecom-no-user__gpt-4.1.jsonl.zst", "base", "baseline", &[]);
    import(folder, "tau2", "tau2-bench/telecom-no-user__gpt-4.1-sft.jsonl.zst", "sft", "candidate", &[]);
    let (code, verdict) = analyze(folder, "base", "sft", None);
    assert_ne!(code, 3, "{verdict:#}");
    let policy = "policy = 1\nmetrics = [\"success\"]\n[metric.success]\nmargin = 0.10\n";
    let (code, verdict) = analyze(folder, "base", "sft", Some(policy));
    assert_eq!(code, 0, "{verdict:#}");
}

#[test]
fn the_same_file_is_not_imported_twice() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    import(folder, "tau-bench", "tau-bench/gpt-4o-airline.jsonl.zst", "run", "baseline", &[]);
    let file = data("tau-bench/gpt-4o-airline.jsonl.zst");
    let args =
        ["import", "--format", "tau-bench", &file, "--run", "run", "--build", "run", "--lane", "baseline"];
    let output = binary::run(folder, &args);
    assert_eq!(output.status.code(), Some(2), "{}", binary::printed(&output));
}
