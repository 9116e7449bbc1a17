//! How a CSV file is written: its separator, and the line of a byte.
//!
//! The header decides on the separator, because a cell may contain any character. A first line `sep=;`, which spreadsheets
//! write and read, takes precedence.

use super::columns::{ColumnMap, OutcomeColumns, OutcomeTableError};
use crate::import::file::ImportFile;

/// Separators of columns that a header is tried with.
const SEPARATORS: [u8; 3] = [b',', b';', b'\t'];

/// How a CSV file is written.
#[derive(Debug)]
pub(super) struct CsvDialect {
    /// Separator of columns.
    pub(super) separator: u8,
    /// First byte of the header.
    pub(super) start: usize,
}

impl CsvDialect {
    /// Finds the separator with which the header has all required and mapped columns.
    ///
    /// # Errors
    /// The header cannot be parsed, lacks a column with every separator, or can be read with several.
    pub(super) fn detect(file: &ImportFile, columns: &OutcomeColumns) -> Result<Self, OutcomeTableError> {
        let bytes = file.bytes();
        if let Some((separator, start)) = declared_separator(bytes) {
            return Ok(Self { separator, start });
        }
        let is_complete = |separator: u8| -> Result<bool, OutcomeTableError> {
            Ok(ColumnMap::new(file, columns, header(file, separator, 0)?).is_ok())
        };
        let mut complete = Vec::new();
        for separator in SEPARATORS {
            if is_complete(separator)? {
                complete.push(separator);
            }
        }
        match complete[..] {
            [separator] => Ok(Self { separator, start: 0 }),
            [] => {
                // The error then names the columns of the likeliest reading.
                let mut best = (b',', 0);
                for separator in SEPARATORS {
                    let found = header(file, separator, 0)?.len();
                    if found > best.1 {
                        best = (separator, found);
                    }
                }
                Ok(Self { separator: best.0, start: 0 })
            }
            _ => Err(OutcomeTableError::Header {
                file: file.name().to_owned(),
                detail:
                    "several separators give all columns; name the right one in a first line such as sep=;"
                        .to_owned(),
            }),
        }
    }

    /// Names of the columns.
    ///
    /// # Errors
    /// The header cannot be parsed.
    pub(super) fn names(&self, file: &ImportFile) -> Result<Vec<String>, OutcomeTableError> {
        header(file, self.separator, self.start)
    }

    /// Whether a comma can be the decimal mark.
    pub(super) fn allows_decimal_comma(&self) -> bool {
        self.separator != b','
    }
}

fn header(file: &ImportFile, separator: u8, start: usize) -> Result<Vec<String>, OutcomeTableError> {
    let failed = |detail: String| OutcomeTableError::Header { file: file.name().to_owned(), detail };
    let mut reader =
        csv::ReaderBuilder::new().flexible(true).delimiter(separator).from_reader(&file.bytes()[start..]);
    let header = reader.headers().map_err(|error| failed(error.to_string()))?;
    if header.iter().any(|name| name.contains('\0')) {
        return Err(failed(
            "it has NUL bytes, as UTF-16 without a byte order mark; save the table as CSV UTF-8".to_owned(),
        ));
    }
    Ok(header.iter().map(super::columns::normalised_name).collect())
}

/// The separator of a first line such as `sep=;`, and the first byte after that line.
fn declared_separator(bytes: &[u8]) -> Option<(u8, usize)> {
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    let line = bytes[..end].trim_ascii_start();
    let line = line.strip_prefix(b"\"").and_then(|line| line.strip_suffix(b"\"")).unwrap_or(line);
    let (name, value) = line.split_at_checked(4)?;
    match value {
        [separator] if name.eq_ignore_ascii_case(b"sep=") => Some((*separator, end)),
        _ => None,
    }
}

/// Counts lines: `\n`, `\r\n` and a lone `\r` each end one.
#[derive(Debug)]
pub(super) struct LineCounter<'a> {
    bytes: &'a [u8],
    offset: usize,
    line: u64,
}

impl<'a> LineCounter<'a> {
    /// Starts at the first byte.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0, line: 1 }
    }

    /// The line from 1 of the first byte at or after `offset` that is no line break. Offsets must ascend.
    pub(super) fn line_at(&mut self, offset: usize) -> u64 {
        while let Some(byte) = self.bytes.get(self.offset) {
            let is_break = matches!(byte, b'\r' | b'\n');
            if self.offset >= offset && !is_break {
                break;
            }
            let is_pair = *byte == b'\r' && self.bytes.get(self.offset + 1) == Some(&b'\n');
            self.line += u64::from(is_break && !is_pair);
            self.offset += 1;
        }
        self.line
    }
}
