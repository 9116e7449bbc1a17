//! Reference values of numerical figures, computed by SciPy, statsmodels and NumPy in the same run.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tests::binary;

/// Python of `FORESHADOW_TEST_PYTHON`; without it the figures that need it are skipped, which CI does not allow.
pub(crate) fn python() -> Option<String> {
    let python = std::env::var("FORESHADOW_TEST_PYTHON").ok();
    if python.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI must set FORESHADOW_TEST_PYTHON (tests/run does)");
    }
    python
}

/// Runs `reference.py` for a figure; absent without Python.
pub(crate) fn ask(figure: &str, input: &Value) -> Option<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("calibration/reference.py");
    let mut child = Command::new(python()?)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let request = json!({"figure": figure, "input": input}).to_string();
    child.stdin.take().expect("piped").write_all(request.as_bytes()).expect("takes it");
    let done = child.wait_with_output().expect("ends");
    assert!(done.status.success(), "{figure}: {}", binary::printed(&done));
    Some(serde_json::from_slice(&done.stdout).expect("answers in JSON"))
}

/// Reads a list of numbers of the output.
pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().expect("a list");
    list.iter().map(|number| number.as_f64().expect("a number")).collect()
}
