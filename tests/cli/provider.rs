//! A model provider that fails, through replay, analyze and gate: it is the harness's fault and never the candidate's.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tests::binary::{self, printed};
use tests::scripted_http::{Reply, ScriptedRequest, ScriptedServer, post};

/// What the agent makes of a model error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnError {
    /// It answers the user with an apology.
    Swallow,
    /// It answers with status 500.
    Fail,
}

/// An agent that asks the model once in every turn.
fn agent(on_error: OnError) -> ScriptedServer {
    ScriptedServer::start(move |request| {
        let turn: Value = serde_json::from_str(&request.body).expect("the replay sends JSON");
        let url = format!("{}/chat/completions", turn["model"].as_str().expect("a URL"));
        let ask = r#"{"model":"m","messages":[{"role":"user","content":"help"}]}"#;
        let (status, _) = post(&url, ask);
        match (status, on_error) {
            (200, _) => Reply::Complete(200, Vec::new(), r#"{"reply":"done"}"#.to_owned()),
            (_, OnError::Swallow) => Reply::Complete(200, Vec::new(), r#"{"reply":"Sorry"}"#.to_owned()),
            (_, OnError::Fail) => Reply::Complete(500, Vec::new(), format!("model status {status}")),
        }
    })
}

/// Imports recorded sessions and writes a candidate file for each build, with a provider of its own.
fn prepare(folder: &Path, agent: &ScriptedServer, providers: [&ScriptedServer; 2], more: &str) {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tau-bench");
    let file = |name: &str| data.join(name).to_string_lossy().into_owned();
    let (sessions, tools) = (file("gpt-4o-airline.jsonl.zst"), file("tools.airline.json"));
    let args = ["import", "--format", "tau-bench", &sessions, "--store", "store", "--tools", &tools];
    let output = binary::run(folder, &args);
    assert!(output.status.success(), "{}", printed(&output));
    for (name, provider) in ["baseline", "candidate"].into_iter().zip(providers) {
        let text = format!(
            "candidate = 1\nkind = \"http\"\nbuild = \"{name}\"\n[http]\nurl = \"http://{agent}/chat\"\n\
             body = {{ input = \"{{{{input}}}}\", model = \"{{{{model_url}}}}\" }}\nanswer = \"/reply\"\n\
             [probe]\nurl = \"http://{provider}/healthz\"\n[model]\nupstream = \"http://{provider}/v1\"\nidentify = true\n\
             retry = {{ attempts = 2, pause = \"1ms\" }}\n{more}",
            agent = agent.address,
            provider = provider.address
        );
        std::fs::write(folder.join(format!("{name}.toml")), text).expect("writes");
    }
}

/// A provider that answers its own page, and model calls by the script.
fn provider(script: impl Fn(&ScriptedRequest) -> Reply + Send + Sync + 'static) -> ScriptedServer {
    ScriptedServer::start(move |request| {
        if request.path == "/healthz" {
            return Reply::Complete(200, Vec::new(), "{}".to_owned());
        }
        script(request)
    })
}

fn replay(folder: &Path, lane: &str, more: &[&str]) -> Output {
    let candidate = format!("{lane}.toml");
    let args = ["--json", "replay", "--store", "store", "--candidate", &candidate, "--run", lane];
    let rest = [
        "--lane",
        lane,
        "--model",
        "live",
        "--trials",
        "1",
        "--sessions",
        "40",
        "--concurrency",
        "1",
        "--delay-scale",
        "0",
    ];
    binary::run(folder, &[&args[..], &rest[..], more].concat())
}

fn analyze(folder: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let args = ["--json", "analyze", "--baseline", "baseline", "--candidate", "candidate", "--out", "out"];
    let output = binary::run(folder, &[&args[..], more].concat());
    let verdict = serde_json::from_slice(&output.stdout);
    (output.status.code(), verdict.unwrap_or_else(|error| panic!("{error}: {}", printed(&output))))
}

fn has_reason(verdict: &Value, code: &str) -> bool {
    verdict["reasons"].as_array().is_some_and(|reasons| reasons.iter().any(|reason| reason["code"] == code))
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", printed(output)))
}

/// Whether the request belongs to one of three in ten cases.
fn is_unlucky(request: &ScriptedRequest) -> bool {
    let case = request.header("foreshadow-case");
    case.bytes().map(u32::from).sum::<u32>() % 10 < 3
}

#[test]
fn three_in_ten_trials_of_one_lane_lost_to_the_provider_neither_block_nor_approve() {
    for on_error in [OnError::Swallow, OnError::Fail] {
        let folder = tempfile::tempdir().expect("temp");
        let folder = folder.path();
        let agent = agent(on_error);
        let healthy = provider(|_| Reply::completion("fine"));
        let failing = provider(|request| {
            if is_unlucky(request) {
                Reply::error(429, "rate_limit_exceeded")
            } else {
                Reply::completion("fine")
            }
        });
        prepare(folder, &agent, [&healthy, &failing], "");
        let before = json(&replay(folder, "baseline", &[]));
        assert_eq!(
            (before["ran"].as_u64(), before["endings"]["infrastructure"].as_u64()),
            (Some(40), Some(0))
        );
        let after = replay(folder, "candidate", &[]);
        assert_eq!(after.status.code(), Some(0), "{}", printed(&after));
        let after = json(&after);
        let lost = after["endings"]["infrastructure"].as_u64().expect("a number");
        assert!((3..30).contains(&lost), "{after}");
        assert_eq!(after["endings"]["failed"], 0, "no trial failed by itself: {after}");
        // Each lost trial has at least a call that failed, and each such call was repeated once.
        assert!(after["provider_failures"].as_u64() >= Some(lost), "{after}");
        assert_eq!(after["provider_retries"], after["provider_failures"]);
        let policy = "metrics = [\"success\"]\n[metric.success]\nmargin = 0.5\n[invariant.answer-schema]\nschema = { enum = [\"done\"] }\n";
        std::fs::write(folder.join("policy.toml"), policy).expect("writes");
        let (code, verdict) = analyze(folder, &["--policy", "policy.toml"]);
        assert_eq!(code, Some(4), "{on_error:?}: {}", verdict["reasons"]);
        assert!(has_reason(&verdict, "provider_failures"), "{}", verdict["reasons"]);
        assert_eq!(verdict["pairs"]["no_outcome_candidate"]["infrastructure"].as_u64(), Some(lost));
        assert_eq!(verdict["invariants"][0]["violations"], 0, "an apology for the provider is no violation");
    }
}

#[test]
fn a_provider_that_is_down_stops_replay_and_gate_and_approves_nothing() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    let agent = agent(OnError::Swallow);
    let is_down = Arc::new(AtomicU32::new(1));
    let state = is_down.clone();
    let failing = provider(move |_| match state.load(Ordering::SeqCst) {
        1 => Reply::error(429, "rate_limit_exceeded"),
        2 => Reply::error(429, "insufficient_quota"),
        _ => Reply::completion("fine"),
    });
    prepare(folder, &agent, [&failing, &failing], "max-lost-trials = 5\n");
    for lane in ["baseline", "candidate"] {
        let stopped = replay(folder, lane, &[]);
        let said = printed(&stopped);
        assert_eq!(stopped.status.code(), Some(1), "{said}");
        assert!(said.contains("the model provider is down for good") && said.contains("--resume"), "{said}");
        assert!(said.contains("5 trials in a row") && said.contains("status 429"), "{said}");
    }
    // What ran is compared, and nothing of it is shown.
    let (code, verdict) = analyze(folder, &[]);
    assert_eq!(code, Some(4), "{}", verdict["reasons"]);
    assert!(has_reason(&verdict, "provider_failures"), "{}", verdict["reasons"]);

    // The gate stops too, with both lanes.
    let text = "[gate]\nstore = \"store\"\nbaseline = \"baseline.toml\"\ncandidate = \"candidate.toml\"\nruns = \"runs\"\n\
                out = \"verdict\"\npolicy = \"policy.toml\"\ntrials = 1\nlooks = 2\nsessions = 20\ndelay-scale = 0.0\nmodel = \"live\"\n";
    std::fs::write(folder.join("gate.toml"), text).expect("writes");
    std::fs::write(folder.join("policy.toml"), "metrics = [\"success\"]\n[metric.success]\nmargin = 0.5\n")
        .expect("writes");
    is_down.store(2, Ordering::SeqCst);
    let gate = ["gate", "--config", "gate.toml"];
    let stopped = binary::run(folder, &gate);
    assert_eq!(stopped.status.code(), Some(1), "{}", printed(&stopped));
    let said = printed(&stopped);
    assert!(
        said.contains("the model provider is down for good: status 429") && said.contains("--resume"),
        "{said}"
    );
    assert!(!folder.join("verdict/verdict.json").exists(), "no verdict");

    // With the provider back, both go on and run the lost trials again, each once.
    is_down.store(0, Ordering::SeqCst);
    let resumed = json(&replay(folder, "baseline", &["--resume"]));
    // The stop may cancel the trial that caused it before it is stored.
    let rerun = resumed["rerun"].as_u64().expect("a number");
    assert!(resumed["endings"]["complete"] == 40 && (4..=5).contains(&rerun), "{resumed}");
    assert_eq!(resumed["endings"]["infrastructure"], 0);
    assert_eq!(json(&replay(folder, "candidate", &["--resume"]))["endings"]["complete"], 40);
    let (_, verdict) = analyze(folder, &[]);
    assert_eq!(verdict["pairs"]["trials_candidate"], 40, "{}", verdict["pairs"]);
    assert_eq!(verdict["pairs"]["no_outcome_baseline"]["infrastructure"], 0);
    let notes = verdict["notes"].to_string();
    assert!(
        notes.contains(&format!(
            "{rerun} trials of run baseline were failed by the infrastructure and run again"
        )),
        "{notes}"
    );
    let finished = binary::run(folder, &[&["--json"], &gate[..], &["--resume"]].concat());
    assert!(matches!(finished.status.code(), Some(0 | 4)), "{}", printed(&finished));
    assert_eq!(json(&finished)["pairs"]["no_outcome_candidate"]["infrastructure"], 0);
}

#[test]
fn a_request_that_the_provider_refuses_is_the_candidates_failure() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    let agent = agent(OnError::Fail);
    let healthy = provider(|_| Reply::completion("fine"));
    let strict = provider(|_| Reply::error(404, "model_not_found"));
    prepare(folder, &agent, [&healthy, &strict], "");
    assert_eq!(json(&replay(folder, "baseline", &[]))["endings"]["complete"], 40);
    let after = json(&replay(folder, "candidate", &[]));
    assert_eq!((&after["endings"]["failed"], &after["endings"]["infrastructure"]), (&40.into(), &0.into()));
    let (code, verdict) = analyze(folder, &[]);
    assert_ne!(code, Some(0), "{}", verdict["reasons"]);
    assert_eq!(verdict["pairs"]["no_outcome_candidate"]["infrastructure"], 0);
}

#[test]
fn a_dead_provider_is_said_in_one_line_before_the_first_trial() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    let agent = agent(OnError::Swallow);
    let refusing = provider(|_| Reply::error(401, "invalid_api_key"));
    prepare(folder, &agent, [&refusing, &refusing], "");
    let path = folder.join("candidate.toml");
    let text = std::fs::read_to_string(&path).expect("reads");
    let probe = format!("[probe]\nurl = \"http://{}/healthz\"\n", refusing.address);
    std::fs::write(&path, text.replace(&probe, "")).expect("writes");
    let refused = replay(folder, "candidate", &[]);
    assert_eq!(refused.status.code(), Some(1), "{}", printed(&refused));
    let stderr = String::from_utf8_lossy(&refused.stderr);
    let line = stderr.lines().find(|line| line.contains("status 401")).expect("a line");
    assert!(line.contains("the model provider failed") && line.contains("no trial ran"), "{line}");
    assert!(!folder.join("candidate").exists(), "no run was made");
}

#[test]
fn both_lanes_repeat_model_calls_alike_and_know_the_same_infrastructure_errors() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    let agent = agent(OnError::Fail);
    let healthy = provider(|_| Reply::completion("fine"));
    prepare(folder, &agent, [&healthy, &healthy], "");
    let path = folder.join("candidate.toml");
    let text = std::fs::read_to_string(&path).expect("reads");
    std::fs::write(&path, text.replace("attempts = 2", "attempts = 4")).expect("writes");
    let gate = "[gate]\nstore = \"store\"\nbaseline = \"baseline.toml\"\ncandidate = \"candidate.toml\"\nruns = \"runs\"\n\
                out = \"verdict\"\ntrials = 1\nmodel = \"live\"\n";
    std::fs::write(folder.join("gate.toml"), gate).expect("writes");
    let refused = binary::run(folder, &["gate", "--config", "gate.toml"]);
    assert_eq!(refused.status.code(), Some(2), "{}", printed(&refused));
    assert!(printed(&refused).contains("[model] retry"), "{}", printed(&refused));
    assert!(!folder.join("runs").exists(), "no trial ran");

    assert_eq!(json(&replay(folder, "baseline", &["--infrastructure", "status 502"]))["ran"], 40);
    assert_eq!(json(&replay(folder, "candidate", &[]))["ran"], 40);
    let (_, verdict) = analyze(folder, &[]);
    let notes = verdict["notes"].to_string();
    assert!(notes.contains("--infrastructure") && notes.contains("4 attempts"), "{notes}");
    let empty = replay(folder, "candidate", &["--resume", "--infrastructure", ""]);
    assert_eq!(empty.status.code(), Some(2), "{}", printed(&empty));
}
