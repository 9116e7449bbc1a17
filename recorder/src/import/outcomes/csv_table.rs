//! Outcome tables in CSV.

use super::columns::{OutcomeColumns, OutcomeTableError};
use super::row::RowReader;
use crate::import::file::ImportFile;
use crate::import::parsed_file::ParsedFile;

/// Reads every row of the table.
///
/// # Errors
/// The header cannot be parsed, or lacks a column.
pub(super) fn read(file: &ImportFile, columns: &OutcomeColumns) -> Result<ParsedFile, OutcomeTableError> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file.bytes());
    let header = reader.headers().map_err(|error| OutcomeTableError::Header {
        file: file.name().to_owned(),
        detail: error.to_string(),
    })?;
    let names: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
    let mut rows = RowReader::new(file, columns, names)?;
    let mut record = csv::StringRecord::new();
    loop {
        let line = reader.position().line();
        match reader.read_record(&mut record) {
            Ok(false) => break,
            Err(error) => {
                let line = error.position().map_or(line, csv::Position::line);
                let detail = format!("expected a row of UTF-8 text: {error}");
                rows.parsed.skipped.push(file.skipped_item(line, "", detail));
            }
            Ok(true) => {
                let line = record.position().map_or(line, csv::Position::line);
                rows.read(line, &record, None)?;
            }
        }
    }
    Ok(rows.parsed)
}
