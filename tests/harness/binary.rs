//! Finds the binary under test and runs it in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Path of the `foreshadow` binary: `FORESHADOW_BIN`, else the one built beside the running test.
///
/// # Panics
/// No binary is there.
#[must_use]
pub fn foreshadow() -> PathBuf {
    if let Some(path) = std::env::var_os("FORESHADOW_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("the test knows its own path");
    let path = test.ancestors().nth(2).expect("tests are in target/PROFILE/deps").join("foreshadow");
    assert!(path.exists(), "{} is missing: run `cargo build` with the same profile first", path.display());
    path
}

/// A command of the binary with `folder` as working directory and as place of its key.
#[must_use]
pub fn command(folder: &Path) -> Command {
    let mut command = Command::new(foreshadow());
    command.current_dir(folder).env("FORESHADOW_KEY_FILE", folder.join("root.key")).env("NO_COLOR", "1");
    command
}

/// Runs the binary until it exits.
///
/// # Panics
/// The binary cannot be started.
#[must_use]
pub fn run(folder: &Path, args: &[&str]) -> Output {
    command(folder).args(args).output().expect("the binary starts")
}

/// Standard output and standard error of a finished command, for the message of a failed assertion.
#[must_use]
pub fn printed(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("exit {:?}\n--- stdout\n{out}\n--- stderr\n{err}", output.status.code())
}

/// Every file below a folder.
///
/// # Panics
/// A folder cannot be read.
#[must_use]
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).expect("folder reads") {
            let path = entry.expect("entry reads").path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
