//! The other side of a numerical figure: SciPy, statsmodels and NumPy, asked in the same run.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tests::binary;

/// The Python of `FORESHADOW_TEST_PYTHON`; without one the figures that need it are left out, which CI does not allow.
pub(crate) fn python() -> Option<String> {
    let python = std::env::var("FORESHADOW_TEST_PYTHON").ok();
    if python.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI must set FORESHADOW_TEST_PYTHON (tests/run does)");
    }
    python
}

/// Asks `reference.py` for its values of a figure; nothing where there is no Python.
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

/// A list of numbers of an answer.
pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().expect("a list");
    list.iter().map(|number| number.as_f64().expect("a number")).collect()
}
