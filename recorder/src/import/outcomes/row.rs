//! Rows of an outcome table, as cells of text, converted to transcripts.

use schemas::exchange::Usage;
use schemas::trial::TrialEnding;

use super::cell::{self, DecimalMark};
use super::columns::{ColumnMap, OutcomeColumns, OutcomeTableError};
use crate::import::file::ImportFile;
use crate::import::parsed_file::ParsedFile;
use crate::import::skipped::SkippedItem;
use crate::import::transcript::{ReportedTotals, Transcript};

/// Columns of numbers.
const NUMBERS: [&str; 7] = ["trial", "success", "seconds", "input_tokens", "output_tokens", "cost", "weight"];

/// Converts rows to transcripts and skips the ones that name no trial.
pub(super) struct RowReader<'a> {
    pub(super) file: &'a ImportFile,
    columns: &'a OutcomeColumns,
    pub(super) map: ColumnMap,
    /// Whether a comma can be the decimal mark.
    decimal_comma: bool,
    /// Line of the first number with each decimal mark: point, comma.
    first_marks: [Option<u64>; 2],
    pub(super) parsed: ParsedFile,
}

impl<'a> RowReader<'a> {
    /// Starts with the first row of a table; `names` are its columns.
    ///
    /// # Errors
    /// The table lacks a required or a mapped column.
    pub(super) fn new(
        file: &'a ImportFile,
        columns: &'a OutcomeColumns,
        names: Vec<String>,
        decimal_comma: bool,
    ) -> Result<Self, OutcomeTableError> {
        let map = ColumnMap::new(file, columns, names)?;
        let parsed = ParsedFile { ignored_columns: map.unused(), ..ParsedFile::default() };
        Ok(Self { file, columns, map, decimal_comma, first_marks: [None; 2], parsed })
    }

    /// Reads a row; `line` is its number in the file, from 1. A row of blank cells, which spreadsheets write below a table, is
    /// none.
    ///
    /// # Errors
    /// A cell makes the whole table unusable.
    pub(super) fn read(
        &mut self,
        line: u64,
        record: &csv::StringRecord,
        embedding: Option<Vec<f32>>,
    ) -> Result<(), OutcomeTableError> {
        if record.iter().all(|cell| cell.trim().is_empty()) {
            return Ok(());
        }
        let (file, decimal_comma) = (self.file, self.decimal_comma);
        let row = OutcomeRow { file, columns: self.columns, line, record, map: &self.map, decimal_comma };
        let weight = row.weight()?;
        row.check_decimal_marks(&mut self.first_marks)?;
        match row.transcript(embedding) {
            Ok(transcript) => self.parsed.transcripts.push(Transcript { weight, ..transcript }),
            Err(item) => self.parsed.skipped.push(item),
        }
        Ok(())
    }

    /// Adds a value of the last row that cannot be read.
    pub(super) fn add_unreadable_cell(&mut self, item: SkippedItem) {
        if let Some(transcript) = self.parsed.transcripts.last_mut().filter(|one| one.line == item.line) {
            transcript.unreadable_cells.push(item);
        }
    }
}

struct OutcomeRow<'a> {
    file: &'a ImportFile,
    columns: &'a OutcomeColumns,
    line: u64,
    record: &'a csv::StringRecord,
    map: &'a ColumnMap,
    decimal_comma: bool,
}

impl OutcomeRow<'_> {
    fn skipped(&self, column: &str, expected: &str, found: &str) -> SkippedItem {
        self.file.skipped_item(self.line, column, format!("expected {expected}, found {found}"))
    }

    fn joined(&self, indices: &[usize]) -> String {
        let parts: Vec<&str> =
            indices.iter().map(|index| self.record.get(*index).unwrap_or("").trim()).collect();
        parts.join("/")
    }

    fn text(&self, name: &str) -> Option<String> {
        self.map.values.get(name).map(|indices| self.joined(indices)).filter(|text| !text.is_empty())
    }

    /// A number from 0; absent where the cell is blank or cannot be read.
    fn number(&self, name: &str, unreadable: &mut Vec<SkippedItem>) -> Option<f64> {
        let text = self.text(name)?;
        let number = cell::number(&text, self.decimal_comma).map(|(number, _)| number);
        let number = number.filter(|number| *number >= 0.0);
        if number.is_none() {
            unreadable.push(self.skipped(name, "a number of at least 0, such as 1.5", &format!("{text:?}")));
        }
        number
    }

    fn tokens(&self, name: &str, unreadable: &mut Vec<SkippedItem>) -> Option<u64> {
        let text = self.text(name)?;
        let number = cell::whole_number(&text, self.decimal_comma);
        if number.is_none() {
            unreadable.push(self.skipped(name, "a whole number of at least 0", &format!("{text:?}")));
        }
        number
    }

    /// The row as a trial.
    ///
    /// # Errors
    /// The row names no case and trial that can be read.
    fn transcript(&self, embedding: Option<Vec<f32>>) -> Result<Transcript, SkippedItem> {
        let columns = self.map.names.len();
        let has_more = self.record.iter().skip(columns).any(|cell| !cell.trim().is_empty());
        if self.record.len() < columns || has_more {
            return Err(self.skipped("", &format!("{columns} columns"), &self.record.len().to_string()));
        }
        let case = self.text("case").ok_or_else(|| self.skipped("case", "the name of a case", "nothing"))?;
        let text = self.text("trial").unwrap_or_default();
        let trial = cell::trial(&text, self.decimal_comma).ok_or_else(|| {
            self.skipped("trial", "a whole number, or a text that ends with one", &format!("{text:?}"))
        })?;
        let label = self.success();
        let error = self.text("error");
        let ending = self.columns.ending(error.as_deref());
        let mut unreadable = Vec::new();
        let seconds = self.number("seconds", &mut unreadable);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
        let duration_us = seconds.map(|seconds| (seconds * 1e6).round() as u64);
        let usage = Usage {
            input_tokens: self.tokens("input_tokens", &mut unreadable),
            output_tokens: self.tokens("output_tokens", &mut unreadable),
            cached_tokens: None,
            cost_usd: self.number("cost", &mut unreadable),
        };
        let slices = self.map.slices.iter().map(|(slice, indices)| (slice.clone(), self.joined(indices)));
        Ok(Transcript {
            line: self.line,
            name: format!("{case}/{trial}"),
            case,
            trial,
            agent: None,
            model: None,
            opening: None,
            messages: Vec::new(),
            reported: ReportedTotals { duration_us, usage, answer: self.text("answer"), embedding },
            started_at: None,
            success: label.as_ref().ok().copied().flatten(),
            // The outcome of a trial that the infrastructure failed is missing by rule, whatever its label.
            unreadable_label: label.err().filter(|_| ending != TrialEnding::Infrastructure),
            lost_messages: None,
            unreadable_cells: unreadable,
            ending,
            ending_detail: error,
            slices: slices.filter(|(_, value)| !value.is_empty()).collect(),
            cluster: self.text("cluster"),
            batch: self.text("batch"),
            weight: None,
            warnings: Vec::new(),
        })
    }

    /// Remembers the decimal marks of the row's numbers.
    ///
    /// # Errors
    /// The table has numbers with a point and numbers with a comma, so `1,234` may be either of two numbers.
    fn check_decimal_marks(&self, first: &mut [Option<u64>; 2]) -> Result<(), OutcomeTableError> {
        for name in NUMBERS {
            let text = self.text(name).unwrap_or_default();
            let Some((_, Some(mark))) = cell::number(&text, self.decimal_comma) else { continue };
            let (own, other) = match mark {
                DecimalMark::Point => (0, 1),
                DecimalMark::Comma => (1, 0),
            };
            first[own].get_or_insert(self.line);
            if let Some(line) = first[other] {
                return Err(OutcomeTableError::Cell {
                    file: self.file.name().to_owned(),
                    line: self.line,
                    column: name.to_owned(),
                    expected: "one decimal mark in the whole table; write all numbers with a point",
                    found: format!("{text:?}, and the other mark on line {line}"),
                });
            }
        }
        Ok(())
    }

    /// The sampling weight; absent if the table has no such column.
    ///
    /// # Errors
    /// The cell is not a finite number above 0. A row without its weight would count as another share of the traffic than it
    /// stands for, so the table is refused.
    fn weight(&self) -> Result<Option<f64>, OutcomeTableError> {
        if !self.map.values.contains_key("weight") {
            return Ok(None);
        }
        let text = self.text("weight").unwrap_or_default();
        let number = cell::number(&text, self.decimal_comma).map(|(number, _)| number);
        number.filter(|number| *number > 0.0).map(Some).ok_or_else(|| OutcomeTableError::Cell {
            file: self.file.name().to_owned(),
            line: self.line,
            column: "weight".to_owned(),
            expected: "a finite number above 0, because a row without its sampling weight cannot count; \
                       correct the cell or remove the column",
            found: format!("{text:?}"),
        })
    }

    /// The label; absent where the cell is blank.
    ///
    /// # Errors
    /// The cell has another text, so the outcome is missing.
    fn success(&self) -> Result<Option<bool>, SkippedItem> {
        let Some(text) = self.text("success") else { return Ok(None) };
        let expected = "1, 0, true, false, yes, no, pass, fail, or a blank cell where unknown";
        let unreadable = || self.skipped("success", expected, &format!("{text:?}"));
        cell::outcome(&text, self.decimal_comma).map(Some).ok_or_else(unreadable)
    }
}
