//! Outcome tables and benchmark results as people export them: what is lost is missing in the verdict, and nothing is approved
//! that was not shown.

use std::path::Path;

use tests::binary::{self, printed};

/// A candidate that fails 240 of 600 trials, as a table; `row` writes a failed trial, or leaves it out.
fn table(row: impl Fn(&str, u32) -> Option<String>) -> String {
    let mut text = "case,trial,success,seconds\n".to_owned();
    for number in 0..600_u32 {
        let (case, trial) = (format!("case-{}", number / 3), number % 3);
        if number % 5 < 2 {
            text.extend(row(&case, trial).map(|row| row + "\n"));
        } else {
            text.push_str(&format!("{case},{trial},1,1.5\n"));
        }
    }
    text
}

fn passed(case: &str, trial: u32) -> Option<String> {
    Some(format!("{case},{trial},1,1.5"))
}

/// Imports a file into a run; returns the exit code and the output.
fn import(folder: &Path, format: &str, file: &str, lane: &str, more: &[&str]) -> (Option<i32>, String) {
    let mut args = vec!["import", "--format", format, file, "--run", lane, "--build", lane, "--lane", lane];
    args.extend(more);
    let output = binary::run(folder, &args);
    (output.status.code(), printed(&output))
}

/// Writes and imports an outcome table into the run of its lane.
fn import_table(folder: &Path, text: &str, lane: &str, more: &[&str]) -> (Option<i32>, String) {
    let file = format!("{lane}.csv");
    std::fs::write(folder.join(&file), text).expect("writes");
    import(folder, "outcomes", &file, lane, more)
}

/// Imports both tables; returns the exit code of `analyze` and its verdict.
fn decide(baseline: &str, candidate: &str, more: &[&str]) -> (Option<i32>, serde_json::Value) {
    let folder = tempfile::tempdir().expect("temp");
    let (code, output) = import_table(folder.path(), baseline, "baseline", &[]);
    assert_eq!(code, Some(0), "{output}");
    let (code, output) = import_table(folder.path(), candidate, "candidate", more);
    assert_eq!(code, Some(0), "{output}");
    analyze(folder.path())
}

fn analyze(folder: &Path) -> (Option<i32>, serde_json::Value) {
    let args = ["analyze", "--baseline", "baseline", "--candidate", "candidate", "--out", "out"];
    let output = binary::run(folder, &args);
    let verdict =
        std::fs::read(folder.join("out/verdict.json")).unwrap_or_else(|_| panic!("{}", printed(&output)));
    (output.status.code(), serde_json::from_slice(&verdict).expect("JSON"))
}

#[test]
fn a_bad_optional_cell_loses_the_cell_and_never_the_outcome() {
    let baseline = table(passed);
    for cell in ["nan", "-1", "None", "1,5 s"] {
        let candidate = table(|case, trial| Some(format!("{case},{trial},0,\"{cell}\"")));
        let (code, verdict) = decide(&baseline, &candidate, &[]);
        assert_eq!((code, &verdict["pairs"]["missing_candidate"]), (Some(3), &0.into()), "{cell}");
        let notes = verdict["notes"].to_string();
        assert!(notes.contains("set aside 240 optional cells"), "{notes}");
    }
}

#[test]
fn an_unreadable_outcome_is_missing_and_refused_by_default() {
    let baseline = table(passed);
    for label in ["None", "error", "maybe", "nan", "2"] {
        let candidate = table(|case, trial| Some(format!("{case},{trial},{label},1.5")));
        let folder = tempfile::tempdir().expect("temp");
        let (code, output) = import_table(folder.path(), &candidate, "candidate", &[]);
        assert_eq!(code, Some(1), "{label}: {output}");
        assert!(output.contains("candidate.csv:2: success: expected"), "{output}");
        assert!(output.contains("--max-skipped 240"), "{output}");
        assert!(!folder.path().join("candidate").exists(), "something was written");
        let (code, verdict) = decide(&baseline, &candidate, &["--max-skipped", "240"]);
        assert_eq!(code, Some(4), "{label}");
        assert_eq!(verdict["reasons"][0]["code"], "missing_trials", "{label}");
        assert_eq!(verdict["pairs"]["no_outcome_candidate"]["unreadable_label"], 240, "{label}");
    }
}

#[test]
fn failed_trials_that_are_not_in_the_table_are_missing() {
    let baseline = table(passed);
    // Not written, blank, and in rows whose trial cannot be read.
    let (code, verdict) = decide(&baseline, &table(|_, _| None), &[]);
    assert_eq!((code, &verdict["pairs"]["no_outcome_candidate"]["not_written"]), (Some(4), &240.into()));
    let (code, verdict) = decide(&baseline, &table(|case, trial| Some(format!("{case},{trial},,1.5"))), &[]);
    assert_eq!((code, &verdict["pairs"]["no_outcome_candidate"]["blank_label"]), (Some(4), &240.into()));
    let unnamed = table(|case, _| Some(format!("{case},?,0,1.5")));
    let (code, verdict) = decide(&baseline, &unnamed, &["--max-skipped", "240"]);
    assert_eq!((code, &verdict["pairs"]["missing_candidate"]), (Some(4), &240.into()));
    // A table without any trial of the cases that fail.
    let (code, verdict) = decide(
        &table(passed),
        &baseline
            .lines()
            .filter(|row| !row.starts_with("case-1"))
            .map(|row| row.to_owned() + "\n")
            .collect::<String>(),
        &[],
    );
    assert_eq!((code, &verdict["pairs"]["missing_candidate"]), (Some(4), &333.into()));
}

#[test]
fn a_declared_number_of_trials_is_the_plan() {
    // Every case of the candidate lacks its third trial, which nothing in the table shows.
    let baseline = table(passed);
    let candidate: String =
        baseline.lines().filter(|row| !row.contains(",2,")).map(|row| row.to_owned() + "\n").collect();
    let (code, verdict) = decide(&baseline, &candidate, &[]);
    assert_eq!((code, &verdict["pairs"]["missing_candidate"]), (Some(0), &0.into()));
    let (code, verdict) = decide(&baseline, &candidate, &["--trials", "3"]);
    assert_eq!((code, &verdict["pairs"]["missing_candidate"]), (Some(4), &200.into()));
}

#[test]
fn different_outcomes_of_one_trial_are_refused_and_equal_ones_count_once() {
    let folder = tempfile::tempdir().expect("temp");
    let rows = "case,trial,success\na,0,1\nb,0,1\nb,0,1\n";
    let (code, output) = import_table(folder.path(), &format!("{rows}a,0,0\n"), "candidate", &[]);
    assert_eq!(code, Some(2), "{output}");
    for words in
        ["candidate.csv:5: case a trial 0", "line 2 of candidate.csv", "success", "nothing was written"]
    {
        assert!(output.contains(words), "{words:?} is not in:\n{output}");
    }
    let (code, output) = import_table(folder.path(), rows, "candidate", &[]);
    assert_eq!(code, Some(0), "{output}");
    assert!(
        output.contains("imported 2 trials") && output.contains("1 repetitions of equal trials"),
        "{output}"
    );
    // A later import is compared with the run.
    let (code, output) = import_table(folder.path(), "case,trial,success\na,0,1\nc,0,1\n", "candidate", &[]);
    assert_eq!(code, Some(0), "{output}");
    assert!(
        output.contains("imported 1 trial ") && output.contains("1 repetitions of equal trials"),
        "{output}"
    );
    let (code, output) = import_table(folder.path(), "case,trial,success\na,0,0\nd,0,1\n", "candidate", &[]);
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains("already has case a trial 0 with another success"), "{output}");
}

#[test]
fn benchmark_trials_without_messages_or_reward_are_missing() {
    let folder = tempfile::tempdir().expect("temp");
    let rows = |failed: &str| {
        let row = |number: u32| {
            let (task, trial) = (number / 3, number % 3);
            let rest = if number % 5 < 2 {
                failed
            } else {
                r#""reward_info":{"reward":1.0},"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"done"}]"#
            };
            format!("{{\"task_id\":{task},\"trial\":{trial},{rest}}}\n")
        };
        (0..600).map(row).collect::<String>()
    };
    let good = r#""reward_info":{"reward":1.0},"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"done"}]"#;
    std::fs::write(folder.path().join("base.jsonl"), rows(good)).expect("writes");
    let (code, output) = import(folder.path(), "tau2", "base.jsonl", "baseline", &[]);
    assert_eq!(code, Some(0), "{output}");
    for failed in [
        r#""reward_info":{"reward":0.0}"#,
        r#""reward_info":{"reward":"error"},"messages":[{"role":"user","content":"hi"}]"#,
        r#""reward_info":{"reward":0.0},"messages":[{"role":"user","content":7},{"role":"alien"}]"#,
    ] {
        let _ = std::fs::remove_dir_all(folder.path().join("candidate"));
        std::fs::write(folder.path().join("cand.jsonl"), rows(failed)).expect("writes");
        let (code, output) = import(folder.path(), "tau2", "cand.jsonl", "candidate", &[]);
        assert_eq!(code, Some(1), "{output}");
        let (code, output) =
            import(folder.path(), "tau2", "cand.jsonl", "candidate", &["--max-skipped", "240"]);
        assert_eq!(code, Some(0), "{output}");
        let (code, verdict) = analyze(folder.path());
        assert_eq!((code, &verdict["pairs"]["missing_candidate"]), (Some(4), &240.into()), "{failed}");
    }
}

#[test]
fn spreadsheet_exports_decide_like_plain_tables() {
    let baseline = table(passed);
    let candidate = table(|case, trial| Some(format!("{case},{trial},0,1.5")));
    let german = |text: &str| text.replace(',', ";").replace("1.5", "1,5").replace('\n', "\r\n");
    let words = |text: &str| {
        text.replace(",1,1.5", ",passed,1.5")
            .replace(",0,1.5", ",f,1.5")
            .replace(',', "\t")
            .replace('\n', "\r")
    };
    let exports = [
        (german(&baseline), german(&candidate)),
        (format!("sep=;\r\n{}", german(&baseline)), format!("\u{feff}{}", german(&candidate))),
        (words(&baseline), words(&candidate)),
    ];
    for (baseline, candidate) in exports {
        let (code, verdict) = decide(&baseline, &candidate, &[]);
        assert_eq!((code, &verdict["pairs"]["trials_candidate"]), (Some(3), &600.into()));
    }
    // A composed and a decomposed name are one case.
    let composed = baseline.replace("case", "caf\u{e9}").replacen("caf\u{e9}", "case", 1);
    let decomposed = composed.replace('\u{e9}', "e\u{301}");
    let (code, verdict) = decide(&composed, &decomposed, &[]);
    assert_eq!((code, &verdict["pairs"]["paired"]), (Some(0), &200.into()));
}
