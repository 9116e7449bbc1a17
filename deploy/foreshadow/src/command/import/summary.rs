//! The result of an import, as text and as JSON.

use recorder::import::{ImportFormat, ImportStats, ImportWarning, SkippedItem};
use schemas::FORMAT;
use schemas::trial::ImportRecord;
use serde::Serialize;

use super::inputs::InputFile;
use crate::console::Console;
use crate::format::{count_u64, escape_control};

/// Skipped items that are printed one by one. Further ones are counted; the JSON result holds all.
const MAX_SHOWN_SKIPPED: usize = 10;

/// Positions that the record of a file keeps.
const MAX_RECORDED: usize = 3;

/// The result of an import.
#[derive(Debug, Serialize)]
pub(super) struct ImportSummary {
    into: String,
    format: &'static str,
    #[serde(rename = "counts")]
    pub(super) stats: ImportStats,
    /// Items that name no trial that can be read.
    pub(super) skipped: Vec<SkippedItem>,
    /// Labels and messages that cannot be read, so the outcomes of their trials are missing.
    pub(super) unreadable_outcomes: Vec<SkippedItem>,
    /// Optional values that cannot be read, and are left out.
    pub(super) unreadable_cells: Vec<SkippedItem>,
    /// Lost rows that no item of `skipped` names.
    pub(super) more_lost_rows: u64,
    /// Sessions that the selection excluded.
    pub(super) excluded: u64,
    ignored_columns: Vec<String>,
}

/// The result of one file.
#[derive(Debug, Default)]
pub(super) struct FileSummary {
    pub(super) stats: ImportStats,
    pub(super) unreadable_outcomes: Vec<SkippedItem>,
    pub(super) unreadable_cells: Vec<SkippedItem>,
}

impl FileSummary {
    /// The record that stays in the run. Positions only: a cell may hold anything, and the record is not encrypted.
    pub(super) fn record(&self, file: &InputFile) -> ImportRecord {
        let count = |warning| self.stats.warnings.get(&warning).copied().unwrap_or(0);
        let items = file.skipped.iter().chain(&self.unreadable_outcomes).chain(&self.unreadable_cells);
        let position = |item: &SkippedItem| match item.field.as_str() {
            "" => format!("line {}", item.line),
            field => format!("line {} {field}", item.line),
        };
        ImportRecord {
            format: FORMAT,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            file: file.source.name().rsplit(['/', '\\']).next().unwrap_or_default().to_owned(),
            trials: self.stats.sessions,
            lost_rows: file.skipped.len() as u64 + file.more_lost_rows,
            unreadable_labels: count(ImportWarning::LabelUnreadable),
            lost_messages: count(ImportWarning::MessagesLost),
            blank_labels: count(ImportWarning::LabelMissing),
            unreadable_cells: count(ImportWarning::CellUnreadable),
            duplicates: file.duplicates,
            excluded: file.excluded,
            first: items.take(MAX_RECORDED).map(position).collect(),
        }
    }
}

impl ImportSummary {
    pub(super) fn new(into: &str, format: ImportFormat) -> Self {
        Self {
            into: into.to_owned(),
            format: format.as_str(),
            stats: ImportStats::default(),
            skipped: Vec::new(),
            unreadable_outcomes: Vec::new(),
            unreadable_cells: Vec::new(),
            more_lost_rows: 0,
            excluded: 0,
            ignored_columns: Vec::new(),
        }
    }

    /// Adds a converted file.
    pub(super) fn add_file(&mut self, file: InputFile, part: FileSummary) {
        self.stats.add(&part.stats);
        self.skipped.extend(file.skipped);
        self.unreadable_outcomes.extend(part.unreadable_outcomes);
        self.unreadable_cells.extend(part.unreadable_cells);
        self.more_lost_rows += file.more_lost_rows;
        self.excluded += file.excluded;
        for column in file.ignored_columns {
            if !self.ignored_columns.contains(&column) {
                self.ignored_columns.push(column);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stats.sessions == 0
    }

    /// Rows whose outcome is lost: they name no trial, or their label or messages cannot be read.
    pub(super) fn lost_outcomes(&self) -> u64 {
        (self.skipped.len() + self.unreadable_outcomes.len()) as u64 + self.more_lost_rows
    }

    /// Prints the first items of each kind that import sets aside.
    pub(super) fn show_items(&self, console: &Console) {
        for (what, items) in [
            ("skipped", &self.skipped),
            ("outcome missing:", &self.unreadable_outcomes),
            ("value left out:", &self.unreadable_cells),
        ] {
            for item in items.iter().take(MAX_SHOWN_SKIPPED) {
                console.note(format!("{what} {}", escape_control(&item.to_string())));
            }
            if let Some(more) = items.len().checked_sub(MAX_SHOWN_SKIPPED).filter(|more| *more > 0) {
                console.note(format!("{what} and {more} more (--json lists all)"));
            }
        }
    }

    pub(super) fn show(&self, console: &Console) {
        self.show_items(console);
        if !self.ignored_columns.is_empty() {
            console.note(format!("ignored columns: {}", self.ignored_columns.join(", ")));
        }
        let stats = &self.stats;
        // An outcome table has one row per trial and no exchanges.
        let what = if self.format == ImportFormat::Outcomes.as_str() {
            format!("{} into {}", count_u64(stats.sessions, "trial"), self.into)
        } else {
            format!(
                "{} into {}: {}, {}, {}, {}",
                count_u64(stats.sessions, "session"),
                self.into,
                count_u64(stats.exchanges, "exchange"),
                count_u64(stats.turns, "turn"),
                count_u64(stats.model_calls, "model call"),
                count_u64(stats.tool_calls, "tool call"),
            )
        };
        console.line(format!("imported {what}; {} skipped, {} excluded", self.skipped.len(), self.excluded));
        for (warning, number) in &stats.warnings {
            console.line(format!("  {number} {}", warning.description()));
        }
        console.result(self);
    }
}
