//! `foreshadow score` with programs, services and judges on loopback: kills, bad responses, and the use of the scores by
//! `analyze`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use schemas::embedding::Embedding;
use schemas::score::{Score, ScoreKind};
use serde_json::{Value, json};
use store::Store;
use store::table::Table;
use tests::binary::{self, printed};
use tests::process::Running;
use tests::service::{Reply, Service};

/// Imports a table of trials: case, trial, success, answer.
fn import(folder: &Path, run: &str, lane: &str, rows: &[(String, u32, bool, String)]) {
    let row = |(case, trial, success, answer): &(String, u32, bool, String)| {
        format!("{case},{trial},{success},{answer},airline\n")
    };
    let text: String = rows.iter().map(row).collect();
    let file = format!("{run}.csv");
    std::fs::write(folder.join(&file), format!("case,trial,success,answer,slice.domain\n{text}"))
        .expect("writes");
    let args = ["import", "--format", "outcomes", &file, "--run", run, "--build", run, "--lane", lane];
    let output = binary::run(folder, &args);
    assert!(output.status.success(), "{}", printed(&output));
}

fn rows(cases: usize, trials: u32) -> Vec<(String, u32, bool, String)> {
    let one = |case: usize, trial: u32| {
        let good = !(case + trial as usize).is_multiple_of(3);
        (
            format!("c{case:03}"),
            trial,
            good,
            format!("answer {} of {case}", if good { "good" } else { "bad" }),
        )
    };
    (0..cases).flat_map(|case| (0..trials).map(move |trial| one(case, trial))).collect()
}

fn score(folder: &Path, run: &str, config: &str) -> Output {
    std::fs::write(folder.join("score.toml"), config).expect("writes");
    binary::run(folder, &["--json", "--config", "score.toml", "score", run])
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", printed(output)))
}

async fn stored(run: &Path) -> (Vec<Score>, Vec<Embedding>) {
    let lake = Store::open(run.to_str().expect("utf-8")).expect("opens");
    let snapshot = lake.snapshot().await.expect("reads");
    let scores = lake.read_table(&snapshot, Table::Scores, None).await.expect("reads");
    (scores, lake.read_table(&snapshot, Table::Embeddings, None).await.expect("reads"))
}

/// Number of scores by evaluator and session.
fn counts(scores: &[Score]) -> BTreeMap<(&str, &str), usize> {
    let mut counts = BTreeMap::new();
    for row in scores.iter().filter(|row| row.error.is_none()) {
        *counts.entry((row.evaluator.as_str(), row.session.as_str())).or_default() += 1;
    }
    counts
}

/// A chat completion with this text.
fn completion(text: &str) -> Reply {
    let choice =
        json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
    let usage = json!({"prompt_tokens": 100, "completion_tokens": 10});
    Reply::ok(json!({"model": "judge-1", "choices": [choice], "usage": usage}).to_string())
}

fn verdict(word: &str) -> Reply {
    completion(&json!({"verdict": word, "reason": "seen"}).to_string())
}

/// A server with three endpoints: a check, a judge and an embedding model.
fn all_endpoints() -> Service {
    // Every endpoint finds the grade in the answer of the trial: in JSON at the service, in text at the judge.
    Service::start(|path, body, _| match path {
        "/check" => Reply::ok(json!({"score": if body.contains("good") { 0.9 } else { 0.1 }}).to_string()),
        "/v1/chat/completions" => verdict(if body.contains("answer good") { "pass" } else { "fail" }),
        "/v1/embeddings" => {
            let request: Value = serde_json::from_str(body).expect("JSON");
            let inputs = request["input"].as_array().expect("texts").len();
            let item = |index: usize| json!({"index": index, "embedding": [1.0, 0.5, index]});
            Reply::ok(json!({"data": (0..inputs).map(item).collect::<Vec<_>>()}).to_string())
        }
        _ => Reply::Whole(404, Vec::new()),
    })
}

/// A configuration with all endpoints, a program and a label.
fn all_evaluators(url: &str) -> String {
    format!(
        r#"
        [[score.labels]]
        name = "people"
        file = "labels.csv"
        [[score.command]]
        name = "script"
        argv = ["sh", "check.sh"]
        [[score.http]]
        name = "service"
        url = "{url}/check"
        [[score.judge]]
        name = "strict"
        url = "{url}/v1"
        model = "m"
        slice-by = "domain"
        input-usd-per-million = 10.0
        [score.embeddings]
        provider = "http"
        url = "{url}/v1"
        model = "e"
        batch = 7
        "#
    )
}

#[tokio::test]
async fn every_evaluator_scores_once_and_analyze_names_the_deciding_ones() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    import(folder, "base", "baseline", &rows(40, 2));
    import(folder, "cand", "candidate", &rows(40, 2));
    let service = all_endpoints();
    std::fs::write(
        folder.join("check.sh"),
        "grep -q good && echo '{\"success\": true}' || echo '{\"success\": false}'",
    )
    .expect("writes");
    std::fs::write(folder.join("labels.csv"), "case,trial,success,reason\nc000,0,false,looked wrong\n")
        .expect("writes");
    let config = all_evaluators(&service.url);
    for run in ["base", "cand"] {
        let output = score(folder, run, &config);
        assert!(output.status.success(), "{}", printed(&output));
        let report = json_of(&output);
        let of = |name: &str| {
            report["evaluators"].as_array().expect("a list").iter().find(|one| one["name"] == name)
        };
        for (name, wanted) in [("people", 1), ("script", 80), ("service", 80), ("strict", 80)] {
            let one = of(name).expect("is reported");
            assert_eq!(
                (&one["wanted"], &one["scored"], &one["errors"]),
                (&json!(wanted), &json!(wanted), &json!(0))
            );
        }
        assert_eq!(report["embeddings"]["embedded"], json!(80));
        // 100 prompt tokens and 10 answer tokens per trial, at 10 dollars per million prompt tokens.
        assert_eq!(report["tokens"], json!(80 * 110));
        assert!(report["usd"].as_f64().is_some_and(|usd| (usd - 0.08).abs() < 1e-9), "{report}");
        let (scores, embeddings) = stored(&folder.join(run)).await;
        assert_eq!((scores.len(), embeddings.len()), (241, 80));
        assert!(counts(&scores).values().all(|count| *count == 1));
        let judged = scores.iter().find(|row| row.kind == ScoreKind::Judge).expect("was asked");
        assert_eq!(
            (judged.slice.as_deref(), judged.model.as_deref()),
            (Some("domain=airline"), Some("judge-1"))
        );
        assert_eq!((judged.reason.as_deref(), judged.input_tokens), (Some("seen"), Some(100)));
    }
    let before = service.requests();
    let output = score(folder, "base", &config);
    assert!(output.status.success(), "{}", printed(&output));
    assert_eq!(service.requests(), before, "finished scores are not computed again");
    assert_eq!(json_of(&output)["evaluators"][3]["already"], json!(80));
    assert_eq!(stored(&folder.join("base")).await.0.len(), 241);

    let args = ["--json", "analyze", "--baseline", "base", "--candidate", "cand", "--out", "out"];
    let verdict = json_of(&binary::run(folder, &args));
    assert_eq!(verdict["outcome"]["decided_by"], json!([{"source": "label", "cases": 40}]));
    let evaluators = verdict["outcome"]["evaluators"].as_array().expect("a list");
    let judge = evaluators.iter().find(|one| one["name"] == "strict").expect("is reported");
    let slice = &judge["slices"][0];
    assert_eq!(
        (&slice["slice"], &slice["qualified"], &slice["kappa"]),
        (&json!("domain=airline"), &json!(true), &json!(1.0))
    );
    assert!(slice["kappa_lower"].as_f64().is_some_and(|lower| (0.4..1.0).contains(&lower)), "{slice}");
    // A changed script has another digest, so its earlier scores do not count.
    std::fs::write(folder.join("check.sh"), "echo '{\"success\": true}'").expect("writes");
    let output = score(folder, "base", &config);
    assert_eq!(json_of(&output)["evaluators"][1]["scored"], json!(80), "{}", printed(&output));
}

/// A configuration with one service, one evaluation at a time, and this commit interval.
fn one_by_one(commit_every: &str, url: &str) -> String {
    format!(
        "[score.limits]\nconcurrency = 1\ncommit-every = \"{commit_every}\"\n[score.embeddings]\nprovider = \"off\"\n\
         [[score.http]]\nname = \"s\"\nurl = \"{url}\"\n"
    )
}

#[tokio::test]
async fn a_killed_scoring_continues_with_the_missing_scores() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    import(folder, "run", "candidate", &rows(20, 2));
    let (tell, stuck) = mpsc::channel();
    let hold = Arc::new(AtomicBool::new(true));
    let holding = hold.clone();
    let service = Service::start(move |_, _, number| {
        if number == 26 && holding.load(Ordering::SeqCst) {
            tell.send(()).expect("the test waits");
            return Reply::Silent;
        }
        Reply::ok("{\"success\": true}")
    });
    let config = one_by_one("0s", &service.url);
    std::fs::write(folder.join("score.toml"), &config).expect("writes");
    let running = Running::start(folder, &["--config", "score.toml", "score", "run"]);
    stuck.recv_timeout(std::time::Duration::from_secs(120)).expect("25 requests are made");
    running.kill();
    let (scores, _) = stored(&folder.join("run")).await;
    assert_eq!(scores.len(), 25, "finished scores are committed");
    hold.store(false, Ordering::SeqCst);
    let output = score(folder, "run", &config);
    assert!(output.status.success(), "{}", printed(&output));
    let already = json_of(&output)["evaluators"][0]["already"].as_u64().expect("a count");
    assert_eq!(already, scores.len() as u64);
    assert_eq!(service.requests() as u64, 26 + 40 - already);
    let (scores, _) = stored(&folder.join("run")).await;
    assert_eq!((scores.len(), counts(&scores).len()), (40, 40), "every score has one row");
    // No file without a commit is left.
    let lake = Store::open(folder.join("run").to_str().expect("utf-8")).expect("opens");
    let committed = lake.snapshot().await.expect("reads").files(Table::Scores).count();
    let files = binary::files_below(&folder.join("run/scores")).len();
    assert_eq!(committed, files);
}

#[tokio::test]
async fn a_stopped_scoring_keeps_finished_scores() {
    for signal in ["INT", "TERM"] {
        let folder = tempfile::tempdir().expect("temp");
        let folder = folder.path();
        import(folder, "run", "candidate", &rows(20, 2));
        let (tell, stuck) = mpsc::channel();
        let service = Service::start(move |_, _, number| {
            if number == 26 {
                tell.send(()).expect("the test waits");
                return Reply::Silent;
            }
            Reply::ok("{\"success\": true}")
        });
        // The interval is longer than the test, so only the shutdown commits.
        let config = one_by_one("1h", &service.url);
        std::fs::write(folder.join("score.toml"), &config).expect("writes");
        let running = Running::start(folder, &["--config", "score.toml", "score", "run"]);
        stuck.recv_timeout(std::time::Duration::from_secs(120)).expect("25 requests are made");
        running.signal(signal);
        let (status, said) = running.wait();
        assert_eq!(status.code(), Some(1), "{signal}: {said}");
        assert!(said.contains("scoring was interrupted; finished scores are kept"), "{signal}: {said}");
        assert_eq!(stored(&folder.join("run")).await.0.len(), 25, "{signal}: {said}");
    }
}

#[tokio::test]
async fn bad_responses_are_bounded_errors_and_are_repeated_next_time() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    import(folder, "run", "candidate", &rows(8, 1));
    let good = Arc::new(AtomicBool::new(false));
    let is_good = good.clone();
    let service = Service::start(move |_, body, _| {
        if is_good.load(Ordering::SeqCst) {
            return Reply::ok("{\"success\": true}");
        }
        let trial: Value = serde_json::from_str(body).expect("a trial");
        match trial["case"].as_str().expect("a case") {
            "c000" => Reply::ok(vec![b'x'; 3 << 20]),
            "c001" => Reply::ok(vec![0xff, 0, 0xfe]),
            "c002" => Reply::Endless,
            "c003" => Reply::Silent,
            "c004" => Reply::ok("{\"success\": \"yes\"}"),
            "c005" => Reply::Redirect("http://127.0.0.1:9/".to_owned()),
            "c006" => Reply::Whole(503, vec![b'y'; 1 << 20]),
            _ => Reply::ok(json!({"success": true, "reason": "\u{1b}[2J"}).to_string()),
        }
    });
    let config = format!(
        "[score.embeddings]\nprovider = \"off\"\n[[score.http]]\nname = \"s\"\nurl = \"{}\"\ntimeout = \"1s\"\n\
         retry = {{ times = 1, pause = \"1ms\" }}\n",
        service.url
    );
    let output = score(folder, "run", &config);
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("evaluator s failed on 7 of 8 trials"), "{said}");
    let (scores, _) = stored(&folder.join("run")).await;
    let errors: BTreeMap<&str, &str> =
        scores.iter().filter_map(|row| Some((row.case.as_str(), row.error.as_deref()?))).collect();
    for (case, words) in [
        ("c000", "longer than 1048576 bytes"),
        ("c001", "not UTF-8"),
        ("c002", "longer than 1048576 bytes"),
        ("c003", "timed out"),
        ("c004", "expected one JSON object"),
        ("c005", "302"),
        ("c006", "503"),
    ] {
        let error = errors.get(case).unwrap_or_else(|| panic!("{case} is no error: {errors:?}"));
        assert!(error.contains(words) && error.len() < 2000, "{case}: {error}");
    }
    assert_eq!(errors.len(), 7);
    good.store(true, Ordering::SeqCst);
    let output = score(folder, "run", &config);
    assert!(output.status.success(), "{}", printed(&output));
    let report = json_of(&output);
    assert_eq!(
        (&report["evaluators"][0]["already"], &report["evaluators"][0]["scored"]),
        (&json!(1), &json!(7))
    );
    let (scores, _) = stored(&folder.join("run")).await;
    assert_eq!(counts(&scores).len(), 8);
}

#[tokio::test]
async fn limits_stop_scoring_and_a_failing_service_is_given_up() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    import(folder, "run", "candidate", &rows(30, 1));
    let service =
        Service::start(
            |path, _, _| if path == "/down" { Reply::Whole(400, Vec::new()) } else { verdict("pass") },
        );
    let url = &service.url;
    let judge = format!(
        "[score.embeddings]\nprovider = \"off\"\n[[score.judge]]\nname = \"j\"\nurl = \"{url}\"\nmodel = \"m\"\n"
    );
    let bounded = format!("[score.limits]\nmax-tokens = 3000\nconcurrency = 2\n{judge}");
    let output = score(folder, "run", &bounded);
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("score.limits.max-tokens is reached"));
    let report = json_of(&output);
    let tokens = report["tokens"].as_u64().expect("a count");
    assert!((110..=3000).contains(&tokens), "{tokens}");
    // The limit counts earlier invocations: the same limit leaves no budget, a higher one does.
    let before = service.requests();
    let again = score(folder, "run", &bounded);
    assert_eq!(again.status.code(), Some(1));
    assert!(service.requests() - before <= 8, "reservations of open requests are released");
    let output = score(folder, "run", &judge);
    assert!(output.status.success(), "{}", printed(&output));
    assert_eq!(stored(&folder.join("run")).await.0.len(), 30);
    let before = service.requests();
    let down = format!(
        "[score.limits]\nmax-consecutive-errors = 5\nconcurrency = 1\n[score.embeddings]\nprovider = \"off\"\n\
         [[score.http]]\nname = \"down\"\nurl = \"{url}/down\"\n"
    );
    let output = score(folder, "run", &down);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("failed 5 times in a row"),
        "{}",
        printed(&output)
    );
    assert_eq!(service.requests() - before, 5);
}

#[tokio::test]
async fn published_judges_do_not_qualify_and_unexpected_words_are_no_grades() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tau2-judge-verdicts/verdicts.csv");
    let table = std::fs::read_to_string(table).expect("reads");
    let mut words: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut truth: BTreeMap<String, bool> = BTreeMap::new();
    for line in table.lines().skip(1) {
        let [judge, case, success, word] = line.split(',').collect::<Vec<_>>()[..] else { panic!("{line}") };
        truth.insert(format!("c{case}"), success == "true");
        words.insert((judge.to_owned(), format!("c{case}")), word.to_owned());
    }
    let trials: Vec<_> =
        truth.iter().map(|(case, success)| (case.clone(), 0, *success, "done".to_owned())).collect();
    import(folder, "base", "baseline", &trials);
    import(folder, "cand", "candidate", &trials);
    let service = Service::start(move |path, body, _| {
        let judge = path.split('/').nth(1).expect("has a name");
        let at = body.find("case=").expect("the prompt names it") + 5;
        let case: String = body[at..].chars().take_while(char::is_ascii_alphanumeric).collect();
        verdict(&words[&(judge.to_owned(), case)])
    });
    let names =
        ["customer_outcome_v1", "policy_chain_of_thought_v1", "policy_conversation_v1", "quick_triage_v1"];
    let judge = |name: &str| {
        format!(
            "[[score.judge]]\nname = \"{name}\"\nurl = \"{}/{name}\"\nmodel = \"m\"\n\
             prompt = \"case={{{{ case }}}} {{{{ transcript }}}}\"\n",
            service.url
        )
    };
    let judges: String = names.into_iter().map(judge).collect();
    let config = format!(
        "[score.limits]\nmax-error-share = 1.0\nmax-consecutive-errors = 1000\n[score.embeddings]\nprovider = \"off\"\n{judges}"
    );
    for run in ["base", "cand"] {
        let output = score(folder, run, &config);
        assert!(output.status.success(), "{}", printed(&output));
    }
    let args = ["--json", "analyze", "--baseline", "base", "--candidate", "cand", "--out", "out"];
    let verdict = json_of(&binary::run(folder, &args));
    let evaluators = verdict["outcome"]["evaluators"].as_array().expect("a list");
    let found: Vec<_> = evaluators
        .iter()
        .map(|one| {
            let overall = &one["overall"];
            let count = |key: &str| overall[key].as_u64().expect("a count");
            (
                one["name"].as_str().expect("a name"),
                count("successes_passed") + count("failures_caught"),
                count("labels"),
                one["qualified"].as_bool(),
            )
        })
        .collect();
    // Both lanes contain the same 50 sessions, so every count is doubled. Unexpected words of the second prompt are errors.
    let expected = [(names[0], 40, 100), (names[1], 20, 46), (names[2], 68, 100), (names[3], 50, 100)];
    assert_eq!(found, expected.map(|(name, agreed, labels)| (name, agreed, labels, Some(false))));
    assert_eq!(evaluators[1]["errors"], json!(54));
    let notes = verdict["notes"].to_string();
    assert!(notes.contains("judge quick_triage_v1 is not qualified: agreement 50.0 %"), "{notes}");
}

#[test]
fn an_error_names_the_bad_input() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    let refused = |output: &Output, words: &[&str]| {
        assert_eq!(output.status.code(), Some(2), "{}", printed(output));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    };
    refused(&score(folder, "nowhere", ""), &["nowhere", "foreshadow replay"]);
    import(folder, "run", "candidate", &rows(2, 1));
    refused(&score(folder, "run", "[score]\njudges = 1"), &["score.toml", "judges"]);
    let labels = "[[score.labels]]\nname = \"l\"\nfile = \"missing.csv\"";
    refused(&score(folder, "run", labels), &["labels l", "missing.csv"]);
    let judge = "[[score.judge]]\nname = \"j\"\nurl = \"http://127.0.0.1:9\"\nmodel = \"m\"\nheaders = { authorization = \"${NO_SUCH_KEY}\" }";
    refused(&score(folder, "run", judge), &["judge j", "NO_SUCH_KEY"]);
    let template = binary::run(folder, &["score", "--template"]);
    assert!(
        template.status.success() && String::from_utf8_lossy(&template.stdout).contains("[[score.judge]]")
    );
}
