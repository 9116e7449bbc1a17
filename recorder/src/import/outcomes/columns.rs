//! Columns of an outcome table: names, mapping and errors.

use std::collections::{BTreeMap, BTreeSet};

use schemas::trial::TrialEnding;
use unicode_normalization::UnicodeNormalization as _;

use crate::import::file::ImportFile;

/// Values that every table must have.
const REQUIRED: [&str; 3] = ["case", "trial", "success"];

/// Values that a table may have.
const OPTIONAL: [&str; 9] =
    ["seconds", "input_tokens", "output_tokens", "cost", "error", "answer", "cluster", "weight", "batch"];

/// Prefix of the columns of slices.
const SLICE_PREFIX: &str = "slice.";

/// The name of a column as compared: without white space around it, in the composed form of Unicode.
pub(super) fn normalised_name(name: &str) -> String {
    name.trim().nfc().collect()
}

/// An outcome table, or a mapping of its columns, that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutcomeTableError {
    /// The table lacks a column.
    #[error(
        "{file}:1: no column {column:?}, found {found}; a table needs case,trial,success, separated by commas, semicolons or \
         tabs: map another column with --column {name}=COLUMN"
    )]
    Missing {
        /// Path as given on the command line.
        file: String,
        /// Value that the column is for, such as `case`.
        name: String,
        /// Name of the missing column.
        column: String,
        /// Columns of the table, separated by commas.
        found: String,
    },
    /// The CSV header cannot be parsed.
    #[error("{file}:1: the header cannot be parsed: {detail}; expected a line of column names")]
    Header {
        /// Path as given on the command line.
        file: String,
        /// Error of the parser.
        detail: String,
    },
    /// A cell makes the whole table unusable: without it, the other rows would count wrongly.
    #[error("{file}:{line}: {column}: expected {expected}, found {found}")]
    Cell {
        /// Path as given on the command line.
        file: String,
        /// Line from 1; in Parquet, the number of the row from 1.
        line: u64,
        /// Value that the column is for, such as `weight`.
        column: String,
        /// Accepted values, and what to do.
        expected: &'static str,
        /// Content of the cell.
        found: String,
    },
    /// A column has an unsupported type.
    #[error("{file}: column {column:?} has type {found}; expected {expected}")]
    Type {
        /// Path as given on the command line.
        file: String,
        /// Name of the column.
        column: String,
        /// Supported types.
        expected: &'static str,
        /// Type of the column.
        found: String,
    },
    /// The Parquet file cannot be read.
    #[error("{file} is not a readable Parquet file ({detail}); the file may be truncated: copy it again")]
    Parquet {
        /// Path as given on the command line.
        file: String,
        /// Error of the parser.
        detail: String,
    },
    /// The argument of `--column` cannot be parsed.
    #[error(
        "column {text:?}: expected NAME=COLUMN or NAME=COLUMN+COLUMN, NAME one of case, trial, success, seconds, input_tokens, output_tokens, cost, error, answer, cluster, weight, batch, slice.NAME"
    )]
    Mapping {
        /// Argument as given.
        text: String,
    },
}

/// The mapping of values to columns of an outcome table, and the errors that count as infrastructure failures. By default
/// each value is in the column of its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutcomeColumns {
    mapped: BTreeMap<String, Vec<String>>,
    infrastructure: Vec<String>,
}

impl OutcomeColumns {
    /// Adds `NAME=COLUMN`, or `NAME=COLUMN+COLUMN` for several columns joined by `/`.
    ///
    /// # Errors
    /// The name is unknown, or a column name is empty.
    pub fn map_column(&mut self, text: &str) -> Result<(), OutcomeTableError> {
        let bad = || OutcomeTableError::Mapping { text: text.to_owned() };
        let (name, columns) = text.split_once('=').ok_or_else(bad)?;
        let is_slice = name.strip_prefix(SLICE_PREFIX).is_some_and(|slice| !slice.is_empty());
        let columns: Vec<String> = columns.split('+').map(normalised_name).collect();
        if !(REQUIRED.contains(&name) || OPTIONAL.contains(&name) || is_slice)
            || columns.iter().any(String::is_empty)
        {
            return Err(bad());
        }
        self.mapped.insert(name.to_owned(), columns);
        Ok(())
    }

    /// Adds a text that marks an error as an infrastructure failure (an outage of the provider, a broken benchmark). Such a
    /// trial is missing, not failed. Choose the texts before looking at the results, and equal ones for all compared runs.
    pub fn infrastructure(&mut self, text: &str) {
        self.infrastructure.push(text.to_owned());
    }

    /// The ending of a trial with this error.
    pub(super) fn ending(&self, error: Option<&str>) -> TrialEnding {
        let is_known = |error: &str| self.infrastructure.iter().any(|text| error.contains(text.as_str()));
        match error {
            None => TrialEnding::Complete,
            Some(error) if is_known(error) => TrialEnding::Infrastructure,
            Some(_) => TrialEnding::Failed,
        }
    }
}

/// The indices of the columns that hold each value.
#[derive(Debug)]
pub(super) struct ColumnMap {
    pub(super) values: BTreeMap<String, Vec<usize>>,
    pub(super) slices: BTreeMap<String, Vec<usize>>,
    /// Names of all columns of the table.
    pub(super) names: Vec<String>,
}

impl ColumnMap {
    /// Maps the columns of a table.
    ///
    /// # Errors
    /// The table lacks a required or a mapped column.
    pub(super) fn new(
        file: &ImportFile,
        columns: &OutcomeColumns,
        names: Vec<String>,
    ) -> Result<Self, OutcomeTableError> {
        let mut wanted: BTreeMap<String, Vec<String>> = columns.mapped.clone();
        for name in &names {
            let is_known = REQUIRED.contains(&name.as_str())
                || OPTIONAL.contains(&name.as_str())
                || name.starts_with(SLICE_PREFIX);
            if is_known && !wanted.contains_key(name) {
                wanted.insert(name.clone(), vec![name.clone()]);
            }
        }
        for name in REQUIRED {
            wanted.entry(name.to_owned()).or_insert_with(|| vec![name.to_owned()]);
        }
        let mut map = Self { values: BTreeMap::new(), slices: BTreeMap::new(), names };
        for (name, columns) in wanted {
            let mut indices = Vec::with_capacity(columns.len());
            for column in columns {
                let index = map.names.iter().position(|name| *name == column).ok_or_else(|| {
                    OutcomeTableError::Missing {
                        file: file.name().to_owned(),
                        name: name.clone(),
                        column,
                        found: map.names.join(","),
                    }
                })?;
                indices.push(index);
            }
            match name.strip_prefix(SLICE_PREFIX) {
                Some(slice) => map.slices.insert(slice.to_owned(), indices),
                None => map.values.insert(name, indices),
            };
        }
        Ok(map)
    }

    /// Indices of the columns that import reads.
    pub(super) fn used(&self) -> BTreeSet<usize> {
        self.values.values().chain(self.slices.values()).flatten().copied().collect()
    }

    /// Names of the columns that import does not read.
    pub(super) fn unused(&self) -> Vec<String> {
        let used = self.used();
        let unused = self.names.iter().enumerate().filter(|(index, _)| !used.contains(index));
        unused.map(|(_, name)| name.clone()).collect()
    }
}
