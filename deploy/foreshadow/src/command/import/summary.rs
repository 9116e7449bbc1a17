//! What an import did, for a person and for a program.

use recorder::import::{Format, SetAside, Tally};
use serde::Serialize;

use crate::console::Console;
use crate::format::count;

/// Set-aside items that are shown one by one; the rest is counted, and all are in the JSON.
const SHOWN_ASIDES: usize = 10;

/// The result of an import.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    into: String,
    format: &'static str,
    #[serde(rename = "counts")]
    pub(super) tally: Tally,
    pub(super) set_aside: Vec<SetAside>,
    /// Sessions that were there and not asked for.
    pub(super) left_out: u64,
    ignored_columns: Vec<String>,
}

impl Summary {
    pub(super) fn new(into: &str, format: Format) -> Self {
        Self {
            into: into.to_owned(),
            format: format.as_str(),
            tally: Tally::default(),
            set_aside: Vec::new(),
            left_out: 0,
            ignored_columns: Vec::new(),
        }
    }

    pub(super) fn take_file(
        &mut self,
        set_aside: Vec<SetAside>,
        ignored_columns: Vec<String>,
        left_out: u64,
    ) {
        self.set_aside.extend(set_aside);
        self.left_out += left_out;
        for column in ignored_columns {
            if !self.ignored_columns.contains(&column) {
                self.ignored_columns.push(column);
            }
        }
    }

    pub(super) fn nothing(&self) -> bool {
        self.tally.sessions == 0
    }

    pub(super) fn show(&self, console: &Console) {
        for aside in self.set_aside.iter().take(SHOWN_ASIDES) {
            console.note(format!("set aside {}", crate::format::escape_control(&aside.to_string())));
        }
        if self.set_aside.len() > SHOWN_ASIDES {
            console.note(format!(
                "and {} more set aside; --json names them all",
                self.set_aside.len() - SHOWN_ASIDES
            ));
        }
        if !self.ignored_columns.is_empty() {
            console.note(format!("columns without a meaning here: {}", self.ignored_columns.join(", ")));
        }
        let tally = &self.tally;
        let counted = |number: u64, noun| count(usize::try_from(number).unwrap_or(usize::MAX), noun);
        // A table has a row a trial, and nothing else.
        let what = if self.format == Format::Outcomes.as_str() {
            format!("{} into {}", counted(tally.sessions, "trial"), self.into)
        } else {
            format!(
                "{} into {}: {}, {}, {}, {}",
                counted(tally.sessions, "session"),
                self.into,
                counted(tally.exchanges, "exchange"),
                counted(tally.turns, "turn"),
                counted(tally.model_calls, "model call"),
                counted(tally.tool_calls, "tool call"),
            )
        };
        console.line(format!(
            "imported {what}; {} set aside, {} left out",
            self.set_aside.len(),
            self.left_out
        ));
        for (oddity, number) in &tally.oddities {
            console.line(format!("  {number} {}", oddity.in_words()));
        }
        console.result(self);
    }
}
