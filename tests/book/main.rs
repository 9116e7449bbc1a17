//! The book and the README: mdBook builds the pages, every link leads somewhere, and every command runs.

mod commands;
mod examples;
mod links;
mod pages;

use std::io::Write as _;

use crate::pages::root;

#[test]
fn mdbook_builds_every_page() {
    let Some(mdbook) = std::env::var_os("FORESHADOW_TEST_MDBOOK") else {
        assert!(std::env::var_os("CI").is_none(), "CI must set FORESHADOW_TEST_MDBOOK (tests/run does)");
        let _ =
            writeln!(std::io::stderr(), "not exercised: mdBook is not installed, so the book was not built");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = std::process::Command::new(mdbook)
        .args(["build", "--dest-dir"])
        .arg(folder.path())
        .arg(root().join("deploy/book"))
        .output()
        .expect("mdbook runs");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !printed.contains("WARN"), "{printed}");
    for page in pages::book() {
        let html = folder.path().join(page.path.strip_prefix("deploy/book/src").expect("a page of the book"));
        if page.path.file_name().is_some_and(|name| name != "SUMMARY.md") {
            assert!(html.with_extension("html").exists(), "{} was not built", page.path.display());
        }
    }
}
