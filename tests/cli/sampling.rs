//! What counts as independent, and how much each case counts: the exit code and the sentence that says so.

use std::path::Path;

use tests::binary::{self, printed};

/// Imports a table as a run; `columns` are those after `case,trial,success`.
fn import(folder: &Path, lane: &str, columns: &str, rows: &[String]) {
    let file = format!("{lane}.csv");
    let text = format!("case,trial,success{columns}\n{}\n", rows.join("\n"));
    std::fs::write(folder.join(&file), text).expect("writes");
    let args = ["import", "--format", "outcomes", &file, "--run", lane, "--build", lane, "--lane", lane];
    let output = binary::run(folder, &args);
    assert!(output.status.success(), "{}", printed(&output));
}

/// Decides on the runs `baseline` and `candidate`: the exit code, and the verdict.
fn decide(folder: &Path, policy: &str) -> (i32, serde_json::Value) {
    std::fs::write(folder.join("policy.toml"), policy).expect("writes");
    let args = [
        "analyze",
        "--baseline",
        "baseline",
        "--candidate",
        "candidate",
        "--policy",
        "policy.toml",
        "--out",
        "out",
    ];
    let output = binary::run(folder, &args);
    let code = output.status.code().expect("the process ends by itself");
    assert!([0, 3, 4].contains(&code), "{}", printed(&output));
    let text = std::fs::read_to_string(folder.join("out/verdict.json")).expect("a verdict");
    (code, serde_json::from_str(&text).expect("JSON"))
}

fn has_note(verdict: &serde_json::Value, words: &str) -> bool {
    let notes = verdict["notes"].as_array().expect("notes");
    notes.iter().any(|note| note.as_str().is_some_and(|note| note.contains(words)))
}

const SUCCESS: &str = "policy = 1\nmetrics = [\"success\"]\n";

#[test]
fn two_angry_users_are_two_observations() {
    // 40 users of 5 sessions; all sessions of two users fail in the candidate. As ten independent sessions they would be
    // proof (p = 1/1024); as two users they are not (p = 1/4).
    let folder = tempfile::tempdir().expect("temp");
    for lane in ["baseline", "candidate"] {
        let row = |case: usize| {
            let user = case / 5;
            let success = u8::from(lane == "baseline" || user >= 2);
            format!("c{case:03},0,{success},user-{user}")
        };
        let rows: Vec<String> = (0..200).map(row).collect();
        import(folder.path(), lane, ",cluster", &rows);
    }
    let (code, verdict) = decide(folder.path(), SUCCESS);
    assert_eq!(code, 4, "{:#}", verdict["reasons"]);
    assert_eq!(
        (verdict["sampling"]["unit"].as_str(), verdict["sampling"]["units"].as_u64()),
        (Some("cluster"), Some(40))
    );
    assert!(has_note(&verdict, "40 clusters of up to 5 cases"), "{:#}", verdict["notes"]);
    // Forty users cannot show a margin of .05: the floor counts users.
    let reasons = verdict["reasons"].to_string();
    assert!(reasons.contains("200 cases that count as 40 independent ones"), "{reasons}");
    let (code, _) = decide(folder.path(), &format!("{SUCCESS}[sampling]\ncluster = \"none\"\n"));
    assert_eq!(code, 3, "declared independent, the sessions are proof");
}

#[test]
fn few_clusters_show_nothing_and_the_verdict_says_so() {
    let folder = tempfile::tempdir().expect("temp");
    for lane in ["baseline", "candidate"] {
        let success = u8::from(lane == "baseline");
        let rows: Vec<String> =
            (0..100).map(|case| format!("c{case:03},0,{success},team-{}", case % 4)).collect();
        import(folder.path(), lane, ",slice.team", &rows);
    }
    let (code, verdict) = decide(folder.path(), &format!("{SUCCESS}[sampling]\ncluster = \"slice:team\"\n"));
    assert_eq!(code, 4, "{:#}", verdict["reasons"]);
    assert!(has_note(&verdict, "with 4 clusters no difference can be shown"), "{:#}", verdict["notes"]);
}

#[test]
fn copies_of_a_session_are_one_session() {
    // 67 sessions, each three times under other names; two of them fail in the candidate.
    let folder = tempfile::tempdir().expect("temp");
    for lane in ["baseline", "candidate"] {
        let row = |case: usize, trial: usize| {
            let session = case / 3;
            let success = u8::from(lane == "baseline" || session >= 2);
            let micros =
                (session * 7919 + trial * 104_729 + usize::from(lane == "baseline") * 1_299_709) % 9_999_991;
            format!("c{case:03},{trial},{success},{}.{:06}", 1 + micros / 1_000_000, micros % 1_000_000)
        };
        let rows: Vec<String> = (0..201)
            .flat_map(|case| (0..2).map(move |trial| (case, trial)))
            .map(|(c, t)| row(c, t))
            .collect();
        import(folder.path(), lane, ",seconds", &rows);
    }
    let (code, verdict) = decide(folder.path(), SUCCESS);
    assert_eq!(code, 4, "{:#}", verdict["reasons"]);
    assert!(has_note(&verdict, "134 cases repeat another case"), "{:#}", verdict["notes"]);
}

#[test]
fn a_corpus_counts_as_its_traffic_does() {
    // Half of the corpus is gold, a tenth of the traffic. Free sessions get worse by 8 points, gold ones better by 8: the
    // corpus shows no change, the traffic loses 6.4 points.
    let folder = tempfile::tempdir().expect("temp");
    for lane in ["baseline", "candidate"] {
        let row = |case: usize| {
            let (tier, weight) = if case.is_multiple_of(2) { ("free", 0.9) } else { ("gold", 0.1) };
            let fails = case < 80 && (tier == "free") == (lane == "candidate");
            format!("c{case:04},0,{},{tier},{weight}", u8::from(!fails))
        };
        let rows: Vec<String> = (0..1000).map(row).collect();
        import(folder.path(), lane, ",slice.tier,tier_weight", &rows);
    }
    let (code, _) = decide(folder.path(), SUCCESS);
    assert_eq!(code, 0, "unweighted, nothing changed");
    let traffic = format!("{SUCCESS}[traffic]\nslice = \"tier\"\nshares = {{ free = 0.9, gold = 0.1 }}\n");
    let (code, verdict) = decide(folder.path(), &traffic);
    assert_eq!(code, 3, "{:#}", verdict["reasons"]);
    let effect = verdict["metrics"][0]["effect"].as_f64().expect("a number");
    assert!((effect + 0.064).abs() < 1e-9, "{effect}");
    assert!(has_note(&verdict, "weighted by their shares of the traffic"), "{:#}", verdict["notes"]);
    // A part of the traffic that no case stands for forbids approval.
    let traffic = format!("{SUCCESS}[traffic]\nslice = \"tier\"\nshares = {{ gold = 0.9, silver = 0.1 }}\n");
    let (code, verdict) = decide(folder.path(), &traffic);
    assert_eq!(code, 4, "{:#}", verdict["reasons"]);
    assert!(verdict["reasons"].to_string().contains("tier = silver (10.0 %)"), "{:#}", verdict["reasons"]);
    // The same by a weight of each session.
    for lane in ["baseline", "candidate"] {
        let file = format!("{lane}.csv");
        let args = [
            "import",
            "--format",
            "outcomes",
            &file,
            "--column",
            "weight=tier_weight",
            "--run",
            &format!("{lane}-weighted"),
            "--build",
            lane,
            "--lane",
            lane,
        ];
        let output = binary::run(folder.path(), &args);
        assert!(output.status.success(), "{}", printed(&output));
    }
    let args = [
        "analyze",
        "--baseline",
        "baseline-weighted",
        "--candidate",
        "candidate-weighted",
        "--out",
        "weighted",
    ];
    let output = binary::run(folder.path(), &args);
    assert_eq!(output.status.code(), Some(3), "{}", printed(&output));
}

#[test]
fn runs_made_apart_are_marked() {
    let folder = tempfile::tempdir().expect("temp");
    for (lane, day) in [("baseline", "monday"), ("candidate", "tuesday")] {
        let rows: Vec<String> = (0..100).map(|case| format!("c{case:03},0,1,{day}")).collect();
        import(folder.path(), lane, ",batch", &rows);
    }
    let (code, verdict) = decide(folder.path(), SUCCESS);
    assert_eq!((code, verdict["sampling"]["runs"].as_str()), (0, Some("apart")));
    assert!(has_note(&verdict, "the runs were made apart"), "{:#}", verdict["notes"]);
    let (code, verdict) = decide(folder.path(), &format!("{SUCCESS}[sampling]\nruns-apart = \"refuse\"\n"));
    assert_eq!(code, 4);
    assert!(verdict["reasons"].to_string().contains("runs_apart"), "{:#}", verdict["reasons"]);
}
