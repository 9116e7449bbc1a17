//! Rows of the table that `tests/performance/run` prints.

use std::io::Write as _;

/// Prints a row: figure, required value, measured value, method.
pub(crate) fn row(figure: &str, required: &str, measured: &str, method: &str) {
    // Directly to stderr, because the test harness captures the output of passing tests.
    let _ = writeln!(std::io::stderr(), "| {figure} | {required} | {measured} | {method} |");
}

/// Bytes with a unit, such as `3.71 MB`.
pub(crate) fn bytes(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let count = count as f64;
    if count < 1e6 { format!("{:.1} kB", count / 1e3) } else { format!("{:.2} MB", count / 1e6) }
}

/// `of` divided by `to`.
pub(crate) fn ratio(of: u64, to: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let ratio = of as f64 / to as f64;
    ratio
}
