//! Errors and reports of maintenance.

use serde::Serialize;

use crate::error::StoreError;
use crate::snapshot::Snapshot;
use crate::table::Table;

/// Tables of a store of sessions.
pub(super) const TABLES: [Table; 3] = [Table::Exchanges, Table::Chunks, Table::Sessions];

/// Maintenance did not finish.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Other maintenance of the store was started.
    #[error(
        "another compaction, expiry or erasure of {location} was started meanwhile, so this one stopped; \
         nothing is lost: run it again when the other has ended"
    )]
    Superseded {
        /// Location of the store.
        location: String,
    },
    /// The location has a run, not a store of sessions.
    #[error("{location} is a run, not a store of sessions: delete the run as a whole if it is not needed")]
    Run {
        /// Location of the run.
        location: String,
    },
    /// The store has none of the sessions and tenants to erase.
    #[error("{location} has nothing of {what}; `foreshadow sessions list` shows what it has")]
    NothingFound {
        /// Location of the store.
        location: String,
        /// Sessions or tenants.
        what: String,
    },
    /// The store still has rows of the sessions or tenants to erase.
    #[error(
        "{location} still has rows to erase after {passes} passes: {what}; an archiver seems to add more: wait until the \
         session is closed and archived, then erase again"
    )]
    NotErased {
        /// Location of the store.
        location: String,
        /// Passes over the store.
        passes: usize,
        /// Rows found, with their files.
        what: String,
    },
}

/// Existing files of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TableSize {
    /// Number of files.
    pub files: u64,
    /// Number of rows.
    pub rows: u64,
    /// Length of the files, bytes.
    pub bytes: u64,
}

/// Size of a table before and after maintenance. Files that archivers added meanwhile are in neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TableChange {
    /// The table.
    pub table: Table,
    /// Size before.
    pub before: TableSize,
    /// Size after. A dry run estimates it: only what is known without doing the work changes.
    pub after: TableSize,
}

/// Changes that maintenance made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MaintenanceReport {
    /// Change of each table.
    pub tables: Vec<TableChange>,
    /// Commits made.
    pub commits: u64,
    /// Deleted files that interrupted maintenance or an interrupted batch had left.
    pub leftovers_deleted: u64,
}

impl MaintenanceReport {
    /// Returns the report of a dry run.
    pub(super) fn of_dry_run(tables: Vec<TableChange>) -> Self {
        Self { tables, commits: 0, leftovers_deleted: 0 }
    }
}

fn table_size(snapshot: &Snapshot, table: Table) -> TableSize {
    snapshot.files(table).fold(TableSize::default(), |sum, file| TableSize {
        files: sum.files + 1,
        rows: sum.rows + file.rows,
        bytes: sum.bytes + file.bytes,
    })
}

/// Returns the change of each table between two snapshots.
pub(super) fn changes(before: &Snapshot, after: &Snapshot) -> Vec<TableChange> {
    let change =
        |table| TableChange { table, before: table_size(before, table), after: table_size(after, table) };
    TABLES.into_iter().map(change).collect()
}
