//! Rows of the table that `tests/performance/run` prints.

use std::io::Write as _;

/// Prints a row: what was measured, what is required, what was found, and how.
pub(crate) fn row(what: &str, required: &str, found: &str, how: &str) {
    // Past the capture of the test harness, so that the rows of passing measurements are seen too.
    let _ = writeln!(std::io::stderr(), "| {what} | {required} | {found} | {how} |");
}

/// A number of bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let count = count as f64;
    if count < 1e6 { format!("{:.1} kB", count / 1e3) } else { format!("{:.2} MB", count / 1e6) }
}

/// One number as a multiple of another.
pub(crate) fn ratio(of: u64, to: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let ratio = of as f64 / to as f64;
    ratio
}
