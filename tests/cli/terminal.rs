//! What a person sees at 80 columns: no line is longer, three lines come before the verdict, and the verdict is the last
//! thing on the screen.

use std::fmt::Write as _;
use std::path::Path;

use tests::binary;

/// Longest line that a terminal shows without wrapping.
const COLUMNS: usize = 80;

/// Runs the binary and returns its exit code and standard output.
fn run(folder: &Path, args: &[&str]) -> (i32, String) {
    let output = binary::run(folder, args);
    let code = output.status.code().expect("an exit code");
    (code, String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Panics on a line that is too long and could have been broken between words.
fn check_width(text: &str) {
    for line in text.lines().filter(|line| line.chars().count() > COLUMNS) {
        let words = line.split_whitespace().count();
        assert!(words == 1 || line.trim_start().starts_with("foreshadow "), "too long: {line:?}");
    }
}

/// Imports 100 cases of 3 trials, of which every `failing`-th trial fails.
fn import(folder: &Path, run_name: &str, lane: &str, failing: usize) {
    let mut rows = "case,trial,success,seconds\n".to_owned();
    for number in 0..300 {
        let success = u8::from(number % failing != 0);
        // No two trials take the same time: equal cases would count as copies.
        let seconds = 1.0 + 0.0001 * f64::from(u32::try_from(number * 7919 % 4001 + failing).expect("small"));
        writeln!(rows, "a-case-with-a-rather-long-name-{:03},{},{success},{seconds}", number / 3, number % 3)
            .expect("a string takes text");
    }
    let file = format!("{run_name}.csv");
    std::fs::write(folder.join(&file), rows).expect("writes");
    let args =
        ["import", "--format", "outcomes", &file, "--run", run_name, "--build", run_name, "--lane", lane];
    let (code, text) = run(folder, &args);
    assert_eq!(code, 0, "{text}");
    check_width(&text);
}

#[test]
fn verdicts_fit_the_terminal_and_end_with_the_verdict() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    import(folder, "base", "baseline", 100);
    import(folder, "same", "candidate", 90);
    import(folder, "worse", "candidate", 3);
    import(folder, "unclear", "candidate", 30);
    for (candidate, looks, expected) in
        [("same", "1", 0), ("worse", "1", 3), ("worse", "5", 3), ("unclear", "1", 4)]
    {
        let args =
            ["analyze", "--baseline", "base", "--candidate", candidate, "--looks", looks, "--out", "out"];
        let (code, text) = run(folder, &args);
        assert_eq!(code, expected, "{text}");
        check_width(&text);
        let starts: Vec<&str> =
            text.lines().filter(|line| !line.starts_with("  ")).take(3).map(|line| &line[..7]).collect();
        assert_eq!(starts, ["Compare", "Missing", "Tested:"], "{text}");
        let word = ["APPROVE: ", "", "", "BLOCK: ", "INCONCLUSIVE: "][usize::try_from(code).expect("small")];
        let (before, last) = text.rsplit_once("\n\n").expect("an empty line before the verdict");
        assert!(last.starts_with(word) && last.contains("Successful trials: "), "{text}");
        assert!(!before.contains(word) && before.contains("written to out"), "{text}");
    }
    let (code, text) = run(folder, &["calibrate", "--run", "base", "--splits", "5"]);
    assert_eq!(code, 0, "{text}");
    check_width(&text);
}

#[test]
fn sessions_with_long_names_fit_the_terminal() {
    let folder = tempfile::tempdir().expect("temp");
    let folder = folder.path();
    let text = "a long message of the user ".repeat(12);
    let session = format!(
        r#"{{"task_id":"a-task-with-a-name-that-is-long-enough-to-fill-a-line","trial":0,"reward":1.0,"traj":[{{"role":"user","content":"{text}"}},{{"role":"assistant","content":"{text}"}}]}}"#
    );
    std::fs::write(folder.join("shop.jsonl"), session + "\n").expect("writes");
    let args = ["import", "--format", "tau-bench", "shop.jsonl", "--store", "store", "--agent", "support"];
    let (code, text) = run(folder, &args);
    assert_eq!(code, 0, "{text}");
    check_width(&text);
    for args in [
        ["sessions", "list", "--store", "store"].as_slice(),
        &["sessions", "show", "a-task", "--store", "store"],
    ] {
        let (code, text) = run(folder, args);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("a-task-with-a-name-that-is-long-enough-to-fill-a-line"), "{text}");
        check_width(&text);
    }
}
