//! Partition folders of a store, and the pairs of exchanges and chunks files in them.

use std::collections::HashMap;

use crate::commit::CommittedFile;
use crate::error::StoreError;
use crate::snapshot::Snapshot;
use crate::table::Table;

/// Hive-style folder of a file below its table; the parts are escaped as in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PartitionDir<'a> {
    /// `tenant=…`
    pub(super) tenant: &'a str,
    /// `tenant=…/agent=…/date=…`
    pub(super) folder: &'a str,
    /// `YYYY-MM-DD`
    pub(super) date: &'a str,
}

impl<'a> PartitionDir<'a> {
    /// Parses the folder in the path of a file.
    pub(super) fn of(path: &'a str) -> Result<Self, StoreError> {
        let invalid = || StoreError::Metadata {
            path: path.to_owned(),
            detail: "is not TABLE/tenant=…/agent=…/date=…/FILE, as every file of a store is".to_owned(),
        };
        let (_, below) = path.split_once('/').ok_or_else(invalid)?;
        let (folder, _) = below.rsplit_once('/').ok_or_else(invalid)?;
        let mut parts = folder.split('/');
        let mut part = |key: &str| parts.next().filter(|part| part.starts_with(key)).ok_or_else(invalid);
        let (tenant, _, date) = (part("tenant=")?, part("agent=")?, part("date=")?);
        Ok(Self { tenant, folder, date: &date["date=".len()..] })
    }
}

/// An exchanges file and the chunks file of the same name, if its bodies have chunks.
#[derive(Debug, Clone, Copy)]
pub(super) struct FilePair<'a> {
    pub(super) exchanges: &'a CommittedFile,
    pub(super) chunks: Option<&'a CommittedFile>,
}

impl FilePair<'_> {
    /// Returns the length of both files, bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.exchanges.bytes + self.chunks.map_or(0, |file| file.bytes)
    }
}

/// Returns the pairs of a snapshot, in commit order.
pub(super) fn pairs(snapshot: &Snapshot) -> Vec<FilePair<'_>> {
    let chunks: HashMap<&str, &CommittedFile> =
        snapshot.files(Table::Chunks).map(|file| (below_table(&file.path), file)).collect();
    let pair = |exchanges| FilePair { exchanges, chunks: chunks.get(below_table(&exchanges.path)).copied() };
    snapshot.files(Table::Exchanges).map(pair).collect()
}

/// Returns a path without its table: the same for both files of a pair.
fn below_table(path: &str) -> &str {
    path.split_once('/').map_or(path, |(_, below)| below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_folder_is_parsed_from_the_path() {
        let dir =
            PartitionDir::of("exchanges/tenant=a%2Fb/agent=c/date=2025-01-02/x.parquet").expect("is one");
        assert_eq!((dir.tenant, dir.date), ("tenant=a%2Fb", "2025-01-02"));
        assert_eq!(dir.folder, "tenant=a%2Fb/agent=c/date=2025-01-02");
        for invalid in ["x.parquet", "exchanges/x.parquet", "exchanges/tenant=a/date=b/agent=c/x.parquet"] {
            assert!(PartitionDir::of(invalid).is_err(), "{invalid}");
        }
    }
}
