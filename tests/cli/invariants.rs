//! Each invariant through the command line: violated, demoted, vacuous, below its floor.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::binary;

/// Envelope of tau-bench's retail agent: the tools of the benchmark, bound to orders that the session looked up.
const RETAIL: &str = r#"
envelope = 1
agent = "retail"
version = "7"
[defaults]
undeclared-argument = "allow"
[session.orders]
from = [{ tool = "get_order_details", arg = "/order_id" }]
[session.users]
from = [{ tool = "find_user_id_by_email", result-pattern = '^(\S+)$' }, { tool = "find_user_id_by_name_zip", result-pattern = '^(\S+)$' }]
"#;

const READS: [&str; 8] = [
    "calculate",
    "find_user_id_by_email",
    "find_user_id_by_name_zip",
    "get_order_details",
    "get_product_details",
    "list_all_product_types",
    "think",
    "transfer_to_human_agents",
];

const WRITES: [&str; 6] = [
    "cancel_pending_order",
    "exchange_delivered_order_items",
    "modify_pending_order_address",
    "modify_pending_order_items",
    "modify_pending_order_payment",
    "return_delivered_order_items",
];

fn retail_envelope(more: &str) -> String {
    let mut text = RETAIL.to_owned();
    for tool in READS {
        let _ = write!(text, "[[tool]]\nname = \"{tool}\"\n");
    }
    for tool in ["get_user_details", "modify_user_address"] {
        let _ = write!(
            text,
            "[[tool]]\nname = \"{tool}\"\nbound = [{{ id = \"own-user\", arg = \"/user_id\", in = \"session.users\" }}]\n"
        );
    }
    for tool in WRITES {
        let _ = write!(
            text,
            "[[tool]]\nname = \"{tool}\"\neffect = \"write\"\n\
             bound = [{{ id = \"own-order\", arg = \"/order_id\", in = \"session.orders\" }}]\n"
        );
    }
    text + more
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tau-bench-retail-variants").join(name)
}

fn run_ok(folder: &Path, args: &[&str]) {
    let output = binary::run(folder, args);
    assert!(output.status.success(), "{args:?}: {}", binary::printed(&output));
}

/// Imports sessions of the retail agent with its tool list.
fn import(folder: &Path, file: &Path, run: &str, lane: &str) {
    let (file, tools) = (file.to_string_lossy(), data("tools.retail.json"));
    let tools = tools.to_string_lossy();
    let args = [
        "import",
        "--format",
        "tau-bench",
        &file,
        "--run",
        run,
        "--build",
        run,
        "--lane",
        lane,
        "--tools",
        &tools,
    ];
    run_ok(folder, &args);
}

fn sessions(name: &str) -> Vec<Value> {
    let file = std::fs::File::open(data(&format!("{name}.jsonl.zst"))).expect("opens");
    let text = String::from_utf8(zstd::decode_all(file).expect("is zstd")).expect("is text");
    text.lines().map(|line| serde_json::from_str(line).expect("is JSON")).collect()
}

/// Imports the baseline's sessions with one of them changed as a candidate; returns the task of that session.
fn import_changed(folder: &Path, run: &str, change: impl Fn(&mut Vec<Value>) -> bool) -> String {
    let mut all = sessions("baseline-tool-calling");
    let session = all.iter_mut().find_map(|session| {
        let changed = change(session["traj"].as_array_mut().expect("has messages"));
        changed.then(|| session["task_id"].to_string())
    });
    let text: String = all.iter().map(|session| format!("{session}\n")).collect();
    let path = folder.join(format!("{run}.jsonl"));
    std::fs::write(&path, text).expect("writes");
    import(folder, &path, run, "candidate");
    session.expect("a session is changed")
}

/// Positions of the messages that call a tool.
fn calls(messages: &[Value], matches: impl Fn(&str) -> bool) -> Vec<usize> {
    let calls = |message: &Value| {
        let list = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
        list.len() == 1 && list[0]["function"]["name"].as_str().is_some_and(&matches)
    };
    (0..messages.len()).filter(|place| calls(&messages[*place])).collect()
}

struct Decided {
    code: i32,
    verdict: Value,
}

impl Decided {
    fn invariant(&self, name: &str) -> &Value {
        let list = self.verdict["invariants"].as_array().expect("a list");
        list.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name} in {:#}", self.verdict))
    }

    fn has_reason(&self, code: &str, metric: &str) -> bool {
        let list = self.verdict["reasons"].as_array().expect("a list");
        list.iter().any(|one| one["code"] == code && one["metric"] == metric)
    }

    /// Asserts a block on this invariant; returns its first violation.
    fn blocked_on(&self, name: &str) -> &Value {
        assert_eq!(self.code, 3, "{:#}", self.verdict["reasons"]);
        let first = &self.verdict["reasons"][0];
        assert_eq!(
            (&first["code"], &first["metric"]),
            (&"invariant_violated".into(), &name.into()),
            "{first:#}"
        );
        let invariant = self.invariant(name);
        assert_eq!(invariant["state"], "violated", "{invariant:#}");
        assert_eq!(
            (&invariant["unconfirmed"], &invariant["mutation_check"]["vacuous"]),
            (&0.into(), &false.into())
        );
        &invariant["violation_examples"][0]
    }
}

fn analyze(folder: &Path, baseline: &str, candidate: &str, policy: &str, envelope: Option<&str>) -> Decided {
    std::fs::write(folder.join("policy.toml"), policy).expect("writes");
    let mut args =
        vec!["--json", "analyze", "--baseline", baseline, "--candidate", candidate, "--out", "out"];
    args.extend(["--policy", "policy.toml"]);
    if let Some(text) = envelope {
        std::fs::write(folder.join("envelope.toml"), text).expect("writes");
        args.extend(["--envelope", "envelope.toml"]);
    }
    let output = binary::run(folder, &args);
    let code = output.status.code().expect("was not killed");
    assert!(matches!(code, 0 | 3 | 4), "{}", binary::printed(&output));
    Decided { code, verdict: serde_json::from_slice(&output.stdout).expect("prints JSON") }
}

/// Imports a run without transcripts: seconds and answer by case.
fn table(folder: &Path, run: &str, lane: &str, row: impl Fn(usize) -> (u32, &'static str)) {
    let mut text = "case,trial,success,seconds,answer\n".to_owned();
    for case in 0..120 {
        let (seconds, answer) = row(case);
        let _ = writeln!(text, "c{case},0,1,{seconds},\"{answer}\"");
    }
    let file = format!("{run}.csv");
    std::fs::write(folder.join(&file), text).expect("writes");
    run_ok(folder, &["import", "--format", "outcomes", &file, "--run", run, "--build", run, "--lane", lane]);
}

const GOOD: (u32, &str) = (2, "{\"\"status\"\": \"\"done\"\"}");

#[test]
fn invariants_on_answers_and_response_times() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    table(folder, "base", "baseline", |_| GOOD);
    table(folder, "slow", "candidate", |case| if case == 7 { (31, GOOD.1) } else { GOOD });
    table(folder, "said", "candidate", |case| if case == 7 { (2, "As an AI model I cannot") } else { GOOD });
    let policy = |text: &str| format!("policy = 1\nmetrics = [\"success\"]\n{text}");
    let time = policy("[invariant.response-time]\nmax-ms = 30000\n");
    let violation = analyze(folder, "base", "slow", &time, None);
    assert_eq!(violation.blocked_on("response-time")["case"], "c7");
    assert_eq!(analyze(folder, "base", "said", &time, None).code, 0);
    let schema =
        policy("[invariant.answer-schema]\nschema = { type = \"object\", required = [\"status\"] }\n");
    let violation = analyze(folder, "base", "said", &schema, None);
    assert_eq!(
        violation.blocked_on("answer-schema")["session"],
        violation.invariant("answer-schema")["examples"][0]
    );
    let forbidden = policy("[invariant.forbidden]\npatterns = ['\\bas an ai\\b']\nignore-case = true\n");
    let violation = analyze(folder, "base", "said", &forbidden, None);
    assert_eq!(violation.blocked_on("forbidden")["rule"], r#"pattern "\\bas an ai\\b""#);
    // An invariant that the baseline violates is demoted; a vacuous one, or one with too few cases, approves nothing.
    table(folder, "base-slow", "baseline", |case| if case == 3 { (31, GOOD.1) } else { GOOD });
    let demoted = analyze(folder, "base-slow", "slow", &time, None);
    assert_ne!(demoted.code, 3, "{:#}", demoted.verdict["reasons"]);
    assert_eq!(demoted.invariant("response-time")["state"], "demoted");
    assert!(demoted.has_reason("baseline_violates_invariant", "response-time"));
    assert!(
        demoted.verdict["metrics"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one["name"] == "invariant.response-time"))
    );
    let vacuous = analyze(folder, "base", "said", &policy("[invariant.answer-schema]\nschema = {}\n"), None);
    assert_eq!((vacuous.code, &vacuous.invariant("answer-schema")["state"]), (4, &"vacuous".into()));
    assert!(vacuous.has_reason("invariant_unchecked", "answer-schema"));
    let bounded =
        |rate: &str| policy(&format!("[invariant.response-time]\nmax-ms = 30000\nmax-rate = {rate}\n"));
    assert_eq!(analyze(folder, "base", "said", &bounded("0.03"), None).code, 0, "99 cases are enough");
    let few = analyze(folder, "base", "said", &bounded("0.02"), None);
    assert_eq!((few.code, few.has_reason("below_floor", "response-time")), (4, true), "149 are needed");
}

/// A policy in which no metric decides, so that the invariants alone do.
fn only(invariants: &str) -> String {
    format!("policy = 1\nmetrics = [\"success\"]\n[metric.success]\ndecides = false\n{invariants}")
}

#[test]
fn invariants_on_tool_calls_of_recorded_sessions() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    import(folder, &data("baseline-tool-calling.jsonl.zst"), "base", "baseline");
    let twice = import_changed(folder, "twice", |messages| {
        let Some(place) = calls(messages, |tool| WRITES.contains(&tool)).first().copied() else {
            return false;
        };
        let mut exchange = [messages[place].clone(), messages[place + 1].clone()];
        exchange[0]["tool_calls"][0]["id"] = "call_twice".into();
        exchange[1]["tool_call_id"] = "call_twice".into();
        messages.splice(place..place, exchange);
        true
    });
    let decided = analyze(folder, "base", "twice", &only("[invariant.idempotency]\n"), None);
    assert_eq!(decided.blocked_on("idempotency")["case"], Value::String(twice));
    assert_eq!(decided.invariant("idempotency")["violations"], 1);

    let skipped = import_changed(folder, "skipped", |messages| {
        let writes = calls(messages, |tool| WRITES.contains(&tool));
        let looks = calls(messages, |tool| tool == "get_order_details");
        // A tool message follows its call; both are removed.
        let is_removed = |place: &usize| looks.iter().any(|look| place == look || *place == look + 1);
        let kept = (0..messages.len())
            .filter(|place| !is_removed(place))
            .map(|place| messages[place].clone())
            .collect();
        let changes = !writes.is_empty() && !looks.is_empty();
        if changes {
            *messages = kept;
        }
        changes
    });
    let writes = WRITES.map(|tool| format!("\"{tool}\"")).join(", ");
    let order = only(&format!(
        "[invariant.order]\nrules = [{{ first = \"get_order_details\", then = [{writes}], same = \"/order_id\" }}]\n"
    ));
    let decided = analyze(folder, "base", "skipped", &order, None);
    assert_eq!(decided.blocked_on("order")["case"], Value::String(skipped.clone()));

    let schemas = only(
        "[invariant.tool-arguments.schemas]\nget_order_details = { properties = { order_id = { pattern = \"^#W[0-9]{7}$\" } } }\n",
    );
    let bad = import_changed(folder, "bad", |messages| {
        let Some(place) = calls(messages, |tool| tool == "get_order_details").first().copied() else {
            return false;
        };
        messages[place]["tool_calls"][0]["function"]["arguments"] = "{\"order_id\": \"W1\"}".into();
        true
    });
    let decided = analyze(folder, "base", "bad", &schemas, None);
    let violation = decided.blocked_on("tool-arguments");
    assert_eq!((&violation["case"], &violation["pointer"]), (&Value::String(bad), &"/order_id".into()));

    let backwards = import_changed(folder, "backwards", |messages| {
        let Some(place) = calls(messages, |tool| tool == "cancel_pending_order").first().copied() else {
            return false;
        };
        let mut exchange = [messages[place].clone(), messages[place + 1].clone()];
        exchange[0]["tool_calls"][0]["function"]["name"] = "exchange_delivered_order_items".into();
        exchange[0]["tool_calls"][0]["id"] = "call_again".into();
        exchange[1]["tool_call_id"] = "call_again".into();
        messages.splice(place..place, exchange);
        true
    });
    let forward = only(
        "[invariant.monotonic-effects]\norder = [\"cancel_pending_order\", \"exchange_delivered_order_items\"]\n",
    );
    let decided = analyze(folder, "base", "backwards", &forward, None);
    assert_eq!(decided.blocked_on("monotonic-effects")["case"], Value::String(backwards));

    let decided = analyze(folder, "base", "skipped", &only(""), Some(&retail_envelope("")));
    let violation = decided.blocked_on("envelope");
    assert_eq!((&violation["case"], &violation["rule"]), (&Value::String(skipped), &"own-order".into()));
}

#[test]
fn the_envelope_on_recorded_sessions() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    import(folder, &data("baseline-tool-calling.jsonl.zst"), "base", "baseline");
    import(folder, &data("baseline-tool-calling.jsonl.zst"), "same", "candidate");
    import(folder, &data("variant-assertions-v1.jsonl.zst"), "v1", "candidate");
    let policy = "policy = 1\nmetrics = [\"success\"]\n[metric.success]\nmargin = 0.10\n";
    let envelope = retail_envelope("");

    let kept = analyze(folder, "base", "same", policy, Some(&envelope));
    assert_eq!(kept.code, 0, "{:#}", kept.verdict["reasons"]);
    let result = kept.invariant("envelope");
    assert_eq!(
        (&result["violations"], &result["baseline"]["trials"], &result["state"]),
        (&0.into(), &50.into(), &"kept".into())
    );
    assert!(result["mutation_check"]["killed"].as_u64() > Some(0), "{result:#}");
    let named = &kept.verdict["envelope"];
    assert_eq!((&named["agent"], &named["version"]), (&"retail".into(), &"7".into()));
    assert_eq!(named["digest"].as_str().map(str::len), Some(64));

    let decided = analyze(folder, "base", "v1", policy, Some(&envelope));
    let first = decided.blocked_on("envelope");
    assert!(first["seq"].is_number() && first["session"].is_string(), "{first:#}");
    let violations = decided.invariant("envelope")["violation_examples"].as_array().expect("a list");
    let undeclared = |violation: &Value| {
        violation["tool"] == "get_input_from_user" && violation["rule"] == "undeclared_tool"
    };
    assert!(violations.iter().any(undeclared), "{violations:#?}");
    let detail = decided.verdict["reasons"][0]["detail"].as_str().unwrap_or_default();
    for word in ["case ", "trial 0", "call ", "rule "] {
        assert!(detail.contains(word), "{word:?} is not in {detail:?}");
    }
    assert!(detail.contains(first["session"].as_str().unwrap_or_default()), "{detail:?}");
    // Rules that this version cannot check prevent an approval, and the verdict lists them.
    let more = "require = [{ id = \"c\", when = \"true\" }]\n[breaker]\nwindow = \"10m\"\n";
    let partly = analyze(folder, "base", "same", policy, Some(&retail_envelope(more)));
    assert_eq!((partly.code, partly.has_reason("invariant_unchecked", "envelope")), (4, true));
    assert_eq!(partly.verdict["envelope"]["not_checked"].as_array().map(Vec::len), Some(2));
    let absent = analyze(folder, "base", "same", &format!("{policy}[invariant.envelope]\non = true\n"), None);
    assert_eq!((absent.code, absent.has_reason("invariant_unchecked", "envelope")), (4, true));
}

#[test]
fn an_envelope_with_a_mistake_is_refused_with_its_line() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    table(folder, "base", "baseline", |_| GOOD);
    table(folder, "cand", "candidate", |_| GOOD);
    let args =
        ["analyze", "--baseline", "base", "--candidate", "cand", "--out", "out", "--envelope", "e.toml"];
    for (text, words) in [
        ("envelope = 1\nagnet = \"a\"\n", ["line 2", "agnet", "agent"]),
        (
            "envelope = 1\n[[tool]]\nname = \"t\"\nargs-schema = \"no.json\"\n",
            ["line 4", "no.json", "cannot be read"],
        ),
        ("envelope = 3\n", ["line 1", "`envelope` is 3", "expected 1"]),
    ] {
        std::fs::write(folder.join("e.toml"), text).expect("writes");
        let output = binary::run(folder, &args);
        assert_eq!(output.status.code(), Some(2), "{}", binary::printed(&output));
        let stderr = String::from_utf8_lossy(&output.stderr);
        for word in words.iter().chain(&["e.toml is refused"]) {
            assert!(stderr.contains(word), "{word:?} is not in:\n{stderr}");
        }
        assert!(!folder.join("out").exists());
    }
    std::fs::remove_file(folder.join("e.toml")).expect("removes");
    let output = binary::run(folder, &args);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be read"));
}
