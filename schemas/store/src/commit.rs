//! Where files lie in a store or a run, and the commits by which a batch of them exists.
//!
//! Pure names and values: the conditional put that makes a commit is in `store`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::table::Table;
use schemas::id::{AgentId, TenantId};

/// The folder of commits.
pub const COMMITS: &str = "_commits";

/// The source of commits that replace files of other sources: compaction, expiry, erasure.
pub const UPKEEP: &str = "~upkeep";

/// One file of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedFile {
    /// Its table.
    pub table: Table,
    /// Its path below the store's root, `/`-separated.
    pub path: String,
    /// Its rows.
    pub rows: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// A batch of files: they exist only through it.
///
/// Three kinds have the same form: a batch of records, a claim (`next` equal to `first` and no files: who makes it has
/// taken the source over, and nobody who planned to commit at this place can any more), and an upkeep of the store, which
/// replaces files of earlier commits. The `next` of a batch equals its `first` too where a message at that place is not
/// settled yet (parts of a split one still to come): its records lie behind that place, and `journals` tells them from new ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// [`schemas::FORMAT`].
    pub format: u32,
    /// Where its records come from: `<topic>-<partition>`, or a journal's name, or an import's, or [`UPKEEP`].
    pub source: String,
    /// Position of its first record.
    pub first: u64,
    /// How many earlier commits of this source have the same `first`: claims at this place, and batches that stayed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch: u32,
    /// Position after its last record: where the next batch begins.
    pub next: u64,
    /// Its files.
    pub files: Vec<CommittedFile>,
    /// Files of earlier commits that exist no more, each with the file that has its rows now, or none where they are gone.
    /// Both are paths below the root, and lie in one folder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replaces: BTreeMap<String, Option<String>>,
    /// Of each journal whose records have come through this source: how far they are stored, this commit included. By
    /// it a record that was sent twice is told from a new one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub journals: BTreeMap<String, u64>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Commit {
    /// `_commits/<source>/<first position, 20 digits>[_<epoch, 10 digits>].json`: sorted by name is sorted by position,
    /// then epoch.
    #[must_use]
    pub fn path(&self) -> String {
        let epoch = if self.epoch == 0 { String::new() } else { format!("_{:010}", self.epoch) };
        format!("{COMMITS}/{}/{:020}{epoch}.json", escape(&self.source), self.first)
    }

    /// Whether its source goes on from the same place: a claim, or a batch behind a message that is not settled yet.
    #[must_use]
    pub fn is_same_position(&self) -> bool {
        self.first == self.next
    }

    /// Whether it only claims its place.
    #[must_use]
    pub fn is_fence(&self) -> bool {
        self.is_same_position() && self.files.is_empty()
    }
}

/// The folder of a table's files of one tenant, agent and UTC day on which their sessions started ([`utc_date`]).
#[must_use]
pub fn folder(table: Table, tenant: &TenantId, agent: &AgentId, date: &str) -> String {
    format!(
        "{}/tenant={}/agent={}/date={date}",
        table.as_str(),
        escape(tenant.as_str()),
        escape(agent.as_str())
    )
}

/// The UTC day of a time in microseconds since 1970, as `YYYY-MM-DD`; times no calendar holds become 1970-01-01.
#[must_use]
pub fn utc_date(micros: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

/// Percent-encodes what Hive-style readers and object stores treat specially; letters, digits, `-`, `_` and `.` stay.
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
    // A name of dots alone would climb out of the folder.
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
