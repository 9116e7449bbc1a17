//! The settings of an import that are the same for all sessions of a file.

use schemas::id::{AgentId, BuildId, IncarnationId, TenantId};
use schemas::keys::TenantKeys;
use schemas::tools::ToolCatalog;
use schemas::trial::Lane;

use super::file::ImportFile;
use super::format::ImportFormat;

/// The destination of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportInto {
    /// A store: sessions to inspect and to replay.
    Store {
        /// The build that was recorded; absent where unknown.
        build: Option<BuildId>,
    },
    /// A run: trials to compare.
    Run {
        /// The build of the trials.
        build: BuildId,
        /// The lane of the trials.
        lane: Lane,
    },
}

impl ImportInto {
    /// The build of the imported sessions; absent where unknown.
    pub(super) fn build(&self) -> Option<&BuildId> {
        match self {
            Self::Store { build } => build.as_ref(),
            Self::Run { build, .. } => Some(build),
        }
    }
}

/// The settings for one file.
#[derive(Debug)]
pub struct ImportPlan<'a> {
    /// Format of the file.
    pub format: ImportFormat,
    /// The file.
    pub file: &'a ImportFile,
    /// Tenant of the sessions.
    pub tenant: TenantId,
    /// The tenant's keys: digests of chunks and arguments, tokens of redacted values.
    pub keys: &'a TenantKeys,
    /// Agent of the sessions; absent, the file's own domain or suite, else the name of the format.
    pub agent: Option<AgentId>,
    /// The destination.
    pub into: &'a ImportInto,
    /// Declared effects of the tools.
    pub tools: &'a ToolCatalog,
    /// Incarnation of the exchanges, in place of a recorder process.
    pub incarnation: IncarnationId,
    /// Time of the import, microseconds since 1970, UTC; becomes the close time of the sessions.
    pub now: i64,
    /// Sessions of earlier files. Sessions without times start one second apart, from 1970 on.
    pub sessions_before: u32,
}
