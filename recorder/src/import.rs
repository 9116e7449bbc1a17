//! Past sessions from files, converted to sessions or trials: benchmark transcripts and tables of outcomes.
//!
//! [`read`] parses a file into [`Transcript`]s and [`TranscriptConverter`] turns each into exchanges, a close row and a
//! trial. An item that cannot be read becomes a [`SkippedItem`], a repair is counted as an [`ImportWarning`]. The module
//! works on bytes: the caller opens the files and writes to the store.

mod agentdojo;
mod arguments;
mod chat_message;
mod convert;
mod converted_session;
mod file;
mod format;
mod outcomes;
mod parsed_file;
mod plan;
pub mod python_literal;
mod redact_transcript;
mod skipped;
mod stats;
mod tau2;
mod tau_bench;
mod time;
mod transcript;

use unicode_normalization::UnicodeNormalization as _;

pub use arguments::{ArgumentSyntax, ToolArguments};
pub use convert::TranscriptConverter;
pub use converted_session::ConvertedSession;
pub use file::{ImportFile, ImportFileError, MAX_DECOMPRESSED_BYTES};
pub use format::ImportFormat;
pub use outcomes::{OutcomeColumns, OutcomeTableError};
pub use parsed_file::ParsedFile;
pub use plan::{ImportInto, ImportPlan};
pub use skipped::SkippedItem;
pub use stats::{ImportStats, ImportWarning};
pub use transcript::{ReportedTotals, Transcript, TranscriptMessage, TranscriptRole, TranscriptToolCall};

/// Parses a file. `columns` applies to [`ImportFormat::Outcomes`] only.
///
/// # Errors
/// An outcome table lacks a column, has one of the wrong type, or is no readable table. In other formats an unreadable
/// item is skipped.
pub fn read(
    format: ImportFormat,
    file: &ImportFile,
    columns: &OutcomeColumns,
) -> Result<ParsedFile, OutcomeTableError> {
    let mut parsed = match format {
        ImportFormat::TauBench => tau_bench::read(file),
        ImportFormat::Tau2 => tau2::read(file),
        ImportFormat::AgentDojo => agentdojo::read(file),
        ImportFormat::Outcomes => outcomes::read(file, columns)?,
    };
    parsed.skipped.extend(file.truncated_end());
    parsed.transcripts.iter_mut().for_each(compose_names);
    Ok(parsed)
}

/// Puts all names into the composed form of Unicode: a file system or an editor may decompose `é`, and the name then pairs
/// with nothing.
fn compose_names(transcript: &mut Transcript) {
    let compose = |text: &mut String| {
        if !text.is_ascii() {
            *text = text.nfc().collect();
        }
    };
    compose(&mut transcript.case);
    compose(&mut transcript.name);
    transcript.cluster.iter_mut().for_each(compose);
    transcript.slices.values_mut().for_each(compose);
}
