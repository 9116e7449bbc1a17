//! Rows of the table that `tests/calibration/run` prints.

use std::io::Write as _;

/// How a measured value stands to what is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Pass,
    Missed,
    /// Nothing is required: it stands beside another figure, to compare.
    Beside,
}

impl Standing {
    pub(crate) fn of(holds: bool) -> Self {
        if holds { Self::Pass } else { Self::Missed }
    }
}

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// Its name in the acceptance table.
    pub(crate) id: &'static str,
    /// What is measured.
    pub(crate) figure: String,
    /// What is required of it.
    pub(crate) required: String,
    /// What was found, with the number of repetitions.
    pub(crate) measured: String,
    pub(crate) standing: Standing,
}

impl Row {
    /// Prints the row, past the capture of the test harness.
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

/// Prints the rows and fails where a figure is missed; for the short version that runs among the tests.
pub(crate) fn demand(rows: &[Row]) {
    assert!(!rows.is_empty(), "nothing was measured");
    rows.iter().for_each(Row::print);
    let missed: Vec<&Row> = rows.iter().filter(|row| row.standing == Standing::Missed).collect();
    assert!(missed.is_empty(), "missed: {missed:#?}");
}
