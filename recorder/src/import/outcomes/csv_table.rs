//! Outcome tables in CSV.

use super::columns::{OutcomeColumns, OutcomeTableError};
use super::csv_dialect::{CsvDialect, LineCounter};
use super::row::RowReader;
use crate::import::file::ImportFile;
use crate::import::parsed_file::ParsedFile;

/// Reads every row of the table.
///
/// # Errors
/// The header cannot be parsed or lacks a column, or a cell makes the table unusable.
pub(super) fn read(file: &ImportFile, columns: &OutcomeColumns) -> Result<ParsedFile, OutcomeTableError> {
    let dialect = CsvDialect::detect(file, columns)?;
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .delimiter(dialect.separator)
        .from_reader(&file.bytes()[dialect.start..]);
    let mut rows = RowReader::new(file, columns, dialect.names(file)?, dialect.allows_decimal_comma())?;
    // The parser counts only `\n`, and counts it after the row that it ends.
    let mut lines = LineCounter::new(file.bytes());
    let mut line_of = |position: Option<&csv::Position>| {
        let byte = position.and_then(|position| usize::try_from(position.byte()).ok());
        lines.line_at(dialect.start + byte.unwrap_or(0))
    };
    let mut record = csv::StringRecord::new();
    loop {
        match reader.read_record(&mut record) {
            Ok(false) => break,
            Err(error) => {
                let line = line_of(error.position());
                let detail = format!("expected a row of UTF-8 text: {error}; save the table as CSV UTF-8");
                rows.parsed.skipped.push(file.skipped_item(line, "", detail));
            }
            Ok(true) => rows.read(line_of(record.position()), &record, None)?,
        }
    }
    Ok(rows.parsed)
}
