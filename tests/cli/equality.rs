//! Two writes are equal when they do the same: by canonical JSON, and by what the policy declares or the baseline shows.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use tests::binary;

/// More cases than the floor of `success` at its default margin.
const CASES: usize = 80;

/// Imports a run in which every trial makes one write with these arguments.
fn import(folder: &Path, lane: &str, run: &str, trials: usize, arguments: &dyn Fn(usize, usize) -> String) {
    let mut text = String::new();
    for case in 0..CASES {
        for trial in 0..trials {
            let call = json!({"id": "c1", "type": "function",
                "function": {"name": "close_account", "arguments": arguments(case, trial)}});
            let messages = json!([
                {"role": "user", "content": format!("Please close the account of case {case}.")},
                {"role": "assistant", "content": null, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "name": "close_account", "content": "closed"},
                {"role": "assistant", "content": format!("The account of case {case} is closed.")},
            ]);
            let row = json!({"task_id": case, "trial": trial, "traj": messages});
            let _ = writeln!(text, "{row}");
        }
    }
    let file = format!("{run}.jsonl");
    std::fs::write(folder.join(&file), text).expect("writes");
    std::fs::write(folder.join("tools.json"), r#"[{"name":"close_account","effect":"write"}]"#)
        .expect("writes");
    let args = ["import", "--format", "tau-bench", &file, "--run", run, "--build", run, "--lane", lane];
    let output = binary::run(folder, &[&args[..], &["--tools", "tools.json"]].concat());
    assert!(output.status.success(), "{}", binary::printed(&output));
}

fn analyze(folder: &Path, candidate: &str, policy: &str) -> Output {
    std::fs::write(folder.join("policy.toml"), policy).expect("writes");
    let runs = ["--recorded", "recorded", "--baseline", "baseline", "--candidate", candidate];
    let rest = ["--policy", "policy.toml", "--out", "out"];
    binary::run(folder, &[&["--json", "analyze"][..], &runs, &rest].concat())
}

fn code(folder: &Path, candidate: &str, policy: &str) -> (i32, String) {
    let output = analyze(folder, candidate, policy);
    (output.status.code().expect("was not killed"), binary::printed(&output))
}

#[test]
fn a_write_that_does_something_else_is_not_approved() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    let usual = r#"{"account":"DE02GNy","amount":18446744073709551616,"count":1,"limit":null}"#;
    for lane in ["recorded", "baseline"] {
        import(folder, lane, lane, if lane == "recorded" { 1 } else { 2 }, &|_, _| usual.to_owned());
    }
    let changed = [
        ("case", r#"{"account":"DE02GNY","amount":18446744073709551616,"count":1,"limit":null}"#),
        ("digit", r#"{"account":"DE02GNy","amount":18446744073709551617,"count":1,"limit":null}"#),
        ("type", r#"{"account":"DE02GNy","amount":18446744073709551616,"count":"1","limit":null}"#),
        ("absent", r#"{"account":"DE02GNy","amount":18446744073709551616,"count":1}"#),
        ("empty", r#"{"account":"DE02GNy","amount":18446744073709551616,"count":1,"limit":""}"#),
    ];
    for (run, arguments) in changed {
        import(folder, "candidate", run, 2, &|_, _| arguments.to_owned());
        let (found, printed) = code(folder, run, "policy = 1\n");
        assert_eq!(found, 3, "{run}: {printed}");
    }
    let same = r#"{ "limit": null, "count": 1.0, "amount": 18446744073709551616, "account": "DE02GNy" }"#;
    import(folder, "candidate", "same", 2, &|_, _| same.to_owned());
    let (found, printed) = code(folder, "same", "policy = 1\n");
    assert_eq!(found, 0, "numbers are equal by value, and the order of keys is none: {printed}");
    for (run, rule) in
        [("case", "\"/account\" = \"case-insensitive\""), ("absent", "\"/limit\" = \"ignore\"")]
    {
        let (found, printed) = code(folder, run, &format!("policy = 1\n[argument.close_account]\n{rule}\n"));
        assert_eq!(found, 0, "declared: {rule}: {printed}");
    }
    let (found, printed) =
        code(folder, "case", "policy = 1\n[argument.close_account]\n\"/account\" = \"alias\"\n");
    assert_eq!(found, 2, "{printed}");
    for word in ["policy.toml", "line 3", "argument.close_account./account", "\"generated\""] {
        assert!(printed.contains(word), "{word} is not in {printed}");
    }
}

#[test]
fn an_argument_that_the_baseline_draws_anew_is_learned_and_shown() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    let drawn = |run: &str, account: &str| {
        let (run, account) = (run.to_owned(), account.to_owned());
        move |case: usize, trial: usize| {
            json!({"request_id": format!("{run}-{case}-{trial}"), "account": account}).to_string()
        }
    };
    import(folder, "recorded", "recorded", 1, &drawn("r", "GNy"));
    import(folder, "baseline", "baseline", 2, &drawn("b", "GNy"));
    import(folder, "candidate", "candidate", 2, &drawn("c", "GNy"));
    import(folder, "candidate", "wrong", 2, &drawn("w", "GNY"));
    let output = analyze(folder, "candidate", "policy = 1\n");
    assert_eq!(output.status.code(), Some(0), "{}", binary::printed(&output));
    let verdict: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let notes = verdict["notes"].to_string();
    assert!(notes.contains("close_account /request_id differs between the baseline's own trials"), "{notes}");
    assert!(!notes.contains("/account differs"), "{notes}");
    assert_eq!(code(folder, "wrong", "policy = 1\n").0, 3, "the account is compared as before");
    let exact = "policy = 1\n[argument.close_account]\n\"/request_id\" = \"exact\"\n";
    let output = analyze(folder, "candidate", exact);
    let verdict: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let success = verdict["metrics"].as_array().into_iter().flatten().find(|one| one["name"] == "success");
    assert_eq!(success.expect("measured")["baseline"], 0.0, "the policy forbids to learn it: {verdict:#}");
}
