//! Files of past sessions, read as sessions or as trials: benchmark transcripts and tables of outcomes.
//!
//! Everything here is bytes in, values out: a file becomes [`Transcript`]s ([`read`]), a transcript becomes exchanges
//! ([`Weaver`]). What can be converted is converted and counted, what cannot be read is set aside and named. Opening
//! files and writing to a store is the caller's.

mod agentdojo;
mod arguments;
mod chat_message;
mod convert;
mod converted_session;
mod file;
mod outcomes;
pub mod python_literal;
mod redact_transcript;
mod stats;
mod tau2;
mod tau_bench;
mod time;
mod transcript;

pub use arguments::{Arguments, Spelling};
pub use convert::{ImportInto, ImportPlan, Weaver};
pub use converted_session::Woven;
pub use file::{MAX_UNPACKED_BYTES, Source, SourceError};
pub use outcomes::{Columns, ColumnsError};
pub use stats::{Oddity, SetAside, Tally};
pub use transcript::{Call, Message, Reported, Role, Transcript};

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// tau-bench results: `{task_id, trial, reward, info, traj}`, one a line or in one array.
    TauBench,
    /// tau2-bench results: one document with `simulations`, or a line of `info` and then one simulation a line.
    Tau2,
    /// AgentDojo runs: one a line, with `messages` and `metadata`.
    AgentDojo,
    /// A table of trials without transcripts, CSV or Parquet.
    Outcomes,
}

impl Format {
    /// Its name on the command line and in session ids.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TauBench => "tau-bench",
            Self::Tau2 => "tau2",
            Self::AgentDojo => "agentdojo",
            Self::Outcomes => "outcomes",
        }
    }
}

/// What came out of a file.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The sessions, in file order.
    pub transcripts: Vec<Transcript>,
    /// What could not be read.
    pub set_aside: Vec<SetAside>,
    /// Columns of an outcome table that mean nothing here.
    pub ignored_columns: Vec<String>,
}

/// Reads a file; `columns` says how an outcome table names things and is not looked at for other formats.
///
/// # Errors
/// Only an outcome table whose header lacks a column ends it as a whole.
pub fn read(format: Format, source: &Source, columns: &Columns) -> Result<Parsed, ColumnsError> {
    let mut parsed = match format {
        Format::TauBench => tau_bench::read(source),
        Format::Tau2 => tau2::read(source),
        Format::AgentDojo => agentdojo::read(source),
        Format::Outcomes => outcomes::read(source, columns)?,
    };
    parsed.set_aside.extend(source.cut_short());
    Ok(parsed)
}
