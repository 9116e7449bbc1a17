//! The result of an import, as text and as JSON.

use recorder::import::{ImportFormat, ImportStats, SkippedItem};
use serde::Serialize;

use crate::console::Console;
use crate::format::{count_u64, escape_control};

/// Skipped items that are printed one by one. Further ones are counted; the JSON result holds all.
const MAX_SHOWN_SKIPPED: usize = 10;

/// The result of an import.
#[derive(Debug, Serialize)]
pub(super) struct ImportSummary {
    into: String,
    format: &'static str,
    #[serde(rename = "counts")]
    pub(super) stats: ImportStats,
    pub(super) skipped: Vec<SkippedItem>,
    /// Sessions that the selection excluded.
    pub(super) excluded: u64,
    ignored_columns: Vec<String>,
}

impl ImportSummary {
    pub(super) fn new(into: &str, format: ImportFormat) -> Self {
        Self {
            into: into.to_owned(),
            format: format.as_str(),
            stats: ImportStats::default(),
            skipped: Vec::new(),
            excluded: 0,
            ignored_columns: Vec::new(),
        }
    }

    pub(super) fn add_file(
        &mut self,
        skipped: Vec<SkippedItem>,
        ignored_columns: Vec<String>,
        excluded: u64,
    ) {
        self.skipped.extend(skipped);
        self.excluded += excluded;
        for column in ignored_columns {
            if !self.ignored_columns.contains(&column) {
                self.ignored_columns.push(column);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stats.sessions == 0
    }

    pub(super) fn show(&self, console: &Console) {
        for item in self.skipped.iter().take(MAX_SHOWN_SKIPPED) {
            console.note(format!("skipped {}", escape_control(&item.to_string())));
        }
        if self.skipped.len() > MAX_SHOWN_SKIPPED {
            console.note(format!(
                "and {} more skipped items (--json lists all)",
                self.skipped.len() - MAX_SHOWN_SKIPPED
            ));
        }
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
