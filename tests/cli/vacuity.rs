//! Comparisons that show nothing: a baseline that fails, a success check that cannot fail, an invariant that cannot see.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::binary;

const KEY: &str = "AKIAIOSFODNN7EXAMPLE";

fn run_ok(folder: &Path, args: &[&str]) {
    let output = binary::run(folder, args);
    assert!(output.status.success(), "{args:?}: {}", binary::printed(&output));
}

/// Imports an outcome table of 200 cases with 3 trials each; a row is `success,error,answer`.
fn table(folder: &Path, run: &str, lane: &str, row: impl Fn(usize, usize) -> String) {
    let mut text = "case,trial,success,error,answer\n".to_owned();
    for case in 0..200 {
        for trial in 0..3 {
            let _ = writeln!(text, "c{case},{trial},{}", row(case, trial));
        }
    }
    let file = format!("{run}.csv");
    std::fs::write(folder.join(&file), text).expect("writes");
    run_ok(folder, &["import", "--format", "outcomes", &file, "--run", run, "--build", run, "--lane", lane]);
}

/// Compares runs `base` and `cand`; returns the exit code and the verdict.
fn analyze(folder: &Path, policy: &str) -> (i32, Value) {
    std::fs::write(folder.join("policy.toml"), policy).expect("writes");
    let args =
        ["analyze", "--baseline", "base", "--candidate", "cand", "--out", "out", "--policy", "policy.toml"];
    let output = binary::run(folder, &[&["--json"], &args[..]].concat());
    let code = output.status.code().expect("was not killed");
    assert!(matches!(code, 0 | 3 | 4), "{}", binary::printed(&output));
    (code, serde_json::from_slice(&output.stdout).expect("prints JSON"))
}

fn codes(verdict: &Value) -> Vec<&str> {
    let reasons = verdict["reasons"].as_array().expect("a list");
    reasons.iter().filter_map(|reason| reason["code"].as_str()).collect()
}

#[test]
fn a_baseline_that_fails_everywhere_approves_nothing() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    table(folder, "base", "baseline", |_, _| "0,,".to_owned());
    table(folder, "cand", "candidate", |_, _| "0,429 insufficient_quota,".to_owned());
    let (code, verdict) = analyze(folder, "policy = 1\n");
    assert_eq!((code, codes(&verdict)[0]), (4, "baseline_fails"), "{:#}", verdict["reasons"]);
    let detail = verdict["reasons"][0]["detail"].as_str().expect("text");
    assert!(detail.starts_with("the baseline fails: success 0.0 % of 600 trials"), "{detail}");
}

#[test]
fn redacted_keys_do_not_blind_the_pattern_that_forbids_them() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    table(folder, "base", "baseline", |_, _| "1,,done".to_owned());
    table(folder, "cand", "candidate", |case, trial| match (case, trial) {
        (0..40, 0) => format!("1,,the key is {KEY}"),
        _ => "1,,done".to_owned(),
    });
    let policy = |pattern: &str| {
        format!("policy = 1\nmetrics = [\"success\"]\n[invariant.forbidden]\npatterns = ['{pattern}']\n")
    };
    let (code, verdict) = analyze(folder, &policy("AKIA[0-9A-Z]{16}"));
    let invariant = &verdict["invariants"][0];
    assert_eq!((code, codes(&verdict)[0], &invariant["violations"]), (3, "invariant_violated", &40.into()));
    let detail = invariant["violation_examples"][0]["detail"].as_str().expect("text");
    assert!(detail.contains("⟦aws_key:"), "{detail}");
    // One key of the kind: whether it is the forbidden one cannot be seen any more.
    let (code, verdict) = analyze(folder, &policy(KEY));
    let invariant = &verdict["invariants"][0];
    assert_eq!((code, codes(&verdict)[0]), (4, "invariant_unchecked"), "{:#}", verdict["reasons"]);
    assert_eq!((&invariant["redacted"], &invariant["state"]), (&40.into(), &"unchecked".into()));
    // A kind that the pattern has nothing to do with does not matter.
    assert_eq!(analyze(folder, &policy("(?i)as an ai")).0, 0);
}

#[test]
fn what_is_forbidden_is_in_no_output() {
    const CANARY: &str = "canary-7f3a91";
    const CARD: &str = "4111111111111111";
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    let leaking = |case: usize| {
        if case < 40 { format!("1,,pay with {CARD} and {CANARY}") } else { "1,,done".to_owned() }
    };
    table(folder, "base", "baseline", |case, _| leaking(if case == 0 { 0 } else { 99 }));
    table(folder, "cand", "candidate", |case, trial| leaking(if trial == 0 { case } else { 99 }));
    table(folder, "clean", "baseline", |_, _| "1,,done".to_owned());
    let policy = format!(
        "policy = 1\nmetrics = [\"success\"]\n[invariant.forbidden]\nliterals = [\"{CANARY}\"]\npatterns = ['\\b4[0-9]{{15}}\\b']\n\
         [invariant.answer-schema]\nschema = {{ maxLength = 10 }}\n"
    );
    std::fs::write(folder.join("policy.toml"), policy).expect("writes");
    for baseline in ["base", "clean"] {
        let args = [
            "analyze",
            "--baseline",
            baseline,
            "--candidate",
            "cand",
            "--out",
            "out",
            "--policy",
            "policy.toml",
        ];
        let output = binary::run(folder, &args);
        assert_eq!(output.status.code(), Some(3), "{}", binary::printed(&output));
        let printed = binary::printed(&output);
        assert!(!printed.contains(CANARY) && !printed.contains(CARD), "{printed}");
        for entry in std::fs::read_dir(folder.join("out")).expect("lists") {
            let path = entry.expect("an entry").path();
            let text = String::from_utf8_lossy(&std::fs::read(&path).expect("reads")).into_owned();
            let parts = std::iter::once(text.clone()).chain(compressed(&text));
            for part in parts {
                assert!(!part.contains(CANARY) && !part.contains(CARD), "{} shows it", path.display());
            }
        }
        let verdict: Value =
            serde_json::from_slice(&std::fs::read(folder.join("out/verdict.json")).expect("reads"))
                .expect("is JSON");
        let forbidden = verdict["invariants"].as_array().expect("a list");
        let forbidden = forbidden.iter().find(|one| one["name"] == "forbidden").expect("is declared");
        let example = &forbidden["violation_examples"][0];
        assert!(example["detail"].as_str().is_some_and(|text| text.contains("⟦forbidden:")), "{example:#}");
        assert_eq!((&example["case"], &example["rule"]), (&"c0".into(), &"literal 1".into()));
    }
}

/// Imports 70 unlabelled sessions that only read and then answer; tau-bench transcripts without a reward.
fn sessions(folder: &Path, run: &str, lane: &str, looks: bool, answer: impl Fn(usize) -> String) {
    let mut text = String::new();
    for case in 0..70 {
        let order = json!({"order_id": format!("#W{case:07}")}).to_string();
        let call = json!({"id": "call_1", "type": "function", "function": {"name": "get_order_details", "arguments": order}});
        let mut messages = vec![
            json!({"role": "system", "content": "You serve a shop."}),
            json!({"role": "user", "content": format!("Where is order #W{case:07}?")}),
        ];
        if looks {
            messages.push(json!({"role": "assistant", "content": null, "tool_calls": [call]}));
            messages.push(json!({"role": "tool", "tool_call_id": "call_1", "name": "get_order_details", "content": "{}"}));
        }
        messages.push(json!({"role": "assistant", "content": answer(case)}));
        let _ = writeln!(text, "{}", json!({"task_id": case, "trial": 0, "traj": messages}));
    }
    let (file, tools) = (format!("{run}.jsonl"), data("tools.retail.json"));
    std::fs::write(folder.join(&file), text).expect("writes");
    let tools = tools.to_string_lossy();
    let args = ["import", "--format", "tau-bench", &file, "--run", run, "--build", run, "--lane", lane];
    run_ok(folder, &[&args[..], &["--tools", &tools]].concat());
}

#[test]
fn a_candidate_that_says_nothing_is_not_approved_where_sessions_only_read() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    let good = |case: usize| format!("Order {case} left the warehouse and arrives in {} days.", case % 9 + 1);
    sessions(folder, "rec", "recorded", true, good);
    sessions(folder, "base", "baseline", true, good);
    let args = [
        "--json",
        "analyze",
        "--baseline",
        "base",
        "--candidate",
        "cand",
        "--recorded",
        "rec",
        "--out",
        "out",
    ];
    let of = |looks: bool, answer: &dyn Fn(usize) -> String| {
        let _ = std::fs::remove_dir_all(folder.join("cand"));
        sessions(folder, "cand", "candidate", looks, answer);
        let output = binary::run(folder, &args);
        let verdict: Value = serde_json::from_slice(&output.stdout).expect("prints JSON");
        (output.status.code(), verdict)
    };
    for (looks, text) in [(true, ""), (false, "Lorem ipsum"), (true, "Lorem ipsum")] {
        let (code, verdict) = of(looks, &|_| text.to_owned());
        assert_eq!(code, Some(4), "{text:?}: {:#}", verdict["reasons"]);
        assert_eq!(codes(&verdict)[0], "success_check_vacuous", "{:#}", verdict["reasons"]);
        assert_eq!(verdict["outcome"]["vacuous_cases"], 70);
        let notes = verdict["notes"].to_string();
        assert!(
            looks || notes.contains("every baseline trial of 70 cases calls get_order_details"),
            "{notes}"
        );
    }
    // The baseline's own answers show no more: without vectors nobody looked at them.
    assert_eq!(of(true, &good).0, Some(4));
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tau-bench-retail-variants").join(name)
}

/// Texts that the page holds compressed: base64 of gzip or deflate.
fn compressed(page: &str) -> Vec<String> {
    use std::io::Read as _;

    use base64::Engine as _;
    let words = page
        .split(|c: char| !c.is_ascii_alphanumeric() && !"+/=".contains(c))
        .filter(|word| word.len() > 100);
    let mut texts = Vec::new();
    for word in words {
        let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(word) else { continue };
        let mut text = String::new();
        if flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).is_ok()
            || flate2::read::DeflateDecoder::new(&bytes[..]).read_to_string(&mut text).is_ok()
        {
            texts.push(text);
        }
    }
    texts
}
