//! The terminal: results on stdout, notes, logs and progress on stderr.

use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::exit::Failure;
use crate::format::wrap;

/// When the output has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Writes the output of a command.
#[derive(Debug)]
pub(crate) struct Console {
    json: bool,
    color: bool,
    terminal: bool,
}

impl Console {
    pub(crate) fn new(json: bool, color: Color) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let allowed = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => allowed && std::io::stdout().is_terminal(),
        };
        Self { json, color, terminal }
    }

    /// Sends `tracing` to stderr: warnings, with `-v` information, with `-vv` everything. `FORESHADOW_LOG` overrides this.
    pub(crate) fn start_logging(&self, verbose: u8) {
        let level = match verbose {
            0 => "warn",
            1 => "info",
            _ => "debug",
        };
        let filter = tracing_subscriber::EnvFilter::try_from_env("FORESHADOW_LOG")
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        // Only a test harness installs a second subscriber; the first one stays.
        let _ = builder.with_ansi(self.terminal && self.color).with_target(false).try_init();
    }

    /// Whether `--json` is set.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Prints a line of the result, broken between words at 80 columns; prints nothing with `--json`.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        self.verbatim(wrap(text.as_ref(), None));
    }

    /// Prints a line like [`Self::line`], with this indent of its continuations.
    pub(crate) fn hanging(&self, text: impl AsRef<str>, indent: usize) {
        self.verbatim(wrap(text.as_ref(), Some(indent)));
    }

    /// Prints a line of the result as it is, for example a command to copy; prints nothing with `--json`.
    pub(crate) fn verbatim(&self, text: impl AsRef<str>) {
        if !self.json {
            write_stdout(text.as_ref());
        }
    }

    /// Prints the result as JSON; prints nothing without `--json`.
    pub(crate) fn result(&self, value: &impl Serialize) {
        if self.json {
            write_stdout(
                &serde_json::to_string_pretty(value)
                    .unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}")),
            );
        }
    }

    /// Prints a note to stderr, broken between words at 80 columns.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        write_stderr(&wrap(text.as_ref(), None));
    }

    /// Prints a note to stderr as it is, for programs that read it.
    pub(crate) fn verbatim_note(&self, text: impl AsRef<str>) {
        write_stderr(text.as_ref());
    }

    /// Prints an error with each cause on a line of its own.
    pub(crate) fn failure(&self, failure: &Failure) {
        let error = failure.error();
        let mut printed = error.to_string();
        // Not broken into lines: scripts search errors, and they may quote lines of a file.
        write_stderr(&format!("{} {printed}", self.paint("error:", "1;31")));
        // Some errors contain the text of their cause.
        for cause in error.chain().skip(1).map(ToString::to_string) {
            if !printed.contains(&cause) {
                write_stderr(&format!("  because: {cause}"));
                printed = cause;
            }
        }
    }

    /// Colours a text by its ANSI code (`1;32`) if colours are on.
    pub(crate) fn paint(&self, text: &str, code: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Starts a progress bar of `total` steps on stderr. Without a terminal the bar is hidden, and the caller prints
    /// plain lines with [`Self::note`].
    pub(crate) fn progress(&self, label: &str, total: u64) -> ProgressBar {
        let target = if self.terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let style = ProgressStyle::with_template("{msg:>24} {wide_bar} {pos}/{len} {elapsed}/{duration}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.set_message(label.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}

fn write_stderr(text: &str) {
    // A closed stderr has no reader, and no other channel exists.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn write_stdout(text: &str) {
    // A reader that closes the pipe (`foreshadow sessions list | head`) has read enough; that is no failure.
    let _ = writeln!(std::io::stdout(), "{text}");
}
