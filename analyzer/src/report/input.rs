//! Input of the report files.

use crate::policy::Policy;
use crate::run::Run;

use super::transcript::Transcripts;

/// The analyzed runs, and the texts that the report shows beside their numbers.
#[derive(Debug, Clone, Copy)]
pub struct ReportInput<'a> {
    /// Trials of the current build.
    pub baseline: &'a Run,
    /// Trials of the new build.
    pub candidate: &'a Run,
    /// Recordings, if they were given as a run of their own.
    pub recorded: Option<&'a Run>,
    /// The policy of the verdict.
    pub policy: &'a Policy,
    /// Transcripts of the sessions of [`transcript_sessions`](super::transcript_sessions). A session without one is
    /// shown by its tool calls alone.
    pub transcripts: &'a Transcripts,
}

/// Title and command lines that the report prints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportMeta {
    /// Title of the page; the names of both builds if empty.
    pub title: String,
    /// Command lines that reproduce the verdict.
    pub commands: Vec<String>,
}
