//! Commit objects and the names of files and folders in a store or a run.
//!
//! Names and values only: [`crate::Store`] creates the objects.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::table::Table;
use schemas::id::{AgentId, TenantId};

/// Folder of the commits.
pub const COMMITS: &str = "_commits";

/// Source of the commits that replace files of other sources: compaction, expiry, erasure.
pub const MAINTENANCE: &str = "~maintenance";

/// A data file of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedFile {
    /// Table whose rows the file has.
    pub table: Table,
    /// Path below the store's root, `/`-separated.
    pub path: String,
    /// Number of rows.
    pub rows: u64,
    /// Length, bytes. A reader refuses a file of another length.
    pub bytes: u64,
}

/// A commit: readers see a data file only if a commit names it.
///
/// Commits of one source form a chain of slots (`first`, `epoch`), each created with a conditional put, so one writer gets
/// a slot. Commits are never deleted: a slot that became free again would let a fenced writer commit.
///
/// Three kinds share the form:
/// - a batch of records, with files;
/// - a fence ([`Self::is_fence`]): `next` equals `first` and there are no files. It takes the slot that the previous writer
///   would commit to, and so refuses that writer;
/// - a maintenance commit of source [`MAINTENANCE`], which replaces files of earlier commits.
///
/// A batch may have `next` equal to `first` too: a split message at that position still misses parts. Its records come
/// after that position, and `journals` tells them from new ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Format version, [`schemas::FORMAT`].
    pub format: u32,
    /// Origin of the records: `<topic>-<partition>`, the name of a journal or of an import, or [`MAINTENANCE`].
    pub source: String,
    /// Position of the first record.
    pub first: u64,
    /// Number of earlier commits of the source with the same `first`: fences, and batches that stayed. 0 is left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch: u32,
    /// Position after the last record: `first` of the next batch.
    pub next: u64,
    /// Data files of the batch.
    pub files: Vec<CommittedFile>,
    /// Replaced files of earlier commits, each with the file that has its rows now; `null` if the rows were deleted. Both
    /// paths are below the root and in one folder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replaces: BTreeMap<String, Option<String>>,
    /// Per journal, the position up to which its records are stored through this source, including this commit. A record
    /// before that position is a duplicate.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub journals: BTreeMap<String, u64>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Commit {
    /// Returns the path of the commit ([`commit_path`]).
    #[must_use]
    pub fn path(&self) -> String {
        commit_path(&self.source, self.first, self.epoch)
    }

    /// Returns whether the next commit of the source has the same `first`: after a fence, or after a batch whose last
    /// message misses parts.
    #[must_use]
    pub fn is_same_position(&self) -> bool {
        self.first == self.next
    }

    /// Returns whether the commit only fences the previous writer.
    #[must_use]
    pub fn is_fence(&self) -> bool {
        self.is_same_position() && self.files.is_empty()
    }
}

/// `_commits/<source>/<first, 20 digits>[_<epoch, 10 digits>].json`: names sort by position, then epoch.
#[must_use]
pub fn commit_path(source: &str, first: u64, epoch: u32) -> String {
    let epoch = if epoch == 0 { String::new() } else { format!("_{epoch:010}") };
    format!("{COMMITS}/{}/{first:020}{epoch}.json", escape(source))
}

/// Returns the folder of a table's files for one tenant, agent and UTC day of session start ([`utc_date`]).
#[must_use]
pub fn folder(table: Table, tenant: &TenantId, agent: &AgentId, date: &str) -> String {
    format!(
        "{}/tenant={}/agent={}/date={date}",
        table.as_str(),
        escape(tenant.as_str()),
        escape(agent.as_str())
    )
}

/// Formats the UTC day of a time in microseconds since 1970 as `YYYY-MM-DD`; a time out of range becomes 1970-01-01.
#[must_use]
pub fn utc_date(micros: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

/// Percent-encodes a name for a path; letters, digits, `-`, `_` and `.` stay. Hive-style readers and object stores give
/// other characters a meaning.
#[must_use]
pub fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    // `.` and `..` would leave the folder.
    if out.bytes().all(|byte| byte == b'.') { out.replace('.', "%2E") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_cannot_leave_the_store() {
        let tenant = TenantId::parse("../x").expect("id");
        let agent = AgentId::parse("..").expect("id");
        let path = folder(Table::Exchanges, &tenant, &agent, &utc_date(1_700_000_000_000_000));
        assert_eq!(path, "exchanges/tenant=..%2Fx/agent=%2E%2E/date=2023-11-14");
    }

    #[test]
    fn commits_sort_by_position() {
        let commit = |first, epoch| {
            let (replaces, journals) = (BTreeMap::new(), BTreeMap::new());
            let source = "t-0".to_owned();
            Commit { format: 2, source, first, epoch, next: 0, files: vec![], replaces, journals }.path()
        };
        assert!(commit(9, 0) < commit(10, 0));
        assert!(commit(9, 0) < commit(9, 1) && commit(9, 1) < commit(9, 2) && commit(9, 2) < commit(10, 0));
        assert_eq!(commit(9, 0), "_commits/t-0/00000000000000000009.json");
    }
}
