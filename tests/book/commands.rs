//! Runs the commands of every page, in a folder of the page's own.
//!
//! A `sh` block runs with `bash -euo pipefail`, and its last command ends with the exit code in `exit=N` (0 without it).
//! `<!-- file: NAME -->` before a block writes the block into the folder. `foreshadow record` and `foreshadow archive` run in
//! the background until the page ends, and must then stop in order. The demo runs once: a page that says `foreshadow demo`
//! gets a copy of its folder. `no-run` is for commands that the test command itself consists of, or that take an hour.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tests::binary;

use crate::pages::{self, Block, Page};

/// Pages whose commands build and test the project itself.
const BUILD_PAGES: [&str; 2] = ["README.md", "deploy/book/src/contributing.md"];

/// Shell functions that stand in front of the binary.
const PRELUDE: &str = r#"
services=()
foreshadow() {
    case "$1" in
        demo)
            cp -r "$DEMO_FOLDER" foreshadow-demo ;;
        record)
            "$FORESHADOW_BIN" "$@" 2>>service.log &
            services+=($!)
            for _ in $(seq 200); do
                if grep -q "http://127.0.0.1" service.log 2>/dev/null; then return 0; fi
                if ! kill -0 $! 2>/dev/null; then break; fi
                sleep 0.1
            done
            cat service.log >&2
            return 1 ;;
        *)
            "$FORESHADOW_BIN" "$@" ;;
    esac
}
stop_services() {
    local status=$?
    for pid in "${services[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" || { echo "a service did not stop in order" >&2; cat service.log >&2; exit 1; }
    done
    exit $status
}
trap stop_services EXIT
"#;

/// The folder that `foreshadow demo` leaves, made once.
fn demo_folder() -> &'static Path {
    static DEMO: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = DEMO.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let output = binary::run(folder.path(), &["demo"]);
        assert!(output.status.success(), "{}", binary::printed(&output));
        let path = folder.path().join("foreshadow-demo");
        (folder, path)
    });
    path
}

fn exit_code(block: &Block) -> i32 {
    let code = block.options.iter().find_map(|option| option.strip_prefix("exit="));
    code.map_or(0, |code| code.parse().expect("exit=N"))
}

/// The script of a page, and the exit codes of its blocks.
fn script(page: &Page) -> Option<String> {
    let mut script = PRELUDE.to_owned();
    let mut commands = 0;
    for block in page.blocks() {
        let runs = block.language == "sh" && !block.options.iter().any(|option| option == "no-run");
        if let Some(file) = &block.file {
            script.push_str(&format!("cat >'{file}' <<'END_OF_FILE'\n{}END_OF_FILE\n", block.text));
        } else if runs {
            commands += 1;
            let (line, expected) = (block.line, exit_code(&block));
            script.push_str(&format!("echo '--- line {line}' >&2\n"));
            if expected == 0 {
                script.push_str(&block.text);
            } else {
                // The last command of the block must end with this code, everything before it with 0.
                script.push_str(&format!(
                    "set +e\n( set -e\n{})\nstatus=$?\nset -e\n[ $status = {expected} ] || {{ echo \"exit code $status, not {expected}\" >&2; exit 1; }}\n",
                    block.text
                ));
            }
        }
    }
    (commands > 0).then_some(script)
}

fn run(page: &Page, script: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("page.sh");
    std::fs::write(&file, script).expect("script is written");
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail"]).arg(&file).current_dir(folder.path());
    command.env("FORESHADOW_BIN", binary::foreshadow()).env("HOME", folder.path());
    command.env("XDG_DATA_HOME", folder.path().join("data"));
    command.env("FORESHADOW_DATA", pages::root().join("tests/data"));
    if script.contains("foreshadow demo") {
        command.env("DEMO_FOLDER", demo_folder());
    }
    let output = command.output().expect("bash runs");
    if output.status.success() {
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}\n{printed}", page.path.display(), output.status))
}

#[test]
fn every_command_runs() {
    let (mut pages_run, mut failed) = (0, Vec::new());
    for page in pages::all() {
        let name = page.path.to_string_lossy().into_owned();
        for block in page.blocks() {
            let is_left_out = block.options.iter().any(|option| option == "no-run");
            assert!(
                !is_left_out || BUILD_PAGES.contains(&name.as_str()),
                "{name}:{}: only pages that build and test the project may leave a command out",
                block.line
            );
        }
        if name == "README.md" {
            continue;
        }
        if let Some(script) = script(&page) {
            pages_run += 1;
            failed.extend(run(&page, &script).err());
        }
    }
    assert!(pages_run >= 6, "only {pages_run} pages have commands");
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
