//! Rows of an outcome table, as cells of text, converted to transcripts.

use std::collections::HashMap;

use schemas::exchange::Usage;

use super::columns::{ColumnMap, OutcomeColumns, OutcomeTableError};
use crate::import::chat_message::is_success;
use crate::import::file::ImportFile;
use crate::import::parsed_file::ParsedFile;
use crate::import::skipped::SkippedItem;
use crate::import::transcript::{ReportedTotals, Transcript};

/// Converts rows to transcripts and skips the ones that cannot be read.
pub(super) struct RowReader<'a> {
    pub(super) file: &'a ImportFile,
    columns: &'a OutcomeColumns,
    pub(super) map: ColumnMap,
    /// Line of the first row of each trial.
    first_lines: HashMap<(String, u32), u64>,
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
    ) -> Result<Self, OutcomeTableError> {
        let map = ColumnMap::new(file, columns, names)?;
        let parsed = ParsedFile { ignored_columns: map.unused(), ..ParsedFile::default() };
        Ok(Self { file, columns, map, first_lines: HashMap::new(), parsed })
    }

    /// Reads a row; `line` is its number in the file, from 1.
    ///
    /// # Errors
    /// A cell makes the whole table unusable.
    pub(super) fn read(
        &mut self,
        line: u64,
        record: &csv::StringRecord,
        embedding: Option<Vec<f32>>,
    ) -> Result<(), OutcomeTableError> {
        let row = OutcomeRow { file: self.file, columns: self.columns, line, record, map: &self.map };
        let weight = row.weight()?;
        let transcript = row.transcript(embedding).map(|transcript| Transcript { weight, ..transcript });
        match transcript.and_then(|transcript| check_unique(&row, &mut self.first_lines, transcript)) {
            Ok(transcript) => self.parsed.transcripts.push(transcript),
            Err(item) => self.parsed.skipped.push(item),
        }
        Ok(())
    }
}

/// Rejects a second row of a trial, which would count twice.
fn check_unique(
    row: &OutcomeRow<'_>,
    first_lines: &mut HashMap<(String, u32), u64>,
    transcript: Transcript,
) -> Result<Transcript, SkippedItem> {
    let mut key = transcript.case.clone();
    // Rows of one case may differ in a slice; the user may filter by it.
    for (slice, value) in &transcript.slices {
        key.push_str(&format!("\n{slice}={value}"));
    }
    match first_lines.insert((key, transcript.trial), row.line) {
        None => Ok(transcript),
        Some(line) => Err(row.skipped(
            "trial",
            &format!("a trial of case {:?} once", transcript.case),
            &format!("it again, first on line {line}"),
        )),
    }
}

struct OutcomeRow<'a> {
    file: &'a ImportFile,
    columns: &'a OutcomeColumns,
    line: u64,
    record: &'a csv::StringRecord,
    map: &'a ColumnMap,
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

    fn number(&self, name: &str) -> Result<Option<f64>, SkippedItem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
        number.map(Some).ok_or_else(|| self.skipped(name, "a number of at least 0", &format!("{text:?}")))
    }

    fn tokens(&self, name: &str) -> Result<Option<u64>, SkippedItem> {
        let number = self.number(name)?;
        // Spreadsheets may write an integer as 12.0.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a token count is far below 2^53"
        )]
        Ok(number.map(|number| number.round() as u64))
    }

    fn transcript(&self, embedding: Option<Vec<f32>>) -> Result<Transcript, SkippedItem> {
        let columns = self.map.names.len();
        if self.record.len() != columns {
            return Err(self.skipped("", &format!("{columns} columns"), &self.record.len().to_string()));
        }
        let case = self.text("case").ok_or_else(|| self.skipped("case", "the name of a case", "nothing"))?;
        let trial = self.trial()?;
        let error = self.text("error");
        let seconds = self.number("seconds")?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
        let duration_us = seconds.map(|seconds| (seconds * 1e6).round() as u64);
        let usage = Usage {
            input_tokens: self.tokens("input_tokens")?,
            output_tokens: self.tokens("output_tokens")?,
            cached_tokens: None,
            cost_usd: self.number("cost")?,
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
            success: self.success()?,
            ending: self.columns.ending(error.as_deref()),
            ending_detail: error,
            slices: slices.filter(|(_, value)| !value.is_empty()).collect(),
            cluster: self.text("cluster"),
            weight: None,
            warnings: Vec::new(),
        })
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
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
        number.map(Some).ok_or_else(|| OutcomeTableError::Cell {
            file: self.file.name().to_owned(),
            line: self.line,
            column: "weight".to_owned(),
            expected: "a finite number above 0, because a row without its sampling weight cannot count; \
                       correct the cell or remove the column",
            found: format!("{text:?}"),
        })
    }

    /// The trial number: a number, or a text that ends with one (`run-3`).
    fn trial(&self) -> Result<u32, SkippedItem> {
        let text = self.text("trial").unwrap_or_default();
        let is_negative = text.parse::<f64>().is_ok_and(|number| number < 0.0);
        let digits = if is_negative { "" } else { text.as_str() };
        let digits = digits.trim_start_matches(|letter: char| !letter.is_ascii_digit());
        digits.parse().map_err(|_| {
            self.skipped("trial", "a whole number, or a text that ends with one", &format!("{text:?}"))
        })
    }

    fn success(&self) -> Result<Option<bool>, SkippedItem> {
        let Some(text) = self.text("success") else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "pass" => return Ok(Some(true)),
            "false" | "no" | "fail" => return Ok(Some(false)),
            _ => {}
        }
        let reward = text.parse::<f64>().ok().filter(|reward| (0.0..=1.0).contains(reward));
        let skipped =
            || self.skipped("success", "0, 1, true, false, or nothing where unknown", &format!("{text:?}"));
        reward.map(|reward| Some(is_success(reward))).ok_or_else(skipped)
    }
}
