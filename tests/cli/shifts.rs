//! Changes that two runs side by side do not show: since a reference build, between runs of one build, in the tail of
//! the cost.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use tests::binary::{self, printed};

/// Number of the 200 cases whose every trial succeeds, with the cost of a trial of each case.
fn make_run(folder: &Path, run: &str, lane: &str, build: &str, succeed: usize, cost: impl Fn(usize) -> f64) {
    let mut rows = "case,trial,success,cost\n".to_owned();
    for case in 0..200 {
        for trial in 0..2 {
            let noise = f64::from(u32::try_from((case * 7 + trial * 13) % 10).expect("small"));
            let cost = cost(case) * (0.9 + 0.02 * noise);
            // Spread over the cases, so that two runs fail in different ones.
            let success = u8::from((case * 37 + trial) % 200 < succeed);
            let _ = writeln!(rows, "c{case:03},{trial},{success},{cost}");
        }
    }
    std::fs::write(folder.join(format!("{run}.csv")), rows).expect("writes");
    let file = format!("{run}.csv");
    let args = ["import", "--format", "outcomes", &file, "--run", run, "--build", build, "--lane", lane];
    let output = binary::run(folder, &args);
    assert!(output.status.success(), "{}", printed(&output));
}

fn verdict(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("out/verdict.json")).expect("reads")).expect("JSON")
}

fn analyze(folder: &Path, policy: &str, more: &[&str]) -> Option<i32> {
    std::fs::write(folder.join("policy.toml"), policy).expect("writes");
    let mut args = vec![
        "analyze",
        "--baseline",
        "base",
        "--candidate",
        "cand",
        "--policy",
        "policy.toml",
        "--out",
        "out",
    ];
    args.extend(more);
    let output = binary::run(folder, &args);
    output.status.code()
}

const SUCCESS: &str = "metrics = [\"success\"]\n";

#[test]
fn the_sum_of_small_losses_since_the_reference_is_shown_and_blocks_when_asked() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    make_run(folder, "first", "baseline", "v1", 196, |_| 1.0);
    make_run(folder, "base", "baseline", "v9", 160, |_| 1.0);
    make_run(folder, "cand", "candidate", "v10", 158, |_| 1.0);
    assert_ne!(analyze(folder, SUCCESS, &[]), Some(3));
    assert_eq!(verdict(folder)["since"], json!(null));
    assert_ne!(analyze(folder, SUCCESS, &["--reference", "first"]), Some(3));
    let shown = verdict(folder);
    let effect = shown["since"]["metrics"][0]["effect"].as_f64().expect("a number");
    assert!((effect + 0.19).abs() < 0.01, "{effect}");
    assert_eq!(shown["since"]["effect"], json!("shown"));
    let blocks = format!("{SUCCESS}[reference]\nrun = \"first\"\nblocks = true\n");
    assert_eq!(analyze(folder, &blocks, &[]), Some(3));
    assert_eq!(verdict(folder)["reasons"][0]["code"], json!("worse_than_reference"));
}

#[test]
fn a_block_must_exceed_what_runs_of_one_build_differ_by() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    make_run(folder, "base", "baseline", "v1", 190, |_| 1.0);
    make_run(folder, "later", "baseline", "v1", 165, |_| 1.0);
    make_run(folder, "cand", "candidate", "v2", 160, |_| 1.0);
    assert_eq!(analyze(folder, SUCCESS, &[]), Some(3));
    let args = ["--json", "calibrate", "--run", "base", "--against", "later", "--splits", "10"];
    let args = [&args[..], &["--policy", "policy.toml", "--out", "calibration.json"]].concat();
    let output = binary::run(folder, &args);
    assert!(output.status.success(), "{}", printed(&output));
    let calibration: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let between = &calibration["metrics"][0]["between"];
    assert_eq!((&between["drifts"], &between["freedom"]), (&json!(true), &json!(1)), "{between}");
    assert_eq!(analyze(folder, SUCCESS, &["--calibration", "calibration.json"]), Some(4));
}

#[test]
fn a_required_cost_is_what_is_paid() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    make_run(folder, "base", "baseline", "v1", 200, |_| 1.0);
    make_run(folder, "cand", "candidate", "v2", 200, |case| if case % 50 == 0 { 20.0 } else { 1.0 });
    let required = "[metric.cost]\nrequired = true\n";
    let code = analyze(folder, required, &[]);
    assert!(code != Some(0), "{code:?}");
    let found = verdict(folder);
    let metric = |name: &str| {
        let all = found["metrics"].as_array().expect("a list");
        all.iter().find(|metric| metric["name"] == name).cloned().expect("measured")
    };
    assert_eq!(metric("cost_mean")["required"], json!(true));
    assert!(metric("cost_mean")["tail"][1].as_f64().expect("a share") > 0.25);
}
