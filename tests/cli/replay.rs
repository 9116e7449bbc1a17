//! `replay` of two builds at once, with a recorded model: what a verdict on such runs may say.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use tests::binary;
use tests::scripted_http::{Reply, ScriptedRequest, ScriptedServer, post};

/// Sessions of the store; a margin of .05 needs 59.
const SESSIONS: usize = 64;

const PROMPT: &str = "You are a refund agent. Always look the order up first.";

/// What an agent does in a turn.
#[derive(Debug, Clone, Copy)]
struct Agent {
    prompt: &'static str,
    /// Path of the model endpoint below `/v1`.
    path: &'static str,
    /// Begins each answer.
    greeting: &'static str,
}

const CURRENT: Agent = Agent { prompt: PROMPT, path: "chat/completions", greeting: "" };

impl Agent {
    /// Asks the model, makes the tool calls that it requests, and answers with its text. An error of the model is hidden.
    fn turn(self, request: &ScriptedRequest) -> Reply {
        let body: Value = serde_json::from_str(&request.body).expect("a turn is JSON");
        let text = |key: &str| body[key].as_str().expect("a text");
        let model = format!("{}/{}", text("model"), self.path);
        let mut messages = vec![
            json!({"role": "system", "content": self.prompt}),
            json!({"role": "user", "content": text("message")}),
        ];
        for _ in 0..5 {
            let asked = json!({"model": "m", "messages": messages}).to_string();
            let (status, answer) = post(&model, &asked);
            let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
            if status != 200 {
                return reply("Sorry, please try again later.");
            }
            let message = answer["choices"][0]["message"].clone();
            messages.push(message.clone());
            let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
            if calls.is_empty() {
                let content = message["content"].as_str().unwrap_or_default();
                return reply(&format!("{}{content}", self.greeting));
            }
            for call in calls {
                let function = &call["function"];
                let url = format!("{}/{}", text("tools"), function["name"].as_str().expect("a name"));
                let (_, result) = post(&url, function["arguments"].as_str().expect("arguments"));
                messages.push(json!({"role": "tool", "tool_call_id": call["id"], "content": result}));
            }
        }
        reply("too many steps")
    }
}

fn reply(text: &str) -> Reply {
    Reply::Complete(200, Vec::new(), json!({"reply": text}).to_string())
}

/// Writes a store of sessions in which the agent refunds an order.
fn write_store(folder: &Path) {
    let mut lines = String::new();
    for n in 0..SESSIONS {
        let call = json!({"id": "k", "type": "function", "function": {
            "name": "refund", "arguments": json!({"order_id": format!("W{n}")}).to_string(),
        }});
        let session = json!({"task_id": n, "trial": 0, "reward": 1.0, "info": {}, "traj": [
            {"role": "system", "content": PROMPT},
            {"role": "user", "content": format!("please refund order W{n}")},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "k", "name": "refund", "content": "refunded"},
            {"role": "assistant", "content": format!("Order W{n} is refunded.")},
        ]});
        writeln!(lines, "{session}").expect("a text grows");
    }
    std::fs::write(folder.join("sessions.jsonl"), lines).expect("writes");
    let tools = r#"[{"name": "refund", "effect": "write", "inputSchema": {"type": "object"}}]"#;
    std::fs::write(folder.join("tools.json"), tools).expect("writes");
    let args =
        ["import", "--format", "tau-bench", "sessions.jsonl", "--store", "store", "--tools", "tools.json"];
    let output = binary::run(folder, &args);
    assert!(output.status.success(), "{}", binary::printed(&output));
}

/// Replays both agents at once and decides. Returns the summaries of the replay, the exit code and the verdict.
fn compare(policy: &str, agents: [Agent; 2]) -> (Value, i32, Value) {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    write_store(folder);
    std::fs::write(folder.join("policy.toml"), policy).expect("writes");
    for (name, agent) in ["current", "next"].into_iter().zip(agents) {
        let server = ScriptedServer::start(move |request| agent.turn(request));
        let text = format!(
            "candidate = 1\nkind = \"http\"\nbuild = \"{name}\"\n[http]\nurl = \"http://{}/chat\"\nanswer = \"/reply\"\n\
             body = {{ message = \"{{{{input}}}}\", model = \"{{{{model_url}}}}\", tools = \"{{{{tools_url}}}}\" }}\n",
            server.address
        );
        std::fs::write(folder.join(format!("{name}.toml")), text).expect("writes");
    }
    let args =
        [
            &[
                "--json",
                "replay",
                "--store",
                "store",
                "--baseline",
                "current.toml",
                "--candidate",
                "next.toml",
            ][..],
            &["--run", "runs", "--trials", "2", "--tools", "tools.json", "--delay-scale", "0"][..],
        ]
        .concat();
    let replayed = binary::run(folder, &args);
    assert!(replayed.status.success(), "{}", binary::printed(&replayed));
    let args = [
        &["--json", "analyze", "--baseline", "runs/baseline", "--candidate", "runs/candidate"][..],
        &["--policy", "policy.toml", "--out", "verdict"][..],
    ]
    .concat();
    let decided = binary::run(folder, &args);
    let verdict = serde_json::from_slice(&decided.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", binary::printed(&decided)));
    let summaries = serde_json::from_slice(&replayed.stdout).expect("a summary");
    (summaries, decided.status.code().expect("was not killed"), verdict)
}

#[test]
fn a_session_without_a_recorded_call_is_refused_before_the_first_trial() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    let session = json!({"task_id": 1, "trial": 0, "reward": 1.0, "info": {}, "traj": [{"role": "user", "content": "hi"}]});
    std::fs::write(folder.join("sessions.jsonl"), format!("{session}\n")).expect("writes");
    let args = ["import", "--format", "tau-bench", "sessions.jsonl", "--store", "store"];
    let output = binary::run(folder, &args);
    assert!(output.status.success(), "{}", binary::printed(&output));
    let candidate = "candidate = 1\nkind = \"command\"\nbuild = \"next\"\n[command]\nargv = [\"sh\", \"-c\", \"cat >/dev/null; touch started; echo fine\"]\n";
    std::fs::write(folder.join("next.toml"), candidate).expect("writes");
    let args =
        ["replay", "--store", "store", "--candidate", "next.toml", "--run", "run", "--allow-open-egress"];
    let refused = binary::run(folder, &args);
    let printed = binary::printed(&refused);
    assert_eq!(refused.status.code(), Some(2), "{printed}");
    assert!(printed.contains("1 of the 1 selected sessions of store store cannot be replayed"), "{printed}");
    assert!(printed.contains("only the turns were") && printed.contains("--allow-undecoded"), "{printed}");
    assert!(!folder.join("run").exists() && !folder.join("started").exists(), "not even a probe ran");
    let verified = binary::run(folder, &["sessions", "verify", "--store", "store"]);
    let printed = binary::printed(&verified);
    assert!(printed.contains("1 session has turns and no decoded model or tool call"), "{printed}");
    let allowed = binary::run(folder, &[&args[..], &["--allow-undecoded"]].concat());
    assert_eq!(allowed.status.code(), Some(0), "{}", binary::printed(&allowed));
}

const SUCCESS: &str = "metrics = [\"success\"]\n";

fn codes(verdict: &Value) -> Vec<&str> {
    let reasons = verdict["reasons"].as_array().expect("reasons");
    reasons.iter().filter_map(|reason| reason["code"].as_str()).collect()
}

#[test]
fn equal_builds_replayed_at_once_are_approved_and_the_verdict_says_what_was_tested() {
    let (summaries, code, verdict) = compare(SUCCESS, [CURRENT, CURRENT]);
    for lane in ["baseline", "candidate"] {
        let summary = &summaries[lane];
        assert_eq!((summary["lane"].as_str(), summary["ran"].as_u64()), (Some(lane), Some(128)));
        assert_eq!(summary["fidelity"]["missed"], 0, "{summary}");
        // Two model calls and a tool call in each trial.
        let total = |counts: &str| {
            let counts = summary[counts].as_object().expect("counts");
            counts.values().filter_map(Value::as_u64).sum::<u64>()
        };
        assert_eq!((total("fidelity"), total("model_fidelity")), (384, 256), "{summary}");
    }
    assert_eq!(code, 0, "{verdict}");
    // The import knows no name of the model, and both builds send the same one.
    let notes = verdict["notes"].to_string();
    assert!(notes.contains("in the same way in both lanes (first: model: absent → "), "{notes}");
    assert!(notes.contains("the verdict is about the tools and the orchestration code"), "{notes}");
}

#[test]
fn a_changed_prompt_is_never_approved_by_answers_that_were_given_to_another() {
    let shorter = Agent { prompt: "You are a refund agent.", ..CURRENT };
    let (_, code, verdict) = compare(SUCCESS, [CURRENT, shorter]);
    assert_eq!((code, codes(&verdict)[0]), (4, "model_input_changed"), "{verdict}");
    let detail = verdict["reasons"][0]["detail"].as_str().expect("a text");
    assert!(detail.contains("system prompt: missing: Always look the order up first"), "{detail}");
    assert!(detail.contains("--model live"), "{detail}");
    // A violated invariant is a fact about the candidate, whatever the recording answered.
    let rude = Agent { greeting: "Hmpf. ", ..shorter };
    let strict = format!(
        "{SUCCESS}[invariant.answer-schema]\nschema = {{ type = \"string\", pattern = \"^Order\" }}\n"
    );
    let (_, code, verdict) = compare(&strict, [CURRENT, rude]);
    assert_eq!((code, codes(&verdict)[0]), (3, "invariant_violated"), "{verdict}");
}

#[test]
fn builds_whose_every_model_call_is_refused_are_not_approved() {
    let refused = Agent { path: "responses", ..CURRENT };
    let (summaries, code, verdict) = compare(SUCCESS, [refused, refused]);
    let misses = &summaries["candidate"]["misses"];
    assert_eq!(misses[0]["path"], "POST /v1/responses", "{misses}");
    assert_eq!((misses[0]["calls"].as_u64(), misses[0]["trials"].as_u64()), (Some(128), Some(128)));
    assert_eq!(summaries["candidate"]["model_fidelity"]["missed"], 128);
    assert_eq!(code, 4, "{verdict}");
}
