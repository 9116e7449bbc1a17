//! Tables of trials without transcripts, CSV or Parquet, with `case`, `trial` and `success`, and what else is known of a
//! trial.
//!
//! Known columns: `seconds`, `input_tokens`, `output_tokens`, `cost`, `error`, `answer`, `slice.NAME` for every slice,
//! and in Parquet `embedding`. Other columns are ignored and named.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use schemas::exchange::Usage;
use schemas::trial::TrialEnding;

use super::chat_message::is_success;
use super::file::ImportFile;
use super::parsed_file::ParsedFile;
use super::skipped::SkippedItem;
use super::transcript::{ReportedTotals, Transcript};

mod parquet_table;

/// OutcomeColumns without which there is no trial.
const NEEDED: [&str; 3] = ["case", "trial", "success"];

/// OutcomeColumns that are read where they are there.
const KNOWN: [&str; 6] = ["seconds", "input_tokens", "output_tokens", "cost", "error", "answer"];

/// What the columns of slices start with.
const SLICE: &str = "slice.";

/// A header that does not say what is needed, or a renaming of columns that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutcomeTableError {
    /// A column is missing.
    #[error(
        "{file}:1: no column {column:?}, found {found}; a table needs case,trial,success: \
         name another column with --column {name}=COLUMN"
    )]
    Missing {
        /// The file.
        file: String,
        /// What it is needed for.
        name: String,
        /// The column that is not there.
        column: String,
        /// The columns that are.
        found: String,
    },
    /// The header cannot be read.
    #[error("{file}:1: the header cannot be read: {detail}; expected a line of column names")]
    Header {
        /// The file.
        file: String,
        /// What is wrong.
        detail: String,
    },
    /// A column whose values cannot be what is wanted.
    #[error("{file}: column {column:?} has type {found}; expected {expected}")]
    Type {
        /// The file.
        file: String,
        /// The column.
        column: String,
        /// What its values should be.
        expected: &'static str,
        /// Its type.
        found: String,
    },
    /// A Parquet file that is none.
    #[error("{file} is not a readable Parquet file ({detail}); it may be truncated: copy it again")]
    Parquet {
        /// The file.
        file: String,
        /// What is wrong.
        detail: String,
    },
    /// A renaming that is none.
    #[error(
        "column {text:?}: expected NAME=COLUMN or NAME=COLUMN+COLUMN, NAME one of case, trial, success, seconds, input_tokens, output_tokens, cost, error, answer, slice.NAME"
    )]
    Renaming {
        /// As given.
        text: String,
    },
}

/// Which columns of a table hold what (by default each has the name of what it holds), and which errors in them were not
/// the agent's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutcomeColumns {
    renamed: BTreeMap<String, Vec<String>>,
    infrastructure: Vec<String>,
}

impl OutcomeColumns {
    /// Adds `NAME=COLUMN`, or `NAME=COLUMN+COLUMN` for several columns joined by `/`.
    ///
    /// # Errors
    /// The name is not one that is read, or a column is empty.
    pub fn rename(&mut self, text: &str) -> Result<(), OutcomeTableError> {
        let bad = || OutcomeTableError::Renaming { text: text.to_owned() };
        let (name, columns) = text.split_once('=').ok_or_else(bad)?;
        let is_slice = name.strip_prefix(SLICE).is_some_and(|slice| !slice.is_empty());
        let columns: Vec<String> = columns.split('+').map(str::to_owned).collect();
        if !(NEEDED.contains(&name) || KNOWN.contains(&name) || is_slice)
            || columns.iter().any(String::is_empty)
        {
            return Err(bad());
        }
        self.renamed.insert(name.to_owned(), columns);
        Ok(())
    }

    /// Adds a text by which an error is known as a failure of the surroundings (a provider's outage, a broken harness):
    /// such a trial says nothing of the agent and is missing, not failed. The same texts must be given for every run
    /// that is compared, and before it is seen.
    pub fn infrastructure(&mut self, text: &str) {
        self.infrastructure.push(text.to_owned());
    }

    fn ending(&self, error: Option<&str>) -> TrialEnding {
        let is_known = |error: &str| self.infrastructure.iter().any(|text| error.contains(text.as_str()));
        match error {
            None => TrialEnding::Complete,
            Some(error) if is_known(error) => TrialEnding::Infrastructure,
            Some(_) => TrialEnding::Failed,
        }
    }
}

/// Where in a row each thing stands.
struct ColumnMap {
    named: BTreeMap<String, Vec<usize>>,
    slices: BTreeMap<String, Vec<usize>>,
    names: Vec<String>,
}

impl ColumnMap {
    /// Every column that is read.
    fn used(&self) -> BTreeSet<usize> {
        self.named.values().chain(self.slices.values()).flatten().copied().collect()
    }
}

/// Reads every row of the table.
///
/// # Errors
/// The header lacks a column, or a Parquet file cannot be read.
pub(super) fn read(source: &ImportFile, columns: &OutcomeColumns) -> Result<ParsedFile, OutcomeTableError> {
    if source.is_parquet() { parquet_table::read(source, columns) } else { read_csv(source, columns) }
}

fn read_csv(source: &ImportFile, columns: &OutcomeColumns) -> Result<ParsedFile, OutcomeTableError> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(source.bytes());
    let header = reader.headers().map_err(|error| OutcomeTableError::Header {
        file: source.name().to_owned(),
        detail: error.to_string(),
    })?;
    let names: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
    let mut intake = RowReader::new(source, columns, names)?;
    let mut record = csv::StringRecord::new();
    loop {
        let line = reader.position().line();
        match reader.read_record(&mut record) {
            Ok(false) => break,
            Err(error) => {
                let line = error.position().map_or(line, csv::Position::line);
                let detail = format!("expected a row of UTF-8 text: {error}");
                intake.parsed.skipped.push(source.skipped_item(line, "", detail));
            }
            Ok(true) => {
                let line = record.position().map_or(line, csv::Position::line);
                intake.take(line, &record, None);
            }
        }
    }
    Ok(intake.parsed)
}

/// Rows on their way to transcripts.
struct RowReader<'a> {
    source: &'a ImportFile,
    columns: &'a OutcomeColumns,
    places: ColumnMap,
    /// The first line of each trial.
    seen: HashMap<(String, u32), u64>,
    parsed: ParsedFile,
}

impl<'a> RowReader<'a> {
    fn new(
        source: &'a ImportFile,
        columns: &'a OutcomeColumns,
        names: Vec<String>,
    ) -> Result<Self, OutcomeTableError> {
        let mut parsed = ParsedFile::default();
        let places = places(source, columns, names, &mut parsed.ignored_columns)?;
        Ok(Self { source, columns, places, seen: HashMap::new(), parsed })
    }

    /// Takes a row, or sets it item; `line` is where it stands in the file, from 1.
    fn take(&mut self, line: u64, record: &csv::StringRecord, embedding: Option<Vec<f32>>) {
        let row = Row { source: self.source, columns: self.columns, line, record, places: &self.places };
        match row.transcript(embedding).and_then(|one| unseen(&row, &mut self.seen, one)) {
            Ok(transcript) => self.parsed.transcripts.push(transcript),
            Err(item) => self.parsed.skipped.push(item),
        }
    }
}

fn places(
    source: &ImportFile,
    columns: &OutcomeColumns,
    names: Vec<String>,
    ignored: &mut Vec<String>,
) -> Result<ColumnMap, OutcomeTableError> {
    let mut wanted: BTreeMap<String, Vec<String>> = columns.renamed.clone();
    for name in &names {
        let is_read =
            NEEDED.contains(&name.as_str()) || KNOWN.contains(&name.as_str()) || name.starts_with(SLICE);
        if is_read && !wanted.contains_key(name) {
            wanted.insert(name.clone(), vec![name.clone()]);
        }
    }
    for name in NEEDED {
        wanted.entry(name.to_owned()).or_insert_with(|| vec![name.to_owned()]);
    }
    let mut places = ColumnMap { named: BTreeMap::new(), slices: BTreeMap::new(), names };
    for (name, columns) in wanted {
        let mut found = Vec::with_capacity(columns.len());
        for column in columns {
            let place = places.names.iter().position(|name| *name == column).ok_or_else(|| {
                OutcomeTableError::Missing {
                    file: source.name().to_owned(),
                    name: name.clone(),
                    column,
                    found: places.names.join(","),
                }
            })?;
            found.push(place);
        }
        match name.strip_prefix(SLICE) {
            Some(slice) => places.slices.insert(slice.to_owned(), found),
            None => places.named.insert(name, found),
        };
    }
    let used = places.used();
    let unused = places.names.iter().enumerate().filter(|(place, _)| !used.contains(place));
    ignored.extend(unused.map(|(_, name)| name.clone()));
    Ok(places)
}

/// Refuses a second row of the same trial: it would vote twice.
fn unseen(
    row: &Row<'_>,
    seen: &mut HashMap<(String, u32), u64>,
    one: Transcript,
) -> Result<Transcript, SkippedItem> {
    let mut key = one.case.clone();
    // Rows of different slices may share a case: a filter may yet keep only one of them.
    for (slice, value) in &one.slices {
        key.push_str(&format!("\n{slice}={value}"));
    }
    match seen.insert((key, one.trial), row.line) {
        None => Ok(one),
        Some(line) => Err(row.wrong(
            "trial",
            &format!("a trial of case {:?} once", one.case),
            &format!("it again, first on line {line}"),
        )),
    }
}

struct Row<'a> {
    source: &'a ImportFile,
    columns: &'a OutcomeColumns,
    line: u64,
    record: &'a csv::StringRecord,
    places: &'a ColumnMap,
}

impl Row<'_> {
    fn wrong(&self, column: &str, expected: &str, found: &str) -> SkippedItem {
        self.source.skipped_item(self.line, column, format!("expected {expected}, found {found}"))
    }

    fn joined(&self, places: &[usize]) -> String {
        let parts: Vec<&str> =
            places.iter().map(|place| self.record.get(*place).unwrap_or("").trim()).collect();
        parts.join("/")
    }

    fn text(&self, name: &str) -> Option<String> {
        self.places.named.get(name).map(|places| self.joined(places)).filter(|text| !text.is_empty())
    }

    fn number(&self, name: &str) -> Result<Option<f64>, SkippedItem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
        number.map(Some).ok_or_else(|| self.wrong(name, "a number of at least 0", &format!("{text:?}")))
    }

    fn tokens(&self, name: &str) -> Result<Option<u64>, SkippedItem> {
        let number = self.number(name)?;
        // Spreadsheets write whole numbers as 12.0.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a token count is far below 2^53"
        )]
        Ok(number.map(|number| number.round() as u64))
    }

    fn transcript(&self, embedding: Option<Vec<f32>>) -> Result<Transcript, SkippedItem> {
        let columns = self.places.names.len();
        if self.record.len() != columns {
            return Err(self.wrong("", &format!("{columns} columns"), &self.record.len().to_string()));
        }
        let case = self.text("case").ok_or_else(|| self.wrong("case", "the name of a case", "nothing"))?;
        let trial = self.trial()?;
        let error = self.text("error");
        let seconds = self.number("seconds")?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast of a float saturates"
        )]
        let duration_us = seconds.map(|seconds| (seconds * 1e6).round() as u64);
        let usage = Usage {
            input_tokens: self.tokens("input_tokens")?,
            output_tokens: self.tokens("output_tokens")?,
            cached_tokens: None,
            cost_usd: self.number("cost")?,
        };
        let slices = self.places.slices.iter().map(|(slice, places)| (slice.clone(), self.joined(places)));
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
            warnings: Vec::new(),
        })
    }

    /// A number, or a text that ends with one (`run-3`).
    fn trial(&self) -> Result<u32, SkippedItem> {
        let text = self.text("trial").unwrap_or_default();
        let is_negative = text.parse::<f64>().is_ok_and(|number| number < 0.0);
        let digits = if is_negative { "" } else { text.as_str() };
        let digits = digits.trim_start_matches(|letter: char| !letter.is_ascii_digit());
        digits.parse().map_err(|_| {
            self.wrong("trial", "a whole number, or a text that ends with one", &format!("{text:?}"))
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
        let wrong =
            || self.wrong("success", "0, 1, true, false, or nothing where unknown", &format!("{text:?}"));
        reward.map(|reward| Some(is_success(reward))).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, renamed: &[&str]) -> Result<ParsedFile, OutcomeTableError> {
        let mut columns = OutcomeColumns::default();
        for one in renamed {
            columns.rename(one)?;
        }
        read(&ImportFile::decompress("t.csv", text.as_bytes().to_vec()).expect("reads"), &columns)
    }

    #[test]
    fn reads_what_is_known_and_names_what_is_not() {
        let text = "case,trial,success,seconds,input_tokens,cost,error,answer,slice.tier,mood\n\
                    a,0,1,1.5,12,0.25,,done,gold,happy\n\"b, c\",1,false,,,,timeout,,,\n";
        let parsed = parse(text, &[]).expect("a whole header");
        assert_eq!((parsed.skipped.len(), parsed.ignored_columns), (0, vec!["mood".to_owned()]));
        let [a, b] = &parsed.transcripts[..] else { panic!("two rows") };
        assert_eq!(
            (a.reported.duration_us, a.reported.usage.cost_usd, a.success),
            (Some(1_500_000), Some(0.25), Some(true))
        );
        assert!(a.is_in("tier", "gold"));
        assert_eq!((b.case.as_str(), b.trial, b.ending), ("b, c", 1, TrialEnding::Failed));
    }

    #[test]
    fn bad_rows_are_set_aside_with_line_and_column() {
        let text = "case,trial,success,seconds\na,0,1,1\na,0,1,1\nb,x,1,1\nc,0,maybe,1\nd,0,1,-1\ne,0,1\n,0,1,1\nf,0,,\n";
        let parsed = parse(text, &[]).expect("a whole header");
        let places: Vec<_> = parsed.skipped.iter().map(|item| (item.line, item.field.as_str())).collect();
        assert_eq!(
            places,
            [(3, "trial"), (4, "trial"), (5, "success"), (6, "seconds"), (7, ""), (8, "case")]
        );
        assert_eq!(parsed.transcripts.len(), 2);
        assert_eq!(parsed.transcripts[1].success, None);
        let message = parsed.skipped[2].to_string();
        assert_eq!(
            message,
            "t.csv:5: success: expected 0, 1, true, false, or nothing where unknown, found \"maybe\""
        );
    }

    #[test]
    fn an_error_of_the_surroundings_is_told_by_its_text() {
        let mut columns = OutcomeColumns::default();
        columns.infrastructure("502");
        let text = "case,trial,success,error\na,0,0,HTTP 502\na,1,0,too long\na,-1,1,\n";
        let source = ImportFile::decompress("t.csv", text.as_bytes().to_vec()).expect("reads");
        let parsed = read(&source, &columns).expect("a whole header");
        let endings: Vec<_> = parsed.transcripts.iter().map(|one| one.ending).collect();
        assert_eq!(endings, [TrialEnding::Infrastructure, TrialEnding::Failed]);
        assert_eq!((parsed.skipped.len(), parsed.skipped[0].line), (1, 4));
    }

    #[test]
    fn columns_can_be_renamed_and_joined() {
        let text = "service,task,run,success\ngithub,x,run-2,1\n";
        let parsed =
            parse(text, &["case=service+task", "trial=run", "slice.service=service"]).expect("all there");
        let one = &parsed.transcripts[0];
        assert_eq!((one.case.as_str(), one.trial, one.is_in("service", "github")), ("github/x", 2, true));
        let error = parse(text, &[]).expect_err("no case");
        assert!(error.to_string().contains("--column case=COLUMN"), "{error}");
        assert!(matches!(parse(text, &["kase=task"]), Err(OutcomeTableError::Renaming { .. })));
    }
}
