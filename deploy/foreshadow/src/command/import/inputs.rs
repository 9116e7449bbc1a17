//! Reads the input files and selects their sessions.

use std::path::PathBuf;

use anyhow::Context as _;
use recorder::import::{self, ImportFile, ImportFormat, OutcomeColumns, SkippedItem, Transcript};

use crate::exit::Failure;

/// Selection of sessions.
pub(super) struct Selection {
    trial: Option<u32>,
    filters: Vec<(String, String)>,
    limit: Option<usize>,
    columns: OutcomeColumns,
    /// Part of the commit name, so that two selections of one file have different names.
    tag: Option<String>,
}

impl Selection {
    pub(super) fn parse(
        trial: Option<u32>,
        filters: &[String],
        limit: Option<usize>,
        columns: OutcomeColumns,
    ) -> anyhow::Result<Self> {
        let split = |text: &String| {
            let parts = text.split_once('=').map(|(slice, value)| (slice.to_owned(), value.to_owned()));
            parts.with_context(|| format!("--where {text:?}: expected SLICE=VALUE, such as attack=none"))
        };
        let parts: anyhow::Result<Vec<_>> = filters.iter().map(split).collect();
        let parts = parts?;
        let is_all = trial.is_none() && parts.is_empty() && limit.is_none();
        let tag = (!is_all).then(|| {
            let numbers = [("trial", trial.map(|n| n.to_string())), ("limit", limit.map(|n| n.to_string()))];
            let numbers = numbers.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
            let words = numbers.chain(filters.iter().cloned()).collect::<Vec<_>>().join("-");
            words
                .chars()
                .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
                .take(80)
                .collect()
        });
        Ok(Self { trial, filters: parts, limit, columns, tag })
    }

    /// Name of the commit of a file; equal contents and selection have equal names.
    pub(super) fn source_name(&self, source: &ImportFile) -> String {
        match &self.tag {
            Some(tag) => format!("import-{}-{tag}", source.digest()),
            None => format!("import-{}", source.digest()),
        }
    }

    fn includes(&self, transcript: &Transcript) -> bool {
        self.trial.is_none_or(|trial| transcript.trial == trial)
            && self.filters.iter().all(|(slice, value)| transcript.is_in(slice, value))
    }
}

/// One input file with its selected sessions.
pub(super) struct InputFile {
    pub(super) source: ImportFile,
    pub(super) transcripts: Vec<Transcript>,
    pub(super) skipped: Vec<SkippedItem>,
    /// Lost rows that no item of `skipped` names.
    pub(super) more_lost_rows: u64,
    /// Repetitions of equal trials, left out.
    pub(super) duplicates: u64,
    pub(super) ignored_columns: Vec<String>,
    /// Number of sessions that the selection excludes.
    pub(super) excluded: u64,
}

/// Reads every file.
pub(super) fn read(
    paths: &[PathBuf],
    format: ImportFormat,
    selection: &Selection,
) -> Result<Vec<InputFile>, Failure> {
    let mut room = selection.limit.unwrap_or(usize::MAX);
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let name = path.display().to_string();
        let raw =
            std::fs::read(path).with_context(|| format!("{name} cannot be read")).map_err(Failure::usage)?;
        let source = match format {
            ImportFormat::Outcomes => ImportFile::outcome_table(&name, raw),
            ImportFormat::TauBench | ImportFormat::Tau2 | ImportFormat::AgentDojo => {
                ImportFile::decompress(&name, raw)
            }
        };
        let source = source.map_err(Failure::work)?;
        let parsed = import::read(format, &source, &selection.columns).map_err(Failure::usage)?;
        let found = parsed.transcripts.len();
        let mut transcripts = parsed.transcripts;
        transcripts.retain(|transcript| selection.includes(transcript));
        transcripts.truncate(room);
        room -= transcripts.len();
        let excluded = (found - transcripts.len()) as u64;
        files.push(InputFile {
            source,
            transcripts,
            skipped: parsed.skipped,
            more_lost_rows: parsed.more_lost_rows,
            duplicates: 0,
            ignored_columns: parsed.ignored_columns,
            excluded,
        });
    }
    Ok(files)
}
