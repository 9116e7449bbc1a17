//! The whole path on embedded defaults, as `foreshadow demo` walks it.

use serde_json::Value;
use tests::{binary, verdict};

#[test]
fn the_demo_approves_the_good_build_and_blocks_the_bad_one() {
    let folder = tempfile::tempdir().expect("temp");
    let output = binary::run(folder.path(), &["--json", "demo", "--out", "demo", "--seed", "20260101"]);
    assert!(output.status.success(), "{}", binary::printed(&output));
    let result: Value = serde_json::from_slice(&output.stdout).expect("prints JSON");
    let text = result.to_string();
    assert!(text.contains("approve") && text.contains("block"), "{result:#}");
    let reports = binary::files_below(folder.path()).into_iter().filter(|path| path.ends_with("report.html"));
    let reports: Vec<_> = reports.collect();
    assert_eq!(reports.len(), 2);
    for report in reports {
        verdict::read(report.parent().expect("lies in a folder"));
    }

    // What the demo recorded is whole, and a second look says the same.
    let listed =
        binary::run(folder.path(), &["--json", "sessions", "verify", "--store", "demo/store", "--strict"]);
    assert!(listed.status.success(), "{}", binary::printed(&listed));
}
