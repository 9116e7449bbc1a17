//! Rows of the table that `tests/calibration/run` prints.

use std::io::Write as _;

/// Result of a figure against its requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Pass,
    Missed,
    /// No requirement: the figure is for comparison.
    Beside,
}

impl Standing {
    pub(crate) fn of(holds: bool) -> Self {
        if holds { Self::Pass } else { Self::Missed }
    }
}

/// A figure.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// Id in the acceptance table.
    pub(crate) id: &'static str,
    /// Quantity measured.
    pub(crate) figure: String,
    /// Requirement.
    pub(crate) required: String,
    /// Measured value, with the number of repetitions.
    pub(crate) measured: String,
    pub(crate) standing: Standing,
}

impl Row {
    /// Prints the row in spite of the test harness's capture.
    pub(crate) fn print(&self) {
        let Self { id, figure, required, measured, standing } = self;
        let standing = match standing {
            Standing::Pass => "pass",
            Standing::Missed => "**MISSED**",
            Standing::Beside => "",
        };
        let _ = writeln!(std::io::stderr(), "| {id} | {figure} | {required} | {measured} | {standing} |");
    }
}

/// Prints the rows and fails if a figure is missed; for the short version in the test suite.
pub(crate) fn demand(rows: &[Row]) {
    assert!(!rows.is_empty(), "nothing was measured");
    rows.iter().for_each(Row::print);
    let missed: Vec<&Row> = rows.iter().filter(|row| row.standing == Standing::Missed).collect();
    assert!(missed.is_empty(), "missed: {missed:#?}");
}
