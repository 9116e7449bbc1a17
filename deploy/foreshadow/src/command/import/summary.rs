//! What an import did, for a person and for a program.

use recorder::import::{ImportFormat, ImportStats, SkippedItem};
use serde::Serialize;

use crate::console::Console;
use crate::format::count;

/// Skipped items that are printed one by one. Further ones are counted; the JSON result holds all.
const MAX_SHOWN_SKIPPED: usize = 10;

/// The result of an import.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    into: String,
    format: &'static str,
    #[serde(rename = "counts")]
    pub(super) stats: ImportStats,
    pub(super) skipped: Vec<SkippedItem>,
    /// Sessions that were there and not asked for.
    pub(super) left_out: u64,
    ignored_columns: Vec<String>,
}

impl Summary {
    pub(super) fn new(into: &str, format: ImportFormat) -> Self {
        Self {
            into: into.to_owned(),
            format: format.as_str(),
            stats: ImportStats::default(),
            skipped: Vec::new(),
            left_out: 0,
            ignored_columns: Vec::new(),
        }
    }

    pub(super) fn take_file(
        &mut self,
        skipped: Vec<SkippedItem>,
        ignored_columns: Vec<String>,
        left_out: u64,
    ) {
        self.skipped.extend(skipped);
        self.left_out += left_out;
        for column in ignored_columns {
            if !self.ignored_columns.contains(&column) {
                self.ignored_columns.push(column);
            }
        }
    }

    pub(super) fn nothing(&self) -> bool {
        self.stats.sessions == 0
    }

    pub(super) fn show(&self, console: &Console) {
        for item in self.skipped.iter().take(MAX_SHOWN_SKIPPED) {
            console.note(format!("skipped {}", crate::format::escape_control(&item.to_string())));
        }
        if self.skipped.len() > MAX_SHOWN_SKIPPED {
            console.note(format!(
                "and {} more skipped; --json names them all",
                self.skipped.len() - MAX_SHOWN_SKIPPED
            ));
        }
        if !self.ignored_columns.is_empty() {
            console.note(format!("columns without a meaning here: {}", self.ignored_columns.join(", ")));
        }
        let stats = &self.stats;
        let counted = |number: u64, noun| count(usize::try_from(number).unwrap_or(usize::MAX), noun);
        // A table has a row a trial, and nothing else.
        let what = if self.format == ImportFormat::Outcomes.as_str() {
            format!("{} into {}", counted(stats.sessions, "trial"), self.into)
        } else {
            format!(
                "{} into {}: {}, {}, {}, {}",
                counted(stats.sessions, "session"),
                self.into,
                counted(stats.exchanges, "exchange"),
                counted(stats.turns, "turn"),
                counted(stats.model_calls, "model call"),
                counted(stats.tool_calls, "tool call"),
            )
        };
        console.line(format!("imported {what}; {} skipped, {} left out", self.skipped.len(), self.left_out));
        for (warning, number) in &stats.warnings {
            console.line(format!("  {number} {}", warning.description()));
        }
        console.result(self);
    }
}
