//! The terminal: results on stdout, everything else on stderr; progress bars on a terminal and plain lines elsewhere.

use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::outcome::Failure;

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Where a command writes to.
#[derive(Debug)]
pub(crate) struct Screen {
    json: bool,
    color: bool,
    terminal: bool,
}

impl Screen {
    pub(crate) fn new(json: bool, color: Color) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => wanted && std::io::stdout().is_terminal(),
        };
        Self { json, color, terminal }
    }

    /// Sends `tracing` to stderr: warnings, with `-v` information, with `-vv` everything; `FORESHADOW_LOG` overrides.
    pub(crate) fn start_logging(&self, verbose: u8) {
        let level = match verbose {
            0 => "warn",
            1 => "info",
            _ => "debug",
        };
        let filter = tracing_subscriber::EnvFilter::try_from_env("FORESHADOW_LOG")
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        // A second subscriber can only come from a test harness; the first one stays.
        let _ = builder.with_ansi(self.terminal && self.color).with_target(false).try_init();
    }

    /// Whether the result is wanted as JSON.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Writes a line of the result for a person; nothing under `--json`.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        if !self.json {
            write_stdout(text.as_ref());
        }
    }

    /// Writes the result for a program; nothing without `--json`.
    pub(crate) fn result(&self, value: &impl Serialize) {
        if self.json {
            write_stdout(
                &serde_json::to_string_pretty(value)
                    .unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}")),
            );
        }
    }

    /// Writes a remark to stderr.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        // Nobody is left to tell when stderr is closed.
        let _ = writeln!(std::io::stderr(), "{}", text.as_ref());
    }

    /// Writes why a command failed, each cause on its own line.
    pub(crate) fn failure(&self, failure: &Failure) {
        let error = failure.error();
        let mut said = error.to_string();
        self.note(format!("{} {said}", self.paint("error:", "1;31")));
        // Some errors say their cause themselves.
        for cause in error.chain().skip(1).map(ToString::to_string) {
            if !said.contains(&cause) {
                self.note(format!("  because: {cause}"));
                said = cause;
            }
        }
    }

    /// Colours a text by its ANSI code (`1;32`), where colours are wanted.
    pub(crate) fn paint(&self, text: &str, code: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Starts a progress bar of `total` steps on stderr; elsewhere than on a terminal it stays hidden and
    /// [`Self::note`] is for plain lines.
    pub(crate) fn progress(&self, what: &str, total: u64) -> ProgressBar {
        let target = if self.terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let style = ProgressStyle::with_template("{msg:>24} {wide_bar} {pos}/{len} {elapsed}/{duration}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}

/// Escapes what would move the cursor, colour the screen or reverse the text: recorded text is not ours.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        // Direction marks reorder what a person reads (Unicode TR 9), without being control characters.
        let reorders =
            matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if letter.is_control() || reorders {
            out.extend(letter.escape_default());
        } else {
            out.push(letter);
        }
    }
    out
}

fn write_stdout(text: &str) {
    // A closed pipe (`foreshadow sessions list | head`) is the reader's wish, not a failure.
    let _ = writeln!(std::io::stdout(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_text_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{202e}d\u{9b}é"), "a\\u{1b}[2Jb\\nc\\u{202e}d\\u{9b}é");
    }
}
